# DAVIS 2016, semi-supervised: the first mask is given; first and last frame are not scored (liir.md section 7.1).
task = dict(
    name='davis2016',
    dataset=dict(type='DavisDataset', data_root='data/davis2016', year=2016, split='val'),
    metric=dict(type='DavisMetric', data_root='data/davis2016', year=2016, split='val'),
)
