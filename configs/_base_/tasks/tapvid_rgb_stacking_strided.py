# As `tapvid_rgb_stacking.py`, but every visible point of every fifth frame is given, and followed both ways.
_base_ = 'tapvid_rgb_stacking.py'
task = dict(name='tapvid_rgb_stacking_strided', dataset=dict(query_mode='strided'), metric=dict(query_mode='strided'))
