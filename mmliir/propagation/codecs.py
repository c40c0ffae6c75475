"""Label maps of ids at pixels to label fields on cells, and back.

Shape letters: K label channels (channel 0 is the background), h w cells, H W pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops.resize import resize_label_map, upsample_field

# Pixels of upsampled channels that exist at a time: hundreds of objects at full size would take gigabytes.
_DECODE_ELEMENTS = 1 << 24


def object_ids(label_map: Tensor) -> list[int]:
    """The ids other than 0 in a label map, ascending; gaps stay gaps."""
    return [value for value in label_map.unique().tolist() if value != 0]


def to_channels(label_map: Tensor, ids: Sequence[int]) -> Tensor:
    """Ids to channel numbers: 0 is the background, n + 1 stands for `ids[n]`.

    Args:
        label_map: (H, W) of any integer type.
        ids: The objects' ids; what is not among them becomes background.

    Returns:
        (H, W) long.
    """
    channels = torch.zeros_like(label_map, dtype=torch.long)
    if len(ids) == 0:
        return channels
    order = torch.tensor(ids, dtype=torch.long, device=label_map.device)
    sorted_ids, position = order.sort()
    found = torch.searchsorted(sorted_ids, label_map.long()).clamp_(max=len(ids) - 1)
    return torch.where(sorted_ids[found] == label_map.long(), position[found] + 1, channels)


def to_ids(channels: Tensor, ids: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Inverse of `to_channels`: (H, W) channel numbers to ids of the type `dtype`."""
    return torch.tensor([0, *ids], device=channels.device)[channels].to(dtype)


def encode_cells(
    channels: Tensor,
    encoding: Literal['subsample', 'nearest'],
    stride: int,
    size: tuple,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Channel numbers at pixels to channel numbers at cells.

    Args:
        channels: (H, W) long, at the size of the encoder's input; of any size where it is resized under a `grid` other
            than 'blocks'.
        encoding: 'subsample' takes pixel (stride * y, stride * x), 'nearest' the pixel at the centre of the
            block.
        stride: Pixels per cell.
        size: (h, w) cells; as 'blocks' they cover (h * stride, w * stride) pixels, and what the map lacks there is
            background.
        grid: See `PropagationSettings`.

    Returns:
        (h, w) long.
    """
    if encoding == 'subsample':
        return _pad(channels, stride, size)[::stride, ::stride]
    return resize_label_map(_pad(channels, stride, size) if grid == 'blocks' else channels, size)


def encode_label_map(
    label_map: Tensor,
    ids: Sequence[int],
    encoding: Literal['subsample', 'nearest', 'bilinear'],
    stride: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Label map to label field.

    Args:
        label_map: (H, W) of any integer type; as in `encode_cells`.
        ids: The objects' ids, one channel each; other values count as background.
        encoding: See `PropagationSettings.encoding`.
        stride: Pixels per cell.
        size: (h, w) cells.
        dtype: Type of the field.
        grid: See `PropagationSettings`.

    Returns:
        (K, h, w) with K = len(ids) + 1; channels sum to 1 at every cell.
    """
    channels = to_channels(label_map, ids)
    if encoding != 'bilinear':
        return one_hot(encode_cells(channels, encoding, stride, size, grid), len(ids) + 1, dtype)
    if grid == 'blocks':
        channels = _pad(channels, stride, size)
    return torch.stack(
        [
            F.interpolate(
                (channels == k).to(dtype)[None, None], size=size, mode='bilinear', align_corners=grid == 'corners'
            )[0, 0]
            for k in range(len(ids) + 1)
        ]
    )


def one_hot(cells: Tensor, num_channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channel numbers (..., h, w) to (..., K, h, w)."""
    shape = (*cells.shape[:-2], num_channels, *cells.shape[-2:])
    return torch.zeros(shape, dtype=dtype, device=cells.device).scatter_(-3, cells.long().unsqueeze(-3), 1)


def decode_field(
    field: Tensor,
    stride: int,
    size: tuple[int, int],
    output_size: tuple[int, int],
    upsample: Literal['mast', 'exact', 'nearest'] = 'mast',
    output_resize: Literal['field', 'labels'] = 'field',
    min_max: bool = False,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Label field to the number of the largest channel at every pixel.

    Args:
        field: (K, h, w).
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, without padding.
        output_size: (H, W) of the result.
        upsample, output_resize, min_max, grid: See `PropagationSettings`.

    Returns:
        (H, W) long, the first of equal channels. Channels are upsampled a few at a time.
    """
    if grid == 'corners':
        upsample = 'corners'
    pixels = size
    covered = (field.shape[1] * stride, field.shape[2] * stride)
    if grid != 'blocks':
        pixels = covered = output_size if output_resize == 'field' else size
    elif output_size != size and output_resize == 'field' and upsample != 'exact':
        covered = tuple(round(c * out / own) for c, out, own in zip(covered, output_size, size, strict=True))
        pixels = output_size
    best = winner = None
    step = max(1, _DECODE_ELEMENTS // (covered[0] * covered[1]))
    for start in range(0, field.shape[0], step):
        values = upsample_field(field[start : start + step], covered, stride, upsample)[
            :, : pixels[0], : pixels[1]
        ]
        if pixels != output_size and output_resize == 'field':
            values = F.interpolate(values[None], size=output_size, mode='bilinear', align_corners=False)[0]
        if min_max:
            values = stretch(values)
        highest, index = values.max(dim=0)
        if best is None:
            best, winner = highest, index
        else:
            better = highest > best
            best, winner = torch.where(better, highest, best), torch.where(better, index + start, winner)
    return resize_label_map(winner, output_size) if output_size != tuple(winner.shape) else winner


def stretch(field: Tensor) -> Tensor:
    """Stretch each channel of (K, H, W) to 0..1; a channel without a positive value becomes 0."""
    low, high = field.amin(dim=(1, 2), keepdim=True), field.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > 0, (field - low) / (high - low).clamp_min(1e-12), torch.zeros_like(field))


def _pad(channels: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Background on the right and below, up to the pixels that the cells cover."""
    height, width = channels.shape
    return F.pad(channels, [0, size[1] * stride - width, 0, size[0] * stride - height])
