# Table 5c: bank frames are encoded with a shuffled position map.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(modulation=dict(type='PositionShuffle')))
ablation = dict(table='5c', row='shuffle', changes=['model.inter.modulation.type'])
