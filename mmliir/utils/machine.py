"""What this machine has: cores, and the processor's name. Nothing here needs PyTorch; `compute.py` does."""

import contextlib
import os
import platform
from pathlib import Path

#: Precisions of an encoder that may be asked for; 'auto' asks the machine, see `compute.choose_precision`.
PRECISIONS = ('auto', 'float32', 'bfloat16')
_CGROUP = Path('/sys/fs/cgroup')


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control group's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else (os.cpu_count() or 1)
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cgroup_cores(root: Path = _CGROUP) -> float | None:
    """The processor time that the control group may take, in cores; None: no limit. A container sees itself at the
    root, so only that is asked."""
    try:
        if (root / 'cpu.max').is_file():  # version 2
            quota, period = (root / 'cpu.max').read_text().split()
        else:
            quota, period = ((root / 'cpu' / f'cpu.cfs_{name}_us').read_text().strip() for name in ('quota', 'period'))
        return None if quota in ('max', '-1') else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def processor_name() -> str:
    """The processor's name, for reports."""
    with contextlib.suppress(OSError):
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
        names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name') and ':' in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
