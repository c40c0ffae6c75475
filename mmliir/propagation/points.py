"""Follow points through a video: each is a Gaussian label, propagated like any other, and read back as a place.

Confidence: how sure the propagation is that the point is there, from 0 to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmliir.propagation.presets import Protocol


@dataclass(frozen=True)
class PointTracks:
    """Where the points of a video are.

    Attributes:
        tracks: (N, T, 2) float64, (x, y) in pixels of the frames; NaN in frames that a point was not followed to.
        confidence: (N, T) float64 from 0 to 1; 0 in those frames.
        visible: (N, T) bool, `confidence >= protocol.points.visible_above`.
    """

    tracks: np.ndarray
    confidence: np.ndarray
    visible: np.ndarray


def propagate_points(
    frames: Sequence[np.ndarray],
    encode: Callable[[Tensor], Tensor],
    queries: np.ndarray,
    protocol: Protocol,
    stride: int,
    device: str | torch.device = 'cpu',
    both_ways: bool = False,
    advance: Callable[[], None] | None = None,
) -> PointTracks:
    """Follow points through a video; each frame is encoded once in each direction.

    What is returned for one point does not depend on the other points.

    Args:
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB, all of one size (a `FrameSequence`).
        encode: As for `propagate_video`.
        queries: (N, 3) float, (t, x, y); see `PointSample.queries`.
        protocol: Settings of the propagation, of the encoder's input and of the points.
        stride: Pixels of the encoder's input per cell.
        device: Where to encode and propagate.
        both_ways: Follow points to earlier frames too, by the video reversed in time.
        advance: Called once a frame.

    Returns:
        The tracks; at its query frame a point is where it was given, with confidence 1.
    """
    raise NotImplementedError
