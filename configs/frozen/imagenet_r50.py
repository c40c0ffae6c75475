# ResNet-50 trained on ImageNet, of torchvision or timm, otherwise as imagenet_r18.py.
_base_ = ['imagenet_r18.py']
model = dict(backbone=dict(depth=50))
