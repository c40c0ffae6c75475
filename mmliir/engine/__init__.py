"""Training: Runner, loop, hooks, optimisation."""

from mmliir.engine import hooks
from mmliir.engine.loops import PairTrainLoop
from mmliir.engine.message_hub import DeferredMessageHub
from mmliir.engine.optim import AutocastOptimWrapper, DeferredOptimWrapper, SampleStepLR
from mmliir.engine.runner import CorrespondenceRunner

__all__ = [
    'AutocastOptimWrapper',
    'CorrespondenceRunner',
    'DeferredMessageHub',
    'DeferredOptimWrapper',
    'PairTrainLoop',
    'SampleStepLR',
    'hooks',
]
