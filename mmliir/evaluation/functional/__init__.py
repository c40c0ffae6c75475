"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .region import boundary_accuracy, boundary_map, boundary_tolerance, disk_footprint, region_similarity
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall

__all__ = [
    'boundary_accuracy',
    'boundary_map',
    'boundary_tolerance',
    'decay',
    'decay_bin_ends',
    'decay_wraps',
    'disk_footprint',
    'mean',
    'recall',
    'region_similarity',
]
