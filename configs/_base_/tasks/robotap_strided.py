# As `robotap.py`, but every visible point of every fifth frame is given, and followed both ways.
_base_ = 'robotap.py'
task = dict(name='robotap_strided', dataset=dict(query_mode='strided'), metric=dict(query_mode='strided'))
