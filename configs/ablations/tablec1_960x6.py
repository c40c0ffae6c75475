# Table C.1: 960 frames with 6 points each, 5,760 in all.
_base_ = ['../liir_r18_ytvos.py']
model = dict(inter=dict(bank=dict(num_frames=960, points_per_frame=6)))
ablation = dict(
    table='C.1',
    row='960x6',
    changes=['model.inter.bank.num_frames', 'model.inter.bank.points_per_frame'],
    scaled=['model.inter.bank.num_frames'],
)
