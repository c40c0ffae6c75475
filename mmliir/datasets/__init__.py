"""Files and their quirks: frames, label maps, benchmarks, training videos."""

from mmliir.datasets import transforms
from mmliir.datasets.badja import BadjaDataset
from mmliir.datasets.clip_sampling import LIIR_GAPS, sample_pairs
from mmliir.datasets.davis import DavisDataset, read_davis_labels
from mmliir.datasets.frames import FrameArray, FrameFolder, VideoFile, open_frames
from mmliir.datasets.jhmdb import JhmdbDataset
from mmliir.datasets.masks import LabelMap, check_mask_size, number_colors, read_label_map, write_label_map
from mmliir.datasets.pictures import BrokenMediaError, read_image
from mmliir.datasets.safe_pickle import read_pickle
from mmliir.datasets.samplers import PairIndex, PairSampler
from mmliir.datasets.sources import (
    AutoSource,
    FrameFolderSource,
    VideoFileSource,
    VideoSource,
    YouTubeVOSSource,
    holdout_names,
)
from mmliir.datasets.tapvid import TapVidDataset, TapVidTruth
from mmliir.datasets.video_pairs import VideoPairDataset
from mmliir.datasets.vip import VIP_CLASSES, VipDataset
from mmliir.datasets.youtube_vos import YouTubeVosDataset

__all__ = [
    'AutoSource',
    'BadjaDataset',
    'BrokenMediaError',
    'DavisDataset',
    'FrameArray',
    'FrameFolder',
    'FrameFolderSource',
    'JhmdbDataset',
    'LIIR_GAPS',
    'LabelMap',
    'PairIndex',
    'PairSampler',
    'TapVidDataset',
    'TapVidTruth',
    'VIP_CLASSES',
    'VideoFile',
    'VideoFileSource',
    'VideoPairDataset',
    'VideoSource',
    'VipDataset',
    'YouTubeVOSSource',
    'YouTubeVosDataset',
    'check_mask_size',
    'holdout_names',
    'open_frames',
    'read_davis_labels',
    'read_image',
    'number_colors',
    'read_label_map',
    'read_pickle',
    'sample_pairs',
    'transforms',
    'write_label_map',
]
