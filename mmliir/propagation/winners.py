"""The largest of hundreds of channels at every pixel, without upsampling each channel over the whole frame.

A channel can be the largest only near cells where it is not far below the best one, which is a small part of the frame
where there are many channels. So each channel is upsampled within a rectangle of cells, and rectangles that do not
overlap share a plane: a plane has the size of the frame, hence the values in a rectangle are, to the bit, those that
the channel has when it is upsampled alone.

Shape letters: K label channels, h w cells, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# What interpolation may round, relative to the values.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Rectangle:
    """Cells top..bottom, left..right (bottom and right are not among them) of one channel."""

    channel: int
    top: int
    bottom: int
    left: int
    right: int

    def grown(self, size: tuple[int, int]) -> 'Rectangle':
        """One cell larger on every side, within the frame."""
        return Rectangle(
            self.channel,
            max(0, self.top - 1),
            min(size[0], self.bottom + 1),
            max(0, self.left - 1),
            min(size[1], self.right + 1),
        )


def candidate_rectangles(field: Tensor) -> list[Rectangle]:
    """Where each channel but the first can be the largest after interpolation between neighbouring cells.

    Let a pixel lie between cells of the 3 x 3 around cell q, T the t channels that are largest in any of them, and m
    the smallest of their largest values. The channels of T sum to m or more in each of the cells, so at the pixel too,
    and one of them is m / t or more there. A channel that is below it in all 3 x 3 cells is not the largest.

    Args:
        field: (K, h, w), 0 or more.

    Returns:
        For each channel k > 0 that can be the largest anywhere, a rectangle around all cells q at which it can. Outside
        of it, another channel is larger, or all are 0.
    """
    size = tuple(field.shape[1:])
    highest, channel = field.max(dim=0)
    around = F.pad(channel[None, None].to(field.dtype), [1] * 4, mode='replicate')[0, 0]
    around = around.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2).sort(dim=2).values
    distinct = 1 + (around[..., 1:] != around[..., :-1]).sum(dim=2)
    bound = _lowest_around(_lowest_around(highest) / distinct) * (1 - _ROUNDING)
    # The smallest positive number: what is 0 is never larger than the first channel.
    support = field[1:] >= bound.clamp_min(torch.finfo(field.dtype).tiny)
    in_row, in_column = support.any(dim=2).numpy(), support.any(dim=1).numpy()
    found = np.flatnonzero(in_row.any(axis=1))
    top, left = in_row.argmax(axis=1), in_column.argmax(axis=1)
    bottom, right = size[0] - in_row[:, ::-1].argmax(axis=1), size[1] - in_column[:, ::-1].argmax(axis=1)
    return [
        Rectangle(int(n) + 1, int(top[n]), int(bottom[n]), int(left[n]), int(right[n])).grown(size) for n in found
    ]


def pack(rectangles: Sequence[Rectangle], size: tuple[int, int]) -> list[list[Rectangle]]:
    """Lists of rectangles that stay apart when each grows by a cell; the largest are placed first."""
    planes: list[list[Rectangle]] = []
    taken: list[np.ndarray] = []
    for own in sorted(rectangles, key=lambda r: (r.top - r.bottom) * (r.right - r.left)):
        grown = own.grown(size)
        where = np.s_[grown.top : grown.bottom, grown.left : grown.right]
        number = next((n for n, cells in enumerate(taken) if not cells[where].any()), len(taken))
        if number == len(taken):
            taken.append(np.zeros(size, dtype=bool))
            planes.append([])
        taken[number][where] = True
        planes[number].append(own)
    return planes


def largest_channel(
    field: Tensor,
    upsample: Callable[[Tensor], Tensor],
    cell_of_row: Sequence[int],
    cell_of_column: Sequence[int],
    planes_at_once: int,
) -> Tensor:
    """The number of the largest channel at every pixel, the first of equal ones.

    Args:
        field: (K, h, w) on a CPU, 0 or more.
        upsample: (n, h, w) -> (n, H, W) by interpolation, each channel by itself.
        cell_of_row, cell_of_column: H and W cell numbers, ascending: a pixel's value is between those of the 3 x 3
            cells around its own.
        planes_at_once: How many planes to upsample at a time.

    Returns:
        (H, W) long.
    """
    size = tuple(field.shape[1:])
    best = upsample(field[:1])[0]
    winner = torch.zeros(best.shape, dtype=torch.int32)
    planes = pack(candidate_rectangles(field), size)
    rows, columns = np.asarray(cell_of_row), np.asarray(cell_of_column)
    for start in range(0, len(planes), planes_at_once):
        chunk = planes[start : start + planes_at_once]
        values = field.new_zeros((len(chunk), *size))
        for plane, members in zip(values, chunk, strict=True):
            for own in members:
                around = own.grown(size)
                cells = np.s_[around.top : around.bottom, around.left : around.right]
                plane[cells] = field[own.channel][cells]
        for plane, members in zip(upsample(values), chunk, strict=True):
            for own in members:
                top, bottom = np.searchsorted(rows, (own.top, own.bottom))
                left, right = np.searchsorted(columns, (own.left, own.right))
                pixels = np.s_[top:bottom, left:right]
                _put_where_larger(plane[pixels], own.channel, best[pixels], winner[pixels])
    return winner.long()


def _put_where_larger(values: Tensor, channel: int, best: Tensor, winner: Tensor) -> None:
    """In place; of equal values, that of the smaller channel number stays."""
    larger = (values > best) | ((values == best) & (winner > channel))
    torch.where(larger, values, best, out=best)
    winner.masked_fill_(larger, channel)


def _lowest_around(values: Tensor) -> Tensor:
    """The smallest of the 3 x 3 values around each of (h, w)."""
    return -F.max_pool2d(-values[None, None], 3, stride=1, padding=1)[0, 0]
