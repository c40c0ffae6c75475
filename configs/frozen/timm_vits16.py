# ViT-S/16 of timm: vit_small_patch16_224 (augreg), whose images are normalised by 0.5.
# For deit_small_patch16_224 take ImageNet's: --cfg-options model.data_preprocessor.mean=0.485,0.456,0.406
#   model.data_preprocessor.std=0.229,0.224,0.225
_base_ = ['dino_vits16.py']
model = dict(
    data_preprocessor=dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    backbone=dict(position_resize='timm'),
)
