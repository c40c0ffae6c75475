# LIIR, ResNet-18, YouTube-VOS: the recipe behind the published 72.2 (the unofficial LIIR_pytorch), in its three steps.
#   python tools/train.py configs/liir_r18_ytvos_compat.py --data-root data/youtube_vos
# The temperature is 1 as there; on current PyTorch several people saw such training diverge (liir.md section 5.2).
_base_ = [
    '_base_/models/liir_r18_compat.py',
    '_base_/data/ytvos_pairs.py',
    '_base_/schedules/liir_two_stage.py',
    '_base_/default_runtime.py',
]
protocol = 'liir_compat'
_pairs = 71583
_first_schedule = {
    'train_cfg.max_iters': 30 * _pairs // 12,
    'param_scheduler.0.boundaries': [400_000, 600_000, 800_000, 1_000_000],
    'param_scheduler.0.factors': [1.0, 0.5, 0.25, 0.125, 0.0625],
}
stages = [
    # 1a: position encoding alone
    dict(
        name='intra',
        changes={
            'model.inter': None,
            'model.compactness': None,
            'optim_wrapper.optimizer.lr': 1e-3,
            **_first_schedule,
        },
    ),
    # 1b: the coarse reconstruction without negatives, and the compactness prior
    dict(name='branch', changes={'model.inter.bank': None, **_first_schedule}),
    # 2: negatives
    dict(name='inter', changes={}),
]
