"""Turn checkpoints of other projects into ours: rename, account for every tensor, prove that the result loads."""

import argparse
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import UNTRAINED, build_method
from mmliir.utils.checkpoint import (
    FORMAT_KEY,
    RECIPE_KEY,
    Misfit,
    compare_recipes,
    compare_weights,
    describe_recipes,
    load_weights,
    read_checkpoint,
)
from mmliir.utils.files import write_bytes_atomic
from mmliir.utils.key_maps import KEY_MAPS, KeyMap, likely_families, optional_part

#: Where the configs of the families lie in a checkout.
FROZEN_CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'frozen'
SUFFIXES = ('.pth', '.safetensors')
_COUNTER = '.num_batches_tracked'
# CRW and DINO store the options of their command line beside the weights. A Namespace has no code to run: reading one
# sets attributes, which in turn can be plain data only.
_SAFE_TYPES = (argparse.Namespace,)


@dataclass(frozen=True)
class ConversionReport:
    """What became of every tensor of a checkpoint and of the model it is for.

    Attributes:
        family: Whose checkpoint.
        checkpoint: The file.
        config: The config of the model.
        loaded: Our name -> theirs.
        ignored: Their name -> why it is not needed.
        filled: Our names of batch counters that the checkpoint does not store; zero, and used by training only.
        training_only: Our other names that the checkpoint lacks and only training uses.
        missing: Our names that inference needs and the checkpoint lacks.
        unexpected: Their names that no rule knows, or whose place the model does not have.
        reshaped: Our name -> (shape in the checkpoint, shape in the model), where they differ.
        other_recipe: What weights cannot show: name -> (of the family, of the model), where they differ.
    """

    family: str
    checkpoint: Path
    config: Path
    loaded: Mapping[str, str]
    ignored: Mapping[str, str]
    filled: tuple[str, ...]
    training_only: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, tuple]
    other_recipe: Mapping[str, tuple]

    @property
    def num_problems(self) -> int:
        """0 when the checkpoint fits the config's model."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped) + len(self.other_recipe)

    def lines(self) -> list[str]:
        """The whole report, with every name."""
        lines = [f'{self.checkpoint} ({self.family}) for {self.config}']
        groups = {
            'loaded': [f'{ours} <- {theirs}' for ours, theirs in self.loaded.items()],
            'filled with 0': self.filled,
            'ignored by rule': [f'{theirs} ({reason})' for theirs, reason in self.ignored.items()],
            'missing, training only': self.training_only,
            'missing': self.missing,
            'unexpected': self.unexpected,
            'of another shape': [f'{name} {a}, model {b}' for name, (a, b) in self.reshaped.items()],
            'of another recipe': [describe_recipes({name: both}) for name, both in self.other_recipe.items()],
        }
        for title, entries in groups.items():
            lines.append(f'{title}: {len(entries)}')
            lines += [f'  {entry}' for entry in entries]
        return lines


@dataclass(frozen=True)
class Conversion:
    """Converted weights, our names -> tensors, their recipe, and the report of how they came about."""

    weights: dict[str, Tensor]
    recipe: dict[str, object]
    report: ConversionReport

    def require_fit(self) -> None:
        """Raise unless every tensor is accounted for, and the model is of the weights' recipe.

        Raises:
            ValueError: Says what is missing, unexpected or of another shape, and whose checkpoint it may be; or at
                which recipe the weights were trained, what the config has, and which configs have the same.
        """
        report = self.report
        if not report.num_problems:
            return
        misfit = Misfit(frozenset(report.missing), frozenset(report.unexpected), report.reshaped)
        if not misfit.describe():
            raise ValueError(
                f'{report.checkpoint} fits {report.config}, but {report.family} weights are trained with another '
                f'recipe: {describe_recipes(report.other_recipe)}. Use {_configs_of(KEY_MAPS[report.family])}.'
            )
        names = (*report.loaded.values(), *report.ignored, *report.unexpected)
        others = [family for family in likely_families(names) if family != report.family]
        hint = f'Its names are those of: {", ".join(others)}.' if others else 'Give the config it belongs to: --config.'
        if any(name.startswith('encoder.') and name in report.missing for name in report.unexpected):
            hint = 'It seems to be converted already: use it as it is.'
        raise ValueError(
            f'{report.checkpoint} is no {report.family} checkpoint that fits {report.config}: {misfit.describe()}. '
            f'{hint}'
        )


def convert_checkpoint(family: str, checkpoint: str | Path, config: str | Path | None = None) -> Conversion:
    """Convert a checkpoint of another project; nothing is written.

    Args:
        family: A name of `KEY_MAPS`.
        checkpoint: Their file, `.pth` or `.safetensors`. Pickled objects are refused, whoever sends them.
        config: The config of the model it is for. None: the first of the family's configs that it fits.

    Returns:
        The weights and the report; where nothing fits, the report of the config that comes nearest.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown family, a file that is no checkpoint or would execute code, two tensors for one place.
    """
    if family not in KEY_MAPS:
        raise ValueError(f'unknown family {family!r}; there are {", ".join(KEY_MAPS)}')
    key_map, path = KEY_MAPS[family], Path(checkpoint)
    checkpoint = read_checkpoint(path, entries=key_map.entries, safe_types=_SAFE_TYPES)
    if FORMAT_KEY in checkpoint:
        raise ValueError(f'{path} is a checkpoint of this package: there is nothing to convert, use it as it is')
    theirs = checkpoint['state_dict']
    best = None
    for candidate in [Path(config)] if config is not None else _configs(key_map):
        model = build_method(load_config(candidate), UNTRAINED, device='cpu')
        conversion = _match(family, path, candidate, theirs, model)
        if best is None or conversion.report.num_problems < best.report.num_problems:
            best = conversion
        if not best.report.num_problems:
            load_weights(model, {'state_dict': best.weights, 'recipe': best.recipe}, path)
            break
    return best


def write_conversion(conversion: Conversion, out: str | Path, overwrite: bool = False) -> Path:
    """Write converted weights and their recipe, whole or not at all.

    A `.pth` file holds `state_dict` and `recipe`; a `.safetensors` file has the recipe in its metadata, as JSON under
    `RECIPE_KEY`. `read_checkpoint` returns both alike.

    Args:
        conversion: What `convert_checkpoint` returned.
        out: The file, `.pth` or `.safetensors`.
        overwrite: Replace a file that is there; never the checkpoint itself.

    Raises:
        ValueError: The weights do not fit, or are of another recipe; another suffix.
        FileExistsError: The file is there and `overwrite` is off, or it is the checkpoint.
    """
    out = Path(out)
    check_out(out, conversion.report.checkpoint, overwrite)
    conversion.require_fit()
    return write_bytes_atomic(out, _serialize(conversion, out.suffix))


def check_out(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Refuse a name that cannot be written, before any work is done; see `write_conversion`."""
    if out.suffix not in SUFFIXES:
        raise ValueError(f'converted weights are written as {" or ".join(SUFFIXES)}, got {out}')
    if out.exists() and out.resolve() == Path(checkpoint).resolve():
        raise FileExistsError(f'{out} is the checkpoint itself: give another name')
    if out.exists() and not (overwrite and out.is_file()):
        raise FileExistsError(f'{out} is there already: give another name, or replace a file with --overwrite')


def _configs(key_map: KeyMap) -> list[Path]:
    if not FROZEN_CONFIGS.is_dir():
        raise ValueError(f'this installation has no {FROZEN_CONFIGS}: give --config, a file of configs/frozen/')
    return [FROZEN_CONFIGS / f'{name}.py' for name in key_map.configs]


def _configs_of(key_map: KeyMap) -> str:
    names = [f'configs/frozen/{name}.py' for name in key_map.configs]
    if key_map.training_config is not None:
        names.append(f'configs/{key_map.training_config}.py (to train on)')
    return ' or '.join(names)


def _match(family: str, path: Path, config: Path, theirs: dict, model: nn.Module) -> Conversion:
    """Rename a checkpoint's tensors for one model."""
    own, key_map = model.state_dict(), KEY_MAPS[family]
    weights, loaded, ignored, unknown = {}, {}, {}, []
    for name, value in theirs.items():
        rule = key_map.look_up(name)
        if rule is None:
            unknown.append(name)
        elif rule.ours is None:
            ignored[name] = rule.reason
        elif _is_left_out(rule.ours, own):
            _, ignored[name] = optional_part(rule.ours)
        elif rule.ours in weights:
            raise ValueError(f'{path}: {loaded[rule.ours]} and {name} are both for {rule.ours}')
        else:
            weights[rule.ours], loaded[rule.ours] = value, name
    filled = tuple(name for name in own if name.endswith(_COUNTER) and name not in weights)
    weights |= {name: torch.zeros_like(own[name]) for name in filled if _has_norm(name, weights)}
    filled = tuple(name for name in filled if name in weights)
    misfit = compare_weights(weights, own)
    for name in misfit.unexpected | set(misfit.reshaped):
        theirs_name = loaded.pop(name)
        if name in misfit.unexpected:
            unknown.append(theirs_name)
    prefixes = tuple(getattr(model, 'training_only_prefixes', ()))
    training_only = tuple(name for name in own if name in misfit.missing and prefixes and name.startswith(prefixes))
    report = ConversionReport(
        family,
        path,
        config,
        loaded,
        ignored,
        filled,
        training_only,
        missing=tuple(name for name in own if name in misfit.missing and name not in training_only),
        unexpected=tuple(name for name in theirs if name in set(unknown)),
        reshaped=misfit.reshaped,
        other_recipe=compare_recipes(key_map.recipe, model.recipe),
    )
    return Conversion(weights, dict(key_map.recipe), report)


def _is_left_out(ours: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a tensor belongs to an optional part of which the model has nothing."""
    part = optional_part(ours)
    return part is not None and not any(name.startswith(part[0]) for name in own)


def _has_norm(counter: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether the layer of a batch counter is in the checkpoint: old PyTorch stored the layer without it."""
    return f'{counter.removesuffix(_COUNTER)}.running_mean' in weights


def _serialize(conversion: Conversion, suffix: str) -> bytes:
    # clones: a view would bring its whole storage, and safetensors refuses tensors that share memory
    weights = {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in conversion.weights.items()
    }
    if suffix == '.safetensors':
        try:
            from safetensors.torch import save
        except ImportError as error:
            raise ImportError("writing .safetensors needs `pip install 'mmliir[safetensors]'`") from error
        return save(weights, {RECIPE_KEY: json.dumps(conversion.recipe)})
    stream = io.BytesIO()
    torch.save({'state_dict': weights, 'recipe': conversion.recipe}, stream)
    return stream.getvalue()
