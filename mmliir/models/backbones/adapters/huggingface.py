"""Any vision model of transformers (Hugging Face) as a backbone, built from a config as plain data."""

import contextlib
import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping

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
)
from mmliir.models.backbones.adapters.optional import import_transformers
from mmliir.registry import MODELS

#: Where models keep their blocks or stages, and the norm behind the last one.
_BLOCKS = tuple(
    f'{part}{name}' for part in ('', 'encoder.', 'model.') for name in ('layers', 'layer', 'blocks', 'stages')
)
_NORMS = ('layernorm', 'norm', 'post_layernorm')
#: Tokens before those of the patches.
_PREFIXES = ('cls_token', 'class_embedding', 'distillation_token', 'register_tokens')


class _GridOfPatches:
    """Calls a model's own interpolation of positions with the size whose plain patches make the overlapping grid."""

    def __init__(self, interpolate, patch: int, stride: int):
        self.interpolate, self.patch, self.stride = interpolate, patch, stride

    def __call__(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        rows, columns = ((side - self.patch) // self.stride + 1 for side in (height, width))
        return self.interpolate(embeddings, rows * self.patch, columns * self.patch)


@MODELS.register_module()
class HuggingFaceBackbone(AdapterBackbone):
    """A vision model of transformers; only the library's own code runs, never code that comes with a model.

    | family | `layer` counts | default layer | default stride | other strides |
    |---|---|---|---|---|
    | ResNet | stages | 3 | 8: stage 3 loses its stride | 4 to the stage's own |
    | ViTs (DINOv2, DINOv3, MAE, ...) | blocks | the last | the patch size | less: patches overlap; not DINOv3 |
    | others (ConvNeXt, Swin, ...) | stages | the last of stride 16 or less | own | - |

    Class and register tokens are dropped.

    Args:
        config: What the model's config.json holds; `model_type` names the architecture.
        layer: Number of the stage or block, from 1, or from the end with -1; or the dotted name of a part.
        stride: Pixels per cell.
        dilate: Of ResNets: dilate behind a removed stride; see `reach_stride`.
        norm: Of ViTs: the model's final norm is applied to the chosen block, whichever it is.
    """

    def __init__(
        self,
        config: dict,
        layer: int | str | None = None,
        stride: int | None = None,
        dilate: bool = False,
        norm: bool = True,
    ):
        super().__init__()
        self.title = f'hf:{config.get("model_type")}'
        self.model = _create(config)
        inner = getattr(self.model, 'vision_model', self.model)
        blocks = _first_of(inner, _BLOCKS)
        settings = self.model.config
        self.patch = self.norm = self.prefix = None
        self.rounds_up = settings.model_type == 'resnet'
        takes = inspect.signature(self.model.forward).parameters
        self.arguments = {'interpolate_pos_encoding': True} if 'interpolate_pos_encoding' in takes else {}
        if not isinstance(layer, str) and blocks is None:
            raise ValueError(f'{self.title}: its blocks were not found; name the part to take as `layer`')
        if _is_vit(settings):
            self.patch = settings.patch_size if isinstance(settings.patch_size, int) else settings.patch_size[0]
            self.norm = _first_of(inner, _NORMS) if norm else None
            self.layer = self._part(layer, inner, blocks, None if blocks is None else len(blocks) - 1, 'block')
            self.stride = self._overlap(inner, stride)
            self.out_channels = settings.hidden_size
            self.prefix = sum(
                value.shape[-2] if value.dim() == 3 else 1
                for name, value in getattr(inner, 'embeddings', inner).named_parameters()
                if name in _PREFIXES
            )
            return
        stages = [] if blocks is None else list(blocks)
        if self.rounds_up and not isinstance(layer, str):
            index = choose(layer, len(stages), min(2, len(stages) - 1), self.title, 'stage')
            reductions = [self._measure(part)[0] for part in stages[: index + 1]]
            reach_stride(stages[: index + 1], reductions, stride, dilate, self.title)
            stride, self.layer = None, stages[index]
        elif isinstance(layer, str):
            self.layer = find_part(inner, layer, self.title)
        elif layer is None:
            parts = [_end_of_stage(stage) for stage in stages]
            self.layer = parts[0]
            for part in itertools.takewhile(lambda part: self._measure(part)[0] <= 16, parts[1:]):
                self.layer = part
        else:
            self.layer = self._part(layer, inner, [_end_of_stage(stage) for stage in stages], 0, 'stage')
        self.stride, self.out_channels = self._measure(self.layer)
        if stride not in (None, self.stride):
            raise ValueError(
                f'{self.title}: this layer has stride {self.stride}, and only those of ResNets and ViTs change; '
                f'got stride {stride!r}. Choose another layer'
            )

    def __setattr__(self, name: str, value) -> None:
        if name in ('layer', 'norm') and isinstance(value, nn.Module):
            object.__setattr__(self, name, value)  # a part of `model`: it must not appear twice among the weights
        else:
            super().__setattr__(name, value)

    def _part(self, layer, inner: nn.Module, parts, default, what: str) -> nn.Module:
        if isinstance(layer, str):
            return find_part(inner, layer, self.title)
        return parts[choose(layer, len(parts), default, self.title, what)]

    def _overlap(self, inner: nn.Module, stride: int | None) -> int:
        """Patches every `stride` pixels, positions interpolated to the denser grid, as DINO does."""
        if stride is None or stride == self.patch:
            return self.patch
        embeddings = getattr(inner, 'embeddings', None)
        projection = getattr(getattr(embeddings, 'patch_embeddings', None), 'projection', None)
        if not isinstance(projection, nn.Conv2d) or not hasattr(embeddings, 'interpolate_pos_encoding'):
            raise ValueError(
                f'{self.title} has no patches that can overlap: its stride is {self.patch}, got {stride!r}'
            )
        if not isinstance(stride, int) or not 1 <= stride <= self.patch:
            raise ValueError(f'{self.title}: stride must be 1 to {self.patch} (the patch size), got {stride!r}')
        projection.stride = (stride, stride)
        embeddings.interpolate_pos_encoding = _GridOfPatches(embeddings.interpolate_pos_encoding, self.patch, stride)
        return stride

    def _measure(self, part: nn.Module) -> tuple[int, int]:
        """(stride, channels) of a stage's output."""
        training = self.model.training
        self.model.eval()

        def run(images: Tensor) -> Tensor:
            output = output_of(part, self._network, images, self.title)
            output = output[0] if isinstance(output, (tuple, list)) else output
            if output.dim() == 3:  # tokens of a square grid without class token
                side = round(output.shape[1] ** 0.5)
                output = output.transpose(1, 2).unflatten(2, (side, side))
            return output

        found = measure(run, self.title, side=128)
        self.model.train(training)
        return found

    def _network(self, images: Tensor):
        return self.model(pixel_values=images, **self.arguments)

    def compute(self, images: Tensor) -> Tensor:
        """See `forward`."""
        size = cells(images.shape[-2:], self.stride)
        if not self.rounds_up:
            images = pad_to_cells(images, self.stride, self.patch)
        output = output_of(self.layer, self._network, images, self.title)
        output = output[0] if isinstance(output, (tuple, list)) else output
        return as_map(output if self.norm is None else self.norm(output), size, self.title, self.prefix)

    def translate_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
        """Names of any version of the library -> names of this one, by its own conversion; heads are dropped.

        A head is what lies outside the part that the library calls the base model, in a file that has such a part.

        Raises:
            ValueError: Shapes differ.
        """
        own = self.model.state_dict()
        if set(own) == set(weights):
            return dict(weights), frozenset()
        with _quiet(import_transformers()):
            loaded, report = type(self.model).from_pretrained(
                None,
                config=self.model.config,
                state_dict=dict(weights),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        if report['mismatched_keys']:
            name, theirs, wanted = sorted(report['mismatched_keys'])[0]
            raise ValueError(
                f'the weights do not fit {self.title}: {len(report["mismatched_keys"])} tensors of another shape '
                f'({name} {tuple(theirs)}, model {tuple(wanted)})'
            )
        prefix = f'{self.model.base_model_prefix}.'
        has_base = any(name.startswith(prefix) for name in weights)
        unexpected = report['unexpected_keys']
        unused = frozenset(
            name for name in unexpected if name.startswith('pooler.') or (has_base and not name.startswith(prefix))
        ) | frozenset(name for name in weights if name.startswith((f'{prefix}pooler.', 'pooler.')))
        missing = set(report['missing_keys'])
        translated = {name: value for name, value in loaded.state_dict().items() if name not in missing and name in own}
        translated |= {name: weights[name] for name in unexpected if name in weights and name not in unused}
        return translated, unused


def _is_vit(settings) -> bool:
    return all(hasattr(settings, name) for name in ('patch_size', 'hidden_size', 'num_hidden_layers')) and not hasattr(
        settings, 'depths'
    )


def _first_of(model: nn.Module, names: tuple[str, ...]):
    parts = dict(model.named_modules())
    return next((parts[name] for name in names if name in parts), None)


def _end_of_stage(stage: nn.Module) -> nn.Module:
    """Swin halves the resolution at the end of a stage: the feature is what comes out of its last block."""
    if getattr(stage, 'downsample', None) is not None and len(getattr(stage, 'blocks', ())):
        return stage.blocks[-1]
    return stage


def _create(config: dict) -> nn.Module:
    transformers = import_transformers()
    config = copy.deepcopy(dict(config))
    kind = config.pop('model_type', None)
    kind = 'vit' if kind == 'vit_mae' else kind  # its own class hides three quarters of the patches and shuffles them
    if kind not in transformers.CONFIG_MAPPING:
        code = ' (code that comes with a model is never run)' if 'auto_map' in config else ''
        raise ValueError(
            f'the config has model_type {kind!r}, which transformers {transformers.__version__} does not know{code}'
        )
    settings = transformers.CONFIG_MAPPING[kind].from_dict(config)
    if hasattr(settings, 'text_config'):
        raise ValueError(
            f'hf:{kind} is a model of images and text: take the config of its vision part (the entry `vision_config`, '
            f'with model_type {kind}_vision_model)'
        )
    try:
        with _quiet(transformers):
            model = transformers.AutoModel.from_config(settings, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f'hf:{kind}: {str(error).strip().splitlines()[0][:200]}') from error
    if model.main_input_name != 'pixel_values':
        raise ValueError(f'hf:{kind} takes {model.main_input_name}, not images')
    pooler = getattr(model, 'pooler', None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        model.pooler = None  # it has weights that checkpoints of other tasks lack, and is not run
    return model


@contextlib.contextmanager
def _quiet(transformers) -> Iterator[None]:
    """Our own errors say what is missing; its tables and progress bars would repeat it."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
