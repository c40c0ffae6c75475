"""Benchmarks' scores, from the prediction files and the truth."""

from .badja import BadjaMetric
from .davis import METRIC_VERSION, DavisMetric
from .jhmdb import JhmdbMetric
from .results import BenchmarkResult, SequenceResult, combine
from .scores import ObjectScores, Scores, SequenceScores, Statistics
from .tapvid import TapVidMetric

__all__ = [
    'METRIC_VERSION',
    'BadjaMetric',
    'BenchmarkResult',
    'DavisMetric',
    'JhmdbMetric',
    'ObjectScores',
    'Scores',
    'SequenceResult',
    'SequenceScores',
    'Statistics',
    'TapVidMetric',
    'combine',
]
