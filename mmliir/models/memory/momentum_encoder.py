"""A slowly moving copy of the encoder, from which the bank's features come."""

import copy

import torch
from mmengine.model import BaseModule
from torch import nn


class MomentumEncoder(BaseModule):
    """Exponential moving average of an encoder's weights (Mean Teacher, MoCo; liir.md A10, A11).

    Args:
        online: The encoder that learns; copied now, and again by `copy_from` when other weights are loaded.
        momentum: `copy = momentum * copy + (1 - momentum) * online`; 0.999 by default. 0 is off: after an update the
            copy's weights are the online encoder's, to the bit. 1 never moves.
        norm_statistics: Of the copy's batch norms. 'own': they stay in training mode, normalise by the batch that they
            encode and gather running statistics of their own, as in MoCo. 'copy': every update takes the online
            encoder's running statistics, and the copy encodes in evaluation mode, whatever mode the method is in; with
            momentum 0 it is then the online encoder in evaluation mode.
        scope: 'encoder' averages every weight; 'projection' averages those of the projection only and takes the others
            as they are online (liir.md A10).
    """

    def __init__(
        self, online: nn.Module, momentum: float = 0.999, norm_statistics: str = 'own', scope: str = 'encoder'
    ):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f'momentum must lie in 0..1, got {momentum}')
        if norm_statistics not in ('own', 'copy'):
            raise ValueError(f"norm_statistics must be 'own' or 'copy', got {norm_statistics!r}")
        if scope not in ('encoder', 'projection'):
            raise ValueError(f"scope must be 'encoder' or 'projection', got {scope!r}")
        if scope == 'projection' and not any(name.startswith('projection.') for name, _ in online.named_parameters()):
            raise ValueError("scope 'projection' needs an encoder with a projection: this one has none to average")
        self.scope = scope
        self.momentum = momentum
        self.norm_statistics = norm_statistics
        self.encoder = copy.deepcopy(online).requires_grad_(False)
        if norm_statistics == 'copy':
            self.encoder.eval()

    def train(self, mode: bool = True) -> 'MomentumEncoder':
        """As every module, but a copy with the online encoder's statistics stays in evaluation mode."""
        super().train(mode)
        if self.norm_statistics == 'copy':
            self.encoder.eval()
        return self

    @torch.no_grad()
    def copy_from(self, online: nn.Module) -> None:
        """Take the online encoder's weights and buffers as they are."""
        self.encoder.load_state_dict(online.state_dict())

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        """Move the weights one step towards the online encoder's; with 'copy', take its statistics too."""
        for (name, average), current in zip(self.encoder.named_parameters(), online.parameters(), strict=True):
            averaged = self.scope == 'encoder' or name.startswith('projection.')
            average.lerp_(current.detach().to(average.dtype), 1.0 - self.momentum if averaged else 1.0)
        if self.norm_statistics == 'copy':
            for own, current in zip(self.encoder.buffers(), online.buffers(), strict=True):
                own.copy_(current)
