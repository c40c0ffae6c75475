# Table 4: no part, which is MAST: intra-video reconstruction alone.
_base_ = ['../liir_r18_ytvos.py']
model = dict(position_encoder=None, inter=None, compactness=None)
protocol = dict(_delete_=True, base='liir_paper', changes=dict(prior=None))
ablation = dict(
    table='4',
    row='none',
    changes=['model.position_encoder', 'model.inter', 'model.compactness', 'protocol.prior'],
)
