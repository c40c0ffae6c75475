"""The ResNets of image classification as dense features: max-pool, explicit strides, cut behind a stage."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.models.backbones.resnet import BasicBlock
from mmliir.models.layers import build_norm
from mmliir.registry import MODELS


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions with a shortcut (He et al., CVPR 2016; stride as torchvision).

    Args:
        in_channels: Channels of the input.
        channels: Width inside; four times as many come out.
        stride: Of the 3x3 convolution and of the shortcut.
        norm: 'BN' or 'SyncBN'.
        padding_mode: What lies outside the feature map, of `nn.Conv2d`.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str, padding_mode: str = 'zeros'):
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = build_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False, padding_mode=padding_mode)
        self.bn2 = build_norm(norm, channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = build_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), build_norm(norm, out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


#: depth -> block and number of blocks in each stage (He et al., CVPR 2016, table 1)
_DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3))}


@MODELS.register_module()
class ResNet(BaseModule):
    """ResNet up to a stage: conv1 7x7 stride 2, batch norm, ReLU, max-pool 3x3 stride 2, stages of residual blocks.

    Names and shapes of the weights are torchvision's. A stage loses its stride without gaining dilation, as CRW and
    VFS do at test time.

    Args:
        depth: 18, 34 or 50.
        strides: Stride of each of the four stages; (1, 2, 2, 2) in training for classification, (1, 2, 1, 1) for
            features of stride 8.
        out_stage: Features are the output of this stage, 1 to 4; later ones are not built. Stage 3 is `layer3`,
            "res4" in VFS.
        padding_mode: What convolutions see outside the image: 'zeros', or 'reflect' (CRW).
        norm: 'BN' (per process) or 'SyncBN' (over all ranks).
        base_channels: Width of the stem and of the first stage.
    """

    def __init__(
        self,
        depth: int = 18,
        strides: Sequence[int] = (1, 2, 2, 2),
        out_stage: int = 4,
        padding_mode: str = 'zeros',
        norm: str = 'BN',
        base_channels: int = 64,
    ):
        super().__init__()
        if depth not in _DEPTHS:
            raise ValueError(f'depth must be one of {", ".join(map(str, _DEPTHS))}, got {depth!r}')
        if len(strides) != 4 or min(strides) < 1:
            raise ValueError(f'strides need four whole numbers, 1 or more, got {tuple(strides)}')
        if out_stage not in (1, 2, 3, 4):
            raise ValueError(f'out_stage must be 1, 2, 3 or 4, got {out_stage!r}')
        if padding_mode not in ('zeros', 'reflect'):
            raise ValueError(f"padding_mode must be 'zeros' or 'reflect', got {padding_mode!r}")
        block, blocks = _DEPTHS[depth]
        self.padding_mode = padding_mode
        self.num_stages = out_stage
        self.conv1 = nn.Conv2d(3, base_channels, 7, 2, 3, bias=False, padding_mode=padding_mode)
        self.bn1 = build_norm(norm, base_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stride = 4
        channels = base_channels
        for stage in range(1, out_stage + 1):
            width, stride = base_channels * 2 ** (stage - 1), strides[stage - 1]
            layers = [block(channels, width, stride, norm, padding_mode)]
            channels = width * block.expansion
            layers += [block(channels, width, 1, norm, padding_mode) for _ in range(blocks[stage - 1] - 1)]
            setattr(self, f'layer{stage}', nn.Sequential(*layers))
            self.stride *= stride
        self.out_channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, out_channels, H / stride, W / stride), sizes rounded up.

        Raises:
            ValueError: Images so small that there is nothing to reflect at their border.
        """
        if self.padding_mode == 'reflect' and min(images.shape[-2:]) <= self.stride:
            height, width = images.shape[-2:]
            raise ValueError(
                f'images of {height}x{width} are too small to be reflected at their border: with stride {self.stride} '
                f'both sides need more than {self.stride} pixels'
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f'layer{stage}')(x)
        return x
