# YouTube-VOS 2018 validation: all frames are propagated, every 5th is handed in. No truth is public, hence no metric:
# `mmliir submit youtube_vos2018` makes the archive for the server (liir.md sections 6.4 and 7.2).
task = dict(
    name='youtube_vos2018',
    dataset=dict(type='YouTubeVosDataset', data_root='data/youtube_vos2018', year=2018, split='valid', frames='all'),
    metric=None,
)
