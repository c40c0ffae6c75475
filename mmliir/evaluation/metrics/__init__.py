"""Benchmarks' scores, from the prediction files and the truth."""

from .badja import BadjaMetric
from .davis import METRIC_VERSION, DavisMetric
from .jhmdb import JhmdbMetric
from .results import BenchmarkResult, SequenceResult, combine
from .scores import ObjectScores, Scores, SequenceScores, Statistics
from .tapvid import TapVidMetric
from .vip import VipInstanceMetric, VipSemanticMetric
from .youtube_vos import YouTubeVosMetric

__all__ = [
    'BadjaMetric',
    'BenchmarkResult',
    'DavisMetric',
    'JhmdbMetric',
    'METRIC_VERSION',
    'ObjectScores',
    'Scores',
    'SequenceResult',
    'SequenceScores',
    'Statistics',
    'TapVidMetric',
    'VipInstanceMetric',
    'VipSemanticMetric',
    'YouTubeVosMetric',
    'combine',
]
