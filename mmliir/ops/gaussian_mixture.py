"""The compactness prior: a mixture of two-dimensional Gaussians fitted to each cell's affinity (LIIR Eq. 7).

Shape letters: B batch, P window cells, h w cells, K mixture components.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from mmliir.ops.local_window import window_offsets

Estimator = Literal['moments', 'fixed']

# Variance of a Gaussian whose full width at half maximum is one cell: 1 / (8 ln 2) = 0.180.
UNIT_FWHM_VARIANCE = 1.0 / (8.0 * math.log(2.0))
VARIANCE_FLOOR = 0.18
# With less on the diagonal, cancellation in float32 costs a long, thin bump more than 0.001 at radius 14.
SMALLEST_VARIANCE_FLOOR = 0.01
# exp of less is a denormal number in float32, which costs CPUs ten times as long; exp(-80) = 2e-35 is nothing here.
_LOWEST_EXPONENT = -80.0


def check_mixture_settings(num_mixtures: int, estimator: str, width: float, variance_floor: float) -> None:
    """Refuse settings of `fit_mixture` that are wrong whatever the window.

    Raises:
        ValueError: Names the setting, its range and what came.
    """
    if not isinstance(num_mixtures, int) or num_mixtures < 1:
        raise ValueError(f'num_mixtures must be a whole number, 1 or more, got {num_mixtures!r}')
    if estimator not in ('moments', 'fixed'):
        raise ValueError(f"estimator must be 'moments' or 'fixed', got {estimator!r}")
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"width must be a number of cells above 0 ('fixed' uses it), got {width!r}")
    if not (variance_floor >= SMALLEST_VARIANCE_FLOOR and math.isfinite(variance_floor)):
        raise ValueError(
            f"variance_floor must be {SMALLEST_VARIANCE_FLOOR} or more, in cells^2 ('moments' uses it), "
            f'got {variance_floor!r}'
        )


def fit_mixture(
    affinity: Tensor,
    radius: int,
    num_mixtures: int = 2,
    estimator: Estimator = 'moments',
    valid: Tensor | None = None,
    width: float = 1.0,
    variance_floor: float = VARIANCE_FLOOR,
) -> Tensor:
    """Fit a mixture to each cell's affinity over its window and evaluate it on that window.

    The means are the window cells with the `num_mixtures` largest affinities; of equal ones, the first in the window's
    order. Half precision is computed in float32, because the moments cancel.

    Estimators:
        'moments' (the paper read literally; liir.md A16 `paper`): every window cell belongs to its nearest mean (ties:
            to the more probable one); the weight of a component is the mass of its cells, its covariance their second
            moment about the mean plus `variance_floor` on the diagonal. The densities are summed and divided by their
            sum.
        'fixed' (the recipe behind the published 72.2; A16 `compat`): weights are the soft-max of the largest
            affinities, each bump is `width` cells wide at half its maximum, its peak is its weight, and nothing is
            divided: with width 1 a row sums to about 1.27.

    Args:
        affinity: (B, P, h, w), non-negative, P = (2 * radius + 1)^2 in the order of `window_offsets`.
        radius: Window radius in cells.
        num_mixtures: Components, 1..P.
        estimator: See above.
        valid: Broadcastable to (B, P, h, w), bool; the prior is 0 where False (cells outside the frame). None: all.
        width: Full width at half maximum of a bump of 'fixed', in cells: variance width^2 / (8 ln 2).
        variance_floor: Added to both variances by 'moments', in cells^2; 0.18 is the variance of width 1.

    Returns:
        (B, P, h, w) prior. It is a target: no gradient flows through it.
    """
    if affinity.dim() != 4:
        raise ValueError(f'affinity must be (B, P, h, w), got {tuple(affinity.shape)}')
    window_cells, grid = affinity.shape[1], affinity.shape[2:]
    rows = affinity.permute(0, 2, 3, 1).reshape(-1, window_cells)
    if valid is not None:
        valid = valid.expand(affinity.shape).permute(0, 2, 3, 1).reshape(-1, window_cells)
    prior = fit_mixture_rows(rows, radius, num_mixtures, estimator, valid, width, variance_floor)
    return prior.reshape(affinity.shape[0], *grid, window_cells).permute(0, 3, 1, 2)


def fit_mixture_rows(
    affinity: Tensor,
    radius: int,
    num_mixtures: int = 2,
    estimator: Estimator = 'moments',
    valid: Tensor | None = None,
    width: float = 1.0,
    variance_floor: float = VARIANCE_FLOOR,
) -> Tensor:
    """`fit_mixture` for windows that lie in rows.

    Args:
        affinity: (N, P), one window a row.
        radius, num_mixtures, estimator, width, variance_floor: As in `fit_mixture`.
        valid: (N, P) bool or None.

    Returns:
        (N, P) prior, without gradient.
    """
    side = 2 * radius + 1
    if affinity.dim() != 2 or affinity.shape[1] != side * side:
        raise ValueError(
            f'each window must have {side * side} cells for radius {radius}, got rows of {tuple(affinity.shape)}'
        )
    if not 1 <= num_mixtures <= affinity.shape[1]:
        raise ValueError(f'num_mixtures must be 1..{affinity.shape[1]} (the window cells), got {num_mixtures}')
    check_mixture_settings(num_mixtures, estimator, width, variance_floor)
    with torch.no_grad():
        dtype = affinity.dtype
        affinity = affinity.detach().to(torch.promote_types(dtype, torch.float32))
        peaks_NK, index_NK = _largest(affinity, num_mixtures)
        offsets_P2 = window_offsets(radius, device=affinity.device).to(affinity.dtype)
        fit, spread = (_fixed_width, width) if estimator == 'fixed' else (_moments, variance_floor)
        prior = fit(affinity, peaks_NK, offsets_P2[index_NK], offsets_P2, spread)
        if valid is not None:
            prior = prior.masked_fill(~valid, 0.0)
        if estimator == 'moments':
            prior = prior / prior.sum(dim=1, keepdim=True).clamp_min(torch.finfo(prior.dtype).tiny)
        return prior.to(dtype)


def _largest(affinity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N, P) -> values and indices (N, count), in falling order; `topk` leaves open which of equal cells it takes."""
    remaining = affinity.clone()
    peaks, indices = [], []
    for _ in range(count):
        peak, index = remaining.max(dim=1, keepdim=True)  # the first of equal cells
        remaining.scatter_(1, index, float('-inf'))
        peaks.append(peak)
        indices.append(index)
    return torch.cat(peaks, dim=1), torch.cat(indices, dim=1)


def _fixed_width(affinity: Tensor, peaks_NK: Tensor, means_NK2: Tensor, offsets_P2: Tensor, width: float) -> Tensor:
    """Sum of bumps of a given width at half maximum, weighted by the soft-max of the peaks."""
    variance = width**2 * UNIT_FWHM_VARIANCE
    weights = torch.softmax(peaks_NK, dim=1)
    prior = torch.zeros_like(affinity)
    for k in range(peaks_NK.shape[1]):
        distance = _squared_distance(offsets_P2, means_NK2[:, k])
        exponent = distance.mul_(-1.0 / (2.0 * variance)).clamp_(min=_LOWEST_EXPONENT)
        prior += weights[:, k : k + 1] * exponent.exp_()
    return prior


def _moments(affinity: Tensor, peaks_NK: Tensor, means_NK2: Tensor, offsets_P2: Tensor, floor: float) -> Tensor:
    """Sum of normal densities with weights and covariances estimated from the cells nearest to each mean."""
    num_mixtures = peaks_NK.shape[1]
    owner = torch.zeros_like(affinity, dtype=torch.long)
    best = _squared_distance(offsets_P2, means_NK2[:, 0])
    for k in range(1, num_mixtures):  # the first, more probable mean keeps a tie
        distance = _squared_distance(offsets_P2, means_NK2[:, k])
        owner.masked_fill_(distance < best, k)
        best = torch.minimum(best, distance)
    x, y = offsets_P2.unbind(dim=1)
    basis_P6 = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)
    prior = torch.zeros_like(affinity)
    for k in range(num_mixtures):
        own = affinity if num_mixtures == 1 else affinity.masked_fill(owner != k, 0.0)
        mass, sum_x, sum_y, sum_xx, sum_yy, sum_xy = (own @ basis_P6).unbind(dim=1)
        mean_x, mean_y = means_NK2[:, k].unbind(dim=1)
        safe = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        var_x = (sum_xx - 2 * mean_x * sum_x).div(safe) + mean_x**2 + floor
        var_y = (sum_yy - 2 * mean_y * sum_y).div(safe) + mean_y**2 + floor
        cov = (sum_xy - mean_x * sum_y - mean_y * sum_x).div(safe) + mean_x * mean_y
        empty = mass <= 0
        var_x = torch.where(empty, torch.full_like(var_x, floor), var_x).clamp_min(floor)
        var_y = torch.where(empty, torch.full_like(var_y, floor), var_y).clamp_min(floor)
        cov = torch.where(empty, torch.zeros_like(cov), cov)
        det = (var_x * var_y - cov * cov).clamp_min(floor**2)
        # log density = a quadratic in (x, y): one small product evaluates it at every window cell
        inv_xx, inv_yy, inv_xy = var_y / det, var_x / det, -cov / det
        pull_x, pull_y = inv_xx * mean_x + inv_xy * mean_y, inv_yy * mean_y + inv_xy * mean_x
        constant = -0.5 * (pull_x * mean_x + pull_y * mean_y)
        coefficients_N6 = torch.stack([constant, pull_x, pull_y, -0.5 * inv_xx, -0.5 * inv_yy, -inv_xy], dim=1)
        density = (coefficients_N6 @ basis_P6.t()).clamp_(min=_LOWEST_EXPONENT).exp_()
        prior += density * (mass / (2 * math.pi * det.sqrt()))[:, None]
    return prior


def _squared_distance(offsets_P2: Tensor, mean_N2: Tensor) -> Tensor:
    """(P, 2) offsets and (N, 2) means -> (N, P) squared distances."""
    x = offsets_P2[None, :, 0] - mean_N2[:, None, 0]
    y = offsets_P2[None, :, 1] - mean_N2[:, None, 1]
    return x.square_().add_(y.square_())
