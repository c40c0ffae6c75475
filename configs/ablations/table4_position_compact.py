# Table 4, ladder: position map and compactness prior. Also Table 5a without a bank.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=None)
ablation = dict(table='4', row='position_compact', changes=['model.inter'])
