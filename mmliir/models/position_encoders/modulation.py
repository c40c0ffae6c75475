"""Modulation of the position map for frames that enter the feature bank (LIIR section 3.2, Table 5c).

Bank frames come from other videos. With the plain map, a cell of the bank could be told apart from the query by its
position alone; a shifted or shuffled map leaves only appearance to separate them. No modulation is None: the plain map.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.ops import to_device
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


def permute_position_map(position_map: Tensor, permutations: Tensor) -> Tensor:
    """Rearrange the h*w vectors of a map in another order for every sample.

    Args:
        position_map: (1, C, h, w).
        permutations: (B, h*w) long, each row a permutation of 0 .. h*w - 1.

    Returns:
        (B, C, h, w): `out[b, :, n] = position_map[0, :, permutations[b, n]]`, n counting cells row by row.
    """
    vectors = position_map[0].flatten(1)
    permuted = [vectors[:, order] for order in to_device(permutations, position_map.device)]
    return torch.stack(permuted).unflatten(2, position_map.shape[2:])


class PositionModulation(BaseModule):
    """A random rearrangement of the map for every sample, or one for the whole batch.

    Subclasses implement `rearrange(position_map (1, C, h, w), count, generator) -> (count, C, h, w)`.

    Args:
        per: 'sample': every frame gets a draw of its own. 'batch': all frames of a step share one.
    """

    def __init__(self, per: str = 'sample'):
        super().__init__()
        if per not in ('sample', 'batch'):
            raise ValueError(f"per must be 'sample' or 'batch', got {per!r}")
        self.per = per

    def forward(self, position_map: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        """(1, C, h, w) -> (B, C, h, w), without gradient.

        Args:
            position_map: The map on the stem's grid.
            batch: Samples B, of all ranks.
            generator: CPU generator, the only source of randomness; the draws of a step are the same on every rank.
        """
        count = batch if self.per == 'sample' else 1
        return self.rearrange(position_map.detach(), count, generator).expand(batch, -1, -1, -1)


@MODELS.register_module()
class PositionShift(PositionModulation):
    """A circular shift, uniform over the whole map in both axes (the paper's choice)."""

    def rearrange(self, position_map: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(1, C, h, w) -> `count` shifted maps (count, C, h, w)."""
        height, width = position_map.shape[2:]
        dy = torch.randint(0, height, (count,), generator=generator)
        dx = torch.randint(0, width, (count,), generator=generator)
        return roll_position_map(position_map, torch.stack([dy, dx], dim=1))


@MODELS.register_module()
class PositionShuffle(PositionModulation):
    """A permutation of the map's vectors, uniform over all permutations (Table 5c, "shuffling")."""

    def rearrange(self, position_map: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(1, C, h, w) -> `count` shuffled maps (count, C, h, w)."""
        cells = position_map.shape[2] * position_map.shape[3]
        orders = [torch.randperm(cells, generator=generator) for _ in range(count)]
        return permute_position_map(position_map, torch.stack(orders))
