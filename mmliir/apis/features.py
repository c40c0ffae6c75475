"""Any feature by a short name, a SPEC: 'timm:resnet18', 'hf:FOLDER', 'file.py:function', 'raw:lab', 'configs/x.py'.

A SPEC becomes a config (`spec_config`), so that whatever takes a config and a checkpoint takes it. What it costs to
trust: `hub:` and `file.py:function` execute the code that the user names, and a config of ours (`.py`) is Python;
nothing else does. Nothing is downloaded unless `download` is set.
"""

import hashlib
import importlib.metadata
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from torch import Tensor

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import UNTRAINED, ModelIdentity, build_method
from mmliir.models.backbones.adapters.file import file_digest, load_user_feature
from mmliir.models.backbones.adapters.optional import import_huggingface_hub, import_timm
from mmliir.models.backbones.adapters.timm_models import timm_normalization
from mmliir.models.backbones.adapters.torchvision_models import torchvision_normalization, torchvision_weights_url
from mmliir.models.methods import BaseCorrespondence
from mmliir.utils.env import code_version
from mmliir.utils.files import read_text, sha256_file

#: Of frames where a feature does not say how it wants them, as numbers on [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Files of a folder or repository of Hugging Face that hold the weights, the first that is there.
_HF_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_LIBRARIES = {
    'timm': ('timm', 'torch'),
    'hf': ('transformers', 'torch'),
    'torchvision': ('torchvision', 'torch'),
}
_FORMS = {
    'timm:NAME': 'a model of timm: timm:resnet18, timm:vit_small_patch14_dinov2.lvd142m',
    'hf:NAME': 'a vision model of transformers: a name on the Hub, a folder, or a config.json',
    'torchvision:NAME': 'a classification model of torchvision: torchvision:resnet50',
    'hub:REPO:NAME': 'an entry point of torch.hub; REPO is a folder or owner/name[:branch]. Executes its code',
    'file.py:function': 'a function of yours. Executes the file',
    'raw:lab, raw:rgb': 'the colours themselves, the floor that a feature must beat',
    'CONFIG.py': 'one of our configs: configs/frozen/crw_r18.py',
}


@dataclass(frozen=True)
class Spec:
    """A SPEC in its parts.

    Attributes:
        text: As it was given.
        kind: 'timm', 'hf', 'torchvision', 'hub', 'file', 'raw' or 'config'.
        name: Model name, folder, repository, Python file, colour space or config file.
        entry: Function or entry point, for 'file' and 'hub'.
    """

    text: str
    kind: str
    name: str
    entry: str | None = None


@dataclass(frozen=True)
class Feature:
    """A feature that is built and has its weights.

    Attributes:
        name: The SPEC.
        method: The model.
        config: The resolved config; `evaluate(feature.config, feature.checkpoint, task, ...)` scores the feature.
        checkpoint: The weights' file, 'untrained', or None where there are no weights to load.
        description: What the features depend on, as JSON holds it.
    """

    name: str
    method: BaseCorrespondence
    config: Config
    checkpoint: str | None
    description: dict

    @property
    def identity(self) -> ModelIdentity:
        """What results say of it."""
        own = {'spec', 'weights_sha256', 'seed', 'code_version', 'recipe'}
        return ModelIdentity(
            name=re.sub(r'(^|:)(?:~|/)[^:]*/(?=[^/])', r'\1', self.name),  # no folder of this machine
            colour_space=self.color_space,
            checkpoint_sha256=self.description['weights_sha256'],
            seed=self.description['seed'],
            details={'feature': {name: value for name, value in self.description.items() if name not in own}},
        )

    def extract_feature(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> (B, C, ceil(H / stride), ceil(W / stride)) float."""
        return self.method.extract_feature(frames)

    @property
    def stride(self) -> int:
        """Pixels per cell."""
        return self.method.stride

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.method.device

    @property
    def color_space(self) -> str:
        """What frames are converted to: 'rgb' or 'lab'."""
        return self.method.data_preprocessor.color_space


def describe_specs() -> str:
    """The forms of a SPEC, a line each."""
    width = max(map(len, _FORMS))
    return '\n'.join(f'{form:<{width}}  {meaning}' for form, meaning in _FORMS.items())


def parse_spec(text: str) -> Spec:
    """Take a SPEC apart.

    Raises:
        ValueError: It has none of the forms; lists them.
    """
    kind, _, rest = text.partition(':')
    match = re.fullmatch(r'(.+\.py):([A-Za-z_]\w*)', text)
    if kind in ('timm', 'hf', 'torchvision') and rest:
        return Spec(text, kind, rest)
    if kind == 'raw' and rest in ('lab', 'rgb'):
        return Spec(text, kind, rest)
    if kind == 'hub' and 0 < rest.rfind(':') < len(rest) - 1:
        repo, _, entry = rest.rpartition(':')
        return Spec(text, kind, repo, entry)
    if match and kind not in ('timm', 'hf', 'torchvision', 'hub', 'raw'):
        return Spec(text, 'file', match[1], match[2])
    if text.endswith('.py'):
        return Spec(text, 'config', text)
    raise ValueError(f'{text!r} names no feature. The forms are {"; ".join(_FORMS)}. See docs/features.md.')


def spec_config(
    spec: str,
    *,
    layer: int | str | None = None,
    stride: int | None = None,
    pretrained: bool | None = None,
    download: bool = False,
) -> Config:
    """A config that is the feature of a SPEC; one of ours comes back as it is.

    All that the features depend on is written out in it: the normalisation that the model's library states, the config
    of a Hugging Face model, the digest of a Python file. Networks name the protocol 'crw', colours 'quick'.

    Args:
        spec: See `describe_specs`.
        layer: Which stage or block; see the backbones in `mmliir.models.backbones.adapters`.
        stride: Pixels per cell; of 'raw', the side of the blocks.
        pretrained: Of 'hub': let the entry point load its weights, which it may download; None: if `download`.
        download: Allow downloads: the config of 'hf:NAME', the repository of 'hub'.

    Raises:
        ValueError: No such form, or an option that this form does not have.
        FileNotFoundError: A file is not there.
        ImportError: The library is not installed or does not load; says what to install.
    """
    parsed = parse_spec(spec)
    if parsed.kind == 'config':
        if layer is not None or stride is not None:
            raise ValueError(f'{spec} is a config: change its layer and stride there, or with --cfg-options')
        return load_config(parsed.name)
    if parsed.kind in ('raw', 'file') and layer is not None:
        raise ValueError(f'{spec} has no layers to choose from; got layer {layer!r}')
    if parsed.kind == 'raw':
        # both map the colours to about [-1, 1], mid-grey to 0
        values = {'mean': (0.5,) * 3, 'std': (0.5,) * 3} if parsed.name == 'rgb' else {}
        preprocessor = {'type': 'VideoPreprocessor', 'color_space': parsed.name, **values}
        return _config({'type': 'RawColor', 'stride': stride or 8, 'data_preprocessor': preprocessor}, 'quick')
    mean, std, color_space = IMAGENET_MEAN, IMAGENET_STD, 'rgb'
    backbone: dict = {}
    if parsed.kind == 'timm':
        mean, std = timm_normalization(parsed.name)
        backbone = {'type': 'TimmBackbone', 'name': parsed.name}
    elif parsed.kind == 'torchvision':
        mean, std = torchvision_normalization(parsed.name)
        backbone = {'type': 'TorchvisionBackbone', 'name': parsed.name}
    elif parsed.kind == 'hf':
        settings, (mean, std) = _hf_config(parsed.name, download)
        backbone = {'type': 'HuggingFaceBackbone', 'config': settings}
    elif parsed.kind == 'hub':
        backbone = {'type': 'HubBackbone', 'repo': parsed.name, 'name': parsed.entry}
        backbone |= {'pretrained': download if pretrained is None else pretrained, 'download': download}
    else:
        feature = load_user_feature(parsed.name, parsed.entry)
        color_space = feature.color_space or 'rgb'
        if color_space == 'lab':
            mean, std = (50.0, 0.0, 0.0), (50.0, 127.0, 127.0)
        mean, std = feature.mean or mean, feature.std or std
        backbone = {'type': 'FileBackbone', 'path': parsed.name, 'function': parsed.entry}
        backbone['sha256'] = file_digest(parsed.name)
    backbone |= {name: value for name, value in (('layer', layer), ('stride', stride)) if value is not None}
    preprocessor = {'type': 'VideoPreprocessor', 'color_space': color_space, 'mean': mean, 'std': std}
    return _config({'type': 'FrozenFeature', 'backbone': backbone, 'data_preprocessor': preprocessor}, 'crw')


def find_weights(spec: str, *, weights: str | Path | None = None, download: bool = False) -> str | None:
    """What `build_method` and `evaluate` take as the checkpoint of a SPEC.

    Args:
        spec: See `describe_specs`.
        weights: A `.pth` or `.safetensors` file, or 'untrained'; None: those that lie in the folder of 'hf', that were
            downloaded before, or, with `download`, that the library publishes.
        download: Allow the download.

    Returns:
        A path, 'untrained', or None where no checkpoint is wanted.

    Raises:
        ValueError: There are none; says how to get some.
    """
    parsed = parse_spec(spec)
    if weights is not None or parsed.kind in ('raw', 'file', 'hub', 'config'):
        return None if weights is None else str(weights)
    if parsed.kind == 'hf' and Path(parsed.name).exists():
        folder = Path(parsed.name) if Path(parsed.name).is_dir() else Path(parsed.name).parent
        found = next((folder / name for name in _HF_WEIGHTS if (folder / name).is_file()), None)
        what = f'{folder} holds none ({" or ".join(_HF_WEIGHTS)})'
    elif parsed.kind == 'hf':
        found = next((path for name in _HF_WEIGHTS if (path := _from_hub(parsed.name, name, download))), None)
        what = 'none were downloaded before'
    elif parsed.kind == 'timm':
        published = import_timm().get_pretrained_cfg(parsed.name, allow_unregistered=True)
        repo = getattr(published, 'hf_hub_id', None)
        found = _from_hub(repo, 'model.safetensors', download) if repo else None
        what = 'none were downloaded before' if repo else 'timm publishes none'
    else:
        found = _from_url(torchvision_weights_url(parsed.name), download)
        what = 'none were downloaded before'
    if found is None:
        raise ValueError(
            f'{spec} needs weights, and {what}: give a file, allow the download with download=True (--download), or '
            f"say {UNTRAINED!r} to use random initial weights"
        )
    return str(found)


def build_feature(
    spec: str,
    *,
    weights: str | Path | None = None,
    layer: int | str | None = None,
    stride: int | None = None,
    download: bool = False,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Feature:
    """Build the feature of a SPEC with its weights.

    Args:
        spec: See `describe_specs`.
        weights: A `.pth` or `.safetensors` file, in our names or those of the feature's library; 'untrained' for
            random initial weights; None: see `find_weights`.
        layer: See `spec_config`.
        stride: See `spec_config`.
        download: Allow downloads of weights and repositories; without it there is no attempt.
        seed: Of random initial weights.
        device: Where to; the GPU when there is one.

    Raises:
        ValueError: No such form or option, or weights that are missing or do not fit.
        FileNotFoundError: A file is not there.
        ImportError: The library is not installed or does not load; says what to install.
    """
    untrained = str(weights) == UNTRAINED
    cfg = spec_config(spec, layer=layer, stride=stride, pretrained=download and weights is None, download=download)
    checkpoint = find_weights(spec, weights=weights, download=download)
    method = build_method(cfg, checkpoint, seed, device)
    has_file = checkpoint is not None and not untrained
    description = {
        'spec': spec,
        'layer': layer,
        'stride': method.stride,
        'channels': getattr(method.encoder, 'out_channels', 3),
        'recipe': method.recipe,
        'weights': checkpoint if untrained else Path(checkpoint).name if has_file else None,
        'weights_sha256': sha256_file(checkpoint) if has_file else None,
        'seed': seed if untrained else None,
        'config_sha256': _digest(cfg.model),
        'code_version': code_version(),
        'libraries': _versions(parse_spec(spec).kind),
    }
    return Feature(spec, method, cfg, checkpoint, json.loads(json.dumps(description)))


def _config(model: dict, protocol: str) -> Config:
    return Config({'default_scope': 'mmliir', 'model': model, 'protocol': protocol})


def _digest(model) -> str:
    text = json.dumps(model.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode('utf-8')).hexdigest()


def _versions(kind: str) -> dict[str, str]:
    found = {}
    for name in _LIBRARIES.get(kind, ('torch',)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'unknown'
    return found


def _hf_config(name: str, download: bool) -> tuple[dict, tuple]:
    """(what config.json holds, (mean, std)) of a folder, a JSON file or a name on the Hub."""
    path = Path(name)
    if path.is_dir():
        config, processor = path / 'config.json', path / 'preprocessor_config.json'
        if not config.is_file():
            raise FileNotFoundError(f'hf:{name}: the folder has no config.json')
    elif path.is_file():
        config, processor = path, path.parent / 'preprocessor_config.json'
    elif path.suffix == '.json' or name.startswith(('.', '/')) or name.count('/') > 1:
        raise FileNotFoundError(f'hf:{name}: there is no such file or folder')
    else:
        config = _from_hub(name, 'config.json', download)
        if config is None:
            raise ValueError(
                f'hf:{name} is no folder here and was not downloaded before: allow that with download=True '
                '(--download)'
            )
        processor = _from_hub(name, 'preprocessor_config.json', download)
    settings = _read_json(config)
    if 'model_type' not in settings:
        raise ValueError(f'hf:{name}: {config} has no `model_type`, as the config.json of a model of transformers has')
    stated = _read_json(processor) if processor is not None and Path(processor).is_file() else {}
    mean, std = stated.get('image_mean', IMAGENET_MEAN), stated.get('image_std', IMAGENET_STD)
    if not stated.get('do_normalize', True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    return settings, (tuple(mean), tuple(std))


def _read_json(path: str | Path) -> dict:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, expected an object')
    return content


def _from_hub(repo: str, name: str, download: bool) -> Path | None:
    """A file of a repository on the Hugging Face Hub: from its cache, or downloaded; None when it is not there."""
    hub = import_huggingface_hub()
    try:
        return Path(hub.hf_hub_download(repo, name, local_files_only=not download))
    except (hub.errors.EntryNotFoundError, FileNotFoundError) as error:  # the latter: it is not in the cache
        if download and isinstance(error, hub.errors.LocalEntryNotFoundError):
            raise ValueError(f'{repo}: {name} could not be downloaded: {_line(error)}') from error
        return None
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise ValueError(f'{repo}: {name} could not be downloaded: {_line(error)}') from error


def _from_url(url: str, download: bool) -> Path | None:
    """A file of weights that PyTorch publishes: from its cache, or downloaded and its digest compared with its name."""
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    if path.is_file() or not download:
        return path if path.is_file() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = re.search(r'-([0-9a-f]{8,})\.', path.name)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest and digest[1], progress=False)
    except (OSError, RuntimeError) as error:
        raise ValueError(f'{url} could not be downloaded: {_line(error)}') from error
    return path


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
