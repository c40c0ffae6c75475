"""Pull each cell's affinity towards a few compact bumps (LIIR Eqs. 7 and 8)."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.ops import fit_mixture
from mmliir.registry import MODELS


@MODELS.register_module()
class CompactnessPriorLoss(BaseModule):
    """Smooth L1 between the intra-video affinity and the mixture of Gaussians fitted to it.

    The mixture is a constant: gradients flow through the affinity only. The mean runs over all entries; rows left out
    by the threshold count as 0.

    Args:
        num_mixtures: Components of the mixture; 2 in the paper (Table A.1).
        estimator: 'moments' (text) or 'fixed' (the recipe behind 72.2); see `mmliir.ops.fit_mixture`.
        threshold: Only rows whose largest affinity is above it take part. None: all rows (text); 0.5 in the recipe.
        scale: Both sides are multiplied by it before the smooth L1.
        weight: Multiplies the loss (lambda).
    """

    def __init__(
        self,
        num_mixtures: int = 2,
        estimator: str = 'moments',
        threshold: float | None = None,
        scale: float = 20.0,
        weight: float = 1.0,
    ):
        super().__init__()
        self.num_mixtures = num_mixtures
        self.estimator = estimator
        self.threshold = threshold
        self.scale = scale
        self.weight = weight

    def forward(self, affinity: Tensor, radius: int, valid: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            affinity: (B, P, h, w), the soft-max of Eq. 1, P = (2 * radius + 1)^2.
            radius: Window radius in cells.
            valid: Broadcastable bool, False for window cells outside the frame where those are masked.

        Returns:
            Scalar.
        """
        prior = fit_mixture(affinity, radius, self.num_mixtures, self.estimator, valid)
        if self.threshold is not None:
            rows = (affinity.detach().amax(dim=1, keepdim=True) > self.threshold).to(affinity.dtype)
            affinity, prior = affinity * rows, prior * rows
        return self.weight * F.smooth_l1_loss(self.scale * affinity, self.scale * torch.detach(prior), beta=1.0)
