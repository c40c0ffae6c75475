"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    bootstrap_values,
    paired_difference,
    ratio_value,
)
from .region import boundary_accuracy, boundary_map, boundary_tolerance, disk_footprint, region_similarity
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall

__all__ = [
    'Interval',
    'PairedDifference',
    'bootstrap_interval',
    'bootstrap_values',
    'boundary_accuracy',
    'boundary_map',
    'boundary_tolerance',
    'decay',
    'decay_bin_ends',
    'decay_wraps',
    'disk_footprint',
    'mean',
    'paired_difference',
    'ratio_value',
    'recall',
    'region_similarity',
]
