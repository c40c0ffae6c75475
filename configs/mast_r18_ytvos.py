# MAST, the baseline: intra-video reconstruction alone, no position map, in one stage. Row 1 of LIIR's Table 4 with the
# training of the other rows, both stages, is ablations/table4_none.py.
# A row of that table differs from the others in its parts only, so the backbone starts and normalises as LIIR's does
# and the affinity has LIIR's temperature. MAST's own code starts from PyTorch's defaults, zeroes nothing, normalises
# per process and does not scale; on current PyTorch it has been reported not to converge (liir.md section 5.2):
#   --cfg-options model.backbone.init=default model.backbone.zero_init_residual=False model.backbone.norm=BN
#     model.reconstruction_head.temperature=1.0 protocol=mast
_base_ = ['liir_r18_ytvos.py']
model = dict(
    _delete_=True,
    type='MAST',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    projection=_base_.model.projection,
    reconstruction_head=_base_.model.reconstruction_head,
    target=_base_.model.target,
)
_pairs = 71583
train_dataloader = dict(batch_size=24)
auto_scale_lr = dict(base_batch_size=24)
train_cfg = dict(max_iters=30 * _pairs // 24)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(
        type='SampleStepLR',
        boundaries=[400_000, 600_000, 800_000, 1_000_000],
        factors=[1.0, 0.5, 0.25, 0.125, 0.0625],
    )
]
stages = None
# At the temperature it was trained with; MAST's own is 1.
protocol = dict(_delete_=True, base='mast', changes=dict(temperature='sqrt_channels'))
