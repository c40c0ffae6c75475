"""Coordinate maps between pixels and feature cells. x right, y down, pixel centres at integers."""

from typing import Literal

import torch
from torch import Tensor

Anchor = Literal['first', 'center']


def cells_to_pixels(points: Tensor, stride: int, anchor: Anchor) -> Tensor:
    """Map fractional feature-cell coordinates to pixel coordinates.

    Args:
        points: (..., 2) float, (x, y) in cells; centres of cells lie at integers.
        stride: Input pixels per cell.
        anchor: Which pixel of its block a cell stands for. 'first': labels taken as `[::stride]` (MAST, LIIR).
            'center': labels resized (CRW, VFS, DINO); for an even stride the centre lies between two pixels.

    Returns:
        (..., 2) float, (x, y) in pixels.

    Convention:
        Inverse of `pixels_to_cells` with the same stride and anchor.
    """
    return points * stride + _anchor_shift(stride, anchor)


def pixels_to_cells(points: Tensor, stride: int, anchor: Anchor) -> Tensor:
    """Map pixel coordinates to fractional feature-cell coordinates; inverse of `cells_to_pixels`.

    Args:
        points: (..., 2) float, (x, y) in pixels.
        stride: Input pixels per cell.
        anchor: As in `cells_to_pixels`.

    Returns:
        (..., 2) float, (x, y) in cells.
    """
    return (points - _anchor_shift(stride, anchor)) / stride


def coordinate_grid(height: int, width: int, dtype=torch.float32, device=None) -> Tensor:
    """The (x, y) coordinates of a grid's cells.

    Returns:
        (h, w, 2), (x, y).
    """
    y, x = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device),
        torch.arange(width, dtype=dtype, device=device),
        indexing='ij',
    )
    return torch.stack([x, y], dim=-1)


def _anchor_shift(stride: int, anchor: Anchor) -> float:
    if stride < 1:
        raise ValueError(f'stride must be at least 1 pixel per cell, got {stride}')
    if anchor == 'first':
        return 0.0
    if anchor == 'center':
        return (stride - 1) / 2
    raise ValueError(f"anchor must be 'first' or 'center', got {anchor!r}")
