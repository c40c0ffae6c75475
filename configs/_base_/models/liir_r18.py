# LIIR with ResNet-18, the text of the paper read literally (liir.md section 9, column `paper`).
# A part that is off is None.
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
        temperature='sqrt_channels',
        normalize=False,
        border='zero_logit',
        loss=dict(type='ReconstructionLoss', scale=20.0, weight=1.0),
    ),
    inter=dict(
        type='InterVideoTerm',
        bank=dict(num_frames=1440, points_per_frame=4, sample='step'),
        momentum=0.999,
        momentum_norm='own',
        momentum_scope='encoder',
        source='reference',
        modulation=dict(type='PositionShift', per='sample'),
    ),
    compactness=dict(
        type='CompactnessPriorLoss',
        num_mixtures=2,
        estimator='moments',
        variance_floor=0.18,
        threshold=None,
        norm='smooth_l1',
        scale=20.0,
        weight=1.0,
    ),
    target='dropped',
)
