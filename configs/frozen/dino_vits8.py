# DINO, ViT-S/8, otherwise as dino_vits16.py.
_base_ = ['dino_vits16.py']
model = dict(backbone=dict(patch_size=8, position_grid=(28, 28)))
