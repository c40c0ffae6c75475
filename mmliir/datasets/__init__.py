"""Files and their quirks: frames, label maps, benchmarks, training videos.

What training alone needs brings PyTorch, 3 s: it is imported when it is first asked for (`_TRAINING`).
"""

from importlib import import_module
from typing import Any

from mmliir.datasets.badja import BadjaDataset
from mmliir.datasets.clip_sampling import LIIR_GAPS, sample_pairs
from mmliir.datasets.davis import DavisDataset, read_davis_labels
from mmliir.datasets.frames import FrameArray, FrameFolder, VideoFile, open_frames
from mmliir.datasets.jhmdb import JhmdbDataset
from mmliir.datasets.masks import LabelMap, check_mask_size, number_colors, read_label_map, write_label_map
from mmliir.datasets.pictures import BrokenMediaError, read_image
from mmliir.datasets.safe_pickle import read_pickle
from mmliir.datasets.sources import (
    AutoSource,
    FrameFolderSource,
    VideoFileSource,
    VideoSource,
    YouTubeVOSSource,
    holdout_names,
)
from mmliir.datasets.tapvid import TapVidDataset, TapVidTruth
from mmliir.datasets.vip import VIP_CLASSES, VipDataset
from mmliir.datasets.youtube_vos import YouTubeVosDataset

# name -> its module
_TRAINING = {
    'PairIndex': 'mmliir.datasets.samplers',
    'PairSampler': 'mmliir.datasets.samplers',
    'VideoPairDataset': 'mmliir.datasets.video_pairs',
    'transforms': 'mmliir.datasets.transforms',
}

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


def __getattr__(name: str) -> Any:
    if name not in _TRAINING:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = import_module(_TRAINING[name])
    return module if name == 'transforms' else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
