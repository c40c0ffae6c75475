default_scope = 'mmliir'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2000, max_keep_ckpts=3, save_last=True),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='StepSeedHook'),
    dict(type='MemoryBankHook'),
    dict(type='FiniteLossHook', interval=50),
    dict(type='GradientNormHook', interval=50),
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=50)
log_level = 'INFO'
randomness = dict(seed=0)
# Of the encoder: bfloat16 where this machine is clearly faster at it, else float32. `--precision float32` decides.
precision = 'auto'
load_from = None
resume = False
# `compile = True`, or a dict of arguments of torch.compile, compiles the encoder: `--cfg-options compile=True`. Weights
# keep their names. Off: on a CPU it gains nothing (docs/performance.md), on a GPU it is not measured.
# None: MMEngine's. Replaced on CPUs by the training script, where a device id must not be given.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=False)
