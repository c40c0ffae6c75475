"""A function of the user's as a backbone."""

import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mmliir.models.backbones.adapters.base import AdapterBackbone, as_map, cells, measure
from mmliir.registry import MODELS


@dataclass(frozen=True)
class UserFeature:
    """What a user's function gave.

    Attributes:
        call: Normalised images (B, 3, H, W) -> features.
        stride: Pixels per cell, or None when it does not say.
        mean: Of the normalisation, or None.
        std: Of the normalisation, or None.
        color_space: 'rgb', 'lab' or None.
    """

    call: Callable[[Tensor], Tensor]
    stride: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    color_space: str | None


def load_user_feature(path: str | Path, function: str) -> UserFeature:
    """Run a Python file and take a feature from it.

    The function either takes no argument and returns an `nn.Module` or another callable that maps images to features,
    or takes the images itself. `stride`, `mean`, `std` and `color_space` are attributes of what maps the images.

    Args:
        path: The file; it is executed.
        function: The function's name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It has no such function, or the function gives something else. Names file and function.
    """
    path, where = Path(path), f'{path}:{function}'
    if not path.is_file():
        raise FileNotFoundError(f'{where}: there is no file {path}')
    spec = importlib.util.spec_from_file_location(f'mmliir_user_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f'{where}: running the file failed: {type(error).__name__}: {error}') from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != '_']
        raise ValueError(f'{where}: the file has no function {function!r}; it has {", ".join(names) or "none"}')
    if not _needs_an_argument(found):
        try:
            made = found()
        except Exception as error:
            raise ValueError(f'{where}: the function failed: {type(error).__name__}: {error}') from error
        if not callable(made):
            raise ValueError(
                f'{where} returned a {type(made).__name__}, expected an nn.Module or a function of images '
                '(B, 3, H, W) that returns features (B, C, h, w)'
            )
        found = made
    stride = getattr(found, 'stride', None)
    if stride is not None and (not isinstance(stride, int) or isinstance(stride, bool) or stride < 1):
        raise ValueError(f'{where}: stride must be a whole number of pixels, 1 or more, got {stride!r}')
    return UserFeature(
        found,
        stride,
        _three_numbers(found, 'mean', where),
        _three_numbers(found, 'std', where),
        getattr(found, 'color_space', None),
    )


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@MODELS.register_module()
class FileBackbone(AdapterBackbone):
    """What a function in a Python file gives; see `load_user_feature`. Building it executes that file.

    Weights are the function's business: no checkpoint is wanted, and one that is given is loaded into the module.

    Args:
        path: The Python file.
        function: The function.
        stride: Pixels per cell, where what the function gives has no `stride`.
        sha256: Of the file, as it was when the config was made; another file is refused.
    """

    pretrained = True

    def __init__(self, path: str, function: str, stride: int | None = None, sha256: str | None = None):
        super().__init__()
        self.title = f'{path}:{function}'
        if sha256 is not None and Path(path).is_file() and file_digest(path) != sha256:
            raise ValueError(f'{self.title}: the file has changed since this config was made from it')
        feature = load_user_feature(path, function)
        if stride is not None and feature.stride not in (None, stride):
            raise ValueError(f'{self.title} says stride {feature.stride}, got stride {stride}')
        self.stride = feature.stride if stride is None else stride
        if self.stride is None:
            raise ValueError(
                f'{self.title} does not say its stride: set `stride` on what maps the images, or give the option'
            )
        if isinstance(feature.call, nn.Module):
            self.model = feature.call.eval()
        else:
            self.call = feature.call
        self.out_channels = getattr(feature.call, 'out_channels', None)
        if self.out_channels is None:
            self.out_channels = measure(self._run, self.title, self.stride)[1]

    def _run(self, images: Tensor) -> Tensor:
        network = self.model if hasattr(self, 'model') else self.call
        try:
            return network(images)
        except Exception as error:
            raise ValueError(
                f'{self.title} failed on images {tuple(images.shape)}: {type(error).__name__}: {error}'
            ) from error

    def compute(self, images: Tensor) -> Tensor:
        """See `forward`."""
        return as_map(self._run(images), cells(images.shape[-2:], self.stride), self.title)


def _needs_an_argument(function: Callable) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )


def _three_numbers(found: object, name: str, where: str) -> tuple[float, ...] | None:
    value: Sequence[float] | None = getattr(found, name, None)
    if value is None:
        return None
    try:
        numbers = tuple(float(entry) for entry in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{where}: {name} must be three numbers, got {value!r}') from error
    if len(numbers) != 3:
        raise ValueError(f'{where}: {name} must be three numbers, got {value!r}')
    return numbers
