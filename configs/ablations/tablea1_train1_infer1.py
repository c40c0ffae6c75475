# Table A.1: K = 1 in training, 1 in inference.
_base_ = ['../liir_r18_ytvos.py']
model = dict(compactness=dict(num_mixtures=1))
protocol = dict(_delete_=True, base='liir_paper', changes={'prior.num_mixtures': 1})
ablation = dict(
    table='A.1',
    row='train1_infer1',
    changes=['model.compactness.num_mixtures', 'protocol.prior.num_mixtures'],
)
