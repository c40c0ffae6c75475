"""Label propagation through a video. Knows features and labels; no files, no metrics, no engine."""

from mmliir.propagation.absences import Absence, find_absences, present_ids
from mmliir.propagation.codecs import PointPlaces, decode_field, encode_label_map
from mmliir.propagation.points import PointTracks, propagate_points
from mmliir.propagation.presets import PRESETS, Protocol, TaskSettings, get_protocol, resolve_protocol
from mmliir.propagation.references import Reference, reference_frames
from mmliir.propagation.session import PointSession, PropagationSession
from mmliir.propagation.settings import (
    InputSettings,
    LongRangeSearch,
    MixturePrior,
    PointSettings,
    PropagationSettings,
)
from mmliir.propagation.video import VideoLabels, prepare_frame, propagate_features, propagate_video

__all__ = [
    'Absence',
    'InputSettings',
    'LongRangeSearch',
    'MixturePrior',
    'PRESETS',
    'PointPlaces',
    'PointSession',
    'PointSettings',
    'PointTracks',
    'PropagationSession',
    'PropagationSettings',
    'Protocol',
    'Reference',
    'TaskSettings',
    'VideoLabels',
    'decode_field',
    'encode_label_map',
    'find_absences',
    'get_protocol',
    'prepare_frame',
    'present_ids',
    'propagate_features',
    'propagate_points',
    'propagate_video',
    'reference_frames',
    'resolve_protocol',
]
