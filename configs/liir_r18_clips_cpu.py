# LIIR on a handful of real clips, two CPU cores, minutes: half the width, 96x96 crops.
# `data_root` is a folder of frame folders or of video files, short side 256. Results: docs/benchmarks.md.
_base_ = ['liir_r18_ytvos.py']
model = dict(
    backbone=dict(base_channels=32),
    position_encoder=dict(channels=32, size=(48, 48)),
    projection=dict(in_channels=128),
    reconstruction_head=dict(border='mask'),
    inter=dict(bank=dict(num_frames=480)),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    # neighbours in the folder, which were stored every 3rd to 20th native frame
    sampler=dict(gaps={'_delete_': True, 1: 1.0}),
    dataset=dict(
        source=dict(data_root='data/clips/JPEGImages', short_side=256, cache='memory'),
        pipeline=[
            dict(type='RandomCropClip', size=(96, 96)),
            dict(type='FlipClip', prob=0.5),
            dict(type='PackClip'),
        ],
    ),
)
train_cfg = dict(max_iters=100)
optim_wrapper = dict(_delete_=True, type='DeferredOptimWrapper', optimizer=dict(type='Adam', lr=1e-4, fused=True))
param_scheduler = [dict(type='SampleStepLR', boundaries=[800, 1_200], factors=[1.0, 0.5, 0.25])]
auto_scale_lr = dict(base_batch_size=16)
stages = [
    dict(
        name='intra',
        changes={
            'model.inter': None,
            'model.compactness': None,
            'train_cfg.max_iters': 3000,
            'optim_wrapper.optimizer.lr': 1e-3,
            'param_scheduler.0.boundaries': [30_000, 40_000],
        },
    ),
    dict(name='inter', changes={}),
]
# Window cells outside the frame take no part, in training and in the test.
protocol = dict(_delete_=True, base='liir_paper', changes=dict(border='mask'))
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=500, max_keep_ckpts=2))
