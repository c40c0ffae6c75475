"""Compiled code is shipped, found or built once, and a damaged library is never loaded."""

import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from compiler import needs_compiler

from mmliir.ops import native, window_topk_attend
from mmliir.ops.native import build, levels

SMALL = 'extern "C" { int mmliir_attend() { return 7; } int mmliir_single_labels() { return 1; } }\n'


def _forget():
    """Nothing is loaded yet, and nothing was said."""
    native._load_once.cache_clear()
    native._warned.clear()


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is built, shipped or loaded yet."""
    monkeypatch.setenv('MMLIIR_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('MMLIIR_NATIVE', raising=False)
    monkeypatch.setattr(build, 'PREBUILT', tmp_path / 'prebuilt')
    _forget()
    yield monkeypatch
    _forget()


@pytest.fixture
def small_source(fresh, tmp_path):
    source = tmp_path / 'attend.cpp'
    source.write_text(SMALL)
    fresh.setattr(build, 'SOURCE', source)
    return source


@pytest.fixture
def library(small_source):
    """A small library in the cache, with its digest. Not loaded: the system would find it again by its path."""
    return build.with_library(levels.supported_levels()[0], lambda path: path)


@pytest.fixture
def no_compiler(fresh, tmp_path):
    """A function that takes the compiler away."""

    def take() -> None:
        fresh.setenv('PATH', str(tmp_path))
        fresh.delenv('CXX', raising=False)

    return take


def _answer():
    _forget()
    return native.library().mmliir_attend(None, 0, 0)


def _inputs():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn((3, 5, 6), generator=generator),
        torch.randn((2, 3, 5, 6), generator=generator),
        torch.randn((2, 2, 5, 6), generator=generator),
    )


def _same_as_torch():
    inputs = _inputs()
    auto = window_topk_attend(*inputs, [2, None], topk=3)
    assert torch.equal(auto, window_topk_attend(*inputs, [2, None], topk=3, backend='torch'))
    return inputs


# ------------------------------------------------------------------------------------------------ which instructions

V3 = frozenset().union(*(own.needs for own in (levels.X86_64_V2, levels.X86_64_V3)))
V4 = V3 | levels.X86_64_V4.needs


@pytest.mark.parametrize(
    ('arch', 'flags', 'bits', 'expected'),
    [
        ('x86_64', V4, 64, ['x86-64-v4', 'x86-64-v3', 'x86-64-v2']),
        ('x86_64', V4 - {'avx512bw'}, 64, ['x86-64-v3', 'x86-64-v2']),
        ('x86_64', V4 - {'avx2'}, 64, ['x86-64-v2']),  # a level stands on those below it
        ('x86_64', V4 - {'ssse3'}, 64, ['native']),
        ('x86_64', None, 64, ['native']),
        ('x86_64', V4, 32, ['native']),
        ('aarch64', frozenset(), 64, ['aarch64']),
        ('aarch64', None, 64, ['aarch64']),
        ('riscv64', None, 64, ['native']),
    ],
)
def test_the_levels_of_a_processor(arch, flags, bits, expected):
    assert [own.name for own in levels.levels_for(arch, flags, bits)] == expected


def test_all_cores_must_have_an_ability(monkeypatch):
    def cpuinfo(*cores):
        monkeypatch.setattr(levels, '_cpuinfo', lambda: [f'flags\t\t: {" ".join(core)}' for core in cores])
        monkeypatch.setattr(levels.platform, 'machine', lambda: 'AMD64')
        return [own.name for own in levels.supported_levels()]

    assert cpuinfo(V4, V4)[0] == 'x86-64-v4'
    assert cpuinfo(V4, V3)[0] == 'x86-64-v3'
    assert cpuinfo(V3 - {'abm', 'pni'} | {'lzcnt', 'sse3'})[0] == 'x86-64-v3'  # not written by Linux
    assert cpuinfo() == ['native']


def test_the_name_of_a_library_knows_what_it_depends_on_and_no_compiler(monkeypatch):
    names = {
        levels.library_name(source, level, arch, system)
        for source in (b'1', b'2')
        for level in (levels.X86_64_V2, levels.X86_64_V3)
        for arch in ('x86_64', 'other')
        for system in ('linux glibc 64', 'linux other 64')
    }
    assert len(names) == 16
    monkeypatch.setattr(levels, 'COMMON_FLAGS', ('-O1',))
    assert levels.library_name(b'1', levels.X86_64_V2, 'x86_64', 'linux glibc 64') not in names
    before = levels.library_name(b'1', levels.NATIVE), levels.library_name(b'1', levels.X86_64_V3)
    monkeypatch.setattr(levels, '_cpuinfo', lambda: ['model name: another'])
    assert levels.library_name(b'1', levels.NATIVE) != before[0]
    assert levels.library_name(b'1', levels.X86_64_V3) == before[1]


def test_a_lower_level_can_be_asked_for(small_source, fresh, tmp_path):
    fresh.setattr(native, '_supported_levels', lambda: (levels.X86_64_V3, levels.NATIVE))
    fresh.setattr(build, 'with_library', None)
    assert native.choice() == 'x86-64-v3'
    for asked in ('native', ' native '):
        fresh.setenv('MMLIIR_NATIVE', asked)
        assert native.choice() == 'native'
    for wrong in ('x86-64-v4', 'avx2', 'yes'):
        fresh.setenv('MMLIIR_NATIVE', wrong)
        with pytest.raises(ValueError, match=rf'MMLIIR_NATIVE={wrong}: expected 0 .*1 .*: x86-64-v3, native$'):
            native.choice()
        with pytest.raises(ValueError, match=wrong):
            window_topk_attend(*_inputs(), [2, None])


@needs_compiler
def test_level_and_width_are_those_in_use(small_source, fresh, caplog):
    best = levels.supported_levels()[0]
    with caplog.at_level(logging.INFO, logger='mmliir'):
        assert (native.level(), native.width(), native.describe()) == (best.name, best.width, str(best))
    assert f'compiled code: {best}, from ' in caplog.text
    lowest = levels.supported_levels()[-1]
    with native.forced(lowest.name):
        assert native.level() == lowest.name and native.library().mmliir_attend(None, 0, 0) == 7
    assert 'MMLIIR_NATIVE' not in os.environ
    with native.forced('0'), pytest.raises(native.Unavailable, match='MMLIIR_NATIVE=0'):
        native.level()


# ------------------------------------------------------------------------------------------------- nothing is to be had

def test_without_a_compiler_pytorch_serves_and_a_warning_says_so_once(no_compiler, caplog):
    no_compiler()
    inputs = _same_as_torch()
    _same_as_torch()
    native._load_once.cache_clear()  # as in a process that was forked from this one
    _same_as_torch()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            'WARNING',
            'propagation runs on PyTorch, several times slower: no compiled code (no C++ compiler: CXX is not set, and '
            'none of c++, g++, clang++ is on the PATH). docs/installation.md says what to do; MMLIIR_NATIVE=0 says '
            'that it is meant.',
        )
    ]
    with pytest.raises(ValueError, match=r'no C\+\+ compiler'):
        window_topk_attend(*inputs, [2, None], backend='native')


def test_it_can_be_switched_off_without_a_warning(fresh, caplog):
    fresh.setenv('MMLIIR_NATIVE', '0')
    inputs = _same_as_torch()
    with pytest.raises(ValueError, match='MMLIIR_NATIVE=0'):
        window_topk_attend(*inputs, [2, None], backend='native')
    assert not caplog.records


@needs_compiler
def test_a_cache_folder_that_cannot_be_written_is_no_error(fresh, tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    fresh.setenv('MMLIIR_CACHE', str(tmp_path / 'file' / 'cache'))
    inputs = _same_as_torch()
    with pytest.raises(ValueError, match="cannot serve.*'.*file/cache'|Not a directory"):
        window_topk_attend(*inputs, [2, None], backend='native')
    assert 'propagation runs on PyTorch' in caplog.text and 'file/cache' in caplog.text


@needs_compiler
def test_source_that_does_not_compile_is_no_error(small_source):
    small_source.write_text('this is no C++\n')
    inputs = _same_as_torch()
    with pytest.raises(ValueError, match=r'could not compile attend\.cpp: .*error'):
        window_topk_attend(*inputs, [2, None], backend='native')


@needs_compiler
def test_a_folder_from_which_nothing_may_be_loaded_is_named_before_anything_is_compiled(small_source, fresh, caplog):
    real = os.statvfs

    class NoExec:
        f_flag = os.ST_NOEXEC

    fresh.setattr(os, 'statvfs', lambda path: NoExec if 'cache' in str(path) else real(path))
    _same_as_torch()
    assert 'mounted with noexec' in caplog.text and 'compiling' not in caplog.text


@needs_compiler
@pytest.mark.skipif(not os.path.exists('/bin/sh'), reason='no shell sets limits')
def test_the_limit_is_on_processor_time(small_source, fresh, tmp_path):
    def compiler(text):
        script = tmp_path / 'cxx'
        script.write_text(f'#!/bin/sh\n{text}\nexec {real} "$@"\n')
        script.chmod(0o755)
        fresh.setenv('CXX', str(script))

    real = build.find_compiler()
    fresh.setattr(build, '_CPU_LIMIT', 1)
    compiler('sleep 2')  # on the clock alone
    assert _answer() == 7
    shutil.rmtree(tmp_path / 'cache')
    compiler('while :; do :; done')
    with pytest.raises(native.Unavailable, match=r'cxx could not compile attend\.cpp: it took more than 1 seconds of'):
        _answer()
    fresh.setattr(build, '_CPU_LIMIT', 60)
    fresh.setattr(build, '_CLOCK_LIMIT', 1)
    compiler('sleep 60')
    start = time.monotonic()
    with pytest.raises(native.Unavailable, match='not compiled within 1 seconds'):
        _answer()
    assert time.monotonic() - start < 20


# ------------------------------------------------------------------------------------------------------ found and built

@needs_compiler
def test_it_is_built_once_says_so_and_is_found_without_a_compiler(small_source, no_compiler, caplog, tmp_path):
    assert _answer() == 7
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert re.match(r'compiling attend\.cpp for \S+ with \S+ into \S+: once, ', caplog.text.split('build.py:')[1][4:])
    stamp = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').iterdir()}
    assert sorted(path.suffix for path in stamp) == ['.lock', '.sha256', '.so']
    caplog.clear()
    no_compiler()
    assert _answer() == 7
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').iterdir()} == stamp
    assert not caplog.records


@needs_compiler
def test_other_source_makes_another_file(small_source, tmp_path):
    assert _answer() == 7
    small_source.write_text(SMALL.replace('7', '8'))
    assert _answer() == 8
    assert len(list((tmp_path / 'cache').glob('*.so'))) == 2


@needs_compiler
def test_what_is_shipped_comes_first(library, fresh, no_compiler, tmp_path):
    """A library under the same name that answers otherwise."""
    other = tmp_path / 'other.cpp'
    other.write_text(SMALL.replace('7', '9'))
    shipped = tmp_path / 'prebuilt' / library.name
    shipped.parent.mkdir()
    subprocess.run([build.find_compiler(), '-shared', '-fPIC', '-o', shipped, other], check=True)
    levels.digest_path(shipped).write_text(levels.digest_line(shipped.name, shipped.read_bytes()))
    no_compiler()
    assert _answer() == 9
    levels.digest_path(shipped).unlink()  # the cache is next
    assert _answer() == 7
    library.unlink()
    with pytest.raises(native.Unavailable, match=rf'{shipped} lacks {shipped.name}\.sha256; no C\+\+ compiler'):
        _answer()


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        ({'MMLIIR_CACHE': '/a', 'XDG_CACHE_HOME': '/b', 'HOME': '/c'}, '/a'),
        ({'XDG_CACHE_HOME': '/b', 'HOME': '/c'}, '/b/mmliir'),
        ({'HOME': '/c'}, '/c/.cache/mmliir'),
    ],
)
def test_the_cache_folder_is_the_users(variables, expected, monkeypatch):
    for name in ('MMLIIR_CACHE', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(native.cache_folder()) == expected


# --------------------------------------------------------------------------------------------------------------- damage

def _flipped(at):
    def damage(path):
        content = bytearray(path.read_bytes())
        place = at if isinstance(at, int) else int(at * len(content))
        content[place] ^= 0x41
        _replace(path, bytes(content))

    return damage


def _cut(at):
    def damage(path):
        content = path.read_bytes()
        _replace(path, content[: at if isinstance(at, int) else int(at * len(content))])

    return damage


def _replace(path, content):
    path.unlink()  # a new file: a loaded one must not change under its feet
    path.write_bytes(content)


def _appended(what):
    return lambda path: _replace(path, path.read_bytes() + what)


def _digest(change):
    """`change` of the digest's text: another, or None for no file."""

    def damage(path):
        text = change(levels.digest_path(path).read_text())
        levels.digest_path(path).unlink()
        if text is not None:
            levels.digest_path(path).write_text(text)

    return damage


def _other_machine(path):
    content = bytearray(path.read_bytes())
    content[18:20] = (0xF3).to_bytes(2, 'little')  # e_machine of ELF: RISC-V
    _replace(path, bytes(content))
    levels.digest_path(path).write_text(levels.digest_line(path.name, bytes(content)))


def _not_a_library(path):
    """Whole, as its digest says, but nothing that can be loaded."""
    _replace(path, b'#!/bin/sh\n')
    levels.digest_path(path).write_text(levels.digest_line(path.name, b'#!/bin/sh\n'))


def _folder(path):
    path.unlink()
    path.mkdir()


def _unreadable(path):
    path.unlink()
    path.symlink_to('/nonexistent/library.so')


DAMAGED = {
    **{f'cut to {at} bytes': _cut(at) for at in (0, 1, 3, 4, 16, 52, 63, 64, 65, 120, 512, 1000, 4095, 4096, 4097)},
    **{f'cut to {at:.0%}': _cut(at) for at in (0.3, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99)},
    'cut by one byte': lambda path: _replace(path, path.read_bytes()[:-1]),
    'cut by eight bytes': lambda path: _replace(path, path.read_bytes()[:-8]),
    **{f'byte {at} altered': _flipped(at) for at in (0, 4, 5, 7, 16, 18, 20, 24, 32, 40, 52, 54, 56, 58, 64, 72, 96)},
    **{f'byte at {at:.0%} altered': _flipped(at) for at in (0.25, 0.4, 0.55, 0.7, 0.85, 0.999)},
    'one byte appended': _appended(b'\0'),
    'itself appended': lambda path: _replace(path, path.read_bytes() * 2),
    'zeros in its place': lambda path: _replace(path, bytes(path.stat().st_size)),
    'text in its place': lambda path: _replace(path, b'no library\n'),
    'code of another machine': _other_machine,
    'no library, with a digest': _not_a_library,
    'no digest': _digest(lambda text: None),
    'an empty digest': _digest(lambda text: ''),
    'half a digest': _digest(lambda text: text[:30]),
    'another digest': _digest(lambda text: ('0' if text[0] != '0' else '1') + text[1:]),
    'the digest of another file': _digest(lambda text: text.replace('attend', 'other')),
    'a folder in its place': _folder,
    'a link to nowhere': _unreadable,
}


def test_there_are_more_than_fifty_kinds_of_damage():
    assert len(DAMAGED) >= 54


@needs_compiler
@pytest.mark.parametrize('kind', DAMAGED)
def test_a_damaged_library_is_built_again_or_refused_by_name(kind, library, fresh, no_compiler, caplog, tmp_path):
    """No variant reaches the loader but the two whose digest fits, which it refuses itself."""
    good, digest = library.read_bytes(), levels.digest_path(library).read_bytes()

    def compile_again(_compiler, _level, target):
        build.write_bytes_atomic(target, good)
        build.write_bytes_atomic(levels.digest_path(target), digest)

    DAMAGED[kind](library)
    # A library that is not its digest's would not be loaded: the damage is seen first.
    seen = build.damage(library)
    assert bool(seen) is (kind not in ('code of another machine', 'no library, with a digest'))
    with fresh.context() as without:
        without.setenv('PATH', str(tmp_path))
        with pytest.raises(native.Unavailable, match=rf'{library} .*no C\+\+ compiler'):
            _answer()
        _same_as_torch()
        assert f'no compiled code ({library} ' in caplog.text
    fresh.setattr(build, '_compile', compile_again)
    if kind in ('a folder in its place', 'a link to nowhere'):
        with pytest.raises(native.Unavailable, match=rf'{library} is no file.*delete it'):
            _answer()
        return
    assert _answer() == 7
    assert f'{library} ' in caplog.text and 'it is not used' in caplog.text
    assert build.damage(library) == ''
    assert _answer() == 7


def _environment(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MMLIIR_')}
    root = str(Path(build.__file__).parents[3])
    return environment | {'MMLIIR_CACHE': str(tmp_path / 'cache'), 'PYTHONPATH': root, 'OMP_NUM_THREADS': '1'}


@needs_compiler
@pytest.mark.slow
def test_no_damage_of_the_real_library_ends_the_interpreter(tmp_path):
    """In one process that meets them all: a library that is loaded although it is damaged would end it."""
    script = """
import logging, pathlib, shutil, sys
sys.path[:0] = sys.argv[2:]
from test_native_build import DAMAGED, build, levels, native, _forget
logging.disable()
whole, folder = pathlib.Path(sys.argv[1]), build.cache_folder()
library = folder / whole.name
def refuse(*_):
    raise build.NotBuilt('not now')
build._compile = refuse
for kind, damage in DAMAGED.items():
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(whole, folder)
    shutil.copy(levels.digest_path(whole), folder)
    damage(library)
    _forget()
    try:
        native.library()
        print('LOADED', kind)
    except native.Unavailable as reason:
        assert str(library) in str(reason), reason
        print('refused', kind)
"""
    whole = build.with_library(levels.supported_levels()[0], lambda path: path)
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, '-c', script, str(whole), *folders], env=_environment(tmp_path),
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f'refused {kind}' for kind in DAMAGED]


# ----------------------------------------------------------------------------------------------------- many at one time

@pytest.fixture
def calls(small_source, fresh, tmp_path):
    """A function that makes the compiler write a line for every call, and does `before` first; -> the lines."""
    real = build.find_compiler()

    def lines() -> list[str]:
        return (tmp_path / 'calls').read_text().split() if (tmp_path / 'calls').exists() else []

    def count(before: str):
        script = tmp_path / 'cxx'
        script.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/calls\n{before}\nexec {real} "$@"\n')
        script.chmod(0o755)
        fresh.setenv('CXX', str(script))
        return lines

    return count


def _cold_start(ready, answer):
    """What a process finds, and the lines that it logs: (path or reason, lines)."""
    _forget()
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger('mmliir').addHandler(handler)
    ready.wait()
    try:
        found = native.library()._name
    except native.Unavailable as reason:
        found = str(reason)
    answer.send((found, lines))


def _start_many(count):
    """Processes that start together -> each with its end of a pipe."""
    context = multiprocessing.get_context('fork')
    ready, started = context.Barrier(count), []
    for _ in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_cold_start, args=(ready, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    return started


def _finish(started):
    """-> (what each found, what each logged)"""
    answers = []
    for process, pipe in started:
        assert pipe.poll(300), 'no answer'
        answers.append(pipe.recv())
        process.join(60)
    return tuple(zip(*answers, strict=True))


def _wait_for(condition, what):
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def _kinds(folder):
    return sorted(path.suffix for path in folder.iterdir())


needs_locks = pytest.mark.skipif(build.fcntl is None, reason='no locks on this system')


@needs_compiler
@needs_locks
@pytest.mark.parametrize('before', ['', 'sleep 4'], ids=['at once', 'slowly'])
def test_of_eight_cold_starts_one_builds_and_all_use_it(before, calls, tmp_path):
    lines = calls(before)
    found, logged = _finish(_start_many(8))
    assert len(lines()) == 1
    assert set(found) == {str(next((tmp_path / 'cache').glob('*.so')))}
    assert sum(any('compiling attend.cpp' in line for line in own) for own in logged) == 1
    if before:
        assert sum(any('another process is compiling' in line for line in own) for own in logged) == 7
    assert _kinds(tmp_path / 'cache') == ['.lock', '.sha256', '.so']


@needs_compiler
@needs_locks
def test_when_the_builder_dies_another_one_builds(calls, tmp_path):
    lines = calls(f'[ $(wc -l < {tmp_path}/calls) -gt 1 ] || sleep 600')
    [(first, _)] = _start_many(1)
    _wait_for(lines, 'the first compiler has not started')
    others = _start_many(2)
    time.sleep(0.5)
    first.kill()
    first.join()
    found, _ = _finish(others)
    os.killpg(int(lines()[0]), signal.SIGKILL)  # what the dead one had started
    assert len(lines()) == 2
    assert set(found) == {str(next((tmp_path / 'cache').glob('*.so')))}
    assert _kinds(tmp_path / 'cache') == ['.lock', '.sha256', '.so']  # nothing is left of the first one


@needs_compiler
@needs_locks
def test_a_compiler_that_is_killed_fails_once_for_all_that_wait_and_the_next_start_builds(calls, tmp_path):
    lines = calls(f'[ -e {tmp_path}/go ] || sleep 600')
    started = _start_many(3)
    _wait_for(lines, 'no compiler has started')
    time.sleep(0.5)  # the others wait
    os.killpg(int(lines()[0]), signal.SIGKILL)
    found, _ = _finish(started)
    assert all('could not compile attend.cpp' in reason for reason in found)
    assert len(lines()) == 1
    (tmp_path / 'go').touch()
    assert _answer() == 7
    assert len(lines()) == 2


@needs_compiler
def test_where_there_are_no_locks_each_builds_for_itself(small_source, fresh, tmp_path):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_):
            raise OSError(build.errno.ENOLCK, 'No locks available')

    for stand_in in (NoLocks, None):
        fresh.setattr(build, 'fcntl', stand_in)
        assert _answer() == 7
        shutil.rmtree(tmp_path / 'cache')


@needs_compiler
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork')
def test_a_forked_process_loads_its_own(small_source):
    assert _answer() == 7
    child = os.fork()
    if not child:
        os._exit(native.library().mmliir_attend(None, 0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
