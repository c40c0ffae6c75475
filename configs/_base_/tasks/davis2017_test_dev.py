# DAVIS 2017 test-dev: only the first annotation of each sequence is public, hence no metric:
# `mmliir submit davis2017_test_dev` makes the archive for the server.
task = dict(
    name='davis2017_test_dev',
    dataset=dict(type='DavisDataset', data_root='data/davis2017', year=2017, split='test-dev'),
    metric=None,
)
