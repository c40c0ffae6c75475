# 5 % of the training videos of YouTube-VOS 2018, set aside by a hash of their names: what stands in for the server.
# Train without them: `train_dataloader.dataset.source.holdout=0.05` with `YouTubeVOSSource`.
task = dict(
    name='youtube_vos_holdout',
    dataset=dict(
        type='YouTubeVosDataset', data_root='data/youtube_vos2018', year=2018, split='train_holdout', frames='all'
    ),
    metric=dict(type='YouTubeVosMetric', data_root='data/youtube_vos2018', year=2018, split='train_holdout'),
)
