# CRW (Jabri et al., NeurIPS 2020): ResNet-18 with reflected borders, layer3 at stride 8.
#   mmliir convert crw pretrained.pth --out crw.pth
_base_ = ['../_base_/default_runtime.py']
model = dict(
    type='FrozenFeature',
    data_preprocessor=dict(
        type='VideoPreprocessor', color_space='rgb', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    backbone=dict(type='ResNet', depth=18, strides=(1, 2, 1, 1), out_stage=3, padding_mode='reflect'),
)
protocol = 'crw'
