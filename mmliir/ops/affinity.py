"""Soft-max over several windows at once, with or without negatives from other videos.

Shape letters: B batch, C channels, h w cells, P window cells, Q bank entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    max_elements: int = 1 << 22,
) -> Tensor:
    """Log-sum-exp of each query cell's similarity to the entries of a bank, streamed.

    The similarities (B x h x w x Q) are never stored: forward and backward walk through them in chunks, so the peak
    memory does not grow with the bank's size times the number of cells.

    Args:
        query: (B, C, h, w) features.
        negatives: (Q, C) bank entries; constants, no gradient flows into them (LIIR: the bank is detached).
        allowed: (B, Q) bool; False keeps an entry out for that sample (own video, empty slot).
        temperature: Divides the products.
        max_elements: Upper bound on the elements of the similarity chunk held at once.

    Returns:
        (B, h, w) log-sum-exp; -inf where no entry is allowed. Differentiable in `query`.
    """
    if negatives.dim() != 2 or negatives.shape[1] != query.shape[1]:
        raise ValueError(f'negatives must be (Q, {query.shape[1]}), got {tuple(negatives.shape)}')
    if allowed.shape != (query.shape[0], negatives.shape[0]):
        raise ValueError(
            f'allowed must be (B, Q) = ({query.shape[0]}, {negatives.shape[0]}), got {tuple(allowed.shape)}'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')
    return _StreamedLogSumExp.apply(query, negatives.detach(), allowed, temperature, max_elements)


class _StreamedLogSumExp(torch.autograd.Function):
    """Log-sum-exp over bank entries; the backward pass computes the logits again instead of keeping them."""

    @staticmethod
    def forward(ctx, query, negatives, allowed, temperature, max_elements):
        flat_BLC = query.flatten(2).transpose(1, 2)
        total = flat_BLC.new_full(flat_BLC.shape[:2], float('-inf'))
        step = _entries_per_chunk(flat_BLC, max_elements)
        for start in range(0, negatives.shape[0], step):
            logits = _chunk_logits(flat_BLC, negatives, allowed, temperature, start, step)
            total = torch.logaddexp(total, torch.logsumexp(logits, dim=2))
        ctx.save_for_backward(query, negatives, allowed, total)
        ctx.temperature, ctx.max_elements = temperature, max_elements
        return total.reshape(query.shape[0], *query.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        query, negatives, allowed, total = ctx.saved_tensors
        flat_BLC = query.flatten(2).transpose(1, 2)
        finite_total = torch.where(torch.isinf(total), torch.zeros_like(total), total)
        grad_BLC = torch.zeros_like(flat_BLC)
        step = _entries_per_chunk(flat_BLC, ctx.max_elements)
        for start in range(0, negatives.shape[0], step):
            logits = _chunk_logits(flat_BLC, negatives, allowed, ctx.temperature, start, step)
            weights = torch.exp(logits - finite_total[:, :, None])
            grad_BLC += torch.matmul(weights, negatives[start : start + step].to(weights.dtype))
        grad_BLC *= grad_output.flatten(1)[:, :, None] / ctx.temperature
        return grad_BLC.transpose(1, 2).reshape(query.shape), None, None, None, None


def _entries_per_chunk(flat_BLC: Tensor, max_elements: int) -> int:
    return max(1, max_elements // max(1, flat_BLC.shape[0] * flat_BLC.shape[1]))


def _chunk_logits(flat_BLC, negatives, allowed, temperature, start, step) -> Tensor:
    chunk = negatives[start : start + step].to(flat_BLC.dtype)
    logits = torch.matmul(flat_BLC, chunk.t()) / temperature
    return logits.masked_fill(~allowed[:, None, start : start + step], float('-inf'))
