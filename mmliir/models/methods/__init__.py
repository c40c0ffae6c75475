"""Methods: what is trained, or taken as it is."""

from mmliir.models.methods.base import BaseCorrespondence, FeatureEncoder
from mmliir.models.methods.frozen import FrozenFeature, RawColor
from mmliir.models.methods.inter_video import InterVideoBranch, InterVideoTerm
from mmliir.models.methods.liir import LIIR
from mmliir.models.methods.mast import MAST

__all__ = [
    'LIIR',
    'MAST',
    'BaseCorrespondence',
    'FeatureEncoder',
    'FrozenFeature',
    'InterVideoBranch',
    'InterVideoTerm',
    'RawColor',
]
