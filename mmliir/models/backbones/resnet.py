"""ResNet-18 as correspondence learning uses it: no max-pool, explicit strides, a position map after the stem."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.models.layers import build_norm
from mmliir.registry import MODELS


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., CVPR 2016).

    Args:
        in_channels: Channels of the input.
        channels: Channels inside and of the output.
        stride: Of the first convolution and of the shortcut.
        norm: 'BN' or 'SyncBN'.
        padding_mode: What lies outside the feature map, of `nn.Conv2d`.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str, padding_mode: str = 'zeros'):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False, padding_mode=padding_mode)
        self.bn1 = build_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False, padding_mode=padding_mode)
        self.bn2 = build_norm(norm, channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), build_norm(norm, channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)


@MODELS.register_module()
class CorrespondenceResNet18(BaseModule):
    """ResNet-18 with stride 4 and 256 channels out (LIIR section 3.3, MAST; liir.md section 1.1).

    conv1 7x7 stride 2, batch norm, ReLU, plus the position map when one is given; no max-pool; four stages of two
    basic blocks.

    Args:
        base_channels: Width of the stem and the first stage, 64 in the paper; smaller for CPUs.
        strides: Strides of the four stages.
        width_multipliers: Widths of the stages over `base_channels`.
        norm: 'SyncBN' (over all ranks) or 'BN' (per process).
        init: How convolutions start: 'normal' with variance 2 / (k*k*out) (LIIR_pytorch, liir.md A3), or 'default':
            as PyTorch builds them, uniform with variance 1 / (3*k*k*in) (MAST).
        zero_init_residual: Start the last batch norm weight of every block at 0, so that a block begins as its
            shortcut. False: at 1 (MAST).
        in_channels: Channels of the input image.
    """

    def __init__(
        self,
        base_channels: int = 64,
        strides: Sequence[int] = (1, 2, 1, 1),
        width_multipliers: Sequence[int] = (1, 2, 4, 4),
        norm: str = 'SyncBN',
        init: str = 'normal',
        zero_init_residual: bool = True,
        in_channels: int = 3,
    ):
        super().__init__()
        if len(strides) != 4 or len(width_multipliers) != 4:
            raise ValueError(
                f'strides and width_multipliers need four entries, got {tuple(strides)}, {tuple(width_multipliers)}'
            )
        if init not in ('normal', 'default'):
            raise ValueError(f"init must be 'normal' or 'default' (PyTorch's), got {init!r}")
        self.stem_channels = base_channels
        self.stem_stride = 2
        self.stride = 2
        self.conv1 = nn.Conv2d(in_channels, base_channels, 7, 2, 3, bias=False)
        self.bn1 = build_norm(norm, base_channels)
        self.relu = nn.ReLU(inplace=True)
        channels = base_channels
        for index, (stride, multiplier) in enumerate(zip(strides, width_multipliers, strict=True), start=1):
            width = base_channels * multiplier
            stage = nn.Sequential(BasicBlock(channels, width, stride, norm), BasicBlock(width, width, 1, norm))
            setattr(self, f'layer{index}', stage)
            channels = width
            self.stride *= stride
        self.out_channels = channels
        if init == 'normal':
            self._draw_convolutions()
        if zero_init_residual:
            self._zero_residuals()

    def _draw_convolutions(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)

    def _zero_residuals(self) -> None:
        for module in self.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, images: Tensor, position_map: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) normalised.
            position_map: (1 or B, stem_channels, ceil(H/2), ceil(W/2)), added after conv1-BN-ReLU. None: nothing.

        Returns:
            (B, out_channels, H / stride, W / stride), sizes rounded up.
        """
        x = self.relu(self.bn1(self.conv1(images)))
        if position_map is not None:
            x = x + position_map.to(x.dtype)
        for index in range(1, 5):
            x = getattr(self, f'layer{index}')(x)
        return x

    def stem_size(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the grid on which a position map is added, for (B, 3, H, W) images."""
        return -(-images.shape[-2] // self.stem_stride), -(-images.shape[-1] // self.stem_stride)
