# DINO, ResNet-50: layer3 at stride 8, as the ResNets of CRW (DINO itself evaluates ViTs only).
_base_ = ['crw_r18.py']
model = dict(backbone=dict(depth=50, padding_mode='zeros'))
