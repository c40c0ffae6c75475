# As `tapvid_kinetics.py`, but every visible point of every fifth frame is given, and followed both ways.
_base_ = 'tapvid_kinetics.py'
task = dict(name='tapvid_kinetics_strided', dataset=dict(query_mode='strided'), metric=dict(query_mode='strided'))
