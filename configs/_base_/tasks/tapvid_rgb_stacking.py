# TAP-Vid RGB-stacking: 50 videos; each point is given in the first frame where it is visible (fgvc.md section 4.1).
task = dict(
    name='tapvid_rgb_stacking',
    dataset=dict(type='TapVidDataset', data_root='data/tapvid_rgb_stacking', subset='rgb_stacking', query_mode='first'),
    metric=dict(type='TapVidMetric', data_root='data/tapvid_rgb_stacking', subset='rgb_stacking', query_mode='first'),
)
