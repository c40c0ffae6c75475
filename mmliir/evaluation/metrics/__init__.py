"""Benchmarks' scores, from the prediction files and the truth."""

from .davis import METRIC_VERSION, DavisMetric
from .results import BenchmarkResult, SequenceResult, combine
from .scores import ObjectScores, Scores, SequenceScores, Statistics
from .vip import VipInstanceMetric, VipSemanticMetric

__all__ = [
    'METRIC_VERSION',
    'BenchmarkResult',
    'DavisMetric',
    'ObjectScores',
    'Scores',
    'SequenceResult',
    'SequenceScores',
    'Statistics',
    'VipInstanceMetric',
    'VipSemanticMetric',
    'combine',
]
