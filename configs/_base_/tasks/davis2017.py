# DAVIS 2017, semi-supervised: the first mask is given; first and last frame are not scored (liir.md section 7.1).
task = dict(
    name='davis2017',
    dataset=dict(type='DavisDataset', data_root='data/davis2017', year=2017, split='val'),
    metric=dict(type='DavisMetric', data_root='data/davis2017', year=2017, split='val'),
)
