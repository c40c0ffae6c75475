"""What the benchmark programs share: clocks, memory, the machine, tables, JSON, plots, and measuring in a new process.

A program is a script that imports this file from its own folder: `from common import ...`.
"""

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mmliir.utils.compute import describe_processor
from mmliir.utils.machine import usable_cores
from mmliir.version import __version__

#: Whether this system tells how much memory a process took.
MEMORY_IS_MEASURED = Path('/proc/self/clear_refs').exists()
#: Side of the matrices whose product is the machine's rate.
MATRIX_SIDE = {'cpu': 2048, 'cuda': 8192}


# ----------------------------------------------------------------------------------------------------------- clocks
@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and processor seconds of all threads, which a busy machine changes less."""

    wall: float
    cpu: float

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> 'Cost':
        return Cost(self.wall * factor, self.cpu * factor)


def timed(work: Callable[[], object], device: str = 'cpu') -> tuple[Cost, object]:
    """Call `work`, wait for the device -> what it took, what it returned."""
    synchronise(device)
    before = time.perf_counter(), time.process_time()
    result = work()
    synchronise(device)
    return Cost(time.perf_counter() - before[0], time.process_time() - before[1]), result


def synchronise(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def step_seconds(work: Callable[[int], object], repeats: int, device: str) -> list[float]:
    """Seconds of each of some calls that do not wait for one another: by events of the GPU, else by the clock.

    Args:
        work: Called with 0, 1, ..., as training calls a step: on a GPU the next is queued while one runs.
        repeats: Calls.
        device: 'cpu' or 'cuda'.
    """
    if device != 'cuda':
        return [timed(lambda number=number: work(number), device)[0].wall for number in range(repeats)]
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for number in range(repeats):
        work(number)
        marks[number + 1].record()
    torch.cuda.synchronize()
    return [1e-3 * before.elapsed_time(after) for before, after in zip(marks, marks[1:], strict=False)]


# ----------------------------------------------------------------------------------------------------------- memory
def resident_bytes() -> int:
    """Resident bytes of this process, after the allocator gave back what it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status('VmRSS')


def reset_peak(device: str = 'cpu') -> None:
    """Let `peak_bytes` count from here on."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    else:
        Path('/proc/self/clear_refs').write_text('5')


def peak_bytes(device: str = 'cpu') -> int:
    """The most bytes since `reset_peak`: held by PyTorch on the GPU, or resident in this process."""
    return torch.cuda.max_memory_allocated() if device == 'cuda' else _status('VmHWM')


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes; the memory is measured on Linux only."""
    for line in Path('/proc/self/status').read_text(encoding='utf-8').splitlines():
        if line.startswith(name + ':'):
            return int(line.split()[1]) * 1024
    raise OSError(f'/proc/self/status has no line {name}: memory can be measured on Linux only')


# ---------------------------------------------------------------------------------------------------------- machine
@dataclass(frozen=True)
class Machine:
    """What numbers were taken with; it stands above every table and in every JSON file.

    Attributes:
        mmliir, torch: Versions.
        processor: Name of the processor, or of the GPU.
        device: 'cpu' or 'cuda'.
        threads: Of PyTorch.
        cores: Of the machine.
        load: Average of the last minute when the program began; above `cores`, others wanted them too.
        matrix_gflops: Rate of a large product of PyTorch with these threads, GFLOP/s.
        matrix_side: Side of its matrices.
        matrix_dtype: Their type.
    """

    mmliir: str
    torch: str
    processor: str
    device: str
    threads: int
    cores: int
    load: float | None
    matrix_gflops: float
    matrix_side: int
    matrix_dtype: str

    def __str__(self) -> str:
        load = '' if self.load is None else f', load {self.load:.1f}'
        return (
            f'mmliir {self.mmliir}, torch {self.torch}, {self.processor}, {self.device}, {self.threads} of '
            f'{self.cores} threads{load}\n'
            f'product of {self.matrix_side}^2 {self.matrix_dtype} matrices: {self.matrix_gflops:.0f} GFLOP/s'
        )


def describe_machine(
    device: str, threads: int, dtype: torch.dtype = torch.float32, matrix_side: int | None = None
) -> Machine:
    """Name the machine and measure its matrix rate; sets PyTorch's threads."""
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    torch.set_num_threads(threads)
    side = matrix_side or MATRIX_SIDE[device]
    return Machine(
        mmliir=__version__,
        torch=torch.__version__,
        processor=torch.cuda.get_device_name() if device == 'cuda' else describe_processor(),
        device=device,
        threads=threads,
        cores=os.cpu_count() or 1,
        load=load,
        matrix_gflops=matrix_rate(device, dtype, side),
        matrix_side=side,
        matrix_dtype=str(dtype).removeprefix('torch.'),
    )


def matrix_rate(device: str, dtype: torch.dtype = torch.float32, side: int | None = None, repeats: int = 6) -> float:
    """GFLOP/s of a large product with PyTorch's threads as they are set; the best of `repeats`."""
    side = side or MATRIX_SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = min(timed(lambda: torch.mm(a, b), device)[0].wall for _ in range(repeats))
    return 2e-9 * side**3 / best


# -------------------------------------------------------------------------------------------------------- arguments
def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """--device and --threads; `settled_device` gives 'auto' its meaning."""
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    parser.add_argument('--threads', type=int, default=usable_cores(), metavar='N')


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """--json and --plot."""
    parser.add_argument('--json', type=_file_to_write, metavar='FILE', help='write the rows here')
    parser.add_argument('--plot', type=_file_to_write, metavar='FILE.png', help='draw the rows here')


def _file_to_write(name: str) -> Path:
    """Refused before minutes of measuring, not after them."""
    path = Path(name)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f'{name}: expected a file in a folder that is there')
    return path


def data_root() -> Path:
    """Where data sets lie: `$MMLIIR_DATA_ROOT`, else `data`."""
    return Path(os.environ.get('MMLIIR_DATA_ROOT') or 'data')


def settled_device(name: str) -> str:
    """'auto' -> the GPU when there is one.

    Raises:
        SystemExit: 'cuda' was asked for, and PyTorch sees no GPU.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda: this PyTorch sees no GPU; leave the option out to measure the CPU')
    if name != 'auto':
        return name
    return 'cuda' if torch.cuda.is_available() else 'cpu'


# ------------------------------------------------------------------------------------------------- a process of its own
def measure_in_process(
    program: str | Path, arguments: Sequence[str], what: str, limit_s: float | None = None
) -> dict | None:
    """Run a program again for one measurement, so that no other measurement changes its memory or its speed.

    Args:
        program: The script.
        arguments: Of the script; it prints one line of JSON last.
        what: Named when it fails.
        limit_s: Seconds after which it is given up.

    Returns:
        What that line holds; None when it was given up.

    Raises:
        SystemExit: It failed; with the last line of its errors.
    """
    command = [sys.executable, str(program), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
        raise SystemExit(f'{what}: {reason}')
    return json.loads(done.stdout.strip().splitlines()[-1])


# ----------------------------------------------------------------------------------------------------------- report
@dataclass(frozen=True)
class Column:
    """A column of a text table.

    Attributes:
        title: Above it.
        key: Of the row.
        form: Format specification without the width: '.3f', 'd', 's'. Text stands left, numbers right.
        width: Characters; the title must fit.
    """

    title: str
    key: str
    form: str = 's'
    width: int = 9


class TextTable:
    """Prints rows as they come, aligned. A missing value, or None, leaves its place empty."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)

    def header(self) -> str:
        return ''.join(
            f'{column.title:{"<" if column.form == "s" else ">"}{column.width}s}' for column in self.columns
        ).rstrip()

    def line(self, row: Mapping) -> str:
        cells = []
        for column in self.columns:
            value = row.get(column.key)
            text = '' if value is None else f'{value:{column.form}}'
            cells.append(f'{text:{"<" if column.form == "s" else ">"}{column.width}s}')
        return ''.join(cells).rstrip()

    def print_header(self) -> None:
        print(self.header(), flush=True)

    def print_row(self, row: Mapping) -> None:
        print(self.line(row), flush=True)


def write_report(path: Path, machine: Machine, rows: Sequence[Mapping], **more: object) -> None:
    """JSON: the machine's fields, what else is given, and `rows`."""
    content = {**asdict(machine), **more, 'rows': list(rows)}
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


@dataclass(frozen=True)
class Bars:
    """One panel of horizontal bars.

    Attributes:
        title: Above it.
        values: Name -> length.
        log: Logarithmic axis.
        line: Where a vertical line stands, for example at 1 for ratios; None for none.
        form: Printf format of the numbers at the bars.
    """

    title: str
    values: Mapping[str, float]
    log: bool = False
    line: float | None = None
    form: str = '%.1f'


def plot_bars(path: Path, panels: Sequence[Bars], title: str | None = None) -> None:
    """Draw panels side by side into a PNG file; with the same names they share the axis of names."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    most = max(len(panel.values) for panel in panels)
    share = all(list(panel.values) == list(panels[0].values) for panel in panels)
    size = (5.0 * len(panels), 0.45 * most + 1.4)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=share, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        bars = axis.barh(list(panel.values), list(panel.values.values()))
        axis.bar_label(bars, fmt=panel.form, padding=3)
        if panel.log:
            axis.set_xscale('log')
        if panel.line is not None:
            axis.axvline(panel.line, color='black', linewidth=0.8)
        axis.set_title(panel.title)
        axis.margins(x=0.2)
        if axis is axes[0][0] or not share:
            axis.invert_yaxis()
    if title is not None:
        figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
