# MoCo v1 and v2 (He et al., CVPR 2020), ResNet-50, as the baseline of CRW: layer3 at stride 8.
#   mmliir convert moco moco_v2_800ep_pretrain.pth.tar --out moco.pth
_base_ = ['crw_r18.py']
model = dict(backbone=dict(depth=50, padding_mode='zeros'))
