"""Where to look for a cell in a frame that is long past: a wide, sparse window around it (MAST).

Shape letters: C channels, h w cells, P window cells. Cells that are `dilation` apart form a grid of their own, one of
dilation^2 phases; within a phase the dilated window is a plain one, so each phase is one call of the plain operator.
"""

from typing import Literal

import torch
from torch import Tensor

from mmliir.ops.coords import coordinate_grid
from mmliir.ops.window_topk_attend import window_topk_attend


@torch.no_grad()
def coarse_search(
    query: Tensor,
    key: Tensor,
    radius: int,
    dilation: int,
    *,
    temperature: float = 1.0,
    border: Literal['mask', 'zero_logit'] = 'mask',
    max_elements: int | None = None,
) -> Tensor:
    """The mean displacement of each query cell's match over a dilated square window. No gradient.

    MAST's first step for references far away in time (liir.md section 6.2):
    `o(i) = dilation * SUM_u softmax_u(query(i) . key(i + dilation * u) / temperature) * u`, u in
    [-radius, radius]^2. The second step is `window_topk_attend(..., offsets=)`.

    Args:
        query: (C, h, w) features of the frame to be labelled.
        key: (C, h, w) features of the reference frame, same dtype and device.
        radius: Window radius in steps of `dilation` cells.
        dilation: Cells between neighbours of the window, 1 or more.
        temperature: Divides the dot products.
        border: Window cells outside the frame: 'mask' leaves them out of the soft-max; 'zero_logit' keeps them with
            logit 0 and their own displacement, so that they pull the mean outwards (what a correlation sampler that
            pads with zeros does; liir.md section 2.1).
        max_elements: Bound on temporaries, see `window_topk_attend`.

    Returns:
        (2, h, w) displacement (dx, dy) in cells; float64 for float64 features and float32 for all others.

    Raises:
        ValueError: Shapes do not fit, or a setting is out of range.
    """
    if query.dim() != 3 or key.shape != query.shape:
        raise ValueError(f'query and key must both be (C, h, w), got {tuple(query.shape)} and {tuple(key.shape)}')
    for name, value, least in (('radius', radius, 0), ('dilation', dilation, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f'{name} must be a whole number of cells, {least} or more, got {value!r}')
    height, width = query.shape[1:]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    offsets = torch.empty((2, height, width), dtype=dtype, device=query.device)
    for top in range(min(dilation, height)):
        for left in range(min(dilation, width)):
            phase = (slice(None), slice(top, None, dilation), slice(left, None, dilation))
            offsets[phase] = dilation * _mean_displacement(
                query[phase], key[phase], radius, temperature, border, max_elements, dtype
            )
    return offsets


def _mean_displacement(query_Chw, key_Chw, radius, temperature, border, max_elements, dtype) -> Tensor:
    """-> (2, h, w) soft-max mean of the displacements over the plain square window.

    The inside of the frame is read out as the mean of coordinates. What 'zero_logit' has outside weighs the same in
    every place, and the displacements of a square window sum to 0, so those outside sum to minus those inside.
    """
    cells = coordinate_grid(*query_Chw.shape[1:], dtype, query_Chw.device).permute(2, 0, 1)
    values = torch.cat([cells, torch.ones_like(cells[:1])])
    read = window_topk_attend(
        query_Chw, key_Chw[None], values[None], [radius], temperature=temperature, border=border,
        max_elements=max_elements,
    )  # fmt: skip
    mass = read[2:]
    displacement = read[:2] - mass * cells
    if border == 'mask':
        return displacement
    last = torch.tensor([size - 1 for size in cells.shape[:0:-1]], dtype=dtype, device=cells.device)[:, None, None]
    lowest, highest = (-cells).clamp_min(-radius), (last - cells).clamp_max(radius)
    count = highest - lowest + 1  # of the columns and of the lines inside
    sum_inside = (lowest + highest) / 2 * count[:1] * count[1:]
    num_outside = (2 * radius + 1) ** 2 - count[:1] * count[1:]
    return displacement - (1 - mass) / num_outside.clamp_min(1) * sum_inside
