# LIIR with ResNet-18, the recipe behind the published 72.2 (LIIR_pytorch; liir.md section 2.8 and section 9, column
# `compat`). Negatives join a coarser reconstruction on features of its own; the affinity has no temperature.
_base_ = ['liir_r18.py']
model = dict(
    reconstruction_head=dict(temperature=1.0),
    inter=dict(
        _delete_=True,
        type='InterVideoBranch',
        projection=dict(type='ConvProjection', in_channels=256, out_channels=128, kernel_size=3, stride=2),
        reconstruction_head=dict(
            type='ReconstructionHead',
            radius=3,
            temperature=1.0,
            normalize=False,
            border='zero_logit',
            loss=dict(type='ReconstructionLoss', scale=20.0, weight=0.5),
        ),
        bank=dict(num_frames=960, sample='window', window_radius=3, wait_until_full=True),
        momentum=0.999,
        source='reference',
    ),
    compactness=dict(
        _delete_=True,
        type='CompactnessPriorLoss',
        num_mixtures=2,
        estimator='fixed',
        width=1.0,
        threshold=0.5,
        norm='smooth_l1',
        scale=20.0,
        weight=1.0,
    ),
)
