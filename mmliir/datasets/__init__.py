"""Files and their quirks: frames, label maps, benchmarks, training videos."""

from mmliir.datasets import transforms
from mmliir.datasets.clip_sampling import LIIR_GAPS, sample_pairs
from mmliir.datasets.davis import DavisDataset, read_davis_labels
from mmliir.datasets.frames import BrokenMediaError, FrameArray, FrameFolder, VideoFile, open_frames, read_image
from mmliir.datasets.masks import LabelMap, check_mask_size, read_label_map, write_label_map
from mmliir.datasets.samplers import PairIndex, PairSampler
from mmliir.datasets.sources import AutoSource, FrameFolderSource, VideoFileSource, VideoSource, YouTubeVOSSource
from mmliir.datasets.video_pairs import VideoPairDataset
from mmliir.datasets.vip import VIP_CLASSES, VipDataset

__all__ = [
    'AutoSource',
    'BrokenMediaError',
    'DavisDataset',
    'FrameArray',
    'FrameFolder',
    'FrameFolderSource',
    'LIIR_GAPS',
    'LabelMap',
    'PairIndex',
    'PairSampler',
    'VIP_CLASSES',
    'VideoFile',
    'VideoFileSource',
    'VideoPairDataset',
    'VideoSource',
    'VipDataset',
    'YouTubeVOSSource',
    'check_mask_size',
    'open_frames',
    'read_davis_labels',
    'read_image',
    'read_label_map',
    'sample_pairs',
    'transforms',
    'write_label_map',
]
