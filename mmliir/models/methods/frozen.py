"""Features that are not trained."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmliir.models.methods.base import BaseCorrespondence
from mmliir.registry import MODELS


class _BlockMean(nn.Module):
    """Mean colour of each stride x stride block."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.stride, ceil_mode=True, count_include_pad=False)


@MODELS.register_module()
class RawColor(BaseCorrespondence):
    """The colours themselves as a feature: the floor that a learnt feature must beat.

    Args:
        stride: Side of the blocks whose mean colour is taken, in pixels.
        data_preprocessor: Config of the preprocessor: the colour space and its normalisation.
    """

    def __init__(self, stride: int = 8, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        self.encoder = _BlockMean(stride)
        self.register_buffer('device_marker', torch.zeros(1), persistent=False)
