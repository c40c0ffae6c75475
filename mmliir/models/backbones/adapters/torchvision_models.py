"""Any classification model of torchvision as a backbone."""

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmliir.models.backbones.adapters.base import (
    AdapterBackbone,
    as_map,
    cells,
    choose,
    find_part,
    measure,
    output_of,
    pad_to_cells,
    reach_stride,
    tokens_to_map,
)
from mmliir.models.backbones.adapters.optional import import_torchvision
from mmliir.models.backbones.vision_transformer import resize_position_grid
from mmliir.registry import MODELS

_HEADS = ('fc.', 'head.', 'heads.', 'classifier.')


@MODELS.register_module()
class TorchvisionBackbone(AdapterBackbone):
    """A classification model of torchvision, without its classifier.

    | family | `layer` counts | default layer | default stride | other strides |
    |---|---|---|---|---|
    | ResNets (layer1 to layer4) | stages | 3 | 8: stage 3 loses its stride | 4 to the stage's own |
    | ViTs | blocks | the last | the patch size | less: patches overlap |
    | others (ConvNeXt, Swin, ...) | entries of `features` | the last of stride 16 or less | own | - |

    Args:
        name: As `torchvision.models.get_model` takes it: 'resnet50', 'vit_b_16'.
        layer: Number of the stage, block or entry, from 1, or from the end with -1; or the dotted name of a part
            ('layer3', 'features.5').
        stride: Pixels per cell.
        dilate: Of ResNets: dilate behind a removed stride; see `reach_stride`.
        norm: Of ViTs: the model's final norm is applied to the chosen block, whichever it is. Positions come to
            other grids as timm resizes them (`resize_position_grid`), for torchvision's own code takes one size only.
    """

    def __init__(
        self,
        name: str,
        layer: int | str | None = None,
        stride: int | None = None,
        dilate: bool = False,
        norm: bool = True,
    ):
        super().__init__()
        self.title = f'torchvision:{name}'
        self.model = _create(name)
        self._names = frozenset(self.model.state_dict())
        for head in ('fc', 'head', 'heads', 'classifier'):
            if hasattr(self.model, head):
                setattr(self.model, head, nn.Identity())
        self.patch, self.rounds_up, self.norm = None, False, bool(norm)
        stages = [getattr(self.model, f'layer{number}', None) for number in range(1, 5)]
        if isinstance(layer, str) and layer not in ('layer1', 'layer2', 'layer3', 'layer4'):
            self.layer = layer
            find_part(self.model, layer, self.title)
        elif all(isinstance(stage, nn.Sequential) for stage in stages):
            number = int(layer[-1]) if isinstance(layer, str) else layer
            index = choose(number, 4, 2, self.title, 'stage')
            self.layer, self.rounds_up = f'layer{index + 1}', True
            reach_stride(stages[: index + 1], [4, 8, 16, 32][: index + 1], stride, dilate, self.title)
            stride = None
        elif hasattr(self.model, 'conv_proj'):
            self.patch, blocks = self.model.patch_size, self.model.encoder.layers
            self.blocks = 1 + choose(layer, len(blocks), len(blocks) - 1, self.title, 'block')
            self.stride = self.patch if stride is None else stride
            if not isinstance(self.stride, int) or not 1 <= self.stride <= self.patch:
                raise ValueError(f'{self.title}: stride must be 1 to {self.patch} (the patch size), got {stride!r}')
            self.model.conv_proj.stride = (self.stride, self.stride)
            self.out_channels = self.model.hidden_dim
            del blocks[self.blocks :]
            return
        elif hasattr(self.model, 'features'):
            count = len(self.model.features)
            if layer is None:
                self.layer = f'features.{self._last_of_stride_16()}'
            else:
                self.layer = f'features.{choose(layer, count, 0, self.title, "entry of `features`")}'
        else:
            raise ValueError(f'{self.title}: its stages were not found; name the part to take as `layer`')
        self.stride, self.out_channels = self._measure(self.layer)
        if stride not in (None, self.stride):
            raise ValueError(
                f'{self.title}: layer {self.layer} has stride {self.stride}, and only those of ResNets and ViTs can be '
                f'changed; got stride {stride!r}. Choose another layer'
            )

    def _last_of_stride_16(self) -> int:
        """The last entry of `features` whose cells are at most 16 pixels wide."""
        x, last, training = torch.zeros(1, 3, 128, 128), 0, self.model.training
        self.model.eval()
        with torch.no_grad():
            for number, part in enumerate(self.model.features):
                x = part(x)
                last = number if 128 / x.shape[2] <= 16 else last  # (B, C, h, w) or (B, h, w, C)
        self.model.train(training)
        return last

    def _measure(self, layer: str) -> tuple[int, int]:
        part, training = find_part(self.model, layer, self.title), self.model.training
        self.model.eval()

        def run(images: Tensor) -> Tensor:
            output = output_of(part, self.model, images, self.title)
            is_nhwc = output.dim() == 4 and output.shape[1] == output.shape[2] != output.shape[3]
            return output.permute(0, 3, 1, 2) if is_nhwc else output

        found = measure(run, self.title, side=128)
        self.model.train(training)
        return found

    def compute(self, images: Tensor) -> Tensor:
        """See `forward`."""
        size = cells(images.shape[-2:], self.stride)
        if self.patch is not None:
            return self._tokens(pad_to_cells(images, self.stride, self.patch), size)
        if not self.rounds_up:
            images = pad_to_cells(images, self.stride)
        part = find_part(self.model, self.layer, self.title)
        return as_map(output_of(part, self.model, images, self.title), size, self.title)

    def _tokens(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The ViT's forward pass on a grid of any size."""
        model, encoder = self.model, self.model.encoder
        patches = model.conv_proj(images)
        tokens = torch.cat([model.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        of_class, of_patches = encoder.pos_embedding[:, :1], encoder.pos_embedding[:, 1:]
        side = round(of_patches.shape[1] ** 0.5)
        grid = resize_position_grid(of_patches.transpose(1, 2).unflatten(2, (side, side)), size, 'timm')
        tokens = encoder.dropout(tokens + torch.cat([of_class, grid.flatten(2).transpose(1, 2)], dim=1))
        tokens = encoder.layers(tokens)
        return tokens_to_map(encoder.ln(tokens) if self.norm else tokens, size, self.title, prefix=1)

    def translate_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
        """Drops the classifier, and blocks behind the chosen one."""
        own = self.model.state_dict()
        unused = frozenset(
            name for name in weights if name not in own and (name in self._names or name.startswith(_HEADS))
        )
        return {name: value for name, value in weights.items() if name not in unused}, unused


def _create(name: str) -> nn.Module:
    torchvision = _checked(name)
    options = {'init_weights': True, 'aux_logits': False} if name in ('googlenet', 'inception_v3') else {}
    return torchvision.models.get_model(name, weights=None, **options)


def _checked(name: str):
    """torchvision, when it has this model."""
    torchvision = import_torchvision()
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f'; did you mean {", ".join(near)}?' if near else ''
        raise ValueError(f'torchvision {torchvision.__version__} has no classification model {name!r}{hint}')
    return torchvision


def torchvision_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the transforms that come with the model's default weights."""
    transforms = _checked(name).models.get_model_weights(name).DEFAULT.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def torchvision_weights_url(name: str) -> str:
    """Where the model's default weights are published."""
    return _checked(name).models.get_model_weights(name).DEFAULT.url
