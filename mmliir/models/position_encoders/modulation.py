"""Modulation of the position map for frames that enter the feature bank (LIIR section 3.2, "position shifting").

Bank frames come from other videos. With the plain map, a cell of the bank could be told apart from the query by its
position alone; a shifted map leaves only appearance to separate them.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.registry import MODELS


def roll_position_map(position_map: Tensor, shifts: Tensor) -> Tensor:
    """Circularly shift a map by another step for every sample.

    Args:
        position_map: (1, C, h, w).
        shifts: (B, 2) long, (dy, dx).

    Returns:
        (B, C, h, w): `out[b, :, y, x] = position_map[0, :, (y - dy) % h, (x - dx) % w]`, as `torch.roll`.
    """
    rolled = [torch.roll(position_map[0], (int(dy), int(dx)), dims=(1, 2)) for dy, dx in shifts]
    return torch.stack(rolled)


@MODELS.register_module()
class PositionShift(BaseModule):
    """One random circular shift a sample, uniform over the whole map in both axes."""

    def forward(self, position_map: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        """(1, C, h, w) -> (B, C, h, w), without gradient.

        Args:
            position_map: The map on the stem's grid.
            batch: Samples B.
            generator: CPU generator; the draws of a step are the same on every rank.
        """
        height, width = position_map.shape[2:]
        dy = torch.randint(0, height, (batch,), generator=generator)
        dx = torch.randint(0, width, (batch,), generator=generator)
        return roll_position_map(position_map.detach(), torch.stack([dy, dx], dim=1))
