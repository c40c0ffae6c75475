"""How PyTorch computes best on this machine: precision, threads, memory layout. It is asked here, never in a config.

A result that depends on the answer says so: precision is on the run card and in the checkpoint, and a run that is
continued on another machine keeps it.
"""

import contextlib
import functools
import logging
import os
import platform
import time
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mmliir.utils.machine import PRECISIONS, processor_name, usable_cores

Precision = Literal['float32', 'bfloat16']
#: bfloat16 is chosen where it is at least this many times as fast: less is within what a busy machine measures.
_CLEAR_GAIN = 1.25
#: Set by users and launchers; who sets one has chosen the number of threads.
_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')

_logger = logging.getLogger(__name__)


def limit_threads() -> int:
    """Let PyTorch use no more threads than there are usable cores, unless the user has set their number.

    Returns:
        Threads that PyTorch now uses. More threads than a container's share of time stop each other.
    """
    if not any(os.environ.get(name) for name in _THREAD_VARIABLES):
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    return torch.get_num_threads()


def choose_precision(asked: str, device: torch.device | str) -> Precision:
    """The precision that encoders compute in; affinities and losses are computed in float32 in either.

    Args:
        asked: 'float32', 'bfloat16', or 'auto': bfloat16 where this device is clearly faster at it.
        device: Where it is computed.

    Returns:
        'float32' or 'bfloat16'. bfloat16 that is slow here is given when it was asked for, with a warning that says
        how slow.

    Raises:
        ValueError: `asked` is none of `PRECISIONS`.
    """
    if asked not in PRECISIONS:
        raise ValueError(f'precision must be one of {", ".join(PRECISIONS)}, got {asked!r}')
    if asked == 'float32':
        return 'float32'
    gain = bfloat16_gain(torch.device(device).type)
    if asked == 'bfloat16':
        if gain < 1:
            _logger.warning(
                'bfloat16 was asked for, and this machine has no fast instructions for it: expect encoding and '
                'training steps to take about %.0f times as long as in float32 (leave --amp out, or --precision auto)',
                max(1 / gain, 2),
            )
        return 'bfloat16'
    chosen: Precision = 'bfloat16' if gain >= _CLEAR_GAIN else 'float32'
    _logger.info(explain_precision(chosen, device))
    return chosen


def explain_precision(precision: Precision, device: torch.device | str) -> str:
    """One line for people: a precision, and how fast bfloat16 is here."""
    gain = bfloat16_gain(torch.device(device).type)
    compared = f'{gain:.1f} times as fast' if gain >= 1 else f'{1 / gain:.1f} times as slow'
    return f'{precision} (a convolution in bfloat16 is {compared} here)'


@functools.cache
def bfloat16_gain(device_type: str) -> float:
    """How many times as fast a convolution in bfloat16 is as one in float32 on this machine.

    On a CPU it is measured, in about a tenth of a second, because what oneDNN may use is not what the processor can
    do (`ONEDNN_MAX_CPU_ISA`). A GPU is asked whether it computes in bfloat16; then 2 stands for its rate on paper.
    Devices of other kinds: 1.
    """
    if device_type == 'cuda':
        return 2.0 if torch.cuda.is_bf16_supported(including_emulation=False) else 0.5
    if device_type != 'cpu':
        return 1.0
    with torch.no_grad():
        frames = torch.ones(1, 64, 32, 32).contiguous(memory_format=torch.channels_last)
        weight = torch.ones(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
        kinds = {kind: (frames.to(kind), weight.to(kind)) for kind in (torch.float32, torch.bfloat16)}
        best = dict.fromkeys(kinds, float('inf'))
        for _ in range(4):  # in turn, so that a busy moment meets both; the first also builds the kernels
            for kind, operands in kinds.items():
                start = time.perf_counter()
                F.conv2d(*operands, padding=1)
                best[kind] = min(best[kind], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


@contextlib.contextmanager
def computing_in(precision: Precision, device_type: str) -> Iterator[None]:
    """Convolutions and products inside run in this precision: 'float32' or 'bfloat16', and nothing else."""
    if precision not in ('float32', 'bfloat16'):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    if precision == 'float32':
        yield
    else:
        with torch.autocast(device_type, dtype=torch.bfloat16):
            yield


def training_format(network: nn.Module) -> torch.memory_format:
    """The layout in which a training step of a network is fast here, and sound. Without gradients it is channels last.

    Channels last, with two exceptions on CPUs whose code has no AVX-512, where oneDNN's backward pass of that layout

    * takes up to twice as long (a step of LIIR at 256 x 256: 9.5 s against 5.4);
    * writes outside its memory: that of a strided 1x1 convolution with 2 to 7 input channels (brgconv_strided;
      PyTorch 2.13.0 and 2.14.1). A network with one is kept out of it on every machine.

    The answer is a rule, not a measurement: a run that goes on computes the same bits.
    """
    unsound = any(
        isinstance(module, nn.Conv2d) and max(module.stride) > max(module.kernel_size) and module.in_channels < 8
        for module in network.modules()
    )
    return torch.contiguous_format if unsound or _has_narrow_vectors() else torch.channels_last


def _has_narrow_vectors() -> bool:
    """Whether training runs on an x86 CPU without AVX-512, or one where PyTorch or oneDNN is told not to use it."""
    if torch.cuda.is_available() or platform.machine().lower() not in ('x86_64', 'amd64'):
        return False
    limit = (os.environ.get('ONEDNN_MAX_CPU_ISA') or os.environ.get('DNNL_MAX_CPU_ISA') or '').upper()
    told_not_to = limit == 'AVX' or limit.startswith(('SSE41', 'AVX2'))
    return told_not_to or 'AVX512' not in torch.backends.cpu.get_cpu_capability()


def describe_processor() -> str:
    """The processor, the widest vectors of PyTorch's own code on it, and how fast bfloat16 is; for reports."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return f'{processor_name()}, {vectors}, bfloat16 at {bfloat16_gain("cpu"):.1f} times the speed of float32'
