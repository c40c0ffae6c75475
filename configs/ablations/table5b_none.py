# Table 5b: no position map.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=None)
ablation = dict(table='5b', row='none', changes=['model.position_encoder'])
