"""The information bottleneck of MAST and LIIR: hide one chroma channel, reconstruct it from the other frame."""

import torch
from torch import Tensor

KEPT_GAIN = 1.5  # the kept channels are multiplied by 3/2 (liir.md section 1.3)


def draw_dropped_channel(generator: torch.Generator) -> int:
    """Channel 1 (a) or 2 (b) of Lab with equal probability; L is never dropped, and one is always dropped."""
    return 1 + int(torch.randint(0, 2, (1,), generator=generator))


def drop_channel(images: Tensor, channel: int) -> Tensor:
    """Zero one channel and scale the others by 3/2.

    Args:
        images: (..., 3, H, W) normalised Lab.
        channel: The channel to hide.

    Returns:
        A new tensor of the same shape.
    """
    dropped = images * KEPT_GAIN
    dropped[..., channel, :, :] = 0.0
    return dropped
