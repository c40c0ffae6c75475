"""Transforms of a clip: one random draw for all of its frames."""

from mmliir.datasets.transforms.clip import (
    FlipClip,
    PackClip,
    RandomCropClip,
    RandomResizedCropClip,
    ResizeClip,
)

__all__ = ['FlipClip', 'PackClip', 'RandomCropClip', 'RandomResizedCropClip', 'ResizeClip']
