# The colours themselves as a feature: mean Lab of 8x8 blocks. The floor that a learnt feature must beat.
_base_ = ['../_base_/default_runtime.py']
model = dict(type='RawColor', stride=8, data_preprocessor=dict(type='VideoPreprocessor', color_space='lab'))
protocol = 'quick'
