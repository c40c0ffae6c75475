"""What ran: versions and the commit, for cards and reports."""

import functools
import platform
import subprocess
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

import cv2
import mmengine
import numpy
import torch

from mmliir.utils.compute import describe_processor
from mmliir.version import __version__


@functools.cache
def code_version() -> str:
    """Version of this package, with the commit when it runs from a git checkout ('0.1.0+g1a2b3c4', '-dirty')."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return __version__
    try:
        described = subprocess.run(
            ['git', '-C', str(root), 'describe', '--always', '--dirty', '--exclude=*'],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f'{__version__}+g{described}'


def environment() -> dict[str, str]:
    """Versions and device, for the report of a run."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f'{describe_processor()}; {torch.get_num_threads()} threads'
    return {
        'mmliir': code_version(),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'numpy': numpy.__version__,
        'opencv': cv2.__version__,
        'device': device,
    }


def peak_memory_gib() -> float:
    """Largest resident set of this process so far, in GiB; NaN where the system does not tell (Windows)."""
    if resource is None:
        return float('nan')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 30) if sys.platform == 'darwin' else peak / (1 << 20)
