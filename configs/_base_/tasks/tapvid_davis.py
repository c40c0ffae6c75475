# TAP-Vid DAVIS: 30 videos; each point is given in the first frame where it is visible (fgvc.md section 4.1).
task = dict(
    name='tapvid_davis',
    dataset=dict(type='TapVidDataset', data_root='data/tapvid_davis', subset='davis', query_mode='first'),
    metric=dict(type='TapVidMetric', data_root='data/tapvid_davis', subset='davis', query_mode='first'),
)
