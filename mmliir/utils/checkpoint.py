"""Read checkpoints without executing them, and put weights into models without silence.

A checkpoint is data: it is read with `weights_only=True`, and a config inside it is never run.
"""

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

#: Entry of a checkpoint that names its layout; checkpoints of other programs have none.
FORMAT_KEY = 'mmliir_format'
FORMAT = 1
#: Entry of a `.safetensors` file's metadata: the recipe, as JSON.
RECIPE_KEY = 'mmliir_recipe'


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        loaded: Number of tensors loaded.
        missing: Training-only tensors of the model that the checkpoint does not hold.
        unexpected: Tensors of the checkpoint that the model does not have and need not: training-only ones; of another
            library's weights, heads and layers behind the chosen one.
    """

    loaded: int
    missing: frozenset[str]
    unexpected: frozenset[str]


@dataclass(frozen=True)
class Misfit:
    """How a set of weights differs from a model's.

    Attributes:
        missing: Weights of the model that are not in the set.
        unexpected: Weights of the set that the model does not have.
        reshaped: Name -> (shape in the set, shape in the model), where they differ; None is no tensor.
    """

    missing: frozenset[str]
    unexpected: frozenset[str]
    reshaped: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]]

    def describe(self) -> str:
        """One phrase with numbers and the first three names; '' when all fit."""
        shapes = {name: f'{name} {theirs}, model {own}' for name, (theirs, own) in self.reshaped.items()}
        parts = [
            _describe('missing', self.missing),
            _describe('not in the model', self.unexpected),
            _describe('of another shape', set(shapes), shapes.get),
        ]
        return '; '.join(part for part in parts if part)


def compare_weights(weights: Mapping[str, object], model: Mapping[str, object]) -> Misfit:
    """Compare names and shapes of weights with those of a model's `state_dict()`."""
    both = {name: (_shape(weights[name]), _shape(model[name])) for name in weights if name in model}
    return Misfit(
        missing=frozenset(name for name in model if name not in weights),
        unexpected=frozenset(name for name in weights if name not in model),
        reshaped={name: shapes for name, shapes in both.items() if shapes[0] != shapes[1]},
    )


def compare_recipes(saved: Mapping[str, object], own: Mapping[str, object]) -> dict[str, tuple]:
    """Entries that both know and that differ: name -> (of the weights, of the model)."""
    return {name: (saved[name], own[name]) for name in own if name in saved and saved[name] != own[name]}


def describe_recipes(differing: Mapping[str, tuple]) -> str:
    """One phrase of what `compare_recipes` found; '' when nothing differs."""
    return '; '.join(f'{name} {saved!r}, this config {own!r}' for name, (saved, own) in differing.items())


def read_checkpoint(
    path: str | Path,
    map_location: str | torch.device = 'cpu',
    entries: Sequence[str] = ('state_dict',),
    safe_types: Sequence[type] = (),
) -> dict:
    """Read a checkpoint file as plain data.

    Args:
        path: A `.pth`/`.pt` file (a state dict, or a dict with an entry that holds one) or a `.safetensors` file.
        map_location: Device of the tensors.
        entries: Names of the entry that holds the weights; the first that is there is taken.
        safe_types: Classes without code to run that the file may hold besides plain data, for this call only. Ours hold
            none; `mmliir.apis.convert` needs one.

    Returns:
        A dict with at least `state_dict`: names -> tensors; and `recipe` (see `load_weights`) where the file has it.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is truncated, is no checkpoint, or holds pickled objects that would run code.
    """
    path = Path(path)
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob('*.pth')) if path.parent.is_dir() else []
        found = f'that folder holds {", ".join(siblings[-5:])}' if siblings else 'that folder holds no .pth file'
        raise FileNotFoundError(f'checkpoint not found: {path} ({found})')
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    try:
        with warnings.catch_warnings(), _allowing(safe_types):
            warnings.simplefilter('ignore')  # on odd pickles it warns before it fails; our error says it all
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # arbitrary bytes make the reader fail in any way there is
        if isinstance(error, pickle.UnpicklingError) and (_is_zip(path) or 'Unsupported global' in str(error)):
            advice = 'Ask its author for a plain state dict or a .safetensors file.'
            if 'Unsupported global: GLOBAL argparse.Namespace' in str(error):
                advice = 'It holds options of a command line, as the files of CRW and DINO: `mmliir convert` it first.'
            raise ValueError(
                f'{path} holds pickled Python objects that could execute code; refused. Only tensors, numbers, strings '
                f'and containers are read. {advice}'
            ) from error
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint; it may be truncated or another kind '
            f'of file: {_reason(error)}'
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a dict of tensors")
    entry = next((name for name in entries if name in checkpoint), None)
    checkpoint = {'state_dict': checkpoint} if entry is None else {**checkpoint, 'state_dict': checkpoint[entry]}
    weights = checkpoint['state_dict']
    if (
        not isinstance(weights, dict)
        or not all(isinstance(name, str) for name in weights)
        or not any(isinstance(value, torch.Tensor) for value in weights.values())
    ):
        raise ValueError(f'{path} holds no weights: expected names -> tensors, or such a dict under {_listed(entries)}')
    return checkpoint


def load_weights(model: nn.Module, checkpoint: dict, path: str | Path) -> LoadReport:
    """Put a checkpoint's weights into a model; every tensor that inference needs must be there and fit.

    Weights under the model's `training_only_prefixes` may be absent on either side. A model with `translate_weights`
    (`FrozenFeature`) also takes weights under the names of the library that its backbone comes from.

    Args:
        model: The model.
        checkpoint: What `read_checkpoint` returned.
        path: Named in errors.

    Raises:
        ValueError: The checkpoint is of another architecture; lists what is missing, unexpected, of another shape. Or
            it was trained with another recipe (`model.recipe`), and its features would mean something else.
    """
    _check_recipe(checkpoint.get('recipe', {}), getattr(model, 'recipe', {}), path)
    weights = {name.removeprefix('module.'): value for name, value in checkpoint['state_dict'].items()}
    unused: frozenset[str] = frozenset()
    if hasattr(model, 'translate_weights'):
        weights, unused = model.translate_weights(weights)
    prefixes = tuple(getattr(model, 'training_only_prefixes', ()))
    own = model.state_dict()
    misfit = compare_weights(weights, own)
    problems = Misfit(
        missing=frozenset(name for name in misfit.missing if not name.startswith(prefixes or ('\0',))),
        unexpected=frozenset(name for name in misfit.unexpected if not _training_only(name, prefixes)),
        reshaped=misfit.reshaped,
    ).describe()
    if problems:
        raise ValueError(
            f'{path} does not fit this model ({type(model).__name__}): {problems}. '
            'Use the config that the checkpoint was trained with.'
        )
    model.load_state_dict(weights, strict=False)
    return LoadReport(len(own) - len(misfit.missing), misfit.missing, misfit.unexpected | unused)


def _check_recipe(saved: object, own: dict, path: str | Path) -> None:
    """Weights trained at another temperature or on other colours load without a sound, and give other features."""
    if not isinstance(saved, dict):
        raise ValueError(f'{path} has a recipe that is a {type(saved).__name__}, expected a dict of names -> values')
    listed = describe_recipes(compare_recipes(saved, own))
    if listed:
        raise ValueError(
            f'{path} was trained with another recipe: {listed}. Use the config that the checkpoint was trained with.'
        )


@contextlib.contextmanager
def _allowing(types: Sequence[type]) -> Iterator[None]:
    """Let `weights_only` read these classes inside the block: `torch.serialization.safe_globals` of PyTorch 2.5."""
    if not types:
        yield
        return
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(list(types))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _training_only(name: str, prefixes: tuple[str, ...]) -> bool:
    """Parts that only training uses may ride along in any checkpoint of this package."""
    return name.startswith((*prefixes, 'inter.'))


def _listed(entries: Sequence[str]) -> str:
    return ' or '.join(f'`{entry}`' for entry in entries)


def _describe(what: str, names: Set[str], show=str) -> str:
    if not names:
        return ''
    listed = ', '.join(show(name) for name in sorted(names)[:3])
    return f'{len(names)} tensors {what} ({listed}{", ..." if len(names) > 3 else ""})'


def _read_safetensors(path: Path, map_location) -> dict:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError("reading .safetensors needs `pip install 'mmliir[safetensors]'`") from error
    try:
        with safe_open(path, framework='pt', device=str(map_location)) as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
            recipe = (file.metadata() or {}).get(RECIPE_KEY)
    except SafetensorError as error:
        raise ValueError(f'{path} is not a readable .safetensors file: {_reason(error)}') from error
    if recipe is None:
        return {'state_dict': weights}
    try:
        return {'state_dict': weights, 'recipe': json.loads(recipe)}
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: its {RECIPE_KEY} is no JSON: {recipe[:100]!r}') from error


def _shape(value) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _is_zip(path: Path) -> bool:
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def _reason(error: BaseException) -> str:
    """What went wrong, without PyTorch's advice to load files unsafely."""
    if 'weights_only' in str(error) or isinstance(error, pickle.UnpicklingError):
        return 'no valid data'
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
