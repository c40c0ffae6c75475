"""Benchmarks' scores, from the prediction files and the truth."""

from .davis import METRIC_VERSION, DavisMetric
from .scores import ObjectScores, Scores, SequenceScores, Statistics

__all__ = ['METRIC_VERSION', 'DavisMetric', 'ObjectScores', 'Scores', 'SequenceScores', 'Statistics']
