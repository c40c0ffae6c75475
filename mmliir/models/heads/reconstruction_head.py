"""Reconstruct the query frame's colours from the reference frame (LIIR Eqs. 1 to 5)."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.ops import joint_softmax, window_logits, window_readout, window_validity
from mmliir.registry import MODELS


def resolve_temperature(temperature: float | str, channels: int) -> float:
    """A temperature as a number: 'sqrt_channels' is the square root of the feature's channels (MAMP)."""
    if temperature == 'sqrt_channels':
        return math.sqrt(channels)
    if isinstance(temperature, (int, float)) and temperature > 0:
        return float(temperature)
    raise ValueError(f"temperature must be a number above 0 or 'sqrt_channels', got {temperature!r}")


@MODELS.register_module()
class ReconstructionHead(BaseModule):
    """Window affinity, read-out of the reference's colours, and the photometric loss at full resolution.

    Args:
        loss: Config of the photometric loss.
        radius: Window radius in cells at training; 6 in MAST and LIIR.
        temperature: Divides the dot products: a number, or 'sqrt_channels'.
        normalize: Compare unit vectors (cosine similarity) instead of raw features.
        border: What cells outside the frame do, see `mmliir.ops.window_logits`.
    """

    def __init__(
        self,
        loss: dict,
        radius: int = 6,
        temperature: float | str = 'sqrt_channels',
        normalize: bool = False,
        border: str = 'zero_logit',
    ):
        super().__init__()
        self.loss = MODELS.build(loss)
        self.radius = radius
        self.temperature = temperature
        self.normalize = normalize
        self.border = border

    @property
    def bank_border(self) -> str:
        """What cells outside the frame do in windows on bank frames: they count where they do in the reference."""
        return 'zero_logit' if self.border == 'zero_logit' else 'mask'

    def similarity_features(self, features: Tensor) -> tuple[Tensor, float]:
        """Features in float32 (unit vectors if so set) and the temperature for their dot products."""
        features = features if features.dtype == torch.float64 else features.float()
        if self.normalize:
            features = F.normalize(features, dim=1)
        return features, resolve_temperature(self.temperature, features.shape[1])

    def logits(self, query: Tensor, reference: Tensor) -> Tensor:
        """(B, C, h, w) features of both frames -> (B, P, h, w) logits in float32."""
        query, temperature = self.similarity_features(query)
        reference, _ = self.similarity_features(reference)
        return window_logits(query, reference, self.radius, temperature, self.border)

    def affinity(self, logits: Tensor, negatives_logsumexp: Tensor | None = None) -> Tensor:
        """Soft-max over the window (Eq. 1), or over window and negatives (Eq. 4): (B, P, h, w)."""
        return joint_softmax([logits], negatives_logsumexp)[0]

    def valid(self, logits: Tensor) -> Tensor | None:
        """(P, h, w) bool of window cells that take part; None when all do."""
        if self.border != 'mask':
            return None
        return window_validity(*logits.shape[2:], self.radius, device=logits.device)

    def reconstruct(self, affinity: Tensor, colors: Tensor, stride: int) -> Tensor:
        """Colours of the query frame, read from the reference (Eqs. 2, 5) and upsampled.

        Args:
            affinity: (B, P, h, w).
            colors: (B, K, H, W) of the reference frame; a cell takes its first pixel, `[::stride, ::stride]`.
            stride: Pixels per cell.

        Returns:
            (B, K, H, W), bilinear, align_corners=False.
        """
        cells = colors[:, :, ::stride, ::stride].to(affinity.dtype)
        border = 'replicate' if self.border == 'replicate' else 'zero'
        on_cells = window_readout(affinity, cells, self.radius, border)
        return F.interpolate(on_cells, size=colors.shape[2:], mode='bilinear', align_corners=False)

    def reconstruction_loss(self, affinity: Tensor, reference: Tensor, query: Tensor, stride: int) -> Tensor:
        """Photometric loss of the query's (B, K, H, W) colours reconstructed from the reference's (Eq. 3)."""
        return self.loss(self.reconstruct(affinity, reference, stride), query.to(affinity.dtype))
