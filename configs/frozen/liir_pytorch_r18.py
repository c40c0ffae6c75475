# LIIR as shasha521/LIIR_pytorch trained it, for its checkpoints: mmliir convert liir CHECKPOINT --out liir.pth
_base_ = ['../_base_/default_runtime.py']
model = dict(
    type='FrozenFeature',
    data_preprocessor=dict(
        type='VideoPreprocessor', color_space='lab', mean=(50.0, 0.0, 0.0), std=(50.0, 127.0, 127.0)
    ),
    backbone=dict(type='CorrespondenceResNet18', norm='BN'),
    position_encoder=dict(type='LearnedPositionEncoder1d', channels=64, size=(128, 128), resize_mode='bicubic'),
    projection=dict(type='ConvProjection', in_channels=256, out_channels=64, kernel_size=3),
)
# temperature 1, window radius 14, confident affinities replaced by two Gaussians
protocol = 'liir_compat'
