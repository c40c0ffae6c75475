"""Metric formulas: NumPy in, NumPy out; no torch, no files, no data set."""

from .bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    bootstrap_values,
    paired_difference,
    ratio_value,
)
from .pck import area_scales, box_scales, correct_points, pck_counts, point_distances
from .region import (
    boundary_accuracy,
    boundary_map,
    boundary_tolerance,
    dilate,
    object_measures,
    region_similarity,
)
from .statistics import decay, decay_bin_ends, decay_wraps, mean, recall
from .tapvid import TapVidCounts, evaluated_frames, pts_within_over_time, tapvid_counts, tapvid_scores

__all__ = [
    'Interval',
    'PairedDifference',
    'TapVidCounts',
    'area_scales',
    'bootstrap_interval',
    'bootstrap_values',
    'boundary_accuracy',
    'boundary_map',
    'boundary_tolerance',
    'box_scales',
    'correct_points',
    'decay',
    'decay_bin_ends',
    'decay_wraps',
    'dilate',
    'evaluated_frames',
    'mean',
    'object_measures',
    'paired_difference',
    'pck_counts',
    'point_distances',
    'pts_within_over_time',
    'ratio_value',
    'recall',
    'region_similarity',
    'tapvid_counts',
    'tapvid_scores',
]
