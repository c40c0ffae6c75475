# Table 5b: a learned vector a row and a column in place of the learned map.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=dict(type='LearnedPositionEncoder2d'))
ablation = dict(table='5b', row='2dape', changes=['model.position_encoder.type'])
