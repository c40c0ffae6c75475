# Table 5b: fixed sines and cosines of x and y in place of the learned map.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=dict(_delete_=True, type='SinePositionEncoder2d', channels=64, scale=1.0))
ablation = dict(table='5b', row='2dspe', changes=['model.position_encoder'])
