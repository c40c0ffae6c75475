# MAST as zlai0/MAST trained it, for its checkpoints: mmliir convert mast CHECKPOINT --out mast.pth
_base_ = ['liir_pytorch_r18.py']
model = dict(position_encoder=None)
protocol = 'mast'
