"""Soft-max over several windows at once, with or without negatives from other videos.

Shape letters: B batch, C channels, h w cells, P window cells, Q bank entries, N stored maps, L = h * w locations,
J keys of a chunk, G groups of M queries that share keys.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmliir.ops.local_window import window_offsets
from mmliir.ops.transfer import to_device


def joint_softmax(logits: Sequence[Tensor], extra_logsumexp: Tensor | None = None) -> list[Tensor]:
    """One soft-max over the windows of all references, and over negatives of which only the log-sum-exp is known.

    LIIR Eq. 1 (one reference, no negatives) and Eq. 4 (with negatives): the rows sum to 1 without negatives and to
    1 minus the negatives' mass with them.

    Args:
        logits: R tensors (B, P_r, h, w); -inf marks cells that take no part.
        extra_logsumexp: (B, h, w) log-sum-exp of the negatives' logits, -inf where a cell has none. None: no negatives.

    Returns:
        R tensors (B, P_r, h, w), the affinities. A cell without any finite logit has affinity 0.
    """
    if not logits:
        raise ValueError('joint_softmax needs the logits of at least one reference')
    peaks = [part.detach().amax(dim=1) for part in logits]
    if extra_logsumexp is not None:
        if extra_logsumexp.shape != peaks[0].shape:
            raise ValueError(f'extra_logsumexp must be {tuple(peaks[0].shape)}, got {tuple(extra_logsumexp.shape)}')
        peaks.append(extra_logsumexp.detach())
    # The shift cancels, so it needs no gradient; where nothing is finite it is 0, and log-sum-exp's NaN is avoided.
    shift = torch.stack(peaks).amax(dim=0)
    shift = shift.masked_fill(torch.isneginf(shift), 0.0)
    masses = [torch.exp(part - shift[:, None]) for part in logits]
    total = sum(mass.sum(dim=1) for mass in masses)
    if extra_logsumexp is not None:
        total = total + torch.exp(extra_logsumexp - shift)
    total = total.masked_fill(total == 0, 1.0)[:, None]
    return [mass / total for mass in masses]


def negatives_logsumexp(
    query: Tensor,
    negatives: Tensor,
    allowed: Tensor,
    temperature: float = 1.0,
    max_elements: int | None = None,
) -> Tensor:
    """Log-sum-exp of each query cell's similarity to the entries of a bank, the same entries for all cells; streamed.

    The similarities (B x h x w x Q) are never stored: one walk through them in chunks gives the value and the gradient,
    so the peak memory does not grow with the bank's size times the number of cells.

    Args:
        query: (B, C, h, w) features.
        negatives: (Q, C) bank entries; constants, no gradient flows into them (LIIR: the bank is detached).
        allowed: (B, Q) bool; False keeps an entry out for that sample (own video, empty slot).
        temperature: Divides the products.
        max_elements: Upper bound on the elements of the similarity chunk held at once. None chooses by the device.

    Returns:
        (B, h, w) log-sum-exp; -inf where no entry is allowed. Differentiable in `query`.
    """
    if negatives.dim() != 2 or negatives.shape[1] != query.shape[1]:
        raise ValueError(f'negatives must be (Q, {query.shape[1]}), got {tuple(negatives.shape)}')
    _check_negatives(query, negatives.shape[0], allowed, temperature)
    query_BLC = query.flatten(2).transpose(1, 2)
    entries = negatives.detach().to(_work_dtype(query))
    limit = _limit(query, max_elements)
    rows = max(1, min(query_BLC.shape[1], math.isqrt(limit)))
    step = max(1, limit // rows)

    def blocks() -> Iterator[Block]:
        for sample in range(query_BLC.shape[0]):
            for row in range(0, query_BLC.shape[1], rows):
                yield (slice(sample, sample + 1), slice(row, row + rows)), chunks(allowed[sample])

    def chunks(own_allowed: Tensor) -> Iterator[Chunk]:
        for start in range(0, entries.shape[0], step):
            yield entries[None, start : start + step], own_allowed[None, None, start : start + step]

    total_BL = _StreamedLogSumExp.apply(query_BLC, blocks, temperature)
    return total_BL.reshape(query.shape[0], *query.shape[2:])


def drawn_negatives_logsumexp(
    query: Tensor,
    maps: Tensor,
    draw: Callable[[int, int], Tensor],
    points: int,
    allowed: Tensor,
    temperature: float = 1.0,
    max_elements: int | None = None,
) -> Tensor:
    """`negatives_logsumexp` where every query cell has entries of its own, drawn from each stored map.

    The literal reading of LIIR section 3.2, "for each query pixel" (liir.md A9); samples of a batch share the draws.
    Like the similarities, the draws of all maps (N x p x h x w) never exist: a chunk's are made when it is its turn.

    Args:
        query: (B, C, h, w) features.
        maps: (N, C, h, w) stored feature maps; constants.
        draw: `draw(start, stop)` gives (stop - start, p, h * w) long, on any device: for the maps start..stop, the p
            cells (flat, row-major) that each query cell is compared with. A map's cells must not depend on the maps
            they are drawn with: how many there are follows from `max_elements`.
        points: p.
        allowed: (B, N) bool.
        temperature, max_elements: As in `negatives_logsumexp`; the bound holds for the gathered entries.

    Returns:
        (B, h, w) log-sum-exp; -inf where no map is allowed. Differentiable in `query`.
    """
    _check_maps(query, maps)
    _check_negatives(query, maps.shape[0], allowed, temperature)
    frames, locations = maps.shape[0], query.shape[2] * query.shape[3]
    maps_NlC = maps.detach().flatten(2).transpose(1, 2)
    step = max(1, _limit(query, max_elements) // max(1, points * locations * query.shape[1]))

    def chunks() -> Iterator[Chunk]:
        for start in range(0, frames, step):
            own = maps_NlC[start : start + step]
            drawn_npL = draw(start, start + len(own))
            if drawn_npL.shape != (len(own), points, locations):
                raise ValueError(
                    f'draw({start}, {start + len(own)}) must give (frames, points, h * w) = '
                    f'{(len(own), points, locations)}, got {tuple(drawn_npL.shape)}'
                )
            drawn = to_device(drawn_npL, own.device)
            entries_npLC = own[torch.arange(len(own), device=own.device)[:, None, None], drawn]
            keys_LJC = entries_npLC.permute(2, 0, 1, 3).reshape(locations, -1, query.shape[1])
            own_allowed = allowed[None, :, start : start + step].repeat_interleave(points, dim=2)
            yield keys_LJC.to(_work_dtype(query)), own_allowed

    return _located_logsumexp(query, chunks, temperature)


def window_negatives_logsumexp(
    query: Tensor,
    maps: Tensor,
    allowed: Tensor,
    radius: int,
    temperature: float = 1.0,
    border: Literal['mask', 'zero_logit'] = 'mask',
    max_elements: int | None = None,
) -> Tensor:
    """`negatives_logsumexp` over the window around the query's own location in every stored map (liir.md A9 `compat`).

    Args:
        query: (B, C, h, w) features.
        maps: (N, C, h, w) stored feature maps; constants.
        allowed: (B, N) bool.
        radius: Window radius in cells; 3 for 7 x 7.
        temperature, max_elements: As in `negatives_logsumexp`.
        border: Cells outside the map: 'mask' leaves them out, 'zero_logit' counts them with logit 0.

    Returns:
        (B, h, w) log-sum-exp; -inf where no map is allowed. Differentiable in `query`.
    """
    _check_maps(query, maps)
    _check_negatives(query, maps.shape[0], allowed, temperature)
    if border not in ('mask', 'zero_logit'):
        raise ValueError(f"border must be 'mask' or 'zero_logit', got {border!r}")
    channels, height, width = query.shape[1:]
    offsets = (window_offsets(radius) + radius).tolist()
    inside = F.pad(torch.ones(height, width, dtype=torch.bool, device=query.device), [radius] * 4)
    maps = maps.detach()
    per_frame = height * width * max(channels, query.shape[0])
    step = max(1, _limit(query, max_elements) // per_frame)

    def chunks() -> Iterator[Chunk]:
        for start in range(0, maps.shape[0], step):
            padded_nChw = F.pad(maps[start : start + step].to(_work_dtype(query)), [radius] * 4)
            padded_hwnC = padded_nChw.permute(2, 3, 0, 1).contiguous()
            own = allowed[None, :, start : start + step]
            for dx, dy in offsets:
                keys_LJC = padded_hwnC[dy : dy + height, dx : dx + width].reshape(height * width, -1, channels)
                if border == 'mask':
                    yield keys_LJC, own & inside[dy : dy + height, dx : dx + width].reshape(-1, 1, 1)
                else:
                    yield keys_LJC, own

    return _located_logsumexp(query, chunks, temperature)


#: Keys (G or 1, J, C) and what they may be compared with, bool, broadcastable to (G, M, J).
Chunk = tuple[Tensor, Tensor]
#: Which of the (G, M) queries, and the chunks of keys that they are compared with.
Block = tuple[tuple[slice, slice], Iterator[Chunk]]
# Elements of a chunk of similarities or of gathered entries: a CPU works best inside its cache, a GPU on large pieces.
CPU_ELEMENTS = 1 << 19
GPU_ELEMENTS = 1 << 26


def _located_logsumexp(query: Tensor, chunks: Callable[[], Iterator[Chunk]], temperature: float) -> Tensor:
    """Log-sum-exp where the keys belong to a location: the batch becomes the rows of a product a location."""
    query_LBC = query.permute(2, 3, 0, 1).reshape(-1, query.shape[0], query.shape[1])

    def blocks() -> Iterator[Block]:
        yield (slice(None), slice(None)), chunks()

    total_LB = _StreamedLogSumExp.apply(query_LBC, blocks, temperature)
    return total_LB.t().reshape(query.shape[0], *query.shape[2:])


class _StreamedLogSumExp(torch.autograd.Function):
    """Log-sum-exp of (G, M, C) queries over chunks of keys.

    The gradient in the query is the soft-max's mean of the keys over the temperature. It is summed up beside the value
    in one pass (the online soft-max of Milakov and Gimelshein, 2018), so that the backward pass needs no keys.
    """

    @staticmethod
    def forward(ctx, query_GMC, blocks, temperature):
        total_GM = query_GMC.new_full(query_GMC.shape[:2], float('-inf'))
        grad_GMC = torch.zeros_like(query_GMC) if ctx.needs_input_grad[0] else None
        for index, chunks in blocks():
            query = query_GMC[index].to(_work_dtype(query_GMC)) / temperature
            value, mean_key = _online_logsumexp(query, chunks, grad_GMC is not None)
            total_GM[index] = value.to(total_GM.dtype)
            if grad_GMC is not None:
                grad_GMC[index] = (mean_key / temperature).to(grad_GMC.dtype)
        ctx.save_for_backward(grad_GMC)
        return total_GM

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (grad_GMC,) = ctx.saved_tensors
        return grad_GMC * grad_output[:, :, None], None, None


def _online_logsumexp(query: Tensor, chunks: Iterator[Chunk], with_mean: bool) -> tuple[Tensor, Tensor | None]:
    """One pass over the chunks: (G, M) log-sum-exp and, if asked for, the (G, M, C) soft-max-weighted mean of the keys.

    Queries without any allowed key have -inf and 0.
    """
    top = query.new_full(query.shape[:2], float('-inf'))
    mass = query.new_zeros(query.shape[:2])
    weighted = torch.zeros_like(query) if with_mean else None
    for keys, allowed in chunks:
        logits = torch.matmul(query, keys.transpose(1, 2)).masked_fill_(~allowed, float('-inf'))
        higher = torch.maximum(top, logits.amax(dim=2))
        shift = higher.masked_fill(torch.isneginf(higher), 0.0)
        kept = torch.exp(top - shift)
        weights = logits.sub_(shift[:, :, None]).exp_()
        mass = mass * kept + weights.sum(dim=2)
        if weighted is not None:
            weighted = weighted * kept[:, :, None] + torch.matmul(weights, keys)
        top = higher
    mean = None if weighted is None else weighted / mass.masked_fill(mass == 0, 1.0)[:, :, None]
    return top + torch.log(mass), mean


def _work_dtype(query: Tensor) -> torch.dtype:
    """Half precision is compared and summed in float32."""
    return torch.promote_types(query.dtype, torch.float32)


def _limit(query: Tensor, max_elements: int | None) -> int:
    if max_elements is not None:
        return max_elements
    return CPU_ELEMENTS if query.device.type == 'cpu' else GPU_ELEMENTS


def _check_negatives(query: Tensor, count: int, allowed: Tensor, temperature: float) -> None:
    if allowed.shape != (query.shape[0], count):
        raise ValueError(f'allowed must be (B, {count}) = ({query.shape[0]}, {count}), got {tuple(allowed.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')


def _check_maps(query: Tensor, maps: Tensor) -> None:
    if query.dim() != 4 or maps.dim() != 4 or maps.shape[1:] != query.shape[1:]:
        raise ValueError(
            f'maps must be (N, C, h, w) with the (C, h, w) of the query, got {tuple(maps.shape)} and '
            f'{tuple(query.shape)}'
        )
