"""Wheels bring compiled code for every level; what this machine cannot run is compiled, or run by an emulator."""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from command_cases import ROOT
from compiler import needs_compiler

from mmliir.ops.native import build, levels

pytestmark = pytest.mark.slow
CROSS = 'aarch64-linux-gnu-g++'
needs_cross = pytest.mark.skipif(shutil.which(CROSS) is None, reason=f'no {CROSS}')
needs_readelf = pytest.mark.skipif(shutil.which('readelf') is None, reason='no readelf')
ARCH = levels.architecture()
RUN = """
import sys, torch
from mmliir.ops import native, window_topk_attend
generator = torch.Generator().manual_seed(0)
inputs = [torch.randn(shape, generator=generator) for shape in ((8, 9, 9), (2, 8, 9, 9), (2, 3, 9, 9))]
ours, plain = (window_topk_attend(*inputs, [3, 3], topk=5, backend=name) for name in ('native', 'torch'))
torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
print(native.level(), native.library()._name)
"""


def _environment(**changes):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('MMLIIR_', 'PYTHONPATH'))}
    return environment | {'OMP_NUM_THREADS': '1'} | changes


def _build_wheel(folder, arch):
    command = [sys.executable, str(ROOT / 'tools/misc/build_wheels.py'), '--arch', arch, '--out', str(folder)]
    done = subprocess.run(
        [*command, '--no-isolation'], env=_environment(), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob('*.whl')
    return wheel


def _libraries(wheel, folder):
    """The libraries of a wheel, unpacked; their digests were looked at."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if '/prebuilt/' in name]
        archive.extractall(folder, names)
    paths = sorted((folder / name for name in names if name.endswith('.so')), key=lambda path: path.name)
    assert len(names) == 2 * len(paths)
    assert [build.damage(path) for path in paths] == [''] * len(paths)
    return paths


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    if ARCH not in levels.NAMED or sys.platform != 'linux':
        pytest.skip(f'wheels are tested on Linux, for {", ".join(levels.NAMED)}')
    return _build_wheel(tmp_path_factory.mktemp('wheel'), ARCH)


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """The Python of a new environment with the wheel, and this one's PyTorch."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    python = folder / 'bin' / 'python'
    site = next(folder.glob('lib/python*/site-packages'))
    (site / 'packages.pth').write_text(f'{sysconfig.get_path("purelib")}\n')
    subprocess.run(
        [sys.executable, '-m', 'pip', '--python', python, 'install', '-q', '--no-deps', '--no-index', wheel], check=True
    )
    return python


@needs_compiler
@needs_readelf
def test_a_wheel_has_every_level_and_says_where_it_runs(wheel, tmp_path):
    name, tag = wheel.name.split('-py3-none-')
    major, minor, arch = tag.removeprefix('manylinux_').removesuffix('.whl').split('_', 2)
    assert name.startswith('mmliir-') and arch == ARCH
    assert (int(major), int(minor)) <= (2, 28)  # of every distribution that PyTorch runs on
    source = build.SOURCE.read_bytes()
    expected = sorted(levels.library_name(source, level) for level in levels.NAMED[ARCH])
    assert [path.name for path in _libraries(wheel, tmp_path)] == expected


@needs_compiler
@needs_readelf
def test_an_installed_wheel_compiles_nothing(installed, tmp_path):
    for asked in ('1', *(own.name for own in levels.supported_levels())):
        done = subprocess.run(
            [installed, '-W', 'error::RuntimeWarning', '-c', RUN], cwd=tmp_path, capture_output=True, text=True,
            env=_environment(PATH='/nowhere', CXX='', MMLIIR_CACHE=str(tmp_path / 'cache'), MMLIIR_NATIVE=asked),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        level, path = done.stdout.split()
        assert level == (levels.supported_levels()[0].name if asked == '1' else asked)
        assert Path(path).is_relative_to(installed.parents[1]) and f'/prebuilt/attend-{level}-' in path
        assert 'compil' not in done.stderr and not (tmp_path / 'cache').exists()


@needs_compiler
@needs_readelf
def test_a_damaged_library_of_a_wheel_is_refused_by_name(installed, tmp_path):
    best = levels.supported_levels()[0].name
    [library] = installed.parents[1].glob(f'lib/python*/site-packages/mmliir/ops/native/prebuilt/attend-{best}-*.so')
    whole = library.read_bytes()
    library.unlink()
    library.write_bytes(whole[:-1])
    try:
        done = subprocess.run(
            [installed, '-c', RUN], cwd=tmp_path, capture_output=True, text=True,
            env=_environment(PATH='/nowhere', CXX='', MMLIIR_CACHE=str(tmp_path / 'cache')),
        )  # fmt: skip
    finally:
        library.unlink()
        library.write_bytes(whole)
    assert done.returncode == 1 and 'Traceback' in done.stderr  # backend='native' was asked for
    assert f'{library} is not what {library.name}.sha256 says; no C++ compiler' in done.stderr


@needs_cross
@needs_readelf
def test_a_wheel_for_arm_is_made_by_a_cross_compiler(tmp_path):
    wheel = _build_wheel(tmp_path, 'aarch64')
    assert wheel.name.endswith('_aarch64.whl')
    [library] = _libraries(wheel, tmp_path / 'libraries')
    assert library.name == levels.library_name(build.SOURCE.read_bytes(), levels.AARCH64, 'aarch64')
    assert library.read_bytes()[18:20] == (183).to_bytes(2, 'little')  # e_machine of ELF


@needs_cross
@pytest.mark.skipif(shutil.which('qemu-aarch64') is None, reason='no qemu-aarch64')
def test_code_for_arm_computes_what_a_loop_computes(tmp_path):
    program = tmp_path / 'check'
    source = ROOT / 'tests' / 'attend_check.cpp'
    flags = [flag for flag in levels.COMMON_FLAGS if flag != '-shared']
    command = [CROSS, *flags, *levels.AARCH64.attempts[0], '-w', '-static', '-I', build.SOURCE.parent]
    subprocess.run([*command, '-o', program, source], check=True)
    done = subprocess.run(['qemu-aarch64', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_compiler
@pytest.mark.parametrize('level', [own.name for own in levels.supported_levels()[1:]])
def test_lower_levels_pass_the_tests_of_compiled_code(level):
    """The best one has them in this process."""
    files = [str(ROOT / 'tests' / 'test_ops' / f'test_native_{name}.py') for name in ('attend', 'displaced')]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'not slow', *files],
        cwd=ROOT, env={**os.environ, 'MMLIIR_NATIVE': level}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert ' passed' in done.stdout and 'failed' not in done.stdout


@needs_compiler
@pytest.mark.parametrize('level', [own for own in levels.NAMED.get(ARCH, ()) if own not in levels.supported_levels()])
def test_levels_that_this_processor_lacks_are_compiled(level, tmp_path):
    command = levels.compile_command(build.find_compiler(), build.SOURCE, tmp_path / 'a.so', level.attempts[0])
    subprocess.run(command, check=True)
    assert (tmp_path / 'a.so').read_bytes()[:4] == b'\x7fELF'


def test_without_the_variable_setup_py_adds_nothing(monkeypatch):
    monkeypatch.delenv('MMLIIR_PREBUILT', raising=False)
    given = []
    monkeypatch.setattr('setuptools.setup', lambda **arguments: given.append(arguments))
    runpy.run_path(str(ROOT / 'setup.py'))
    assert given == [{}]
