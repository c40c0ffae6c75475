"""Memory across videos: the feature bank and the momentum encoder that feeds it."""

from mmliir.models.memory.feature_bank import FeatureBank, Negatives
from mmliir.models.memory.momentum_encoder import MomentumEncoder

__all__ = ['FeatureBank', 'MomentumEncoder', 'Negatives']
