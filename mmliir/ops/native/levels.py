"""Which instructions compiled code may use: named levels, what this processor can do, and what each is built with.

A level is known by its name on every machine, so a library that was built on one is found, and shipped, on another.
Only where no named level fits is code built for the one processor at hand (`native`).

Nothing of the package is imported here: `setup.py` loads this file alone when it builds wheels.
"""

import hashlib
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMON_FLAGS = ('-O3', '-std=c++17', '-shared', '-fPIC', '-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math')

# What `-march=x86-64-v2` and so on say, for compilers from before these names.
_V2 = ('-msse3', '-mssse3', '-msse4.1', '-msse4.2', '-mpopcnt', '-mcx16', '-msahf')
_V3 = ('-mavx', '-mavx2', '-mbmi', '-mbmi2', '-mf16c', '-mfma', '-mlzcnt', '-mmovbe', '-mxsave')
_V4 = ('-mavx512f', '-mavx512bw', '-mavx512cd', '-mavx512dq', '-mavx512vl')
# Of systems that write /proc/cpuinfo in Linux's place -> Linux's.
_OTHER_WORDS = {'lzcnt': 'abm', 'sse3': 'pni'}


@dataclass(frozen=True)
class Level:
    """A set of instructions.

    Attributes:
        name: As `MMLIIR_NATIVE` and run cards have it.
        width: Bits of its vectors; 0 where nobody knows before it is compiled.
        attempts: Compiler flags; of several sets the first that the compiler takes.
        needs: What /proc/cpuinfo must list, beyond what the levels below need.
    """

    name: str
    width: int
    attempts: tuple[tuple[str, ...], ...]
    needs: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f'{self.name}, {self.width} bit' if self.width else self.name


#: Of processors with an architecture of their own kind; clang for ARM knows the second only, some compilers neither.
NATIVE = Level('native', 0, (('-march=native',), ('-mcpu=native',), ()))
X86_64_V2 = Level(
    'x86-64-v2', 128, (('-march=x86-64', *_V2),),
    frozenset('cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2'.split()),
)  # fmt: skip
X86_64_V3 = Level(
    'x86-64-v3', 256, (('-march=x86-64', *_V2, *_V3),),
    frozenset('avx avx2 bmi1 bmi2 f16c fma abm movbe xsave'.split()),
)  # fmt: skip
X86_64_V4 = Level(
    'x86-64-v4', 512, (('-march=x86-64', *_V2, *_V3, *_V4),),
    frozenset('avx512f avx512bw avx512cd avx512dq avx512vl'.split()),
)  # fmt: skip
AARCH64 = Level('aarch64', 128, ((),))  # NEON is a part of it
#: Architecture -> its named levels, the least one first.
NAMED = {'x86_64': (X86_64_V2, X86_64_V3, X86_64_V4), 'aarch64': (AARCH64,)}


def architecture(machine: str | None = None) -> str:
    """'x86_64', 'aarch64', or the system's own word; None: of this machine."""
    name = (machine or platform.machine()).lower()
    return {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(name, name)


def supported_levels() -> tuple[Level, ...]:
    """The levels that this processor can run, the best one first; never empty."""
    return levels_for(architecture(), _cpu_flags(), struct.calcsize('P') * 8)


def levels_for(arch: str, flags: frozenset[str] | None, pointer_bits: int = 64) -> tuple[Level, ...]:
    """The levels of a processor, the best one first.

    Args:
        arch: See `architecture`.
        flags: Its abilities in the words of Linux; None where they are not known.
        pointer_bits: Of this program; one of 32 bits on a processor of 64 has no named level.
    """
    found: list[Level] = []
    for level in NAMED.get(arch, ()) if pointer_bits == 64 else ():
        if level.needs and (flags is None or not level.needs <= flags):
            break
        found.insert(0, level)
    return tuple(found) or (NATIVE,)


def library_name(source: bytes, level: Level, arch: str | None = None, system: str | None = None) -> str:
    """The file name of compiled code: equal for equal source, flags, level and kind of machine.

    It knows no compiler, so a library is found where there is none.

    Args:
        source: Of `attend.cpp`.
        level: What it is compiled for. Of `NATIVE`, the name knows this processor.
        arch: See `architecture`; None: of this machine.
        system: As `this_system` says it; None: this one.
    """
    kind = [architecture(arch), system or this_system(), level.name, repr((COMMON_FLAGS, level.attempts))]
    if level == NATIVE:
        kind.append(_processor())
    digest = hashlib.sha256(source + '\n'.join(kind).encode()).hexdigest()
    return f'attend-{level.name}-{digest[:24]}.so'


def this_system() -> str:
    """What else machine code depends on: the system, its C library, and the size of a pointer."""
    libc = platform.libc_ver()[0] or 'other' if sys.platform == 'linux' else 'system'
    return f'{sys.platform} {libc} {struct.calcsize("P") * 8}'


def compile_command(
    compiler: str, source: os.PathLike, target: os.PathLike, flags: Sequence[str], extra: Sequence[str] = ()
) -> list[str]:
    """The command that makes a library of `attend.cpp`; `flags` are one of `Level.attempts`."""
    return [compiler, *COMMON_FLAGS, *flags, '-o', os.fspath(target), os.fspath(source), *extra]


def digest_path(library: Path) -> Path:
    """The file beside a library that holds its digest, in the form of `sha256sum`."""
    return library.with_name(library.name + '.sha256')


def digest_line(library_name: str, content: bytes) -> str:
    """What that file holds."""
    return f'{hashlib.sha256(content).hexdigest()}  {library_name}\n'


def _cpu_flags() -> frozenset[str] | None:
    """What all processors of this machine can do, as Linux says it: it leaves out what it does not switch on."""
    lists = [line.split(':', 1)[1].split() for line in _cpuinfo() if line.split(':')[0].strip() == 'flags']
    if not lists:
        return None
    flags = frozenset.intersection(*map(frozenset, lists))
    return flags | {_OTHER_WORDS[flag] for flag in flags & _OTHER_WORDS.keys()}


def _processor() -> str:
    """What `-march=native` depends on."""
    names = ('model name', 'flags', 'Features', 'CPU part')
    return '\n'.join(sorted({line for line in _cpuinfo() if line.split(':')[0].strip() in names}))


def _cpuinfo() -> list[str]:
    try:
        return Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:  # no Linux
        return [f'model name: {platform.processor()}']
