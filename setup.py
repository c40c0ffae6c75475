"""Wheels with compiled code: `MMLIIR_PREBUILT=1 pip wheel --no-deps .`, or tools/misc/build_wheels.py.

Without that variable this file does nothing: setup.cfg describes the package, and installing needs no compiler.

    MMLIIR_PREBUILT   1: for this machine; x86_64 or aarch64: for that one, with its cross compiler in CXX
    CXX               the compiler (default: c++)
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).parent / 'mmliir' / 'ops' / 'native'
FOLDER = Path('mmliir', 'ops', 'native', 'prebuilt')
ASKED = os.environ.get('MMLIIR_PREBUILT', '')


def load_levels():
    """`mmliir.ops.native.levels`, without the package, which needs PyTorch."""
    spec = importlib.util.spec_from_file_location('levels', NATIVE / 'levels.py')
    levels = importlib.util.module_from_spec(spec)
    sys.modules['levels'] = levels  # dataclasses look there
    spec.loader.exec_module(levels)
    return levels


def compile_levels(folder: Path, asked: str) -> None:
    """Fill a folder with a library for each named level of an architecture, and its digest."""
    levels = load_levels()
    arch = levels.architecture(None if asked == '1' else asked)
    if arch not in levels.NAMED:
        raise SystemExit(f'MMLIIR_PREBUILT={asked}: no levels for {arch}; there are some for {", ".join(levels.NAMED)}')
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = NATIVE / 'attend.cpp'
    extra = ()
    if sys.platform == 'linux':
        # So that it runs beside any libstdc++; libgcc_s is on every system, and its static twin asks for a newer glibc.
        extra = (str(NATIVE / 'standalone.cpp'), '-static-libstdc++', '-Wl,--exclude-libs,ALL', '-s')
    for level in levels.NAMED[arch]:
        target = folder / levels.library_name(source.read_bytes(), level, arch)
        command = levels.compile_command(os.environ.get('CXX', 'c++'), source, target, level.attempts[0], extra)
        print(' '.join(command), flush=True)
        subprocess.run(command, check=True)
        levels.digest_path(target).write_text(levels.digest_line(target.name, target.read_bytes()), encoding='utf-8')


def manylinux_tag(libraries: list[Path], arch: str) -> str:
    """The platform tag of the oldest glibc that has every symbol version the libraries ask for (PEP 600)."""
    versions = {(2, 17)}  # what pip knows of as the oldest on every architecture
    for path in libraries:
        done = subprocess.run(['readelf', '--version-info', '--wide', path], capture_output=True, text=True, check=True)
        versions |= {(int(major), int(minor)) for major, minor in re.findall(r'\bGLIBC_(\d+)\.(\d+)', done.stdout)}
        foreign = set(re.findall(r'\b(GLIBCXX|CXXABI)_[\d.]+', done.stdout))
        if foreign:
            raise SystemExit(f'{path.name} needs a shared libstdc++ ({", ".join(sorted(foreign))}): link it in')
    major, minor = max(versions)
    return f'manylinux_{major}_{minor}_{arch}'


class BuildWithLibraries(build_py):
    """Copies the modules, then compiles."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            compile_levels(Path(self.build_lib) / FOLDER, ASKED)


class PlatformDistribution(Distribution):
    """Holds machine code."""

    def has_ext_modules(self) -> bool:
        return True


def commands() -> dict:
    from setuptools.command.bdist_wheel import bdist_wheel

    class PlatformWheel(bdist_wheel):
        """For any Python 3, as the libraries know nothing of Python, on one platform."""

        def get_tag(self) -> tuple[str, str, str]:
            platform = super().get_tag()[2]
            if sys.platform == 'linux':
                levels = load_levels()
                arch = levels.architecture(None if ASKED == '1' else ASKED)
                libraries = sorted((Path(self.bdist_dir) / FOLDER).glob('*.so'))
                platform = manylinux_tag(libraries, arch) if 'glibc' in levels.this_system() else f'linux_{arch}'
            return 'py3', 'none', platform

    return {'build_py': BuildWithLibraries, 'bdist_wheel': PlatformWheel}


if ASKED in ('', '0'):
    setup()
else:
    setup(cmdclass=commands(), distclass=PlatformDistribution)
