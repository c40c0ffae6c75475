"""Label propagation through a video. Knows features and labels; no files, no metrics, no engine."""

from mmliir.propagation.codecs import decode_field, encode_label_map
from mmliir.propagation.presets import PRESETS, Protocol, get_protocol, resolve_protocol
from mmliir.propagation.references import Reference, reference_frames
from mmliir.propagation.session import PropagationSession
from mmliir.propagation.settings import InputSettings, LongRangeSearch, MixturePrior, PropagationSettings
from mmliir.propagation.video import prepare_frame, propagate_features, propagate_video

__all__ = [
    'InputSettings',
    'LongRangeSearch',
    'MixturePrior',
    'PRESETS',
    'PropagationSession',
    'PropagationSettings',
    'Protocol',
    'Reference',
    'decode_field',
    'encode_label_map',
    'get_protocol',
    'prepare_frame',
    'propagate_features',
    'propagate_video',
    'reference_frames',
    'resolve_protocol',
]
