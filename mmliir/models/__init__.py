"""Models: parts by name, composed by configs into methods."""

from mmliir.models import backbones, heads, losses, memory, methods, position_encoders
from mmliir.models.data_preprocessor import VideoPreprocessor

__all__ = ['VideoPreprocessor', 'backbones', 'heads', 'losses', 'memory', 'methods', 'position_encoders']
