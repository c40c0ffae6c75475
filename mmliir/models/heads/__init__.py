"""Heads: projection of features, reconstruction of colours."""

from mmliir.models.heads.projection import ConvProjection
from mmliir.models.heads.reconstruction_head import ReconstructionHead, resolve_temperature

__all__ = ['ConvProjection', 'ReconstructionHead', 'resolve_temperature']
