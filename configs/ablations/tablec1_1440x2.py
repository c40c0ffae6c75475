# Table C.1: 1440 frames with 2 points each.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(bank=dict(points_per_frame=2)))
ablation = dict(table='C.1', row='1440x2', changes=['model.inter.bank.points_per_frame'])
