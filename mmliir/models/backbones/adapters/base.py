"""What all adapters share: padding to whole cells, tokens to maps, a look inside a network, removal of strides.

Sizes. Features of an image of H x W pixels have ceil(H / stride) x ceil(W / stride) cells, whatever H and W are. Where
the network does not round up by itself (all but ResNets), the image is padded on the right and below by repeating its
last column and row. A protocol that pads or resizes to multiples first (`InputSettings.multiple_of`) leaves nothing to
do here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn


class AdapterBackbone(BaseModule, ABC):
    """A foreign network as a backbone: (B, 3, H, W) normalised -> (B, out_channels, ceil(H / s), ceil(W / s)).

    Subclasses set `model`, `stride`, `out_channels`, `title` and implement `compute`.

    Attributes:
        pretrained: Whether the network comes with weights of its own, so that no checkpoint is wanted.
        title: Names the feature in errors.
    """

    pretrained: bool = False
    title: str = ''

    @abstractmethod
    def compute(self, images: Tensor) -> Tensor:
        """The features, before their shape is checked."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, out_channels, ceil(H / stride), ceil(W / stride)).

        Raises:
            ValueError: The network does not take images of this size, or returned something of another shape.
        """
        try:
            features = self.compute(images)
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            height, width = images.shape[-2:]
            raise ValueError(
                f'{self.title} failed on images of {height}x{width} (some networks take one size only): {error}'
            ) from error
        expected = (len(images), self.out_channels, *cells(images.shape[-2:], self.stride))
        if tuple(features.shape) != expected:
            raise ValueError(
                f'{self.title} returned features of shape {tuple(features.shape)} for images {tuple(images.shape)}, '
                f'expected {expected}: (B, C, ceil(H / {self.stride}), ceil(W / {self.stride}))'
            )
        return features

    def translate_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
        """Weights under the names of their own library -> (weights for `model`, names it has no use for).

        What remains too much or too little is left for the loader to refuse.
        """
        return dict(weights), frozenset()


def cells(size: Iterable[int], stride: int) -> tuple[int, ...]:
    """Cells that cover sides of so many pixels."""
    return tuple(-(-side // stride) for side in size)


def pad_to_cells(images: Tensor, stride: int, patch: int | None = None) -> Tensor:
    """Repeat border pixels so that patches of side `patch`, every `stride` pixels, make ceil(side / stride) cells.

    The last row and column are repeated up to a multiple of the stride. Where patches overlap (patch > stride), a patch
    is centred on its cell's stride x stride block: all four sides get about half of `patch - stride` more.

    Args:
        images: (B, 3, H, W).
        stride: Pixels between patches.
        patch: Side of a patch; None: the stride.
    """
    extra = (patch or stride) - stride
    before = extra // 2
    padding = []
    for side in (images.shape[-1], images.shape[-2]):  # F.pad starts with the last dimension
        padding += [before, -side % stride + extra - before]
    return F.pad(images, padding, mode='replicate') if any(padding) else images


def tokens_to_map(tokens: Tensor, size: tuple[int, int], title: str, prefix: int | None = None) -> Tensor:
    """(B, prefix + h * w, C) tokens, row by row behind class and register tokens -> (B, C, h, w).

    Args:
        tokens: The tokens.
        size: (h, w).
        title: Names the feature in errors.
        prefix: How many come before those of the cells; None: what is left over.

    Raises:
        ValueError: The number of tokens is another.
    """
    before = tokens.shape[1] - size[0] * size[1]
    if before < 0 or prefix not in (None, before):
        known = '' if prefix is None else f' and {prefix} class or register tokens'
        raise ValueError(f'{title} returned {tokens.shape[1]} tokens for {size[0]} x {size[1]} cells{known}')
    return tokens[:, before:].transpose(1, 2).unflatten(2, size)


def as_map(output, size: tuple[int, int], title: str, prefix: int | None = None) -> Tensor:
    """Whatever a network or one of its parts returns -> (B, C, h, w).

    Args:
        output: (B, C, h, w), (B, h, w, C) or (B, prefix + h * w, C); or a tuple or list whose first entry is that.
        size: (h, w).
        title: Names the feature in errors.
        prefix: Of tokens, see `tokens_to_map`.

    Raises:
        ValueError: It is something else.
    """
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f'{title} returned a {type(output).__name__}, expected a tensor (B, C, h, w)')
    if output.dim() == 3:
        return tokens_to_map(output, size, title, prefix)
    if output.dim() == 4 and tuple(output.shape[1:3]) == size and tuple(output.shape[2:]) != size:
        return output.permute(0, 3, 1, 2).contiguous()
    return output


class _Reached(Exception):
    """Ends a forward pass behind the part whose output is wanted."""


def output_of(module: nn.Module, network, images: Tensor, title: str):
    """What a part returns while `network(images)` runs; what comes behind the part is not computed.

    Raises:
        ValueError: The network never ran the part.
    """
    kept = []

    def keep(_module, _inputs, output):
        kept.append(output)
        raise _Reached

    handle = module.register_forward_hook(keep)
    try:
        network(images)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not kept:
        raise ValueError(f'{title}: the chosen layer is not run by the network')
    return kept[0]


def find_part(model: nn.Module, name: str, title: str) -> nn.Module:
    """A part by its dotted name.

    Raises:
        ValueError: There is none; lists the names of the first two levels.
    """
    parts = dict(model.named_modules())
    if name in parts and name:
        return parts[name]
    known = [part for part in parts if part and part.count('.') < 2]
    raise ValueError(f'{title} has no layer {name!r}; it has {", ".join(known[:24])}{", ..." if known[24:] else ""}')


def choose(layer: int | None, count: int, default: int, title: str, what: str) -> int:
    """Number of a stage or block, from 0: `layer` counts from 1, or back from -1; None takes the default."""
    if layer is None:
        return default
    if not isinstance(layer, int) or isinstance(layer, bool) or not (1 <= layer <= count or -count <= layer <= -1):
        raise ValueError(f'{title}: layer must be a {what} from 1 to {count} (or -{count} to -1), got {layer!r}')
    return layer - 1 if layer > 0 else count + layer


def reach_stride(stages: list[nn.Module], reductions: list[int], stride: int | None, dilate: bool, title: str) -> int:
    """Take strides out of the last stages of a ResNet, in place, until its features have the stride asked for.

    Args:
        stages: The stages up to the one whose output is the feature.
        reductions: Stride of each stage's output.
        stride: The stride wanted; None: 8, or the stage's own where that is less.
        dilate: Convolutions behind a removed stride are dilated, so that they see what they saw in training
            (torchvision's `replace_stride_with_dilation`, timm's `output_stride`). False: they are not, as in CRW and
            VFS at test time.
        title: Names the feature in errors.

    Returns:
        The stride.

    Raises:
        ValueError: No such stride is possible.
    """
    own = reductions[-1]
    stride = min(own, 8) if stride is None else stride
    possible = sorted({reductions[0], *(value for value in reductions if value <= own)})
    if stride not in possible:
        raise ValueError(f'{title}: stride must be one of {", ".join(map(str, possible))}, got {stride!r}')
    dilation = 1
    for number in range(1, len(stages)):
        factor = reductions[number] // reductions[number - 1]
        removed = reductions[number] > stride
        before, dilation = dilation, dilation * (factor if removed and dilate else 1)
        if removed:
            remove_stride(stages[number], title)
        if dilation > 1:
            _dilate(stages[number], first=before, rest=dilation)
    return stride


def remove_stride(stage: nn.Module, title: str) -> None:
    """Every stride of a ResNet's stage becomes 1, in place: of convolutions, and of the average pools of ResNet-D.

    Those pools go: beside dilated convolutions timm keeps one that averages 2x2 at stride 1.
    """
    for name, module in list(stage.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, nn.AvgPool2d):
            parent = stage.get_submodule(name.rpartition('.')[0])
            setattr(parent, name.rpartition('.')[2], nn.Identity())
        elif not list(module.children()) and getattr(module, 'stride', 1) not in (1, (1, 1)):
            raise ValueError(
                f'{title}: the stride of {type(module).__name__} cannot be removed; leave the stride at its own'
            )


def _dilate(stage: nn.Module, first: int, rest: int) -> None:
    """Dilate the 3x3 convolutions of a stage: the first block's by what came before, for its input lies so far apart.

    As torchvision and timm: in the first block the strided convolution keeps the dilation before the stage, and the
    convolutions behind it get the new one.
    """
    blocks = list(stage.layers) if hasattr(stage, 'layers') else list(stage.children())
    for number, block in enumerate(blocks):
        wide = [module for module in block.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
        for position, module in enumerate(wide):
            value = first if number == 0 and position == 0 else rest
            module.dilation = module.padding = (value, value)


def measure(network, title: str, stride: int | None = None, side: int = 224) -> tuple[int, int]:
    """(stride, channels) of a network that does not say them, from its output for a black image.

    Args:
        network: (1, 3, S, S) -> (1, C, h, w) or tokens.
        title: Names the feature in errors.
        stride: Where it is known.
        side: Of the image in pixels, rounded up to a multiple of the stride.

    Raises:
        ValueError: The output has no such shape.
    """
    side = side if stride is None else stride * -(-side // stride)
    with torch.no_grad():
        output = network(torch.zeros(1, 3, side, side))
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if stride is None:
        if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[-1] != output.shape[-2]:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f'{title}: the stride is not known: for an image of {side}x{side} it returned {shape}, expected '
                '(1, C, h, w). Give the stride, or a `stride` attribute'
            )
        stride = round(side / output.shape[-1])
    features = as_map(output, cells((side, side), stride), title)
    if features.dim() != 4 or tuple(features.shape[2:]) != cells((side, side), stride):
        raise ValueError(
            f'{title} returned {tuple(features.shape)} for an image of {side}x{side}, expected (1, C, '
            f'{-(-side // stride)}, {-(-side // stride)}) at stride {stride}'
        )
    return stride, features.shape[1]
