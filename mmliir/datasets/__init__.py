"""Files and their quirks: frames, label maps, benchmarks, training videos."""

from mmliir.datasets.davis import DavisDataset, read_davis_labels
from mmliir.datasets.frames import (
    BrokenMediaError,
    FrameArray,
    FrameFolder,
    VideoFile,
    open_frames,
    read_image,
)
from mmliir.datasets.masks import LabelMap, check_mask_size, read_label_map, write_label_map

__all__ = [
    'BrokenMediaError',
    'DavisDataset',
    'FrameArray',
    'FrameFolder',
    'LabelMap',
    'VideoFile',
    'check_mask_size',
    'open_frames',
    'read_davis_labels',
    'read_image',
    'read_label_map',
    'write_label_map',
]
