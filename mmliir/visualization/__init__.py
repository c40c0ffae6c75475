"""Pictures of results: label maps over frames, sheets, videos, curves and bars."""

from mmliir.visualization.overlay import (
    contact_sheet,
    label_contours,
    overlay_labels,
    overlay_points,
    point_color,
    resize_to_width,
)
from mmliir.visualization.plots import bar_chart, difference_chart, interval_chart, legend, line_chart, series_color
from mmliir.visualization.video_writer import require_video_writer, write_video

__all__ = [
    'bar_chart',
    'contact_sheet',
    'difference_chart',
    'interval_chart',
    'label_contours',
    'legend',
    'line_chart',
    'overlay_labels',
    'overlay_points',
    'point_color',
    'require_video_writer',
    'resize_to_width',
    'series_color',
    'write_video',
]
