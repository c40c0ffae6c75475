"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .pck import area_scales, box_scales, correct_points, pck_counts, point_distances
from .region import boundary_accuracy, boundary_map, boundary_tolerance, disk_footprint, region_similarity
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall
from .tapvid import TapVidCounts, evaluated_frames, pts_within_over_time, tapvid_counts, tapvid_scores

__all__ = [
    'TapVidCounts',
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
    'evaluated_frames',
    'mean',
    'pts_within_over_time',
    'pck_counts',
    'point_distances',
    'recall',
    'region_similarity',
    'tapvid_counts',
    'tapvid_scores',
]
