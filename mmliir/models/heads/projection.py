"""Projection from the encoder's channels to those the affinity is computed on."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.registry import MODELS


@MODELS.register_module()
class ConvProjection(BaseModule):
    """One convolution with bias and nothing after it (256 -> 64 in MAST; liir.md section 1.1).

    Args:
        in_channels: Channels of the backbone.
        out_channels: Channels of the affinity's features.
        kernel_size: Odd side of the kernel.
        stride: Of the convolution; 2 in the inter-video branch of LIIR_pytorch.
    """

    def __init__(self, in_channels: int = 256, out_channels: int = 64, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, ceil(h / stride), ceil(w / stride))."""
        return self.conv(features)
