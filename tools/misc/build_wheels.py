#!/usr/bin/env python
"""Build wheels that hold the compiled code, for all levels of an architecture: who installs one compiles nothing.

The wheel of another architecture needs its cross compiler, say `apt-get install g++-aarch64-linux-gnu`.

examples:
  python tools/misc/build_wheels.py
  python tools/misc/build_wheels.py --arch x86_64 aarch64 --out dist
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What a wheel is made of; from a copy, so that nothing of an earlier build gets in.
PARTS = ('mmliir', 'setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')
ARCHITECTURES = ('x86_64', 'aarch64')


def build_wheel(arch: str, out: Path, isolated: bool) -> None:
    """Write the wheel for an architecture into a folder."""
    environment = {**os.environ, 'MMLIIR_PREBUILT': arch}
    if arch != platform.machine():
        environment.setdefault('CXX', f'{arch}-linux-gnu-g++')
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            source, target = ROOT / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', 'prebuilt'))
            else:
                shutil.copy(source, target)
        command = [sys.executable, '-m', 'pip', 'wheel', '--disable-pip-version-check', '--no-deps', '-w', out, folder]
        subprocess.run([*command, *([] if isolated else ['--no-build-isolation'])], env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--arch', nargs='+', choices=ARCHITECTURES, default=[platform.machine()], help='(default: of this machine)'
    )
    parser.add_argument('--out', type=Path, default=Path('dist'), help='folder of the wheels (default: dist)')
    parser.add_argument(
        '--no-isolation', action='store_true', help="use this environment's setuptools (70.1 or newer), not a new one"
    )
    args = parser.parse_args()
    for arch in args.arch:
        build_wheel(arch, args.out.resolve(), not args.no_isolation)
    return 0


if __name__ == '__main__':
    sys.exit(main())
