# Table 5c: bank frames are encoded with the plain position map.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(modulation=None))
ablation = dict(table='5c', row='none', changes=['model.inter.modulation'])
