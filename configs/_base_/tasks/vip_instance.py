# VIP val, instances of parts (AP): Instance_ids of the first frame are given with their classes; every annotated frame
# is scored, the first one too (liir.md sections 6.5, 7.3).
# Ambiguity A31, frames to look back at: each protocol's own, those of DAVIS for LIIR, at 560 x 560 (`Protocol.for_task`
# of family 'vip'); the others' choices are the protocols uvc, crw and vfs.
# Ambiguity A33, scores of instances: metric.scores='file' (the default) takes the mean soft probability that
# `InstanceWriter` stores; metric.scores='constant' gives all of them 1. The same predictions serve both.
task = dict(
    name='vip_instance',
    dataset=dict(type='VipDataset', data_root='data/vip', annotation='instance'),
    metric=dict(type='VipInstanceMetric', data_root='data/vip'),
)
