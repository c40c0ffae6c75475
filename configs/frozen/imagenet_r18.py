# ResNet-18 trained on ImageNet, of torchvision or timm, as the baseline of CRW: layer3 at stride 8.
#   mmliir convert torchvision resnet18-f37072fd.pth --out resnet18.pth
_base_ = ['crw_r18.py']
model = dict(backbone=dict(padding_mode='zeros'))
