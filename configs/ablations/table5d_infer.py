# Table 5d: compactness in inference alone. Tests the training of `none`.
_base_ = ['../liir_r18_ytvos.py']
model = dict(compactness=None)
ablation = dict(table='5d', row='infer', changes=['model.compactness'])
