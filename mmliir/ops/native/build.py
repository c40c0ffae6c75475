"""Find compiled code for a level, or build it: shipped with the package, then in the cache folder, then the compiler.

A library is loaded only where the digest beside it fits, as a damaged one ends the interpreter. One process builds and
the others wait for it, under a lock that the system takes back from a process that dies.
"""

import contextlib
import errno
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mmliir.ops.native.levels import Level, compile_command, digest_line, digest_path, library_name
from mmliir.utils.files import write_bytes_atomic, write_text_atomic

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SOURCE = Path(__file__).with_name('attend.cpp')
#: Libraries that came with the package.
PREBUILT = Path(__file__).with_name('prebuilt')
_COMPILERS = ('c++', 'g++', 'clang++')
# Of the compiler, which takes 10 to 25 seconds of one core. Processor time: a busy machine is no reason to give up.
_CPU_LIMIT = 300
_CLOCK_LIMIT = 3600
_POLL = 0.1
# What file systems answer that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_OUT_OF_TIME = (-signal.SIGXCPU, 128 + signal.SIGXCPU) if hasattr(signal, 'SIGXCPU') else ()
_CHARACTERS = 300  # of what a compiler says

_logger = logging.getLogger(__name__)


class NotBuilt(Exception):
    """There is no library that could be loaded; the text says why."""


def cache_folder() -> Path:
    """Where compiled code is kept: `$MMLIIR_CACHE`, `$XDG_CACHE_HOME/mmliir` or `~/.cache/mmliir`."""
    if os.environ.get('MMLIIR_CACHE'):
        return Path(os.environ['MMLIIR_CACHE'])
    if os.environ.get('XDG_CACHE_HOME'):
        return Path(os.environ['XDG_CACHE_HOME']) / 'mmliir'
    return Path('~/.cache/mmliir').expanduser()


def damage(path: Path) -> str:
    """What is wrong with a library, in a few words; '' where its digest fits, as it does for whole files alone."""
    try:
        if not path.is_file():
            return 'is no file'
        written = digest_path(path).read_bytes()
        if written != digest_line(path.name, path.read_bytes()).encode():
            return f'is not what {digest_path(path).name} says'
    except FileNotFoundError:
        return f'lacks {digest_path(path).name}'
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    return ''


def with_library(level: Level, load: Callable[[Path], object]) -> object:
    """What `load` makes of the library of a level, which is found or built.

    Args:
        level: One that this processor can run.
        load: Called with the path of a whole library; `OSError` or `AttributeError` where it cannot be loaded. Then the
            next one is tried.

    Raises:
        NotBuilt: There is none, and none can be built. The text names every file that was refused.
    """
    try:
        name = library_name(SOURCE.read_bytes(), level)
    except OSError as error:
        raise NotBuilt(f'no source: {error}') from error
    refused = []
    for folder in (PREBUILT, cache_folder()):
        found = _try(folder / name, load, refused)
        if found is not None:
            return found
    try:
        return _build(cache_folder() / name, level, load)
    except (OSError, NotBuilt) as error:
        raise NotBuilt('; '.join([*refused, str(error)])) from error


def _try(path: Path, load: Callable[[Path], object], refused: list[str]) -> object | None:
    """What `load` makes of a library; None where there is none, or, with a line in `refused`, none to be used."""
    if not os.path.lexists(path):
        return None
    wrong = damage(path)
    if not wrong:
        try:
            return load(path)
        except (OSError, AttributeError) as error:
            wrong = f'cannot be loaded ({error})'
    _logger.warning('%s %s: it is not used', path, wrong)
    refused.append(f'{path} {wrong}')
    return None


def _build(target: Path, level: Level, load: Callable[[Path], object]) -> object:
    """Compile the library and load it, unless another process does so first."""
    compiler = find_compiler()
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_target(target)
    start = time.time()
    with _lock(target) as lock:
        found = _try(target, load, [])  # of one that had the lock before
        if found is not None:
            return found
        if lock.waited:
            lock.raise_for_failure()
        _remove_leftovers(target, lock)
        _logger.warning(
            'compiling %s for %s with %s into %s: once, 10 to 25 seconds of one core',
            SOURCE.name, level.name, compiler, target.parent,
        )  # fmt: skip
        try:
            _compile(compiler, level, target)
            found = load(target)
        except (OSError, AttributeError, NotBuilt) as error:
            lock.tell(str(error))
            raise NotBuilt(str(error)) from error
        _logger.info('compiled in %.0f s', time.time() - start)
        return found


def _check_target(target: Path) -> None:
    """Refuse, before minutes are spent, what no library can be written to or loaded from."""
    for path in (target, digest_path(target)):
        if os.path.lexists(path) and not path.is_file():
            raise NotBuilt(f'{path} is no file, so no library can take its place: delete it')
    if hasattr(os, 'statvfs') and os.statvfs(target.parent).f_flag & getattr(os, 'ST_NOEXEC', 0):
        raise NotBuilt(f'{target.parent} is mounted with noexec, nothing in it can be loaded: set MMLIIR_CACHE')


class _Lock:
    """What its holder knows of a lock.

    Attributes:
        waited: Another process had it first.
        held: This process alone builds; False where the file system has no locks.
    """

    def __init__(self, stream) -> None:
        self._stream = stream
        self.waited = self.held = False

    def take(self, target: Path) -> None:
        """Take the lock, or wait for it and say so."""
        if fcntl is None:
            return
        give_up = time.monotonic() + 2 * _CLOCK_LIMIT
        while True:
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.held = True
                return
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    raise
            if not self.waited:
                self.waited = True
                _logger.warning('another process is compiling %s, waiting for it', target.name)
            if time.monotonic() > give_up:
                raise NotBuilt(f'another process has held {self._stream.name} for {2 * _CLOCK_LIMIT} seconds: end it')
            time.sleep(_POLL)

    def tell(self, reason: str) -> None:
        """Leave to those that wait why nothing came of it ('': nothing has failed yet)."""
        if self.held:
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(reason)
            self._stream.flush()

    def raise_for_failure(self) -> None:
        """Raise what the process that had the lock failed with: it would fail here too."""
        self._stream.seek(0)
        reason = self._stream.read()
        if reason:
            raise NotBuilt(reason)


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[_Lock]:
    path = target.with_name(target.name + '.lock')
    with open(path, 'a+', encoding='utf-8', errors='replace') as stream:  # closing it gives the lock back
        lock = _Lock(stream)
        lock.take(target)
        yield lock


def _remove_leftovers(target: Path, lock: _Lock) -> None:
    """What builders of this library left that were killed, as this process is the only one at work."""
    if not lock.held:
        return
    lock.tell('')
    for folder in target.parent.glob(f'.{target.name}-*'):
        shutil.rmtree(folder, ignore_errors=True)
    for part in target.parent.glob(f'.{target.name}*.part'):
        part.unlink(missing_ok=True)


def find_compiler() -> str:
    """The path of a C++ compiler: `$CXX`, or one of the usual names.

    Raises:
        NotBuilt: There is none.
    """
    named = os.environ.get('CXX', '')
    for name in (named, *_COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    own = f'CXX is {named!r}, which is not there' if named else 'CXX is not set'
    raise NotBuilt(f'no C++ compiler: {own}, and none of {", ".join(_COMPILERS)} is on the PATH')


def _compile(compiler: str, level: Level, target: Path) -> None:
    """Write the library and its digest, each whole or not at all.

    The digest comes first: who looks in between sees no library, and not one without a digest.
    """
    with tempfile.TemporaryDirectory(prefix=f'.{target.name}-', dir=target.parent) as folder:
        built = Path(folder) / target.name
        for flags in level.attempts:
            done = _run_limited(compile_command(compiler, SOURCE, built, flags))
            if done.returncode == 0:
                break
        else:
            raise NotBuilt(f'{compiler} could not compile {SOURCE.name}: {_first_error(done)}')
        content = built.read_bytes()
    write_text_atomic(digest_path(target), digest_line(target.name, content))
    write_bytes_atomic(target, content)


def _run_limited(command: list[str]) -> subprocess.CompletedProcess:
    """Run a compiler with a limit on its processor time, where a shell can set one, and a wide one on the clock."""
    if os.path.exists('/bin/sh'):  # no `preexec_fn`: it is not safe beside threads
        limit = f'ulimit -S -t {_CPU_LIMIT} 2>/dev/null; exec "$@"'
        command = ['/bin/sh', '-c', limit, 'sh', *command]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors='replace', start_new_session=os.name == 'posix',
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=_CLOCK_LIMIT)
    except subprocess.TimeoutExpired:
        raise NotBuilt(f'{SOURCE.name} was not compiled within {_CLOCK_LIMIT} seconds') from None
    finally:
        _end(process)
    return subprocess.CompletedProcess(command, process.returncode, '', said)


def _end(process: subprocess.Popen) -> None:
    """End a compiler that is still at work, with all that it started."""
    if process.poll() is not None:
        return
    if os.name == 'posix':
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _first_error(done: subprocess.CompletedProcess) -> str:
    lines = done.stderr.splitlines()
    errors = [line for line in lines if 'error' in line] or lines or [f'it ended with exit code {done.returncode}']
    if any('CPU time limit' in line for line in lines) or done.returncode in _OUT_OF_TIME:
        errors = [f'it took more than {_CPU_LIMIT} seconds of processor time']
    return errors[0][:_CHARACTERS]
