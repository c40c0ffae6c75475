"""The compiled code at every vector width: it compiles for each, and where it can be run it gives the same results."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmliir.ops import native

HERE = Path(__file__).parent
SOURCE = Path(native.__file__).with_name('attend.cpp')
FLAGS = ('-O2', '-std=c++17', '-static', '-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math')
ON_X86 = platform.machine() in ('x86_64', 'AMD64')
pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='no g++')


def _build(folder: Path, compiler: str, *flags: str) -> Path:
    program = folder / 'attend_everywhere'
    command = [compiler, *FLAGS, *flags, f'-DATTEND="{SOURCE}"', '-o', program, HERE / 'attend_everywhere.cpp']
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return program


def _results(*command: str | Path) -> tuple[np.ndarray, int]:
    """(calls, values), and the bits of a vector."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    lines = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    return np.array(lines), int(done.stderr)


@pytest.fixture(scope='module')
def plain(tmp_path_factory) -> np.ndarray:
    """What code without any -march gives on this machine."""
    results, _ = _results(_build(tmp_path_factory.mktemp('plain'), 'g++'))
    assert results.shape[0] == 48 and np.isfinite(results).all()
    return results


def _has(*flags: str) -> bool:
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    own = next((line.split() for line in lines if line.startswith('flags')), [])
    return set(flags) <= set(own)


@pytest.mark.skipif(not ON_X86, reason='levels of x86-64')
@pytest.mark.parametrize(
    ('level', 'bits', 'flags'),
    [
        ('x86-64-v2', 128, ('sse4_2',)),
        ('x86-64-v3', 256, ('avx2', 'fma')),
        ('x86-64-v4', 512, ('avx512f', 'avx512bw', 'avx512dq', 'avx512vl')),
    ],
)
def test_every_level_of_x86_gives_the_same(level, bits, flags, plain, tmp_path):
    program = _build(tmp_path, 'g++', f'-march={level}')
    if not _has(*flags):
        pytest.skip(f'compiled for {level}, which this processor cannot run')
    results, width = _results(program)
    assert width == bits
    np.testing.assert_allclose(results, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.skipif(shutil.which('aarch64-linux-gnu-g++') is None, reason='no cross-compiler for aarch64')
def test_neon_gives_the_same(plain, tmp_path):
    program = _build(tmp_path, 'aarch64-linux-gnu-g++')
    emulator = shutil.which('qemu-aarch64') or shutil.which('qemu-aarch64-static')
    if emulator is None:
        pytest.skip('compiled for aarch64, and there is no qemu-aarch64 to run it')
    results, width = _results(emulator, program)
    assert width == 128
    np.testing.assert_allclose(results, plain, rtol=1e-4, atol=2e-5)
