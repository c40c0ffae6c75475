"""Compiled code: `attend.cpp` in the best instructions of this processor, shipped with the package or compiled once.

Nothing depends on it: without a library and a compiler, or with `MMLIIR_NATIVE=0`, everything runs on PyTorch alone and
gives the same results apart from rounding. `levels.py` says which instructions there are, `build.py` where a library
comes from.
"""

import contextlib
import ctypes
import dataclasses
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmliir.ops.native.build import NotBuilt, cache_folder, with_library
from mmliir.ops.native.levels import Level, supported_levels

__all__ = [
    'DONE',
    'MAX_COMPONENTS',
    'NOT_FINITE',
    'NO_MEMORY',
    'SHAPES',
    'SWITCH',
    'TILE_SIDE',
    'AttendJob',
    'Unavailable',
    'cache_folder',
    'choice',
    'describe',
    'forced',
    'level',
    'library',
    'supported',
    'width',
]

#: '0' switches compiled code off, '1' (or nothing) takes the best level, the name of a level takes that one.
SWITCH = 'MMLIIR_NATIVE'

_logger = logging.getLogger(__name__)
_warned: set[str] = set()


class AttendJob(ctypes.Structure):
    """One call of `mmliir_attend`: `MmliirJob` of attend.cpp, where the fields are explained."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ('query', 'keys', 'values', 'labels', 'scales', 'radius')]
        + [(name, ctypes.c_void_p) for name in ('offsets', 'value_offsets', 'out')]
        + [
            (name, ctypes.c_int32)
            for name in (
                'channels', 'height', 'width', 'references', 'value_channels', 'shape', 'zero_logit', 'topk',
                'share_ties', 'over_all',
            )
        ]
        + [('temperature', ctypes.c_float)]
        + [(name, ctypes.c_int32) for name in ('components', 'fixed_width', 'keep_mass')]
        + [(name, ctypes.c_float) for name in ('threshold', 'width_of_bump', 'variance_floor')]
        + [('stretched', ctypes.c_int32)]
    )  # fmt: skip


DONE, NOT_FINITE, NO_MEMORY = range(3)
TILE_SIDE = 4
#: By number, as attend.cpp has them.
SHAPES = ('square', 'circle', 'disc')
MAX_COMPONENTS = 8


class Unavailable(Exception):
    """There is no compiled code; the text says why."""


def library() -> ctypes.CDLL:
    """The compiled code at the level in use, built when there is none for it yet.

    Raises:
        Unavailable: It is switched off, or cannot be built or loaded; of the latter a warning says once why.
        ValueError: `MMLIIR_NATIVE` asks for a level that this processor lacks, or for none that there is.
    """
    found = _load_once(os.getpid(), _chosen_level())
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def level() -> str:
    """The name of the level in use, say 'x86-64-v3'. Raises what `library` raises."""
    return _level_in_use().name


def width() -> int:
    """Bits of the vectors of the level in use; 0 where that is not known. Raises what `library` raises."""
    return _level_in_use().width


def describe() -> str:
    """The level in use as run cards have it, say 'x86-64-v3, 256 bit'. Raises what `library` raises."""
    return str(_level_in_use())


@contextlib.contextmanager
def forced(asked: str) -> Iterator[None]:
    """In this block, and in processes that it starts, compiled code is what `MMLIIR_NATIVE=asked` says.

    It holds for all threads, as the variable does.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = asked
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def supported() -> tuple[str, ...]:
    """The names of the levels that this processor can run, the best one first."""
    return tuple(own.name for own in _supported_levels())


def choice() -> str:
    """What `MMLIIR_NATIVE` and the processor ask for: '0', or the name of a level. Nothing is built or loaded.

    Raises:
        ValueError: See `library`.
    """
    asked = os.environ.get(SWITCH, '').strip() or '1'
    if asked == '1':
        return supported()[0]
    if asked != '0' and asked not in supported():
        raise ValueError(
            f'{SWITCH}={asked}: expected 0 (off), 1 (the best level) or a level that this processor can run: '
            f'{", ".join(supported())}'
        )
    return asked


def _level_in_use() -> Level:
    code, own = library(), _chosen_level()
    return own if own.width else dataclasses.replace(own, width=code.mmliir_width())


def _chosen_level() -> Level:
    name = choice()
    if name == '0':
        raise Unavailable(f'{SWITCH}=0 switches compiled code off')
    return next(own for own in _supported_levels() if own.name == name)


_supported_levels = functools.cache(supported_levels)


@functools.lru_cache(maxsize=8)
def _load_once(_process: int, own: Level) -> ctypes.CDLL | str:
    """The library, or why there is none; each process loads its own."""
    try:
        return with_library(own, lambda path: _load(path, own))
    except NotBuilt as error:
        reason = ' '.join(str(error).split())
    if reason not in _warned:  # a process that was forked from one that has said it does not repeat it
        _warned.add(reason)
        _logger.warning(
            'propagation runs on PyTorch, several times slower: no compiled code (%s). docs/installation.md says what '
            'to do; %s=0 says that it is meant.', reason, SWITCH,
        )  # fmt: skip
    return reason


def _load(path: Path, own: Level) -> ctypes.CDLL:
    code = _declare(ctypes.CDLL(str(path)))
    _logger.info('compiled code: %s, from %s', own, path)
    return code


def _declare(code: ctypes.CDLL) -> ctypes.CDLL:
    code.mmliir_attend.argtypes = [ctypes.POINTER(AttendJob), ctypes.c_int32, ctypes.c_int32]
    code.mmliir_attend.restype = ctypes.c_int
    code.mmliir_single_labels.argtypes = [
        ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    code.mmliir_single_labels.restype = ctypes.c_int
    return code
