#!/usr/bin/env python
"""Time and memory of one propagation step, ours against public evaluators' algorithms, with equal results.

Each measurement is a process of its own (with --quick all are one): inputs from a seed, one call for the peak of the
memory (high-water mark of the resident set less what was resident before the call; masks that live as long as the
video are there before it and are added), then calls for the time; a call of over five seconds gives both. The median
counts; ours runs before and after the others. `cpu` is processor seconds of all threads, which a busy machine changes
less than the time on the clock. Compare numbers within one run only. `bits` is the width of the vectors of compiled
code; rows of other widths come with --levels. A row that takes fewer processor seconds than ours is marked SLOWER (ours
is), and the program ends with 3. `fastest public way` names what is quickest of what the public programs offer for
the step; a ratio against another one says less. `share` is the rate of the multiplications that
the definition needs (pairs of cells within a window) over the rate of a large product of this machine's PyTorch;
compiled code may exceed 1.

examples:
  python tools/benchmarks/propagation.py
  python tools/benchmarks/propagation.py --cases crw labels --threads 1 --json step.json --plot step.png
  python tools/benchmarks/propagation.py --threads 1 --levels x86-64-v2 x86-64-v3
  python tools/benchmarks/propagation.py --quick
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    Bars,
    Column,
    Cost,
    TextTable,
    add_machine_arguments,
    add_report_arguments,
    describe_machine,
    measure_in_process,
    peak_bytes,
    plot_bars,
    reset_peak,
    resident_bytes,
    settled_device,
    timed,
    write_report,
)
from torch import Tensor

from mmliir.ops import MixturePrior, fastest_backend, native, window_offsets, window_topk_attend
from mmliir.testing import reference_evaluators as evaluators

DIFFERENT, SLOWER = 1, 3  # exit codes
AT_LEVEL = 'native@'  # and the name of a level: our compiled code for these instructions
LONG = 5.0  # seconds; a call that takes longer is made once, for time and memory


@dataclass(frozen=True)
class Case:
    """One step: sizes, settings of the operator, and the algorithm it is compared with.

    Attributes:
        height, width: Cells.
        channels, references, labels: Of the features, frames and label fields.
        radius: Of the windows; the first reference has none when `whole_first`.
        settings: Further arguments of `window_topk_attend`.
        others: Of 'crw', 'dino', 'vfs', 'mast' (keys unfolded), 'mast_shift' (one product a window cell).
        hard: Labels are one-hot, else fields.
        rows: Query rows that 'mast' unfolds at a time; 0: the whole frame.
        displaced: The first references are far away in time: their windows lie around displaced centres.
    """

    height: int
    width: int
    channels: int
    references: int
    radius: int
    settings: dict = field(default_factory=dict)
    others: tuple[str, ...] = ()
    labels: int = 5
    whole_first: bool = False
    hard: bool = False
    rows: int = 0
    displaced: int = 0

    @property
    def radii(self) -> list[int | None]:
        return [None if self.whole_first and r == 0 else self.radius for r in range(self.references)]

    def small(self) -> 'Case':
        """The same on few cells, for a test of this program."""
        return replace(
            self, height=11, width=14, channels=16, references=min(3, self.references), radius=4, rows=5,
            labels=min(self.labels, 40),
        )  # fmt: skip

    def useful_flop(self) -> float:
        """Twice the products of the pairs of cells that the definition compares, displaced windows as if in place."""
        offsets = window_offsets(self.radius, self.settings.get('shape', 'square'))
        inside = (self.height - offsets[:, 1].abs()).clamp_min(0) * (self.width - offsets[:, 0].abs()).clamp_min(0)
        whole = (self.height * self.width) ** 2
        pairs = sum(whole if own is None else int(inside.sum()) for own in self.radii)
        return 2.0 * self.channels * pairs


#: CRW on DAVIS at 480p: stride 8, the first frame without a window and 20 frames with one.
CRW = Case(60, 107, 256, 21, 12, {'shape': 'circle', 'temperature': 0.05, 'topk': 10}, ('crw',), whole_first=True)
#: LIIR on DAVIS at 480p: stride 4, frames 0, 5, t-5, t-3, t-1, one soft-max over all of them.
LIIR = Case(120, 214, 64, 5, 14, {'border': 'zero_logit'}, ('mast', 'mast_shift'), labels=7, hard=True, rows=8)
LIIR_PRIOR = MixturePrior(2, 'moments', keep_mass=True)
#: DINO's ViT-S/16 on DAVIS at 480 x 848: the first frame and the 7 last ones.
DINO = Case(30, 53, 384, 8, 12, {'temperature': 0.1, 'topk': 5}, ('dino',))
#: Spa-then-Temp on a frame so small that a window covers most of it: frame 0 and the 20 last ones.
SPA_THEN_TEMP = Case(24, 43, 256, 21, 35, {'temperature': 0.07, 'topk': 10, 'topk_ties': 'share'}, ('vfs',))
CASES = {
    'crw': CRW,
    'liir': LIIR,
    'liir_paper': replace(LIIR, settings={**LIIR.settings, 'prior': LIIR_PRIOR}, others=('mast',)),
    # From frame 21 on: the windows of frames 0 and 5 are displaced.
    'mast_far': replace(LIIR, radius=12, displaced=2, others=('mast',)),
    'liir_paper_far': replace(
        LIIR, radius=12, displaced=2, settings={**LIIR.settings, 'prior': LIIR_PRIOR}, others=('mast',)
    ),
    'dino': DINO,
    'spa_then_temp': SPA_THEN_TEMP,
    'crw_1_label': replace(CRW, labels=1, others=()),
    'crw_300_labels': replace(CRW, labels=300, others=()),
    'liir_1_label': replace(LIIR, labels=2, others=()),
    'liir_300_labels': replace(LIIR, labels=301, others=()),
}
#: Names for --cases that stand for several; a label map with one object has two channels, one for the background.
GROUPS = {'labels': ['crw_1_label', 'crw_300_labels', 'liir_1_label', 'liir_300_labels']}

TABLE = TextTable(
    [
        Column('case', 'case', width=16),
        Column('algorithm', 'algorithm', width=18),
        Column('bits', 'bits', 'd', 5),
        Column('time s', 'wall_s', '.3f'),
        Column('cpu s', 'cpu_s', '.3f'),
        Column('peak MB', 'peak_mb', '.0f'),
        Column('x time', 'time_ratio', '.1f'),
        Column('x cpu', 'cpu_ratio', '.1f'),
        Column('x memory', 'memory_ratio', '.1f'),
        Column('share', 'share', '.2f'),
        Column('max difference', 'max_difference', '.1e', 16),
        Column('  ours is', 'mark', width=10),
    ]
)


def main() -> int:
    """Run the comparison; DIFFERENT when a result differs, SLOWER when ours takes longer than another."""
    args = parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args)))
        return 0
    machine = describe_machine(args.device, args.threads, matrix_side=256 if args.quick else None)
    print(machine)
    backend = describe_backend(args.device)
    print(f'ours: {backend}')
    TABLE.print_header()
    rows = []
    with tempfile.TemporaryDirectory(prefix='mmliir-propagation-') as folder:
        for name in args.cases:
            rows += compare(name, args, Path(folder), machine.matrix_gflops)
    print_fastest_public_ways(rows)
    print_ratios_of_labels(rows)
    if args.json is not None:
        write_report(args.json, machine, rows, backend=backend)
    if args.plot is not None:
        plot(rows, args.plot)
    if any(row['max_difference'] is not None and row['max_difference'] > args.tolerance for row in rows):
        return DIFFERENT
    return SLOWER if any(row['mark'] for row in rows) and not args.quick else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', nargs='+', default=list(CASES), metavar='NAME', help=', '.join([*CASES, *GROUPS]))
    add_machine_arguments(parser)
    parser.add_argument('--repeats', type=int, default=5, metavar='N', help='timed calls of a measurement')
    parser.add_argument('--quick', action='store_true', help='few cells in one process: are results equal')
    parser.add_argument('--levels', nargs='+', default=[], metavar='NAME', help='also our code for these instructions')
    parser.add_argument('--tolerance', type=float, default=2e-3, help='largest difference that passes')
    add_report_arguments(parser)
    parser.add_argument('--whole', action='store_true', help='unfold all rows at once, as MAST does: 20 GB')
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)  # case and algorithm: one process's work
    parser.add_argument('--result', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cases = [own for name in args.cases for own in GROUPS.get(name, [name])]
    unknown = sorted(set(args.cases) - set(CASES))
    if unknown:
        parser.error(f'unknown cases {", ".join(unknown)}; there are {", ".join([*CASES, *GROUPS])}')
    if args.quick and args.levels:
        parser.error('--levels needs a process for each, --quick has one for all')
    args.device = settled_device(args.device)
    return args


def describe_backend(device: str) -> str:
    """Our code for the device, and the width of its vectors where it is compiled."""
    backend = fastest_backend(device)
    return f'{backend}, {native.width()}-bit vectors' if backend == 'native' else backend


# ------------------------------------------------------------------------------------------------- one measurement
def measure(args: argparse.Namespace) -> dict:
    """Time and peak memory of one algorithm on one case, in this process."""
    name, algorithm = args.measure
    case = case_of(name, args)
    torch.set_num_threads(args.threads)
    step_of_small = prepare(case.small(), algorithm, args.device)
    step_of_small()  # builds the compiled code, starts threads
    step = prepare(case, algorithm, args.device)
    bytes_before = resident_bytes()
    reset_peak(args.device)
    first, result = timed(step, args.device)
    found = {'peak_bytes': peak_bytes(args.device) - (bytes_before if args.device == 'cpu' else 0)}
    costs: list[Cost] = [first] if first.wall > LONG else []
    while not costs or (costs[0].wall <= LONG and len(costs) < args.repeats):
        costs.append(timed(step, args.device)[0])
    if args.result is not None:
        np.save(args.result, result.cpu().numpy())
    walls, cpus = [cost.wall for cost in costs], [cost.cpu for cost in costs]
    found['bits'] = native.width() if algorithm == 'native' else None
    return {**found, 'wall': walls, 'cpu': cpus, 'mask_bytes': mask_bytes(case, algorithm)}


def case_of(name: str, args: argparse.Namespace) -> Case:
    if args.quick:
        return CASES[name].small()
    return replace(CASES[name], rows=0) if args.whole else CASES[name]


def inputs_of(case: Case, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """query, keys and values: features of unit length for cosine protocols, else such that a few keys count."""
    generator = torch.Generator().manual_seed(0)
    cells = (case.height, case.width)
    features = torch.randn(case.references + 1, case.channels, *cells, generator=generator)
    features = features.mul_(0.5) if case.hard else F.normalize(features, dim=1)
    if case.hard:  # blobs of 8 x 8 cells
        coarse = (case.references, 1, -(-case.height // 8), -(-case.width // 8))
        labels = torch.randint(0, case.labels, coarse, generator=generator)
        labels = labels.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., : case.height, : case.width]
        values = torch.zeros(case.references, case.labels, *cells).scatter_(1, labels, 1)
    else:
        values = torch.rand(case.references, case.labels, *cells, generator=generator)
    return features[0].to(device), features[1:].to(device), values.to(device)


def offsets_of(case: Case, device: str) -> list[Tensor | None] | None:
    """Displacements of several cells that change slowly, and by half a cell from cell to cell."""
    if not case.displaced:
        return None
    generator = torch.Generator().manual_seed(1)
    slow = 8 * torch.randn(case.displaced, 2, 6, 10, generator=generator)
    slow = F.interpolate(slow, size=(case.height, case.width), mode='bilinear')
    offsets = slow + 0.5 * torch.randn(slow.shape, generator=generator)
    return [*offsets.to(device), *[None] * (case.references - case.displaced)]


def prepare(case: Case, algorithm: str, device: str) -> Callable[[], Tensor]:
    """The step as a function of nothing; what lives as long as a video is made here."""
    inputs, offsets = inputs_of(case, device), offsets_of(case, device)
    settings = {**case.settings, 'offsets': offsets} if offsets else case.settings
    if algorithm in ('auto', 'native', 'torch'):
        return lambda: window_topk_attend(*inputs, case.radii, **settings, backend=algorithm)
    if algorithm == 'crw':
        mask = evaluators.crw_mask(case.height, case.width, case.radius).to(device)
        return lambda: evaluators.crw_step(*inputs, mask, settings['temperature'], settings['topk'])
    if algorithm == 'dino':
        mask = evaluators.dino_mask(case.height, case.width, case.radius, case.references).to(device)
        return lambda: evaluators.dino_step(*inputs, mask, settings['temperature'], settings['topk'])
    if algorithm == 'vfs':
        mask = evaluators.vfs_mask(case.height, case.width, case.radius).to(device)
        return lambda: evaluators.vfs_step(*inputs, mask, settings['temperature'], settings['topk'])
    rows, prior = case.rows or case.height, settings.get('prior')
    unfold = algorithm == 'mast'
    temperature = settings.get('temperature', 1.0)
    return lambda: evaluators.mast_step(*inputs, case.radius, temperature, rows, prior, unfold, offsets)


def mask_bytes(case: Case, algorithm: str) -> int:
    cells = case.height * case.width
    return {'crw': 4 * cells**2, 'vfs': cells**2, 'dino': 4 * cells**2 * case.references}.get(algorithm, 0)


# ------------------------------------------------------------------------------------------------------ comparison
def compare(name: str, args: argparse.Namespace, folder: Path, rate: float) -> list[dict]:
    """Measure all algorithms of a case, ours before and after the others, and print a line for each."""
    case = case_of(name, args)
    ours = fastest_backend(args.device)
    levels = [AT_LEVEL + level for level in args.levels]
    others = [*case.others, *(['torch', *levels] if ours == 'native' else [])]
    found = {}
    for algorithm in [ours, *others, ours]:
        run = run_measurement(name, algorithm, args, folder)
        if algorithm in found:  # the second time
            run = run | {key: found[algorithm][key] + run[key] for key in ('wall', 'cpu')} | {
                key: max(found[algorithm][key], run[key]) for key in ('peak_bytes', 'mask_bytes')
            }
        found[algorithm] = run
    truth = np.load(folder / f'{name}-{ours}.npy')
    rows = []
    for algorithm in [ours, *others]:
        run, own = found[algorithm], found[ours]
        wall, cpu = statistics.median(run['wall']), statistics.median(run['cpu'])
        peak, own_peak = run['peak_bytes'] + run['mask_bytes'], max(own['peak_bytes'], 1)
        cpu_ratio = cpu / statistics.median(own['cpu'])
        is_level = algorithm.startswith(AT_LEVEL)
        difference = np.abs(np.load(folder / f'{name}-{algorithm}.npy') - truth).max()
        rows.append(
            {
                'case': name,
                'algorithm': algorithm,
                'bits': run['bits'],
                'wall_s': wall,
                'cpu_s': cpu,
                'calls': len(run['wall']),
                'peak_mb': peak / 1e6,
                'mask_mb': run['mask_bytes'] / 1e6,
                'time_ratio': wall / statistics.median(own['wall']),
                'cpu_ratio': cpu_ratio,
                'memory_ratio': peak / own_peak,
                'max_difference': None if algorithm == ours else float(difference),
                'gflops': case.useful_flop() / wall * 1e-9,
                'share': case.useful_flop() / wall * 1e-9 / rate,
                'is_public': algorithm in case.others,
                'mark': '  SLOWER' if cpu_ratio < 1 and not is_level else '',
            }
        )
        TABLE.print_row(rows[-1])
    return rows


def run_measurement(name: str, algorithm: str, args: argparse.Namespace, folder: Path) -> dict:
    result = folder / f'{name}-{algorithm}.npy'
    if args.quick:
        return measure(argparse.Namespace(**{**vars(args), 'measure': (name, algorithm), 'result': result}))
    own, _, level = algorithm.partition('@')
    command = ['--measure', name, own, '--result', str(result)]
    command += ['--threads', str(args.threads), '--repeats', str(args.repeats), '--device', args.device]
    with mock.patch.dict(os.environ, {'MMLIIR_NATIVE': level} if level else {}):
        return measure_in_process(__file__, command + ['--whole'] * args.whole, f'{name}, {algorithm}')


# ---------------------------------------------------------------------------------------------------------- report
def print_fastest_public_ways(rows: list[dict]) -> None:
    for name in dict.fromkeys(row['case'] for row in rows):
        public = [row for row in rows if row['case'] == name and row['is_public']]
        if not public:
            continue
        best = min(public, key=lambda row: row['cpu_s'])
        others = ''.join(f'; {row["algorithm"]}: {row["cpu_ratio"]:.1f}x' for row in public if row is not best)
        print(
            f'{name}: fastest public way {best["algorithm"]}, {best["time_ratio"]:.1f}x the time of ours, '
            f'{best["cpu_ratio"]:.1f}x the processor seconds{others}'
        )


def print_ratios_of_labels(rows: list[dict]) -> None:
    ours = {row['case']: row for row in reversed(rows)}
    for few, many in (('crw_1_label', 'crw_300_labels'), ('liir_1_label', 'liir_300_labels')):
        if few in ours and many in ours:
            wall, cpu = (ours[many][key] / ours[few][key] for key in ('wall_s', 'cpu_s'))
            print(f'{many} over {few}: {wall:.2f} of the time, {cpu:.2f} of the processor seconds')


def plot(rows: list[dict], path: Path) -> None:
    """Bars of time and memory of the other algorithms over ours."""
    shown = {f'{row["case"]}: {row["algorithm"]}': row for row in rows if row['max_difference'] is not None}
    panels = [
        Bars(f'{title} over ours', {name: row[key] for name, row in shown.items()}, log=True, line=1)
        for key, title in (('time_ratio', 'time'), ('memory_ratio', 'peak memory'))
    ]
    plot_bars(path, panels)


if __name__ == '__main__':
    sys.exit(main())
