# LIIR in minutes on two CPU cores: a quarter of the width, small frames, generated videos (`make quickstart`).
# Every part of the method is on. Besides sizes and numbers of steps, other than in the recipe: crops and flips, masked
# window cells outside the frame, and the `quick` protocol.
_base_ = ['liir_r18_ytvos.py']
model = dict(
    backbone=dict(base_channels=16),
    position_encoder=dict(channels=16, size=(32, 32)),
    projection=dict(in_channels=64),
    reconstruction_head=dict(border='mask'),
    inter=dict(bank=dict(num_frames=240)),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(gaps={'_delete_': True, 1: 0.5, 2: 0.3, 3: 0.2}),
    dataset=dict(
        source=dict(data_root='work_dirs/quickstart/data/train', cache='memory'),
        pipeline=[
            dict(type='RandomCropClip', size=(64, 64)),
            dict(type='FlipClip', prob=0.5),
            dict(type='PackClip'),
        ],
    ),
)
train_cfg = dict(max_iters=150)
optim_wrapper = dict(_delete_=True, type='DeferredOptimWrapper', optimizer=dict(type='Adam', lr=3e-4, fused=True))
param_scheduler = [dict(type='SampleStepLR', boundaries=[1_200, 1_800], factors=[1.0, 0.5, 0.25])]
auto_scale_lr = dict(base_batch_size=16)
stages = [
    dict(
        name='intra',
        changes={
            'model.inter': None,
            'model.compactness': None,
            'train_cfg.max_iters': 450,
            'optim_wrapper.optimizer.lr': 1e-3,
            'param_scheduler.0.boundaries': [4_300, 5_800],
            'custom_hooks.3.name': 'stage 1, intra-video',
        },
    ),
    dict(name='inter', changes={'custom_hooks.3.name': 'stage 2, inter-video'}),
]
custom_hooks = [
    dict(type='StepSeedHook'),
    dict(type='MemoryBankHook'),
    dict(type='FiniteLossHook', interval=50),
    dict(type='ProgressHook', name='training'),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=150, max_keep_ckpts=2))
log_processor = dict(window_size=10)
log_level = 'WARNING'
# The window is scaled to the small frames: a quarter of their height, as it is about at 480p and stride 8.
protocol = dict(_delete_=True, base='quick', changes=dict(radius=6))
