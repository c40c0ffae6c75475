"""The sinusoidal position map of LIIR's ablation ("2DSPE")."""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.models.position_encoders.grid import join_axes
from mmliir.registry import MODELS

PERIOD_BASE = 10000.0  # Vaswani et al. 2017, section 3.5


def sinusoid_table(length: int, channels: int) -> Tensor:
    """Sines and cosines of the positions along one axis.

    Args:
        length: Positions n = 0 .. length - 1.
        channels: Channels of this axis, D / 2, an even number.

    Returns:
        (channels, length) float64 on the CPU: with i in [0, channels / 2), `out[2i, n] = sin(n / 10000^(2i/channels))`
        and `out[2i + 1, n] = cos(same)`; 2i / channels is the 4i / D of liir.md section 3.
    """
    exponents = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    angles = torch.arange(length, dtype=torch.float64) * PERIOD_BASE ** -exponents[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)


@MODELS.register_module()
class SinePositionEncoder2d(BaseModule):
    """Sinusoids of the column in the first half of the channels, of the row in the second (LIIR section 3.2, "2DSPE").

    With D channels and i in [0, D/4): P(x, 2i) = sin(x / 10000^(4i/D)), P(x, 2i+1) = cos of the same, and likewise for
    y in the channels from D/2 on (liir.md section 3). Nothing is learnt and nothing interpolated: a larger grid has
    further positions.

    Args:
        channels: D, channels of the stem's output, a multiple of four.
        scale: Amplitude. 1 is the text's; a learnt map starts at 0, so a smaller one may be wanted.
    """

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__()
        if channels < 4 or channels % 4:
            raise ValueError(
                f'channels must be a multiple of four (sine and cosine of two axes), got {channels}; other stems can '
                'take LearnedPositionEncoder1d'
            )
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f'scale must be a number above 0, got {scale!r}; position_encoder=None is no map')
        self.channels = channels
        self.scale = scale
        self.register_buffer('device_marker', torch.zeros(1), persistent=False)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The map on a grid of `size` = (h, w): (1, channels, h, w)."""
        rows, columns = (
            (self.scale * sinusoid_table(length, self.channels // 2)).to(self.device_marker)[None] for length in size
        )
        return join_axes(columns[:, :, None, :], rows[:, :, :, None])
