#!/usr/bin/env python
"""Peak memory of propagation by protocol and size: a step, a whole stream, and a dense affinity for comparison.

Each measurement is a process of its own (with --quick all are one): random features, as many steps as fill the
references, then one step for `step` (high-water mark of the resident set less what was resident before the first
frame: features and labels that are kept, and temporaries), and --stream more for `stream`, which shows that a longer
video takes no more. `kept` is the part that features and labels of kept frames have in it. `bound` is the smallest
--max-memory that is accepted. `dense` is the float32 affinity of one frame with all references, which programs that
compare whole frames hold at least once; it is computed, not measured.

examples:
  python tools/benchmarks/memory.py
  python tools/benchmarks/memory.py --protocols crw --sizes 480x854 1080x1920 --json memory.json --plot memory.png
  python tools/benchmarks/memory.py --torch --max-memory 2000000000
  python tools/benchmarks/memory.py --quick
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    Bars,
    Column,
    TextTable,
    add_report_arguments,
    describe_machine,
    measure_in_process,
    peak_bytes,
    plot_bars,
    reset_peak,
    resident_bytes,
    write_report,
)

from mmliir.propagation import PropagationSession, get_protocol
from mmliir.utils.machine import usable_cores

#: Stride and channels of the features that each protocol is meant for.
FEATURES = {'crw': (8, 256), 'liir_compat': (4, 64), 'liir_paper': (4, 64), 'dino': (16, 384)}
TABLE = TextTable(
    [
        Column('protocol', 'protocol', width=14),
        Column('size', 'size', width=12),
        Column('kept MB', 'kept_mb', '.1f'),
        Column('step', 'step_mb', '.1f'),
        Column('stream', 'stream_mb', '.1f'),
        Column('bound', 'bound_mb', '.1f'),
        Column('dense', 'dense_mb', '.1f'),
        Column('x step', 'dense_ratio', '.1f'),
    ]
)


def main() -> int:
    """Measure and print; 1 when a stream takes more than its references."""
    args = parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args, args.measure[0], args.measure[1])))
        return 0
    machine = describe_machine('cpu', args.threads, matrix_side=256 if args.quick else None)
    print(f'{machine}\n{args.objects} objects')
    TABLE.print_header()
    rows = []
    for name in args.protocols:
        for size in args.sizes:
            rows.append(run_measurement(args, name, size))
            TABLE.print_row(rows[-1])
    if args.json is not None:
        write_report(args.json, machine, rows, objects=args.objects)
    if args.plot is not None:
        plot(rows, args.plot)
    return int(any(row['stream_mb'] > 1.2 * row['step_mb'] + 20 for row in rows))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--protocols', nargs='+', default=list(FEATURES), choices=list(FEATURES), metavar='NAME')
    parser.add_argument('--sizes', nargs='+', default=['240x427', '480x854'], metavar='HxW', help='of the frames')
    parser.add_argument('--objects', type=int, default=5, metavar='N')
    parser.add_argument('--stream', type=int, default=5, metavar='N', help='steps after the references are full')
    parser.add_argument('--threads', type=int, default=usable_cores(), metavar='N')
    parser.add_argument('--torch', action='store_true', help="PyTorch's path, without compiled code")
    parser.add_argument('--max-memory', type=int, metavar='BYTES', help='bound of the sessions')
    parser.add_argument('--quick', action='store_true', help='small frames in one process')
    add_report_arguments(parser)
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)  # protocol and size: one process's work
    args = parser.parse_args()
    if args.quick:
        args.sizes = ['48x64']
    return args


def run_measurement(args: argparse.Namespace, name: str, size: str) -> dict:
    if args.quick:
        return measure(args, name, size)
    command = ['--measure', name, size, '--objects', str(args.objects)]
    command += ['--stream', str(args.stream), '--threads', str(args.threads)] + ['--torch'] * args.torch
    command += ['--max-memory', str(args.max_memory)] if args.max_memory else []
    return measure_in_process(__file__, command, f'{name}, {size}')


def measure(args: argparse.Namespace, name: str, size: str) -> dict:
    """The row of one protocol and size, in this process."""
    if args.torch:
        os.environ['MMLIIR_NATIVE'] = '0'
    torch.set_num_threads(args.threads)
    settings = get_protocol(name).settings
    stride, channels = FEATURES[name]
    height, width = (int(part) for part in size.split('x'))
    cells = (-(-height // stride), -(-width // stride))
    warm = PropagationSession(settings, stride, (4 * stride, 5 * stride))
    for number in range(3):  # compiled code, threads
        warm.step(torch.rand(channels, 4, 5), labels_of(4 * stride, 5 * stride, 1) if number == 0 else None)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((1, channels, 9, 13), generator=generator)
    before = resident_bytes()
    reset_peak()
    padded = (cells[0] * stride, cells[1] * stride)
    session = PropagationSession(settings, stride, (height, width), padded_size=padded, max_memory=args.max_memory)
    filled = 1 + max([*settings.gaps, *settings.permanent])
    if settings.long_range is not None:  # older references are searched in two steps
        filled += settings.long_range.min_distance + 1
    found = {}
    for number in range(filled + 1 + args.stream):
        feature = F.interpolate(coarse.roll(number, 3), size=cells, mode='bilinear', align_corners=False)[0]
        session.step(feature, labels_of(height, width, args.objects) if number == 0 else None)
        if number == filled:
            found['step_mb'] = (peak_bytes() - before) / 1e6
    kept_frames = len(session.kept_frames)
    label_bytes = 4 * (args.objects + 1) if settings.carry == 'soft' else 1
    count = cells[0] * cells[1]
    dense = 4 * count * count * (len(settings.gaps) + len(settings.permanent))
    return {
        'protocol': name,
        'size': size,
        'cells': cells,
        'channels': channels,
        'kept_frames': kept_frames,
        'kept_mb': kept_frames * count * (4 * channels + label_bytes) / 1e6,
        **found,
        'stream_mb': (peak_bytes() - before) / 1e6,
        'bound_mb': smallest_bound(name, stride, channels, (height, width), padded, args.objects) / 1e6,
        'dense_mb': dense / 1e6,
        'dense_ratio': dense / 1e6 / max(found['step_mb'], 0.1),
    }


def smallest_bound(
    name: str, stride: int, channels: int, size: tuple[int, int], padded: tuple[int, int], objects: int
) -> float:
    """Bytes, from the error that a bound of one byte raises."""
    session = PropagationSession(get_protocol(name).settings, stride, size, padded_size=padded, max_memory=1)
    try:
        session.step(torch.zeros(channels, padded[0] // stride, padded[1] // stride), labels_of(*size, objects))
    except ValueError as error:
        number, unit = re.search(r'give ([\d.]+) (\w+) or more', str(error)).groups()
        return float(number) * {'bytes': 1, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30}[unit]
    raise ValueError('a bound of one byte was accepted')


def labels_of(height: int, width: int, objects: int) -> np.ndarray:
    """Stripes with the ids 0 .. objects."""
    return np.repeat((np.arange(width) * (objects + 1) // width)[None], height, axis=0).astype(np.int32)


def plot(rows: list[dict], path: Path) -> None:
    """Bars of what is kept, the stream's peak and the dense affinity."""
    titles = {'kept_mb': 'features and labels kept', 'stream_mb': 'peak of a stream', 'dense_mb': 'dense affinity'}
    names = [f'{row["protocol"]} {row["size"]}' for row in rows]
    panels = [
        Bars(f'{title}, MB', dict(zip(names, (row[key] for row in rows), strict=True)), log=True, form='%.0f')
        for key, title in titles.items()
    ]
    plot_bars(path, panels)


if __name__ == '__main__':
    sys.exit(main())
