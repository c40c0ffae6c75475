#!/usr/bin/env python
"""What the machine is asked, against every answer it could give: precision x layout x threads.

Three kinds of work: a step of the quickstart's stage 1, one of the paper's size, and the features of a 480p frame.
Each row is a process of its own. `of best` is its speed over that of the fastest row. The row that `--precision auto`
and the encoder choose by themselves is marked; one that takes several times as long is given up.

Exit code 1 when the chosen row is not within --margin of the fastest.

examples:
  python tools/benchmarks/choices.py
  ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python tools/benchmarks/choices.py   # as on such a processor
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from common import (
    Column,
    TextTable,
    add_machine_arguments,
    add_report_arguments,
    describe_machine,
    measure_in_process,
    settled_device,
    timed,
    write_report,
)
from train_step import LAYOUTS, STAGE_1, Way

import mmliir.models  # noqa: F401  (registers the parts)
from mmliir.apis.configs import load_config
from mmliir.registry import MODELS
from mmliir.utils.compute import choose_precision, computing_in, limit_threads, training_format

FOLDER = Path(__file__).resolve().parent
CONFIGS = FOLDER.parents[1] / 'configs'
PAPER, FRAME = 'step, paper size', 'frame, 480p'
#: name -> config, side of the frames, pairs a step
STEPS = {
    'step, quickstart': (CONFIGS / 'liir_r18_quickstart.py', 64, 16),
    PAPER: (CONFIGS / 'liir_r18_ytvos.py', 256, 1),
}
WORKS = (*STEPS, FRAME)
#: Besides what the chosen row took, start included, a row may take this many times as long.
GIVE_UP = 3.0
TABLE = TextTable(
    [
        Column('work', 'work', 's', 18),
        Column('precision', 'precision', 's', 10),
        Column('layout', 'layout', 's', 15),
        Column('threads', 'threads', 'd', 8),
        Column('time s', 'seconds', '.3f', 9),
        Column('of best', 'of_best', '.2f', 9),
        Column('', 'note', 's', 22),
    ]
)


def main() -> int:
    args = parse_args()
    if args.measure is not None:
        print(json.dumps(encode_frame(args)))
        return 0
    machine = describe_machine(args.device, args.threads, matrix_side=256 if args.quick else None)
    print(machine)
    TABLE.print_header()
    rows = [row for work in args.works for row in compare(work, args)]
    if args.json is not None:
        write_report(args.json, machine, rows)
    chosen = [row for row in rows if row['note'].endswith('chosen')]
    worst = min(chosen, key=lambda row: row['of_best'])
    print(f'the choice is within {100 * (1 - worst["of_best"]):.0f} % of the best of all fixed ones ({worst["work"]})')
    return int(worst['of_best'] < 1 - args.margin)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--works', nargs='+', choices=WORKS, default=list(WORKS), metavar='WORK', help=', '.join(WORKS))
    parser.add_argument('--margin', type=float, default=0.1, help='what the choice may be slower by (default: 0.1)')
    parser.add_argument('--repeats', type=int, default=5, metavar='N', help='of which the fastest counts')
    add_machine_arguments(parser)
    add_report_arguments(parser)
    parser.add_argument('--quick', action='store_true', help='tiny frames, one repeat')
    parser.add_argument('--measure', help=argparse.SUPPRESS)  # precision and layout of a frame, in this process
    args = parser.parse_args()
    args.device = settled_device(args.device)
    return args


def compare(work: str, args: argparse.Namespace) -> list[dict]:
    """All rows of one kind of work, the chosen one first; they are printed when the best is known."""
    precision = choose_precision('auto', args.device)
    choice = (precision, chosen_layout(work), min(args.threads, limit_threads()))
    threads = dict.fromkeys([1, args.threads] if args.device == 'cpu' else [args.threads])
    layouts = [name for name in LAYOUTS if name != 'own']
    others = [one for one in itertools.product(('float32', 'bfloat16'), layouts, threads) if one != choice]
    rows, limit = [], None
    for ways in (choice, *others):
        started = time.monotonic()
        seconds = measure(work, *ways, args, limit)
        limit = limit or GIVE_UP * (time.monotonic() - started)
        note = 'given up' if seconds is None else 'chosen' if ways == choice else ''
        rows.append({'work': work, **dict(zip(('precision', 'layout', 'threads'), ways, strict=True))})
        rows[-1] |= {'seconds': seconds, 'note': note}
    best = min(row['seconds'] for row in rows if row['seconds'] is not None)
    for row in rows:
        row['of_best'] = None if row['seconds'] is None else best / row['seconds']
        TABLE.print_row(row)
    return rows


def chosen_layout(work: str) -> str:
    """The encoder's own: without gradients it is channels last."""
    if work == FRAME:
        return 'channels last'
    encoder = MODELS.build(load_config(STEPS[work][0]).model).encoder
    return next(name for name, layout in LAYOUTS.items() if layout is training_format(encoder))


def measure(
    work: str, precision: str, layout: str, threads: int, args: argparse.Namespace, limit: float | None
) -> float | None:
    """Seconds of one row in a process of its own; None when it was given up."""
    common = ['--device', args.device, '--threads', str(threads), '--repeats', str(1 if args.quick else args.repeats)]
    what = f'{work}, {precision}, {layout}, {threads} threads'
    if work == FRAME:
        common += ['--measure', json.dumps([precision, layout]), *(['--quick'] if args.quick else [])]
        row = measure_in_process(__file__, common, what, limit)
    else:
        config, size, batch = STEPS[work]
        way = Way(amp=precision == 'bfloat16', layout=layout)
        common += ['--measure', STAGE_1, '--way', json.dumps(asdict(way)), '--config', str(config)]
        common += ['--size', str(size), '--batch', str(2 if args.quick else batch)]
        common += ['--quick'] if args.quick else []
        row = measure_in_process(FOLDER / 'train_step.py', common, what, limit)
    return None if row is None else row['seconds']


@torch.no_grad()
def encode_frame(args: argparse.Namespace) -> dict:
    """The fastest of the repeats."""
    precision, layout = json.loads(args.measure)
    torch.set_num_threads(args.threads)
    backbone = MODELS.build(load_config(STEPS[PAPER][0]).model).encoder.backbone.eval().to(args.device)
    backbone.to(memory_format=LAYOUTS[layout])
    images = torch.randn(1, 3, *((64, 96) if args.quick else (480, 854)), device=args.device)
    images = images.contiguous(memory_format=LAYOUTS[layout])
    with computing_in(precision, args.device):
        backbone(images)
        return {'seconds': min(timed(lambda: backbone(images), args.device)[0].wall for _ in range(args.repeats))}


if __name__ == '__main__':
    sys.exit(main())
