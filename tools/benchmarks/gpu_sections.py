"""The measurements of gpu.py, a section a process: each yields rows, and a row that fails says why and is no other's.

Rows are dictionaries with a `name`; one with `error` was not measured. `gpu.py` runs a section with a time limit and
keeps what has been yielded, so the dearest rows come first. Seconds are medians by the GPU's own clock after calls that
warm up; on a CPU by the clock of the machine.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import propagation
import torch
from common import (
    MATRIX_SIDE,
    MEMORY_IS_MEASURED,
    matrix_rate,
    measure_in_process,
    peak_bytes,
    reset_peak,
    step_seconds,
)
from torch import Tensor

from mmliir.ops import triton_attend, window_topk_attend
from mmliir.ops.native import Unavailable
from mmliir.testing.reference_propagation import attend_loop
from mmliir.utils.machine import processor_name
from mmliir.version import __version__

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
RECIPE = REPOSITORY / 'configs' / 'liir_r18_ytvos.py'
#: What a row may raise without taking the others with it: a wrong or refused setting, too little memory, a package.
ROW_ERRORS = (RuntimeError, ValueError, ImportError, OSError, SystemExit)
#: Importable name -> what to install; everything that reads frames or trains needs them.
ENGINE_WHEELS = {
    'mmengine': 'mmengine>=0.10.7,<0.11 (or onedl-mmengine>=0.10.12)',
    'mmcv': 'mmcv-lite>=2.2.0 (or onedl-mmcv>=2.3.6)',
    'cv2': 'opencv-python-headless',
    'PIL': 'pillow',
    'rich': 'rich',
    'av': 'av>=14',
}


class LeftOut(Exception):
    """A section that this machine cannot have and that nobody misses: the text says why."""


@dataclass(frozen=True)
class Setup:
    """What every section is told.

    Attributes:
        device: 'cpu' or 'cuda'.
        tiny: Few cells, few steps: whether everything works, not how fast.
        seconds: How long the section may take; it is stopped then.
        data_root: Folder of data sets, with `train` in it; None: generated videos.
        found: Rows of the sections before, by section.
        start: When the section began, by `time.monotonic`.
    """

    device: str
    tiny: bool
    seconds: float
    data_root: Path | None
    found: Mapping[str, list[dict]]
    start: float

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def need(self, seconds: float) -> None:
        """Raises:
        RuntimeError: Less than that is left of the section's time: what would begin now would be stopped with it.
        """
        if self.left < seconds:
            raise RuntimeError('not reached: the time of this section is over')

    def rate(self, kind: str) -> float | None:
        """TFLOP/s of a large product in this run; None where it was not measured."""
        rows = {row['name']: row for row in self.found.get('machine', []) if 'error' not in row}
        return rows[kind]['tflop_per_s'] if kind in rows else None

    def bandwidth(self) -> float | None:
        """Bytes a second of a large copy in this run."""
        for row in self.found.get('machine', []):
            if row['name'] == COPY and 'error' not in row:
                return 1e9 * row['gb_per_s']
        return None


# -------------------------------------------------------------------------------------------------------- precision
# All that depends on precision stands here: which precisions are measured, how programs and training are asked for
# one, and which product of matrices a rate is compared with.
def convolution_product(bfloat16: bool, device: str) -> str:
    """Name of the row of `machine` with which a network's rate is compared.

    PyTorch lets convolutions of float32 run in TensorFloat-32 unless it is told otherwise, and the programs leave that
    as it is, as training does.
    """
    if bfloat16:
        return BFLOAT16
    return TF32 if device == 'cuda' and torch.backends.cudnn.allow_tf32 else FLOAT32


def program_flags(bfloat16: bool) -> list[str]:
    """Options of whole_video.py."""
    return ['--amp'] * bfloat16


def training_precision(bfloat16: bool) -> str:
    """For `prepare_config`."""
    return 'bfloat16' if bfloat16 else 'float32'


#: Whether training uses bfloat16: not on a CPU, which need not be fast at it.
TRAINING_IN_BFLOAT16 = {'cuda': True, 'cpu': False}
FLOAT32, TF32, BFLOAT16, FLOAT16, COPY = 'float32', 'TensorFloat-32', 'bfloat16', 'float16', 'copy'


def set_precision(tf32_products: bool = False) -> None:
    """Products of float32 matrices in float32, convolutions as PyTorch has them."""
    torch.backends.cuda.matmul.allow_tf32 = tf32_products


# ------------------------------------------------------------------------------------------------------------- rows
def attempt(name: str, work: Callable[[], dict], **told: object) -> dict:
    """A row: what `work` returns, or why it failed.

    Raises:
        RuntimeError: The GPU itself is lost (an illegal address): nothing after it can be measured in this process.
    """
    try:
        return {'name': name, **told, **work()}
    except ROW_ERRORS as error:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # raises again where no more work can be done
            torch.cuda.empty_cache()
        return {'name': name, **told, 'error': short(error)}


def short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {(lines or ["no text"])[0][:300]}'


def require_engine() -> None:
    """Raises:
    ImportError: Names the packages that reading frames and training need and that are missing here.
    """
    missing = [wheel for name, wheel in ENGINE_WHEELS.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'not installed here: {", ".join(missing)}; versions: requirements/constraints-mm.txt')


def median_seconds(work: Callable[[], object], device: str, limit: float) -> float:
    """Seconds of a call: the median of up to 20 in about `limit` seconds, after two that warm up."""
    work()
    (once,) = step_seconds(lambda _: work(), 1, device)
    repeats = max(1, min(20, int(limit / max(once, 1e-6))))
    return statistics.median(step_seconds(lambda _: work(), repeats, device))


# ---------------------------------------------------------------------------------------------------------- machine
def machine(setup: Setup) -> Iterator[dict]:
    """The floor: rates of large products by type, and of a copy. Versions stand in the first row."""
    yield {'name': 'versions', **versions(setup.device)}
    side = 128 if setup.tiny else MATRIX_SIDE[setup.device]
    products = {FLOAT32: (torch.float32, False), BFLOAT16: (torch.bfloat16, False)}
    if setup.device == 'cuda':
        products |= {TF32: (torch.float32, True), FLOAT16: (torch.float16, False)}
    for name, (dtype, tf32) in products.items():

        def measure(dtype=dtype, tf32=tf32) -> dict:
            set_precision(tf32_products=tf32)
            try:
                return {'tflop_per_s': 1e-3 * matrix_rate(setup.device, dtype, side), 'side': side}
            finally:
                set_precision()

        yield attempt(name, measure)
    yield attempt(COPY, lambda: copy_rate(setup.device, 2**20 if setup.tiny else 2**28))


def copy_rate(device: str, numbers: int) -> dict:
    """Bytes read and written a second by a copy of float32 numbers in the device's memory."""
    source, target = torch.ones(numbers, device=device), torch.empty(numbers, device=device)
    target.copy_(source)
    best = min(step_seconds(lambda _: target.copy_(source), 10, device))
    return {'gb_per_s': 2e-9 * source.element_size() * numbers / best}


def versions(device: str) -> dict:
    """What the numbers were taken with."""
    found = {
        'mmliir': __version__,
        'commit': output_of(['git', '-C', str(REPOSITORY), 'rev-parse', 'HEAD']),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'triton': version_of('triton'),
        'mmengine': version_of('mmengine') or version_of('onedl-mmengine'),
        'processor': processor_name(),
        'cores': os.cpu_count(),
        'device': 'CPU',
        'convolutions_may_use_tf32': torch.backends.cudnn.allow_tf32,
        'float32_products_may_use_tf32': torch.backends.cuda.matmul.allow_tf32,
    }
    if device == 'cuda':
        card = torch.cuda.get_device_properties(0)
        found |= {
            'device': card.name,
            'capability': f'{card.major}.{card.minor}',
            'multiprocessors': card.multi_processor_count,
            'memory_gib': card.total_memory / 2**30,
            'cuda': torch.version.cuda or torch.version.hip,
            'cudnn': torch.backends.cudnn.version(),
            'driver': output_of(
                ['nvidia-smi', '--query-gpu=driver_version,power.limit,clocks.max.sm', '--format=csv,noheader']
            ),
        }
    return found


def version_of(distribution: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def output_of(command: list[str]) -> str | None:
    """First line of what a program prints; None where it is not there or fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return (done.stdout.strip().splitlines() or [None])[0]
    return None


# ----------------------------------------------------------------------------------------------------------- kernel
def kernel(setup: Setup) -> Iterator[dict]:
    """The Triton kernel against the loop over cells: small frames, every choice of the operator, each tile size."""
    code = triton_module(setup)
    # The interpreter multiplies bits of bfloat16 as whole numbers.
    cases = KERNEL_CASES if setup.device == 'cuda' else [case for case in KERNEL_CASES if case[3] != _BF16]
    for number, (size, radius, kind, dtype, settings) in enumerate(cases[: 3 if setup.tiny else None]):
        config = code.CONFIGS[number % len(code.CONFIGS)]

        def check(size=size, radius=radius, kind=kind, dtype=dtype, settings=settings, config=config) -> dict:
            setup.need(5)
            inputs = small_inputs(size, len(radius), kind, dtype)
            with mock.patch.object(code.attend_kernel, 'configs', [config]):
                here = [one.to(setup.device) for one in inputs]
                ours = window_topk_attend(*here, radius, **settings, backend='triton')
            truth = torch.from_numpy(attend_loop(*(one.double().numpy() for one in inputs), radius, **settings))
            difference = float((ours.cpu() - truth).abs().max())
            if not difference <= KERNEL_TOLERANCE:
                raise ValueError(f'differs from the loop over cells by {difference:.1e}, not {KERNEL_TOLERANCE:.0e}')
            return {'max_difference': difference}

        text = ', '.join(f'{key} {value}' for key, value in settings.items()) or 'all keys'
        yield attempt(text, check, cells=f'{size[0]}x{size[1]}', dtype=short_name(dtype), config=str(config))


def triton_module(setup: Setup):
    """Raises:
    LeftOut: Triton is missing on a CPU, where nobody runs it.
    RuntimeError: It is missing, too old or switched off beside a GPU.
    """
    try:
        return triton_attend.kernels()
    except Unavailable as reason:
        if setup.device == 'cpu':
            raise LeftOut(str(reason)) from None
        raise RuntimeError(str(reason)) from None


KERNEL_TOLERANCE = 1e-4
_F32, _F16, _BF16 = torch.float32, torch.float16, torch.bfloat16
#: (h, w), radius a reference, kind of features, their type, settings. Whole numbers tie and are exact in every type.
KERNEL_CASES = [
    ((5, 7), [3, 1], 'random', _F32, {}),
    ((5, 7), [None, 3], 'whole', _F16, {'topk': 5, 'shape': 'circle', 'topk_ties': 'share', 'temperature': 0.7}),
    ((9, 10), [2, None], 'whole', _BF16, {'border': 'zero_logit', 'temperature': 2.5}),
    ((5, 7), [2, 2], 'random', _F32, {'topk': 3, 'normalise': 'softmax_then_topk', 'topk_scope': 'per_reference'}),
    ((9, 10), [3, 3], 'whole', _BF16, {'topk': 5, 'shape': 'disc'}),
    ((17, 19), [4, None], 'random', _F32, {'topk': 5}),
    ((3, 2), [1], 'whole', _F16, {'border': 'zero_logit'}),
    ((17, 19), [4, 4, 4], 'random', _F32, {'border': 'zero_logit'}),
    ((17, 19), [None, 5], 'whole', _BF16, {'topk': 10, 'shape': 'circle', 'topk_ties': 'share'}),
    ((1, 5), [None], 'random', _F32, {'topk': 1000}),
]


def small_inputs(size: tuple[int, int], references: int, kind: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """query, keys and values on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((33, *size), (references, 33, *size))
    if kind == 'whole':
        query, keys = (torch.randint(-2, 3, shape, generator=generator).to(dtype) for shape in shapes)
    else:
        query, keys = (torch.randn(shape, generator=generator).div(4).to(dtype) for shape in shapes)
    return query, keys, torch.randn((references, 3, *size), generator=generator)


def short_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


# ------------------------------------------------------------------------------------------------------ propagation
STEP_CASES = ('crw', 'liir', 'dino', 'liir_paper')
STEP_TOLERANCE = 2e-3
#: With top-k two keys of nearly the same logit may change places, and a fit may take another cell for its peak: so
#: many cells may differ.
STEP_CELLS = 1e-3


def propagation_steps(setup: Setup) -> Iterator[dict]:
    """One step at 480p: first whether it agrees with PyTorch in double precision, then its time.

    Triton comes last: a kernel that reads where it must not leaves no GPU to measure on.
    """
    names = STEP_CASES[:2] if setup.tiny else STEP_CASES
    fused = STEP_CASES[1:2] if setup.device == 'cpu' else STEP_CASES  # Triton's interpreter takes seconds
    for name in names:
        yield step_row(setup, name, 'torch', torch.float32)
        for peer in propagation.CASES[name].others:
            yield step_row(setup, name, peer, torch.float32)
    try:
        triton_module(setup)
    except LeftOut:
        return
    for name in fused:
        if propagation.CASES[name].settings.get('prior') is None:
            for dtype in (torch.float32,) if setup.device == 'cpu' else (torch.float32, torch.bfloat16):
                yield step_row(setup, name, 'triton', dtype)


def step_row(setup: Setup, name: str, algorithm: str, dtype: torch.dtype) -> dict:
    case = propagation.CASES[name].small() if setup.tiny else propagation.CASES[name]
    if algorithm == 'triton' and setup.device == 'cpu':
        case = dataclasses.replace(case, height=4, width=5, channels=8)
    return attempt(
        name, lambda: measure_step(setup, case, algorithm, dtype), algorithm=algorithm, dtype=short_name(dtype)
    )


def measure_step(setup: Setup, case: propagation.Case, algorithm: str, dtype: torch.dtype) -> dict:
    """Compare with the truth, then time."""
    setup.need(5)
    device = setup.device
    query, keys, values = propagation.inputs_of(case, device)
    query, keys = query.to(dtype), keys.to(dtype)
    if algorithm in ('torch', 'triton'):

        def step() -> Tensor:
            return window_topk_attend(query, keys, values, case.radii, **case.settings, backend=algorithm)
    else:
        step = propagation.prepare(case, algorithm, device)
    truth = window_topk_attend(
        query.double(), keys.double(), values.double(), case.radii, **case.settings, backend='torch'
    )
    differs, cells = agreement(step(), truth)
    allowed = STEP_CELLS if case.settings.get('topk') or case.settings.get('prior') else 0.0
    if not cells <= allowed:
        raise ValueError(f'{cells:.1%} of the cells differ from double precision, by up to {differs:.1e}')
    del truth
    peak = None
    if device == 'cuda' or MEMORY_IS_MEASURED:
        reset_peak(device)
        step()
        peak = peak_bytes(device) / 1e6
    seconds = median_seconds(step, device, 0.05 if setup.tiny else 1.0)
    return {
        'seconds': seconds,
        'peak_mb': peak,
        'max_difference': differs,
        'cells_that_differ': cells,
        **shares_of_step(setup, case, dtype, seconds),
    }


def agreement(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """The largest difference, and the share of cells that differ by more than the tolerance (NaN differs)."""
    difference = (found.double() - truth).abs()
    return float(difference.max()), float((~(difference <= STEP_TOLERANCE)).any(dim=0).double().mean())


def shares_of_step(setup: Setup, case: propagation.Case, dtype: torch.dtype, seconds: float) -> dict:
    """Of the product's rate, and of the copy's: features and labels read once, the result written; the larger binds."""
    flop, numbers = case.useful_flop(), case.height * case.width
    size = torch.empty((), dtype=dtype).element_size()
    moved = numbers * (size * case.channels * (1 + case.references) + 4 * case.labels * (1 + case.references))
    rate, bandwidth = setup.rate(BFLOAT16 if dtype == torch.bfloat16 else FLOAT32), setup.bandwidth()
    found = {
        'tflop_per_s': 1e-12 * flop / seconds,
        'share': None if rate is None else 1e-12 * flop / seconds / rate,
        'bandwidth_share': None if bandwidth is None else moved / seconds / bandwidth,
    }
    if None not in found.values():
        found['bound'] = 'products' if found['share'] >= found['bandwidth_share'] else 'memory'
    return found


# ------------------------------------------------------------------------------------------------------ whole video
def whole_video(setup: Setup) -> Iterator[dict]:
    """`whole_video.py` in its precisions, eager and compiled: frames a second, and where a frame's time goes."""
    require_engine()
    ways = [('float32', False, False), ('bfloat16', True, False), ('bfloat16, compiled', True, True)]
    with tempfile.TemporaryDirectory(prefix='mmliir-gpu-') as folder:
        source = ['--quick'] if setup.tiny else video_flags(setup, Path(folder))
        for name, bfloat16, compiled in ways[:1] if setup.tiny else ways:
            flags = [*source, *program_flags(bfloat16), *['--compile'] * compiled, '--released-frames', '0']

            def measure(flags=flags, bfloat16=bfloat16) -> dict:
                (row,) = run_program(setup, 'whole_video', flags)
                rate = setup.rate(convolution_product(bfloat16, setup.device))
                encode, attend = (row['parts'][part]['wall_s'] for part in ('encode', 'affinity and read-out'))
                reached = 1e-3 * row['encoder_gflop'] / encode
                found = {'encoder_tflop_per_s': reached, 'encoder_share': None if rate is None else reached / rate}
                return {**row, **found, 'encode_ms': 1e3 * encode, 'attend_ms': 1e3 * attend}

            yield attempt(name, measure)


def video_flags(setup: Setup, folder: Path) -> list[str]:
    """Options of whole_video.py: the DAVIS sequence, or one that is generated once for all rows."""
    from mmliir.testing.synthetic import generate_video, write_davis_layout

    flags = ['--frames', '200' if setup.device == 'cuda' else '20', '--split-frames', '30']
    davis = None if setup.data_root is None else setup.data_root / 'davis2016'
    if davis is not None and (davis / 'JPEGImages' / '480p' / 'blackswan').is_dir():
        return [*flags, '--data-root', str(davis)]
    write_davis_layout(folder, [generate_video(0, 8, (480, 854), name='generated')])
    return [*flags, '--data-root', str(folder), '--sequence', 'generated']


def run_program(setup: Setup, program: str, flags: list[str]) -> list[dict]:
    """Rows that a program of this folder writes, within the time that is left.

    Raises:
        RuntimeError: It failed or took too long; its last line says more.
    """
    setup.need(5)
    with tempfile.TemporaryDirectory(prefix='mmliir-gpu-') as folder:
        report = Path(folder) / 'report.json'
        command = [str(FOLDER / f'{program}.py'), '--device', setup.device, '--json', str(report)]
        command += ['--threads', str(torch.get_num_threads()), *flags]
        if setup.tiny:  # the same, without seconds of importing again
            with mock.patch.object(sys, 'argv', command):
                code = importlib.import_module(program).main()
            if code:
                raise RuntimeError(f'{program}.py: exit code {code}')
        else:
            run_process(program, [sys.executable, *command], max(1.0, setup.left - 2))
        return json.loads(report.read_text(encoding='utf-8'))['rows']


def run_process(name: str, command: list[str], timeout: float) -> None:
    """Raises:
    RuntimeError: It failed or took longer than `timeout` seconds; what it printed goes to the log.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f'{name}.py did not end within the {timeout:.0f} s left to it') from None
    if done.returncode:
        print(done.stdout, done.stderr, sep='\n', flush=True)
        last = (done.stderr.strip().splitlines() or ['no text'])[-1]
        raise RuntimeError(f'{name}.py: exit code {done.returncode}: {last[:300]}')


# ---------------------------------------------------------------------------------------------------- training step
#: (stage of train_step.py, pairs a step as the recipe has them)
STEP_STAGES = (('stage 1 (intra)', 24), ('stage 2 (all)', 12))
#: Those that need no compiler first.
STEP_WAYS = (
    dict(),
    dict(amp=True),
    dict(amp=True, compile=True),
    dict(amp=True, compile=True, graphs=True),
    dict(compile=True),
)


def training_steps(setup: Setup) -> Iterator[dict]:
    """`train_step.py`: both stages, eager and compiled, in both precisions, each in a process of its own."""
    require_engine()
    import train_step

    # What is compiled takes seconds: in a dry run stage 2 with graphs stands for all of it.
    cases = [(settings, *stage) for settings in STEP_WAYS for stage in STEP_STAGES]
    for settings, variant, batch in [*cases[:4], cases[7]] if setup.tiny else cases:
        way = train_step.Way(**settings)

        def measure(variant=variant, way=way, batch=batch) -> dict:
            row = step_of(setup, train_step, variant, way, 2 if setup.tiny else batch)
            rate = setup.rate(convolution_product(way.amp, setup.device))
            share = None if rate is None else row['tflop_per_s'] / rate
            return {**row, 'pairs_per_s': row['batch'] / row['seconds'], 'share': share}

        yield attempt(variant, measure) | {'way': f'{way}, CUDA graphs' if way.graphs else str(way)}


def step_of(setup: Setup, train_step, variant: str, way, batch: int) -> dict:
    threads = torch.get_num_threads()
    if setup.tiny:
        args = Namespace(device=setup.device, threads=threads, quick=True, config=str(RECIPE), size=32, repeats=2)
        return train_step.measure(args, variant, way, batch)
    setup.need(15)
    repeats = 30 if setup.device == 'cuda' else 2
    command = ['--measure', variant, '--way', json.dumps(vars(way)), '--batch', str(batch), '--repeats', str(repeats)]
    command += ['--device', setup.device, '--threads', str(threads)]
    row = measure_in_process(train_step.__file__, command, f'{variant}, {way}', max(1.0, setup.left - 2))
    if row is None:
        raise RuntimeError('it did not end within the time of this section')
    return row


# --------------------------------------------------------------------------------------------------------- training
#: Seconds of the two stages.
TRAINING_SECONDS = (40.0, 20.0)


def training(setup: Setup) -> Iterator[dict]:
    """The main recipe as `tools/train.py` runs it, at the paper's batch and size, from frames on disk."""
    require_engine()
    from gpu_training import train_stages, training_data
    from train_step import SMALL

    bfloat16 = TRAINING_IN_BFLOAT16[setup.device]
    with tempfile.TemporaryDirectory(prefix='mmliir-gpu-') as folder:
        if setup.tiny:
            root = training_data(None, Path(folder), 2, 10, (32, 48))
            small = {'train_dataloader.batch_size': 2, 'train_dataloader.num_workers': 0}
            options = {**SMALL, **small, 'train_dataloader.dataset.pipeline.0.size': (32, 32)}
        else:
            root, options = training_data(setup.data_root, Path(folder), 2, 14, (256, 256)), {}
        # The log of training would drown the lines of this program.
        options |= {'train_dataloader.dataset.source.data_root': str(root), 'log_level': 'WARNING'}
        real = Path(folder) not in root.parents
        seconds = (0.3, 0.3) if setup.tiny else TRAINING_SECONDS
        warm = 1 if setup.tiny else 10 if setup.device == 'cuda' else 0
        precision = training_precision(bfloat16)
        rows = train_stages(RECIPE, options, seconds, warm, precision, setup.device, Path(folder) / 'work')
        for row, (variant, _) in zip(rows, STEP_STAGES, strict=True):
            row |= {'precision': 'bfloat16' if bfloat16 else 'float32', 'videos': 'real' if real else 'generated'}
            row |= share_of_training(setup, variant, row, bfloat16)
            # After stage 1 a loss of another kind begins, which the first seconds need not lower.
            if row['name'] == 'intra' and not row['loss_fell'] and not setup.tiny:
                row['error'] = f'the loss did not go down: {row["loss_first"]:.4f} to {row["loss_last"]:.4f}'
            yield row


def share_of_training(setup: Setup, variant: str, row: dict, bfloat16: bool) -> dict:
    """Of the product's rate, by the operations that train_step.py counted for a pair."""
    rate = setup.rate(convolution_product(bfloat16, setup.device))
    steps = [
        step for step in setup.found.get('train_step', []) if step['name'] == variant and 'error' not in step
    ]
    if rate is None or not steps:
        return {'tflop_per_s': None, 'share': None}
    reached = steps[0]['tflop'] / steps[0]['batch'] * row['pairs_per_s']
    return {'tflop_per_s': reached, 'share': reached / rate}


# ---------------------------------------------------------------------------------------------------------- encoder
def encoder(setup: Setup) -> Iterator[dict]:
    """`encoder.py`: layouts, several frames at a time, bfloat16."""
    require_engine()
    # Compiled ones take longer than all that this section has.
    flags = ['--quick', '--only', 'folded'] if setup.tiny else ['--rounds', '10']
    flags += ['--leave-out', 'compiled']

    found = attempt('encoder', lambda: {'rows': run_program(setup, 'encoder', flags)})
    if 'error' in found:
        yield found
        return
    counted = [row['encoder_gflop'] for row in setup.found.get('video', []) if 'error' not in row]
    for row in found['rows']:
        # The program's share is of products in float32; here of those in the row's own precision, of the same frame.
        rate = setup.rate(convolution_product('bfloat16' in row['variant'], setup.device))
        known = bool(counted) and rate is not None and not setup.tiny
        share = 1e-3 * counted[0] / row['wall_s'] / rate if known else None
        yield {**row, 'name': row['variant'], 'frames_per_s': 1 / row['wall_s'], 'share': share}


#: In the order in which they run; later ones read rows of earlier ones.
SECTIONS: dict[str, Callable[[Setup], Iterator[dict]]] = {
    'machine': machine,
    'kernel': kernel,
    'propagation': propagation_steps,
    'video': whole_video,
    'train_step': training_steps,
    'training': training,
    'encoder': encoder,
}
