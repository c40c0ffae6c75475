"""Pull each cell's affinity towards a few compact bumps (LIIR Eqs. 7 and 8)."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.ops import check_mixture_settings, fit_mixture
from mmliir.ops.gaussian_mixture import VARIANCE_FLOOR
from mmliir.registry import MODELS


def prior_divergence(prior: Tensor, affinity: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each cell's affinity from its prior: sum over j of P_j log(P_j / A_j).

    The direction of soft targets: through the soft-max the gradient of a row's logits is `affinity - prior`, bounded
    everywhere. The other one, sum of A log(A / P), would weigh an outlier by the log of a Gaussian's tail.

    Args:
        prior: (B, P, h, w), non-negative. Rows are divided by their sum first, so that one that does not sum to one
            (estimator 'fixed', a window cut by a mask) can be reached; a row of zeros has divergence 0.
        affinity: (B, P, h, w), non-negative, rows that sum to one.

    Returns:
        (B, h, w). A cell with prior 0 adds 0, whatever its affinity. A cell with affinity 0 and a prior counts with
        the smallest normal number of its type in place of 0 (log 1.2e-38 = -87 in float32) and gets no gradient.
    """
    prior = prior / prior.sum(dim=1, keepdim=True).clamp_min(torch.finfo(prior.dtype).tiny)
    log_affinity = affinity.clamp_min(torch.finfo(affinity.dtype).tiny).log()
    return (torch.xlogy(prior, prior) - prior * log_affinity).sum(dim=1)


@MODELS.register_module()
class CompactnessPriorLoss(BaseModule):
    """Distance between the intra-video affinity and the mixture of Gaussians fitted to it.

    The mixture is a constant: gradients flow through the affinity only.

    The affinity is that of Eq. 1, over the window alone, in stage 2 too. Eq. 4's, divided by its sum over the window,
    is the same: the negatives stand in a row's common denominator, which cancels (liir.md A18 needs no setting).

    Args:
        num_mixtures: Components of the mixture; 2 in the paper (Table A.1).
        estimator: 'moments' (text) or 'fixed' (the recipe behind 72.2); see `mmliir.ops.fit_mixture`.
        threshold: Only rows whose largest affinity is above it take part. None: all rows (text); 0.5 in the recipe.
        norm: The distance (liir.md A17). 'smooth_l1' and 'l1' are means over all entries, 'kl' is the mean over all
            cells of `prior_divergence`. Rows left out by the threshold count as 0 in the mean.
        scale: Both sides are multiplied by it before the smooth L1 or L1; 'kl' does not use it.
        width: Full width at half maximum of a bump of 'fixed', in cells.
        variance_floor: Added to both variances by 'moments', in cells^2; 0.18.
        weight: Multiplies the loss (lambda).
    """

    def __init__(
        self,
        num_mixtures: int = 2,
        estimator: str = 'moments',
        threshold: float | None = None,
        scale: float = 20.0,
        weight: float = 1.0,
        norm: str = 'smooth_l1',
        width: float = 1.0,
        variance_floor: float = VARIANCE_FLOOR,
    ):
        super().__init__()
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f'threshold is a probability, 0..1, or None for every row; got {threshold!r}')
        if scale <= 0 or weight < 0:
            raise ValueError(f'scale must be above 0 and weight not below, got scale {scale}, weight {weight}')
        check_mixture_settings(num_mixtures, estimator, width, variance_floor)
        if norm not in ('smooth_l1', 'l1', 'kl'):
            raise ValueError(f"norm must be 'smooth_l1', 'l1' or 'kl', got {norm!r}")
        self.num_mixtures = num_mixtures
        self.estimator = estimator
        self.threshold = threshold
        self.scale = scale
        self.weight = weight
        self.norm = norm
        self.width = width
        self.variance_floor = variance_floor

    def forward(self, affinity: Tensor, radius: int, valid: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            affinity: (B, P, h, w), the soft-max of Eq. 1, P = (2 * radius + 1)^2.
            radius: Window radius in cells.
            valid: Broadcastable bool, False for window cells outside the frame where those are masked.

        Returns:
            Scalar.
        """
        prior = fit_mixture(
            affinity, radius, self.num_mixtures, self.estimator, valid, self.width, self.variance_floor
        )
        if self.threshold is not None:
            rows = (affinity.detach().amax(dim=1, keepdim=True) > self.threshold).to(affinity.dtype)
            affinity, prior = affinity * rows, prior * rows
        return self.weight * self._distance(affinity, prior)

    def _distance(self, affinity: Tensor, prior: Tensor) -> Tensor:
        if self.norm == 'kl':
            return prior_divergence(prior, affinity).mean()
        if self.norm == 'l1':
            return F.l1_loss(self.scale * affinity, self.scale * prior)
        return F.smooth_l1_loss(self.scale * affinity, self.scale * prior, beta=1.0)
