# Table 4: the position map alone.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=None, compactness=None)
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(table='4', row='position', changes=['model.inter', 'model.compactness', 'protocol.prior'])
