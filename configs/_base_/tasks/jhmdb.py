# JHMDB, the 268 test clips of split 1: the joints of the first frame are given, which is not scored (liir.md section
# 7.4, CRW); the scores of VFS's and TAP-Net's evaluations stand beside.
task = dict(
    name='jhmdb',
    dataset=dict(type='JhmdbDataset', data_root='data/jhmdb', split=1),
    metric=dict(type='JhmdbMetric', data_root='data/jhmdb', split=1, evaluator='crw'),
)
