# Table 4, ladder: position map and other videos. Also Tables 5d and A.1 without compactness.
_base_ = ['../liir_r18_ytvos.py']
model = dict(compactness=None)
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(table='4', row='position_inter', changes=['model.compactness', 'protocol.prior'])
