# LIIR with ResNet-18, the recipe behind the published 72.2 (LIIR_pytorch; liir.md section 2.8 and section 9, column
# `compat`). Negatives join a coarser reconstruction on features of its own; the affinity has no temperature.
model = dict(
    type='LIIR',
    data_preprocessor=dict(
        type='VideoPreprocessor', color_space='lab', mean=(50.0, 0.0, 0.0), std=(50.0, 127.0, 127.0)
    ),
    backbone=dict(
        type='CorrespondenceResNet18',
        base_channels=64,
        strides=(1, 2, 1, 1),
        width_multipliers=(1, 2, 4, 4),
        norm='SyncBN',
        init='normal',
        zero_init_residual=True,
    ),
    position_encoder=dict(type='LearnedPositionEncoder1d', channels=64, size=(128, 128), resize_mode='bicubic'),
    projection=dict(type='ConvProjection', in_channels=256, out_channels=64, kernel_size=3),
    reconstruction_head=dict(
        type='ReconstructionHead',
        radius=6,
        temperature=1.0,
        normalize=False,
        border='zero_logit',
        loss=dict(type='ReconstructionLoss', scale=20.0, weight=1.0),
    ),
    inter=dict(
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
        type='CompactnessPriorLoss',
        num_mixtures=2,
        estimator='fixed',
        width=1.0,
        threshold=0.5,
        norm='smooth_l1',
        scale=20.0,
        weight=1.0,
    ),
    target='dropped',
)
