"""Read configs and command-line changes to them, and refuse names that nobody reads."""

import difflib
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmliir.utils.files import read_text

#: Top-level entries of our configs besides those that the Runner reads.
_OWN_KEYS = {'precision', 'protocol', 'stages', 'ablation', 'task', 'device'}
_RUNNER_KEYS = {
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks',
    'custom_hooks', 'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level',
    'visualizer', 'default_scope', 'randomness', 'experiment_name', 'runner_type', 'model_wrapper_cfg', 'sync_bn',
    'find_unused_parameters', 'compile', 'cfg', 'custom_imports',
}  # fmt: skip

#: In the place of a value that a config does not have.
ABSENT = '(absent)'
# How the byte order marks of UTF-8, UTF-16 and UTF-32 start.
_MARKS = (b'\xef\xbb', b'\xff\xfe', b'\xfe\xff', b'\x00\x00')


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config file and apply changes by dotted name.

    Args:
        path: A `.py` config with `_base_` inheritance.
        options: Dotted name -> value, as `--cfg-options` gives them.

    Returns:
        The resolved config.

    Raises:
        FileNotFoundError: No such file; names the configs that are there.
        ValueError: A name at the top level that nothing reads (a typing error), with the nearest known one.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob('*.py')) if path.parent.is_dir() else []
        hint = f'; that folder holds {", ".join(near)}' if near else ''
        raise FileNotFoundError(f'config not found: {path}{hint}')
    cfg = read_config(path)
    _refuse_unknown(set(cfg), f'config {path}')
    change_config(cfg, options or {}, '--cfg-options')
    init_default_scope(cfg.get('default_scope', 'mmliir'))
    return cfg


def read_config(path: str | Path) -> Config:
    """Read a config file and the files it is based on, unchanged.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It, or a file it is based on, is no UTF-8 text, or no config; the message names the file.
    """
    try:
        return Config.fromfile(str(path))
    except (SyntaxError, NameError, TypeError, KeyError, UnicodeDecodeError) as error:
        _name_unreadable(Path(path), set())
        raise ValueError(f'config {path}: {_text(error)}') from error


def _name_unreadable(path: Path, seen: set[Path]) -> None:
    """Raise `ValueError` where a config, or one of those that its text names, is a file that MMEngine cannot read."""
    if path in seen or not path.is_file():
        return
    seen.add(path)
    text = read_text(path)  # names a file of another encoding
    if path.read_bytes() != text.encode() and path.read_bytes()[:2] in _MARKS:
        raise ValueError(
            f'config {path} starts with a byte order mark, which Python files here must not have. Save it as UTF-8 '
            'without one (in an editor "UTF-8", not "UTF-8 with BOM").'
        )
    for named in re.findall(r'[\'"]([^\'"\n]+\.py)[\'"]', text):
        _name_unreadable(path.parent / named, seen)


def change_config(cfg: Config, changes: dict, where: str) -> None:
    """Change entries of a config in place.

    Args:
        cfg: The config.
        changes: Dotted name -> value.
        where: Where the changes come from, for errors.

    Raises:
        ValueError: A name at the top level that nothing reads, or one that leads into something that is no dict.
    """
    _refuse_unknown({name.split('.')[0] for name in changes}, where)
    for name, value in changes.items():
        try:
            cfg.merge_from_dict({name: value})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f'{where}: {name}={value!r} does not fit the config: {_text(error)}') from error


def flatten(value, prefix: str = '') -> dict:
    """Dotted name -> value of everything in a config; lists of dicts count from 0, other lists are tuples."""
    if isinstance(value, (list, tuple)) and any(isinstance(entry, dict) for entry in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: tuple(value) if isinstance(value, (list, tuple)) else value}
    out = {}
    for key, entry in value.items():
        out.update(flatten(entry, f'{prefix}.{key}' if prefix else str(key)))
    return out


def differences(first, second) -> dict:
    """Dotted name -> (value in the first, value in the second) of two configs, where they differ.

    A name that one of them lacks has the value `ABSENT` there.
    """
    first, second = flatten(first), flatten(second)
    pairs = {name: (first.get(name, ABSENT), second.get(name, ABSENT)) for name in sorted({*first, *second})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _text(error: BaseException) -> str:
    """What an error says, without the quotes that `str` puts around a KeyError."""
    return str(error.args[0]) if error.args else type(error).__name__


def _refuse_unknown(names: set[str], where: str) -> None:
    known = _OWN_KEYS | _RUNNER_KEYS
    for name in sorted(names):
        if name not in known and not name.startswith('_'):
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f'; did you mean {near[0]!r}?' if near else f'. Known: {", ".join(sorted(known))}'
            raise ValueError(f'{where}: {name!r} is not an entry that anything reads{hint}')
