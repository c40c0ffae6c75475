# As `tapvid_davis.py`, but every visible point of every fifth frame is given, and followed both ways.
_base_ = 'tapvid_davis.py'
task = dict(name='tapvid_davis_strided', dataset=dict(query_mode='strided'), metric=dict(query_mode='strided'))
