# Stage 1 warms up intra-video reconstruction, stage 2 adds other videos and the compactness prior (liir.md 5.2).
# The learning rate changes with the number of samples seen, whatever the batch size.
# 71,583 pairs is the expected length of an epoch of YouTube-VOS.
# MMEngine's schedules work in its place and count iterations, for example the steps of MAST's paper at batch 24:
#   param_scheduler = [dict(type='MultiStepLR', milestones=[400_000, 600_000, 800_000], gamma=0.5)]
#   param_scheduler = [dict(type='CosineAnnealingLR', T_max=100_000, eta_min=1e-6)]
# A config that replaces the schedule replaces `stages` too, whose changes name this one's entries.
_pairs = 71583
train_cfg = dict(type='PairTrainLoop', max_iters=5 * _pairs // 12)
optim_wrapper = dict(
    type='DeferredOptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
)
param_scheduler = [
    dict(
        type='SampleStepLR',
        boundaries=[55_000, 85_000, 135_000, 175_000, 250_000, 300_000],
        factors=[1.0, 0.9, 0.75, 0.5, 0.25, 0.125, 0.0625],
    )
]
auto_scale_lr = dict(enable=False, base_batch_size=12)
# Every stage is this config with some dotted keys changed. Stage 2 starts from the weights of stage 1.
stages = [
    dict(
        name='intra',
        changes={
            'model.inter': None,
            'model.compactness': None,
            'train_dataloader.batch_size': 24,
            'auto_scale_lr.base_batch_size': 24,
            'train_cfg.max_iters': 30 * _pairs // 24,
            'optim_wrapper.optimizer.lr': 1e-3,
            'param_scheduler.0.boundaries': [400_000, 600_000, 800_000, 1_000_000],
            'param_scheduler.0.factors': [1.0, 0.5, 0.25, 0.125, 0.0625],
        },
    ),
    dict(name='inter', changes={}),
]
