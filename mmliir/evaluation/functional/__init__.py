"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .pck import area_scales, box_scales, correct_points, pck_counts, point_distances
from .region import boundary_accuracy, boundary_map, boundary_tolerance, disk_footprint, region_similarity
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall

__all__ = [
    'area_scales',
    'boundary_accuracy',
    'boundary_map',
    'boundary_tolerance',
    'box_scales',
    'correct_points',
    'decay',
    'decay_bin_ends',
    'decay_wraps',
    'disk_footprint',
    'mean',
    'pck_counts',
    'point_distances',
    'recall',
    'region_similarity',
]
