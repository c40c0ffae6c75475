# Pairs of frames from unlabelled video (liir.md section 5.1). `data_root` may be YouTube-VOS, a folder of frame folders
# or a folder of video files: the layout is found by looking.
train_dataloader = dict(
    batch_size=12,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='PairSampler', gaps={2: 0.4, 5: 0.4, 8: 0.2}),
    dataset=dict(
        type='VideoPairDataset',
        source=dict(type='AutoSource', data_root='data/youtube_vos', split='train'),
        pipeline=[
            dict(type='ResizeClip', size=(256, 256)),
            dict(type='PackClip'),
        ],
    ),
    collate_fn=dict(type='default_collate'),
)
