"""Any model of timm (pytorch-image-models) as a backbone."""

import difflib
from collections.abc import Mapping

from torch import Tensor, nn

from mmliir.models.backbones.adapters.base import (
    AdapterBackbone,
    cells,
    choose,
    pad_to_cells,
    reach_stride,
    tokens_to_map,
)
from mmliir.models.backbones.adapters.optional import import_timm
from mmliir.registry import MODELS

#: Tried in turn: what lets a model take images of any size. Each family has one of these arguments, or needs none.
_ANY_SIZE = ({'dynamic_img_size': True}, {'strict_img_size': False}, {})


@MODELS.register_module()
class TimmBackbone(AdapterBackbone):
    """A model of timm, without its head and what lies behind the chosen layer.

    | family | `layer` counts | default layer | default stride | other strides |
    |---|---|---|---|---|
    | ResNets (layer1 to layer4) | stages | 3 | 8: stage 3 loses its stride | 4 to the stage's own |
    | ViTs (one grid of tokens) | blocks | the last | the patch size | less: patches overlap |
    | others (ConvNeXt, Swin, EfficientNet, ...) | entries of `feature_info` | the last of stride 16 or less | own | - |

    Args:
        name: As `timm.create_model` takes it: 'resnet18', 'vit_small_patch14_dinov2.lvd142m'.
        layer: Number of the stage or block, from 1, or from the end with -1; or a name of timm's `feature_info`
            ('layer3', 'blocks.8', 'stages.2').
        stride: Pixels per cell.
        dilate: Of ResNets: dilate behind a removed stride; see `reach_stride`.
        norm: Of ViTs: the model's final norm is applied to the chosen block, whichever it is (DINO's
            `get_intermediate_layers`). A model that norms behind its pooling has an identity there.
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
        self.title = f'timm:{name}'
        self.model = _create(name)
        if not hasattr(self.model, 'forward_intermediates') or not hasattr(self.model, 'prune_intermediate_layers'):
            raise ValueError(
                f'{self.title} gives no access to its layers in this version of timm (no forward_intermediates): '
                'write a function that does, and give it as file.py:function'
            )
        infos = list(getattr(self.model.feature_info, 'info', self.model.feature_info))
        reductions = [info['reduction'] for info in infos]
        stages = [getattr(self.model, f'layer{number}', None) for number in range(1, 5)]
        patch = getattr(getattr(self.model, 'patch_embed', None), 'patch_size', None)
        is_resnet = all(isinstance(stage, nn.Sequential) for stage in stages)
        is_vit = patch is not None and len(set(reductions)) == 1
        if is_resnet:
            offset = len(infos) - 4  # the stem comes first
            index = offset + self._choose(layer, infos[offset:], 2, 'stage')
        elif is_vit:
            index = self._choose(layer, infos, len(infos) - 1, 'block')
        else:
            fine = [number for number, reduction in enumerate(reductions) if reduction <= 16]
            index = self._choose(layer, infos, fine[-1] if fine else 0, 'stage')
        self.out_channels = infos[index]['num_chs']
        self._names = frozenset(self.model.state_dict())
        self.model.prune_intermediate_layers([index], prune_norm=False, prune_head=True)
        self.index = index
        self.patch = None
        self.tokens_normed = bool(is_vit and norm)
        own = reductions[index]
        if is_resnet:
            first = index - offset + 1
            self.stride = reach_stride(stages[:first], reductions[offset : index + 1], stride, dilate, self.title)
        elif is_vit:
            self.patch = patch[0] if isinstance(patch, (tuple, list)) else patch
            self.stride = self._overlap(stride)
        else:
            self.stride = own if stride is None else stride
            if self.stride != own:
                raise ValueError(
                    f'{self.title}: layer {infos[index]["module"]} has stride {own}, and only those of ResNets and '
                    f'ViTs can be changed; got stride {stride!r}. Choose another layer'
                )
        self.rounds_up = is_resnet

    def _choose(self, layer, infos: list[dict], default: int, what: str) -> int:
        names = [info['module'] for info in infos]
        if isinstance(layer, str):
            if layer not in names:
                raise ValueError(f'{self.title} has no layer {layer!r}; it has {", ".join(names)}')
            return names.index(layer)
        return choose(layer, len(names), default, self.title, what)

    def _overlap(self, stride: int | None) -> int:
        """Patches every `stride` pixels; positions are interpolated to the denser grid by timm."""
        if stride is None or stride == self.patch:
            return self.patch
        projection = getattr(self.model.patch_embed, 'proj', None)
        if not isinstance(projection, nn.Conv2d) or not getattr(self.model, 'dynamic_img_size', False):
            raise ValueError(
                f'{self.title} has no patches that can overlap: its stride is {self.patch}, got {stride!r}'
            )
        if not isinstance(stride, int) or not 1 <= stride <= self.patch:
            raise ValueError(f'{self.title}: stride must be 1 to {self.patch} (the patch size), got {stride!r}')
        projection.stride = (stride, stride)
        self.model.patch_embed.img_size = None  # its check wants multiples of the patch; the grid is that of the output
        return stride

    def compute(self, images: Tensor) -> Tensor:
        """See `forward`."""
        size = images.shape[-2:]
        if self.patch is not None:
            images = pad_to_cells(images, self.stride, self.patch)
        elif not self.rounds_up:
            images = pad_to_cells(images, self.stride)
        features = self.model.forward_intermediates(
            images,
            indices=[self.index],
            norm=self.tokens_normed,
            stop_early=True,
            output_fmt='NCHW' if self.patch is None else 'NLC',
            intermediates_only=True,
        )[0]
        if self.patch is None:
            return features
        return tokens_to_map(features, cells(size, self.stride), self.title, prefix=0)

    def translate_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
        """Drops the classifier, and layers behind the chosen one."""
        heads = self.model.default_cfg.get('classifier') or ()
        heads = tuple(f'{name}.' for name in ((heads,) if isinstance(heads, str) else heads))
        own = self.model.state_dict()
        unused = frozenset(
            name for name in weights if name not in own and (name in self._names or (heads and name.startswith(heads)))
        )
        return {name: value for name, value in weights.items() if name not in unused}, unused


def _create(name: str) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split('.')[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f'; did you mean {", ".join(near)}?' if near else ''
        raise ValueError(f'timm {timm.__version__} has no model {name!r}{hint}')
    for options in _ANY_SIZE:
        try:
            return timm.create_model(name, pretrained=False, num_classes=0, **options)
        except TypeError as error:
            if not any(option in str(error) for option in options):
                raise
    raise AssertionError('the last try has no option that could be refused')


def timm_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) that the model was trained with, of timm's `pretrained_cfg`."""
    timm = import_timm()
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None:
        _create(name)  # says what is wrong with the name
    return tuple(known.mean), tuple(known.std)
