# `liir_r18_clips_cpu.py` in a sixth of its steps: for ablations on two CPU cores, five minutes a training.
_base_ = ['liir_r18_clips_cpu.py']
train_cfg = dict(max_iters=80)
param_scheduler = [dict(type='SampleStepLR', boundaries=[640, 960], factors=[1.0, 0.5, 0.25])]
stages = [
    dict(
        name='intra',
        changes={
            'model.inter': None,
            'model.compactness': None,
            'train_cfg.max_iters': 400,
            'optim_wrapper.optimizer.lr': 1e-3,
            'param_scheduler.0.boundaries': [4_000, 5_200],
        },
    ),
    dict(name='inter', changes={}),
]
default_hooks = dict(checkpoint=dict(interval=400))
