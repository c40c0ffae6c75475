"""Similarity of each query cell to a window of key cells, and the read-out of values through it.

Shape letters: B batch, C channels, K value channels, h w cells, P window cells, s tile side, n tiles.

A window of side 2R+1 around each cell would need every key (2R+1)^2 times if the keys were unfolded. Here the query
grid is cut in s x s tiles; one matrix product compares a tile with the (s+2R) x (s+2R) keys it can reach, and the
windows are read from that product as a strided view: each key is copied (1+2R/s)^2 times instead of (2R+1)^2.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal['mask', 'zero_logit', 'replicate']
TILE = 8


Shape = Literal['square', 'circle', 'disc']


def window_offsets(radius: int, shape: Shape = 'square', device=None) -> Tensor:
    """Offsets of the cells of a window, in the order in which every window of this package is flattened.

    Args:
        radius: Window radius in cells; the side of the square is `2 * radius + 1`.
        shape: 'square'; 'circle' for the cells with dx^2 + dy^2 < radius^2 (CRW, VFS: distance below the radius;
            the centre always belongs); 'disc' for those with dx^2 + dy^2 <= radius^2 (DINOv3: up to the radius).
        device: Where the result lies.

    Returns:
        (P, 2) long, (dx, dy), row-major: dy outer, dx inner.
    """
    _check_radius(radius)
    span = torch.arange(-radius, radius + 1, device=device)
    dy, dx = torch.meshgrid(span, span, indexing='ij')
    offsets = torch.stack([dx.reshape(-1), dy.reshape(-1)], dim=1)
    if shape == 'square':
        return offsets
    if shape == 'circle':
        squared = offsets.square().sum(dim=1)
        return offsets[(squared < radius * radius) | (squared == 0)]
    if shape == 'disc':
        return offsets[offsets.square().sum(dim=1) <= radius * radius]
    raise ValueError(f"shape must be 'square', 'circle' or 'disc', got {shape!r}")


def window_validity(height: int, width: int, radius: int, device=None) -> Tensor:
    """Which cells of each square window lie inside the grid.

    Returns:
        (P, h, w) bool, True where the window cell is inside.
    """
    offsets = window_offsets(radius, device=device)
    x = torch.arange(width, device=device) + offsets[:, 0, None]
    y = torch.arange(height, device=device) + offsets[:, 1, None]
    inside_x = (x >= 0) & (x < width)
    inside_y = (y >= 0) & (y < height)
    return inside_y[:, :, None] & inside_x[:, None, :]


def window_logits(
    query: Tensor, key: Tensor, radius: int, temperature: float = 1.0, border: Border = 'mask'
) -> Tensor:
    """Dot products of each query cell with the key cells of the square window around it, divided by a temperature.

    Args:
        query: (B, C, h, w) features of the frame to be reconstructed or labelled.
        key: (B, C, h, w) features of the reference frame.
        radius: Window radius in cells.
        temperature: Divides the products.
        border: Cells outside the frame: 'mask' gives -inf (no mass after a soft-max); 'zero_logit' leaves the logit
            at 0, where the cell keeps its soft-max mass (the behaviour of correlation samplers that pad with zeros);
            'replicate' repeats the frame's border cells.

    Returns:
        (B, P, h, w) logits with P = (2 * radius + 1)^2, in the input's dtype; differentiable.

    Raises:
        ValueError: Shapes differ, or a negative radius, a temperature not above 0, or an unknown border.
    """
    _check_radius(radius)
    if query.dim() != 4 or query.shape != key.shape:
        raise ValueError(f'query and key must both be (B, C, h, w), got {tuple(query.shape)} and {tuple(key.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')
    if border not in ('mask', 'zero_logit', 'replicate'):
        raise ValueError(f"border must be 'mask', 'zero_logit' or 'replicate', got {border!r}")
    batch, _, height, width = query.shape
    side = 2 * radius + 1
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    tiles_BnsC = _query_tiles(query, tiles_y, tiles_x) / temperature
    halo_BnCk = _key_halos(key, radius, tiles_y, tiles_x, border)
    products = torch.matmul(tiles_BnsC, halo_BnCk)  # (B, n, s*s, (s+2R)^2)
    halo = TILE + 2 * radius
    row = halo * halo
    windows = products.contiguous().as_strided(
        (batch, tiles_y, tiles_x, TILE, TILE, side, side),
        (
            tiles_y * tiles_x * TILE * TILE * row,
            tiles_x * TILE * TILE * row,
            TILE * TILE * row,
            TILE * row + halo,  # one query row down: the next product row, and the window one key row down
            row + 1,
            halo,
            1,
        ),
    )
    logits = windows.permute(0, 5, 6, 1, 3, 2, 4).reshape(batch, side * side, tiles_y * TILE, tiles_x * TILE)
    logits = logits[:, :, :height, :width]
    if border == 'mask':
        valid = window_validity(height, width, radius, device=query.device)
        return logits.masked_fill(~valid, float('-inf'))
    return logits.contiguous()


def window_readout(
    affinity: Tensor,
    values: Tensor,
    radius: int,
    border: Literal['zero', 'replicate'] = 'zero',
    max_elements: int = 1 << 26,
) -> Tensor:
    """Sum of the values in each cell's window, weighted by the affinity (LIIR Eqs. 2 and 5).

    Args:
        affinity: (B, P, h, w) weights over the square window, in the order of `window_offsets`.
        values: (B, K, h, w) values of the reference cells (colours, labels).
        radius: Window radius in cells.
        border: Values outside the frame: 'zero', or 'replicate' of the border cells.
        max_elements: Upper bound on the elements of a temporary; rows are processed in chunks below it.

    Returns:
        (B, K, h, w), differentiable in both inputs.
    """
    _check_radius(radius)
    side = 2 * radius + 1
    batch, window_cells, height, width = affinity.shape
    if window_cells != side * side or values.shape[0] != batch or values.shape[2:] != affinity.shape[2:]:
        raise ValueError(
            f'affinity must be (B, {side * side}, h, w) for radius {radius} and values (B, K, h, w), '
            f'got {tuple(affinity.shape)} and {tuple(values.shape)}'
        )
    if border not in ('zero', 'replicate'):
        raise ValueError(f"border must be 'zero' or 'replicate', got {border!r}")
    channels = values.shape[1]
    mode = 'constant' if border == 'zero' else 'replicate'
    padded = F.pad(values, [radius] * 4, mode=mode)
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # (B, K, h, w, side, side), a view
    weights = affinity.permute(0, 2, 3, 1).reshape(batch, 1, height, width, side, side)
    rows = max(1, max_elements // max(1, batch * channels * width * side * side))
    chunks = [
        (weights[:, :, top : top + rows] * windows[:, :, top : top + rows]).sum(dim=(-2, -1))
        for top in range(0, height, rows)
    ]
    return torch.cat(chunks, dim=2)


def _query_tiles(query: Tensor, tiles_y: int, tiles_x: int) -> Tensor:
    """(B, C, h, w) -> (B, n, s*s, C), zero-padded to whole tiles."""
    batch, channels, height, width = query.shape
    padded = F.pad(query, [0, tiles_x * TILE - width, 0, tiles_y * TILE - height])
    tiles = padded.reshape(batch, channels, tiles_y, TILE, tiles_x, TILE).permute(0, 2, 4, 3, 5, 1)
    return tiles.reshape(batch, tiles_y * tiles_x, TILE * TILE, channels)


def _key_halos(key: Tensor, radius: int, tiles_y: int, tiles_x: int, border: Border) -> Tensor:
    """(B, C, h, w) -> (B, n, C, (s+2R)^2): the keys each tile can reach."""
    batch, channels, height, width = key.shape
    if border == 'replicate':
        key = F.pad(key, [radius] * 4, mode='replicate')
        padded = F.pad(key, [0, tiles_x * TILE - width, 0, tiles_y * TILE - height])
    else:
        padded = F.pad(key, [radius, radius + tiles_x * TILE - width, radius, radius + tiles_y * TILE - height])
    halo = TILE + 2 * radius
    halos = padded.unfold(2, halo, TILE).unfold(3, halo, TILE)  # (B, C, ny, nx, halo, halo)
    return halos.permute(0, 2, 3, 1, 4, 5).reshape(batch, tiles_y * tiles_x, channels, halo * halo)


def _check_radius(radius: int) -> None:
    if not isinstance(radius, int) or radius < 0:
        raise ValueError(f'radius must be a whole number of cells, 0 or more, got {radius!r}')
