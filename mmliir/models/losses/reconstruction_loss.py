"""Photometric loss between a reconstructed and a true colour channel (LIIR Eq. 3, MAST)."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.registry import MODELS


@MODELS.register_module()
class ReconstructionLoss(BaseModule):
    """Smooth L1 on values times `scale`: with d = scale * (prediction - target), mean of d^2/2 if |d| < 1 else |d|-1/2.

    Args:
        scale: 20 in MAST (liir.md section 1.4): the switch lies at 0.05 of the normalised range, 6.35 units of a or b.
        weight: Multiplies the loss.
    """

    def __init__(self, scale: float = 20.0, weight: float = 1.0):
        super().__init__()
        self.scale = scale
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> scalar, the mean over all elements."""
        if prediction.shape != target.shape:
            raise ValueError(f'prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape')
        return self.weight * F.smooth_l1_loss(self.scale * prediction, self.scale * target, beta=1.0)
