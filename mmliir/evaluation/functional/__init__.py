"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .region import (
    boundary_accuracy,
    boundary_map,
    boundary_tolerance,
    dilate,
    object_measures,
    region_similarity,
)
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall

__all__ = [
    'boundary_accuracy',
    'boundary_map',
    'boundary_tolerance',
    'decay',
    'decay_bin_ends',
    'decay_wraps',
    'dilate',
    'object_measures',
    'mean',
    'recall',
    'region_similarity',
]
