"""What position encoders share: tables along the two axes, and a learnt map on another grid."""

import torch
import torch.nn.functional as F
from torch import Tensor

RESIZE_MODES = ('bicubic', 'bilinear')


def check_resize_mode(resize_mode: str) -> str:
    """The mode itself; ValueError when it is none of `RESIZE_MODES`."""
    if resize_mode not in RESIZE_MODES:
        raise ValueError(f"resize_mode must be 'bicubic' or 'bilinear', got {resize_mode!r}")
    return resize_mode


def resize_position_map(position_map: Tensor, size: tuple[int, int], resize_mode: str) -> Tensor:
    """Bring a learnt map to another grid, in the map's own precision, as LIIR_pytorch does (liir.md section 3).

    Args:
        position_map: (1, C, h, w).
        size: (h_out, w_out).
        resize_mode: 'bicubic' or 'bilinear'; cells are centred on their blocks (align_corners=False).

    Returns:
        (1, C, h_out, w_out); the map itself when it has that size already. An axis along which the map is constant
        stays constant: the weights of an output cell sum to one along each axis.
    """
    if tuple(position_map.shape[2:]) == tuple(size):
        return position_map
    with torch.autocast(position_map.device.type, enabled=False):
        return F.interpolate(position_map, size=size, mode=resize_mode, align_corners=False)


def join_axes(columns: Tensor, rows: Tensor) -> Tensor:
    """P(y, x) = concat(P_x[x], P_y[y]).

    Args:
        columns: (1, C_x, 1, w), a vector for every column.
        rows: (1, C_y, h, 1), a vector for every row.

    Returns:
        (1, C_x + C_y, h, w), the columns' channels first.
    """
    height, width = rows.shape[2], columns.shape[3]
    return torch.cat([columns.expand(-1, -1, height, -1), rows.expand(-1, -1, -1, width)], dim=1)
