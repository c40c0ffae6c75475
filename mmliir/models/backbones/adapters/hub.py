"""Any model of torch.hub as a backbone."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mmliir.models.backbones.adapters.base import (
    AdapterBackbone,
    as_map,
    cells,
    find_part,
    measure,
    output_of,
    pad_to_cells,
    reach_stride,
)
from mmliir.registry import MODELS


@MODELS.register_module()
class HubBackbone(AdapterBackbone):
    """An entry point of a repository's hubconf.py; building it executes that repository's code.

    The feature is, in this order: the output of the part named by `layer`; of a model with `get_intermediate_layers`
    (DINO, DINOv2, DINOv3) the patch tokens of the last block (`layer`: of this block), normed as that function does; of
    a ResNet (layer1 to layer4) stage 3 at stride 8; else what the model returns.

    Args:
        repo: A folder with a hubconf.py, or 'owner/name' or 'owner/name:branch' on GitHub.
        name: The entry point.
        layer: Number of the block or stage, from 1, or from the end with -1; or the dotted name of a part.
        stride: Pixels per cell, of ResNets; of others, where neither a patch size nor a map of features tells it.
        dilate: Of ResNets: dilate behind a removed stride; see `reach_stride`.
        pretrained: Let the entry point load its weights (it may download them): called with `pretrained=True`. False:
            with `pretrained=False`. An entry point without that argument decides itself.
        download: Allow a repository on GitHub; it is downloaded and executed.
    """

    def __init__(
        self,
        repo: str,
        name: str,
        layer: int | str | None = None,
        stride: int | None = None,
        dilate: bool = False,
        pretrained: bool = False,
        download: bool = False,
    ):
        super().__init__()
        self.title = f'hub:{repo}:{name}'
        self.model, self.pretrained = _load(repo, name, pretrained, download, self.title)
        stages = [getattr(self.model, f'layer{number}', None) for number in range(1, 5)]
        is_resnet = all(isinstance(stage, nn.Module) for stage in stages)
        self.patch, self.block, self.layer, self.rounds_up = None, None, None, is_resnet
        if isinstance(layer, str) and not (is_resnet and layer in ('layer1', 'layer2', 'layer3', 'layer4')):
            find_part(self.model, layer, self.title)
            self.layer = layer
        elif hasattr(self.model, 'get_intermediate_layers'):
            self.patch = _patch_size(self.model)
            self.block = self._number(layer, len(self.model.blocks), len(self.model.blocks))
            if stride is None:
                stride = self.patch
            elif stride != self.patch:
                raise ValueError(f'{self.title}: the stride is its patch size, {self.patch}; got {stride!r}')
        elif is_resnet:
            number = self._number(int(layer[-1]) if isinstance(layer, str) else layer, 4, 3)
            reductions = [self._measured(f'layer{n}')[0] for n in range(1, number + 1)]
            reach_stride(stages[:number], reductions, stride, dilate, self.title)
            self.layer, stride = f'layer{number}', None
        elif layer is not None:
            raise ValueError(f'{self.title}: its blocks were not found; name the part to take as `layer`')
        self.model.eval()
        self.stride, self.out_channels = measure(self._padded, self.title, stride)

    def _number(self, layer: int | None, count: int, default: int) -> int:
        from_one = default if layer is None else layer
        if not isinstance(from_one, int) or not (1 <= from_one <= count or -count <= from_one <= -1):
            raise ValueError(f'{self.title}: layer must be 1 to {count} (or -{count} to -1), got {layer!r}')
        return from_one if from_one > 0 else count + from_one + 1

    def _measured(self, layer: str) -> tuple[int, int]:
        part = find_part(self.model, layer, self.title)
        self.model.eval()
        return measure(lambda images: output_of(part, self.model, images, self.title), self.title)

    def _padded(self, images: Tensor) -> Tensor:
        if self.layer is not None:
            part = find_part(self.model, self.layer, self.title)
            return output_of(part, self.model, images, self.title)
        if self.block is None:
            return self.model(images)
        last = len(self.model.blocks) - self.block + 1
        return self.model.get_intermediate_layers(images, last)[0]  # the last so many: ours is the first of them

    def compute(self, images: Tensor) -> Tensor:
        """See `forward`."""
        size = cells(images.shape[-2:], self.stride)
        if not self.rounds_up:
            images = pad_to_cells(images, self.stride)
        return as_map(self._padded(images), size, self.title)


def _load(repo: str, name: str, pretrained: bool, download: bool, title: str) -> tuple[nn.Module, bool]:
    """The model, and whether it has weights of its own."""
    is_folder = Path(repo).is_dir()
    if is_folder and not (Path(repo) / 'hubconf.py').is_file():
        raise FileNotFoundError(f'{title}: the folder {repo} has no hubconf.py')
    if not is_folder and (repo.count('/') != 1 or repo.startswith(('.', '/'))):
        raise FileNotFoundError(f'{title}: there is no folder {repo}')
    if not is_folder and not download:
        raise ValueError(
            f'{title}: {repo} is a repository on GitHub, whose code would be downloaded and executed. Allow that with '
            'download (`--download`), or clone it and give the folder'
        )
    options = {'source': 'local'} if is_folder else {'source': 'github', 'trust_repo': True}
    decides = False
    try:
        try:
            model = torch.hub.load(repo, name, verbose=False, pretrained=pretrained, **options)
        except TypeError as error:
            if "'pretrained'" not in str(error):
                raise
            decides = True
            model = torch.hub.load(repo, name, verbose=False, **options)
    except Exception as error:
        raise ValueError(f'{title}: {type(error).__name__}: {error}') from error
    if not isinstance(model, nn.Module):
        raise ValueError(f'{title} returned a {type(model).__name__}, expected an nn.Module')
    return model, pretrained or decides


def _patch_size(model: nn.Module) -> int | None:
    size = getattr(model, 'patch_size', None) or getattr(getattr(model, 'patch_embed', None), 'patch_size', None)
    return size[0] if isinstance(size, (tuple, list)) else size
