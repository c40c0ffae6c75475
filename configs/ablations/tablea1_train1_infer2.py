# Table A.1: K = 1 in training, 2 in inference.
_base_ = ['../liir_r18_ytvos.py']
model = dict(compactness=dict(num_mixtures=1))
ablation = dict(table='A.1', row='train1_infer2', changes=['model.compactness.num_mixtures'])
