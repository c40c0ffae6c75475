# Table C.1: 480 frames with 12 points each, 5,760 in all.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(bank=dict(num_frames=480, points_per_frame=12)))
ablation = dict(
    table='C.1',
    row='480x12',
    changes=['model.inter.bank.num_frames', 'model.inter.bank.points_per_frame'],
    scaled=['model.inter.bank.num_frames'],
)
