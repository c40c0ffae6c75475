# Table C.1: 1440 frames with 1 point each.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(bank=dict(points_per_frame=1)))
ablation = dict(table='C.1', row='1440x1', changes=['model.inter.bank.points_per_frame'])
