"""From uint8 frames to normalised colours, on the model's device: the only place that knows mean and std."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmliir.ops import rgb_to_lab
from mmliir.registry import MODELS


@MODELS.register_module()
class VideoPreprocessor(BaseDataPreprocessor):
    """Move frames to the device as uint8, convert the colour space there, normalise.

    Args:
        color_space: 'lab' (MAST, LIIR: L in [0, 100], a and b in about [-127, 127]) or 'rgb' (in [0, 1]).
        mean: Subtracted from each channel, in units of the colour space.
        std: Divides each channel.
    """

    def __init__(
        self,
        color_space: str = 'lab',
        mean: Sequence[float] = (50.0, 0.0, 0.0),
        std: Sequence[float] = (50.0, 127.0, 127.0),
    ):
        super().__init__(non_blocking=True)  # from the loader's page-locked memory: the host goes on
        if color_space not in ('lab', 'rgb'):
            raise ValueError(f"color_space must be 'lab' or 'rgb', got {color_space!r}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f'mean and std need three numbers, std above 0; got {tuple(mean)}, {tuple(std)}')
        self.color_space = color_space
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def normalize(self, frames: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 RGB on the device -> float32, normalised."""
        if frames.dtype != torch.uint8 or frames.shape[-3] != 3:
            raise ValueError(f'frames must be uint8 RGB (..., 3, H, W), got {frames.dtype} {tuple(frames.shape)}')
        colors = frames.float() / 255.0
        if self.color_space == 'lab':
            colors = rgb_to_lab(colors)
        return (colors - self.mean.to(colors.dtype)) / self.std.to(colors.dtype)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a collated batch: `inputs` (B, T, 3, H, W) uint8 -> normalised float; other entries to the device."""
        data = self.cast_data(data)
        return {**data, 'inputs': self.normalize(data['inputs'])}
