"""Training: Runner, loop, hooks, optimisation."""

from mmliir.engine import hooks
from mmliir.engine.loops import PairTrainLoop
from mmliir.engine.optim import AutocastOptimWrapper, SampleStepLR
from mmliir.engine.runner import CorrespondenceRunner

__all__ = ['AutocastOptimWrapper', 'CorrespondenceRunner', 'PairTrainLoop', 'SampleStepLR', 'hooks']
