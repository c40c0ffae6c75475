# Table 5d: compactness in training alone. Also Table A.1, K = 2 and none.
_base_ = ['../liir_r18_ytvos.py']
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(table='5d', row='train', changes=['protocol.prior'])
