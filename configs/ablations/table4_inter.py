# Table 4: other videos as negatives alone.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=None, compactness=None)
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(table='4', row='inter', changes=['model.position_encoder', 'model.compactness', 'protocol.prior'])
