# Table A.1: K = 3 in training, no compactness in inference.
_base_ = ['../liir_r18_ytvos.py']
model = dict(compactness=dict(num_mixtures=3))
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(table='A.1', row='train3_infer0', changes=['model.compactness.num_mixtures', 'protocol.prior'])
