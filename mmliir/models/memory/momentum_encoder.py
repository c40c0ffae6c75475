"""A slowly moving copy of the encoder, from which the bank's features come."""

import copy

import torch
from mmengine.model import BaseModule
from torch import nn


class MomentumEncoder(BaseModule):
    """Exponential moving average of an encoder's weights (Mean Teacher, MoCo; liir.md A10, A11).

    Batch-norm layers of the copy stay in training mode and gather their own statistics, as in MoCo.

    Args:
        online: The encoder that learns; copied now, and again by `copy_from` when other weights are loaded.
        momentum: `copy = momentum * copy + (1 - momentum) * online`; 0.999 by default.
    """

    def __init__(self, online: nn.Module, momentum: float = 0.999):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f'momentum must lie in 0..1, got {momentum}')
        self.momentum = momentum
        self.encoder = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def copy_from(self, online: nn.Module) -> None:
        """Take the online encoder's weights and buffers as they are."""
        self.encoder.load_state_dict(online.state_dict())

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        """Move the weights one step towards the online encoder's."""
        for average, current in zip(self.encoder.parameters(), online.parameters(), strict=True):
            average.lerp_(current.detach().to(average.dtype), 1.0 - self.momentum)
