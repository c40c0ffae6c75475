# VIP val, classes of parts (mIoU): Category_ids of the first frame are given; every annotated frame is scored, the
# first one too (liir.md sections 6.5, 7.3).
# Ambiguity A31, frames to look back at: each protocol's own, those of DAVIS for LIIR, at 560 x 560 (`Protocol.for_task`
# of family 'vip'); the others' choices are the protocols uvc, crw and vfs.
task = dict(
    name='vip',
    dataset=dict(type='VipDataset', data_root='data/vip'),
    metric=dict(type='VipSemanticMetric', data_root='data/vip'),
)
