"""One propagation step as public evaluators compute it: what ours is timed against and must agree with.

Each function restates an algorithm, with the tensors that it creates and in its order of operations, from these
sources (none of whose code is here): CRW, ajabri/videowalk@047f3f4, `mem_efficient_batched_affinity` and `test`;
MAST, zlai0/MAST@a57b043, `Colorizer.forward`, which LIIR_pytorch (shasha521/LIIR_pytorch@21c7ba5) takes over; DINO,
facebookresearch/dino@7c446df, `label_propagation`. Features come as they are compared: of unit length where the
program normalises. VFS, xvjiarui/VFS@8e055cc, `masked_attention_efficient`, which Spa-then-Temp
(qianduoduolr/Spa-then-Temp@4c94362) takes over.

Shape letters: C channels, R references, K value channels, h w cells, N = h * w, P window cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops import MixturePrior, fit_mixture_rows

CRW_CHUNK = 100  # queries that CRW compares at a time
CRW_OUTSIDE = -1e10  # what CRW adds to the similarity of cells outside a window
VFS_CHUNK = 32  # queries that VFS compares at a time


def crw_mask(height: int, width: int, radius: int) -> Tensor:
    """(N keys, N queries): 0 where the distance is below the radius, else -1e10. CRW makes it once a video."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    y, x = y.reshape(-1), x.reshape(-1)
    inside = (y[:, None] - y).square() + (x[:, None] - x).square() < radius**2
    return torch.where(inside, 0.0, CRW_OUTSIDE)


def crw_step(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, temperature: float, topk: int) -> Tensor:
    """Dense similarities of 100 queries at a time, masked but for the first reference; the k best are kept.

    Args:
        query: (C, h, w).
        keys: (R, C, h, w), the first without a window.
        values: (R, K, h, w).
        mask: `crw_mask`.
        temperature: Divides.
        topk: Keys kept.

    Returns:
        (K, h, w).
    """
    channels, height, width = query.shape
    references = keys.permute(1, 0, 2, 3).reshape(1, channels, 1, len(keys), -1)
    queries = query.reshape(1, channels, 1, -1)
    weights, places = [], []
    for start in range(0, queries.shape[-1], CRW_CHUNK):
        part = queries[..., start : start + CRW_CHUNK]
        affinity = torch.einsum('bcntm,bcnq->bntmq', references, part)
        affinity[0, :, 1:] += mask[:, start : start + CRW_CHUNK]
        affinity = affinity.view(1, -1, part.shape[-1])
        affinity /= temperature
        best, index = torch.topk(affinity, topk, dim=-2)
        weights.append(F.softmax(best, dim=-2))
        places.append(index)
    weights, places = torch.cat(weights, dim=-1)[0], torch.cat(places, dim=-1)[0]
    labels = values.permute(1, 0, 2, 3).reshape(values.shape[1], -1)
    return (labels[:, places] * weights[None]).sum(1).view(-1, height, width)


def mast_step(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    radius: int,
    temperature: float,
    rows: int,
    prior: MixturePrior | None = None,
    unfold_keys: bool = True,
    offsets: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Unfold the labels around every cell, and the keys too; one soft-max over all references and window cells.

    Args:
        query: (C, h, w).
        keys: (R, C, h, w).
        values: (R, K, h, w).
        radius: Of the square window, in cells; outside the frame lie zeros, which take part.
        temperature: Divides.
        rows: Query rows that are unfolded at a time. The programs unfold the whole frame: h.
        prior: Replaces each window by a fitted mixture (here by `fit_mixture_rows`, not by LIIR_pytorch's loop over
            window cells and references, which costs more). None: off.
        unfold_keys: As the programs do for references that they search in two steps. False: one product of the
            query with the shifted keys for each window cell: what the correlation operator computes that they use for
            the others, in fewer seconds than its code for CPUs takes (docs/benchmarks.md).
        offsets: R times None or (2, h, w) (dx, dy): keys and labels of far references are unfolded by `grid_sample`
            around i + offset(i), with `align_corners=True`, as the normalisation of the places means it.

    Returns:
        (K, h, w).
    """
    height, width = query.shape[1:]
    side = 2 * radius + 1
    padded_keys, padded_values = (F.pad(maps, [radius] * 4) for maps in (keys, values))
    offsets = [None] * len(keys) if offsets is None else offsets
    parts = []
    for start in range(0, height, rows):
        part = query[:, start : start + rows].flatten(1) / temperature
        lines = slice(start, start + rows + 2 * radius)
        affinity, places = [], [None if own is None else _places(own, start, rows, radius) for own in offsets]
        for reference, padded, own in zip(keys, padded_keys, places, strict=True):
            if own is None:
                affinity.append(_correlate(part, padded[:, lines], side, unfold_keys))
            else:
                affinity.append((part[:, None] * _sample(reference, own)).sum(0))
        affinity = F.softmax(torch.cat(affinity), dim=0)
        if prior is not None:
            affinity = torch.cat([_replace(window, radius, prior) for window in affinity.split(side * side)])
        labels = [
            F.unfold(padded[None, :, lines], side)[0].view(values.shape[1], side * side, -1)
            if own is None
            else _sample(reference, own)
            for reference, padded, own in zip(values, padded_values, places, strict=True)
        ]
        parts.append((affinity[None] * torch.cat(labels, dim=1)).sum(1).view(-1, part.shape[1] // width, width))
    return torch.cat(parts, dim=1)


def _correlate(query_CN: Tensor, keys_Cyx: Tensor, side: int, unfold: bool) -> Tensor:
    """(C, N) queries of whole rows and the padded keys that they reach -> (P, N)."""
    if unfold:
        unfolded = F.unfold(keys_Cyx[None], side)[0].view(len(query_CN), side * side, -1)
        return (query_CN[:, None] * unfolded).sum(0)
    rows, columns = keys_Cyx.shape[1] - side + 1, keys_Cyx.shape[2] - side + 1
    query = query_CN.view(-1, rows, columns)
    shifts = [keys_Cyx[:, y : y + rows, x : x + columns] for y in range(side) for x in range(side)]
    return torch.stack([(query * shifted).sum(0).flatten() for shifted in shifts])


def _places(offsets_2hw: Tensor, start: int, rows: int, radius: int) -> Tensor:
    """(P, rows, w, 2): where `grid_sample` finds the window cells of each query of some rows."""
    height, width = offsets_2hw.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    centres = (torch.stack([x, y]).to(offsets_2hw) + offsets_2hw)[:, start : start + rows]
    reach = torch.arange(-radius, radius + 1).to(offsets_2hw)
    y, x = torch.meshgrid(reach, reach, indexing='ij')
    places = torch.stack([x.flatten(), y.flatten()])[:, :, None, None] + centres[:, None]
    size = torch.tensor([width - 1, height - 1]).to(offsets_2hw)
    return places.permute(1, 2, 3, 0) / size * 2 - 1


def _sample(maps_Chw: Tensor, places_Pyx2: Tensor) -> Tensor:
    """-> (C, P, N)."""
    grid = places_Pyx2.flatten(0, 1)[None]
    return F.grid_sample(maps_Chw[None], grid, align_corners=True)[0].view(len(maps_Chw), len(places_Pyx2), -1)


def _replace(window_PN: Tensor, radius: int, prior: MixturePrior) -> Tensor:
    rows = window_PN.t()
    fitted = fit_mixture_rows(
        rows, radius, prior.num_mixtures, prior.estimator, None, prior.width, prior.variance_floor
    )
    if prior.keep_mass:
        fitted = fitted * rows.sum(dim=1, keepdim=True)
    if prior.threshold is not None:
        fitted = torch.where(rows.amax(dim=1, keepdim=True) > prior.threshold, fitted, rows)
    return fitted.t()


def dino_mask(height: int, width: int, radius: int, references: int) -> Tensor:
    """(R, N, N): 1 within the square window, else 0. DINO makes it once a video, one copy a reference."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    y, x = y.reshape(-1), x.reshape(-1)
    inside = ((y[:, None] - y).abs() <= radius) & ((x[:, None] - x).abs() <= radius)
    return inside.float().repeat(references, 1, 1)


def dino_step(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, temperature: float, topk: int) -> Tensor:
    """Exponentials of all pairs of tokens, times a mask; those below the k-th become 0, the others are divided by
    their sum.

    Args:
        query: (C, h, w).
        keys: (R, C, h, w).
        values: (R, K, h, w).
        mask: `dino_mask`.
        temperature: Divides.
        topk: Keys kept; ties with the k-th too.

    Returns:
        (K, h, w).
    """
    height, width = query.shape[1:]
    tokens = query.flatten(1).t()[None].repeat(len(keys), 1, 1)
    affinity = torch.exp(torch.bmm(tokens, keys.flatten(2)) / temperature)
    affinity *= mask
    affinity = affinity.transpose(2, 1).reshape(-1, height * width)
    best, _ = torch.topk(affinity, dim=0, k=topk)
    least, _ = torch.min(best, dim=0)
    affinity[affinity < least] = 0
    affinity = affinity / torch.sum(affinity, keepdim=True, dim=0)
    labels = values.flatten(2).transpose(2, 1).reshape(-1, values.shape[1]).t()
    return torch.mm(labels, affinity).reshape(-1, height, width)


def vfs_mask(height: int, width: int, radius: int) -> Tensor:
    """(N, N): whether a cell lies in the square window of another. Spa-then-Temp makes it once a video."""
    return dino_mask(height, width, radius, 1)[0].bool()


def vfs_step(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, temperature: float, topk: int) -> Tensor:
    """Dense similarities of 32 queries at a time, -inf outside the mask in every reference; the k best are kept.

    Args:
        query: (C, h, w).
        keys: (R, C, h, w).
        values: (R, K, h, w).
        mask: `vfs_mask`.
        temperature: Divides.
        topk: Keys kept.

    Returns:
        (K, h, w).
    """
    channels, height, width = query.shape
    queries = query.reshape(channels, -1)
    references = keys.transpose(0, 1).reshape(channels, -1)
    labels = values.transpose(0, 1).reshape(values.shape[1], -1)
    parts = []
    for start in range(0, height * width, VFS_CHUNK):
        affinity = torch.einsum('ci,cj->ij', references, queries[:, start : start + VFS_CHUNK]) / temperature
        own = mask[:, start : start + VFS_CHUNK]
        affinity.masked_fill_(~own.expand(len(keys), -1, -1).reshape_as(affinity), -torch.inf)
        best, index = affinity.topk(topk, dim=0)
        picked = labels.index_select(1, index.reshape(-1)).view(len(labels), *index.shape)
        parts.append(torch.einsum('ckq,kq->cq', picked, best.softmax(dim=0)))
    return torch.cat(parts, dim=1).view(-1, height, width)
