# Table A.1: K = 2 in training, 3 in inference.
_base_ = ['../liir_r18_ytvos.py']
protocol = dict(_delete_=True, base='liir_paper', changes={'prior.num_mixtures': 3})
ablation = dict(table='A.1', row='train2_infer3', changes=['protocol.prior.num_mixtures'])
