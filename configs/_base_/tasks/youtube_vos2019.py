# YouTube-VOS 2019 validation: all frames are propagated, every 5th is handed in. No truth is public, hence no metric:
# `mmliir submit youtube_vos2019` makes the archive for the server (liir.md sections 6.4 and 7.2).
task = dict(
    name='youtube_vos2019',
    dataset=dict(type='YouTubeVosDataset', data_root='data/youtube_vos2019', year=2019, split='valid', frames='all'),
    metric=None,
)
