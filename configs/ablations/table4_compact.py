# Table 4: the compactness prior alone.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=None, inter=None)
ablation = dict(table='4', row='compact', changes=['model.position_encoder', 'model.inter'])
