# Table 5a: a bank of 480 frames, 4 points each.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(bank=dict(num_frames=480)))
ablation = dict(table='5a', row='480', changes=['model.inter.bank.num_frames'], scaled=['model.inter.bank.num_frames'])
