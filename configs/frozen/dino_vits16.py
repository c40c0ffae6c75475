# DINO (Caron et al., ICCV 2021), ViT-S/16: patch tokens of the last block.
#   mmliir convert dino dino_deitsmall16_pretrain.pth --out dino.pth
_base_ = ['../_base_/default_runtime.py']
model = dict(
    type='FrozenFeature',
    data_preprocessor=dict(
        # 0.228 is what its evaluation of DAVIS uses; ImageNet's is 0.229
        type='VideoPreprocessor', color_space='rgb', mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225)
    ),
    backbone=dict(
        type='VisionTransformer',
        patch_size=16,
        channels=384,
        depth=12,
        heads=6,
        position_grid=(14, 14),
        position_resize='dino',
    ),
)
protocol = 'dino'
