"""The learnt position map of LIIR (1-D absolute, "1DAPE")."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.registry import MODELS


@MODELS.register_module()
class LearnedPositionEncoder1d(BaseModule):
    """A free vector for every position of the stem's grid (LIIR section 3.2, liir.md section 3).

    Args:
        channels: Channels of the stem's output.
        size: (h, w) of the learnt map: half the training size, (128, 128) for 256x256 images.
        resize_mode: How the map is brought to another grid: 'bicubic' or 'bilinear'.
    """

    def __init__(self, channels: int, size: tuple[int, int] = (128, 128), resize_mode: str = 'bicubic'):
        super().__init__()
        if resize_mode not in ('bicubic', 'bilinear'):
            raise ValueError(f"resize_mode must be 'bicubic' or 'bilinear', got {resize_mode!r}")
        self.resize_mode = resize_mode
        self.position_map = nn.Parameter(torch.zeros(1, channels, *size))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The map on a grid of `size` = (h, w): (1, channels, h, w)."""
        if tuple(self.position_map.shape[2:]) == tuple(size):
            return self.position_map
        with torch.autocast(self.position_map.device.type, enabled=False):
            return F.interpolate(self.position_map, size=size, mode=self.resize_mode, align_corners=False)
