# RoboTAP: 265 videos; each point is given in the first frame where it is visible (fgvc.md section 4.1).
task = dict(
    name='robotap',
    dataset=dict(type='TapVidDataset', data_root='data/robotap', subset='robotap', query_mode='first'),
    metric=dict(type='TapVidMetric', data_root='data/robotap', subset='robotap', query_mode='first'),
)
