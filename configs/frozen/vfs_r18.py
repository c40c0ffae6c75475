# VFS (Xu and Wang, ICCV 2021), ResNet-18: layer3 ("res4") at stride 8.
#   mmliir convert vfs CHECKPOINT --out vfs.pth
_base_ = ['../_base_/default_runtime.py']
model = dict(
    type='FrozenFeature',
    data_preprocessor=dict(
        # its 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375 on 0..255
        type='VideoPreprocessor', color_space='rgb', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    backbone=dict(type='ResNet', depth=18, strides=(1, 2, 1, 1), out_stage=3),
)
protocol = 'vfs'
