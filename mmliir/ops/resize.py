"""Resizing that keeps label ids intact, and upsampling of label fields from cells to pixels."""

from itertools import accumulate, repeat
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Alignment = Literal['mast', 'exact', 'nearest', 'corners']


def resize_label_map(label_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of ids by nearest neighbour: interpolation would invent object ids.

    The output pixel (x, y) takes the input pixel whose area contains its centre:
    `floor((x + 0.5) * W_in / W_out)`. A centre that falls on the edge of two pixels goes where PIL's NEAREST puts it,
    so that the result is PIL's in every pixel.

    Args:
        label_map: (..., H, W) of any integer type.
        size: (H_out, W_out).

    Returns:
        (..., H_out, W_out), same dtype; its ids are a subset of the input's.
    """
    height, width = label_map.shape[-2:]
    if height == 0 or width == 0 or size[0] < 1 or size[1] < 1:
        raise ValueError(f'cannot resize a label map of {height}x{width} to {size[0]}x{size[1]}')
    rows = _nearest_index(height, size[0], label_map.device)
    columns = _nearest_index(width, size[1], label_map.device)
    return label_map.index_select(-2, rows).index_select(-1, columns)


def upsample_field(field: Tensor, size: tuple[int, int], stride: int, alignment: Alignment) -> Tensor:
    """Upsample a field on cells to pixels, bilinearly except for 'nearest'.

    Args:
        field: (K, h, w) float.
        size: (H, W) pixels of the (padded) frame that the cells cover.
        stride: Pixels per cell; only 'exact' asks for it, the others spread the cells over `size`.
        alignment: 'mast' is bilinear with align_corners=False, which puts cell i on pixel `stride*i + (stride-1)/2`
            (a shift of 1.5 pixels at stride 4 against labels taken as `[::stride]`; kept for fidelity, liir.md
            section 1.1). 'exact' puts cell i on pixel `stride*i`. 'nearest' gives pixel p the cell `floor(p * h / H)`
            (DINOv3). 'corners' is bilinear with align_corners=True, the outermost cells on the outermost pixels (HVC).

    Returns:
        (K, H, W) float.
    """
    if alignment == 'mast':
        return F.interpolate(field[None], size=size, mode='bilinear', align_corners=False)[0]
    if alignment == 'exact':
        along_y = _linear_matrix(size[0], field.shape[1], stride, field)
        along_x = _linear_matrix(size[1], field.shape[2], stride, field)
        return torch.einsum('Yy,kyx,Xx->kYX', along_y, field, along_x)
    if alignment == 'nearest':
        return F.interpolate(field[None], size=size, mode='nearest')[0]
    if alignment == 'corners':
        return F.interpolate(field[None], size=size, mode='bilinear', align_corners=True)[0]
    raise ValueError(f"alignment must be 'mast', 'exact', 'nearest' or 'corners', got {alignment!r}")


def _nearest_index(size_in: int, size_out: int, device) -> Tensor:
    step = size_in / size_out
    # PIL adds the step up; the rounding errors of that sum decide the centres that fall on an edge.
    positions = accumulate(repeat(step, size_out - 1), initial=step * 0.5)
    return torch.tensor([min(int(position), size_in - 1) for position in positions], device=device)


def _linear_matrix(pixels: int, cells: int, stride: int, like: Tensor) -> Tensor:
    """(pixels, cells) weights of linear interpolation with cell i on pixel `stride * i`, constant past the ends."""
    precise = torch.promote_types(like.dtype, torch.float32)  # half precision cannot count the pixels of a frame
    position = (torch.arange(pixels, device=like.device, dtype=precise) / stride).clamp(max=cells - 1)
    distance = (position[:, None] - torch.arange(cells, device=like.device, dtype=precise)[None]).abs()
    return (1 - distance).clamp_min(0).to(like.dtype)
