"""Benchmarks' scores, from the prediction files and the truth."""

from .davis import METRIC_VERSION, DavisMetric
from .results import BenchmarkResult, SequenceResult, combine
from .scores import ObjectScores, Scores, SequenceScores, Statistics
from .youtube_vos import YouTubeVosMetric

__all__ = [
    'METRIC_VERSION',
    'BenchmarkResult',
    'DavisMetric',
    'ObjectScores',
    'Scores',
    'SequenceResult',
    'SequenceScores',
    'Statistics',
    'YouTubeVosMetric',
    'combine',
]
