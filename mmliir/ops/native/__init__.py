"""Compiled code: built from `attend.cpp` with the machine's C++ compiler at first use, and kept in a cache folder.

Nothing depends on it: without a compiler, without a folder to write to, or with `MMLIIR_NATIVE=0`, everything runs on
PyTorch alone and gives the same results. The file's name is a hash of the source, the flags, the compiler and the
processor, so a folder that several machines share holds one file for each kind. It is built under another name and
renamed, so programs that start at the same time do not meet half a file.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name('attend.cpp')
_FLAGS = ('-O3', '-std=c++17', '-shared', '-fPIC', '-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math')
# Clang for ARM knows the second only, some compilers know neither.
_FOR_THIS_PROCESSOR = (('-march=native',), ('-mcpu=native',), ())
_COMPILERS = ('c++', 'g++', 'clang++')
_TIME_LIMIT = 120  # seconds for the compiler, which needs about five

_logger = logging.getLogger(__name__)


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
    """The compiled code, built when this machine has not built it yet.

    Raises:
        Unavailable: It is switched off, or cannot be built or loaded. The reason is logged once.
    """
    if os.environ.get('MMLIIR_NATIVE', '1') == '0':
        raise Unavailable('MMLIIR_NATIVE=0 switches compiled code off')
    found = _load_once(os.getpid())
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def cache_folder() -> Path:
    """Where compiled code is kept: `$MMLIIR_CACHE`, `$XDG_CACHE_HOME/mmliir` or `~/.cache/mmliir`."""
    if os.environ.get('MMLIIR_CACHE'):
        return Path(os.environ['MMLIIR_CACHE'])
    if os.environ.get('XDG_CACHE_HOME'):
        return Path(os.environ['XDG_CACHE_HOME']) / 'mmliir'
    return Path('~/.cache/mmliir').expanduser()


@functools.lru_cache(maxsize=1)
def _load_once(_process: int) -> ctypes.CDLL | str:
    try:
        return _load(build())
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:
        reason = ' '.join(str(error).split())[:300]
        _logger.info('window_topk_attend runs on PyTorch: no compiled code (%s)', reason)
        return reason


def _load(path: Path) -> ctypes.CDLL:
    try:
        return _declare(ctypes.CDLL(str(path)))
    except (OSError, AttributeError):  # half a file, or of another machine: not what its name says
        path.unlink(missing_ok=True)
        return _declare(ctypes.CDLL(str(build())))


def build() -> Path:
    """The path of the compiled code, which is there afterwards.

    Raises:
        OSError: No compiler, no source, or a folder that cannot be written.
        RuntimeError: The compiler refuses the source; the text has its first error.
    """
    compiler = _find_compiler()
    source = SOURCE.read_bytes()
    kind = '\n'.join([_version(compiler), platform.machine(), _processor(), repr((_FLAGS, _FOR_THIS_PROCESSOR))])
    name = f'attend-{hashlib.sha256(source + kind.encode()).hexdigest()[:24]}.so'
    target = cache_folder() / name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _logger.info('compiling %s into %s', SOURCE.name, target.parent)
    with tempfile.TemporaryDirectory(prefix='build-', dir=target.parent) as folder:
        built = Path(folder) / name
        _compile(compiler, built)
        os.replace(built, target)
    return target


def _find_compiler() -> str:
    named = os.environ.get('CXX', '')
    for name in (named, *_COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    own = f'CXX is {named!r}, which is not there' if named else 'CXX is not set'
    raise FileNotFoundError(f'no C++ compiler: {own}, and none of {", ".join(_COMPILERS)} is on the PATH')


def _compile(compiler: str, target: Path) -> None:
    for processor in _FOR_THIS_PROCESSOR:
        command = [compiler, *_FLAGS, *processor, '-o', str(target), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False)
        if done.returncode == 0:
            return
    said = done.stderr.splitlines()
    errors = [line for line in said if 'error' in line] or said or [f'it ended with exit code {done.returncode}']
    raise RuntimeError(f'{compiler} could not compile {SOURCE.name}: {errors[0]}')


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, '--version'], capture_output=True, text=True, timeout=_TIME_LIMIT, check=False)
    return f'{compiler} {done.stdout}'


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return platform.processor()
    names = ('model name', 'flags', 'Features', 'CPU part')
    return '\n'.join(sorted({line for line in lines if line.split(':')[0].strip() in names}))


def _declare(code: ctypes.CDLL) -> ctypes.CDLL:
    code.mmliir_attend.argtypes = [ctypes.POINTER(AttendJob), ctypes.c_int32, ctypes.c_int32]
    code.mmliir_attend.restype = ctypes.c_int
    code.mmliir_single_labels.argtypes = [
        ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    code.mmliir_single_labels.restype = ctypes.c_int
    return code
