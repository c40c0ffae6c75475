# BADJA, the 7 videos of DAVIS: the joints of the first annotated frame are given, which is not scored (fgvc.md section
# 4.2, PIPs); the scores of FGVC's and DINO-Tracker's evaluations stand beside.
task = dict(
    name='badja',
    dataset=dict(type='BadjaDataset', data_root='data/badja'),
    metric=dict(type='BadjaMetric', data_root='data/badja', evaluator='pips'),
)
