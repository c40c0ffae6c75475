#!/usr/bin/env python
"""How fast frames are decoded and training pairs are loaded, against what a training step needs.

Decoders: `read_image` (cv2, with its checks) and cv2 alone on JPEG frames, `VideoFile` (PyAV) in order and at random
places, and `FrameFolder`. Loader: pairs a second of the training's own data loader over frame folders and over video
files, with 0, 1 and 2 workers. `busy` is the share of a step of --step-seconds (12 pairs; see train_step.py) that
loading takes: below 1, with workers, training does not wait.

examples:
  python tools/benchmarks/data_loading.py --data-root data/train --step-seconds 33 --json loading.json
  python tools/benchmarks/data_loading.py --quick
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.runner import Runner

import mmliir.datasets  # noqa: F401  (registers samplers and sources)
from mmliir.apis.configs import load_config
from mmliir.datasets import FrameFolder, VideoFile
from mmliir.datasets.frames import list_images, read_image
from mmliir.testing.synthetic import generate_video
from mmliir.version import __version__
from mmliir.visualization import write_video

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'


def main() -> int:
    args = parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='mmliir-loading-') as folder:
        if args.quick:
            args.data_root, args.seconds, args.batch, args.size, args.workers = Path(folder), 0.05, 2, 32, [0, 1]
            write_quick_data(args.data_root)
        print(f'mmliir {__version__}, torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
        rows = [*decoders(args), *loaders(args)]
    if args.json is not None:
        args.json.write_text(json.dumps({'mmliir': __version__, 'rows': rows}, indent=1) + '\n', encoding='utf-8')
    if args.plot is not None:
        plot(rows, args.plot)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/train'), metavar='DIR', help='with JPEGImages/ and Videos/'
    )
    parser.add_argument('--seconds', type=float, default=5.0, help='of each measurement')
    parser.add_argument('--batch', type=int, default=12, metavar='N', help='pairs a step')
    parser.add_argument('--size', type=int, default=256, metavar='PIXELS', help='side of the square frames')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], metavar='N')
    parser.add_argument('--step-seconds', type=float, metavar='S', help='of a training step, to compare with')
    parser.add_argument('--quick', action='store_true', help='a few generated frames')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows here')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw the rates here')
    return parser.parse_args()


def write_quick_data(root: Path) -> None:
    for seed in range(2):
        video = generate_video(seed, 12, (48, 64), name=f'v{seed}')
        folder = root / 'JPEGImages' / video.name
        folder.mkdir(parents=True)
        for number, frame in enumerate(video.frames):
            cv2.imwrite(str(folder / f'{number:05d}.jpg'), cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR))
        (root / 'Videos').mkdir(exist_ok=True)
        write_video(root / 'Videos' / f'{video.name}.mp4', (np.asarray(frame) for frame in video.frames))


# -------------------------------------------------------------------------------------------------------- decoders
def decoders(args: argparse.Namespace) -> Iterator[dict]:
    folder = next(path for path in sorted((args.data_root / 'JPEGImages').iterdir()) if path.is_dir())
    file = next(path for path in sorted((args.data_root / 'Videos').iterdir()) if path.suffix == '.mp4')
    images, frames, video = list_images(folder), FrameFolder(folder), VideoFile(file)
    places = np.random.default_rng(0).permutation(len(video)).tolist()
    print(f'{"decoder":38s}{"size":>12s}{"frames/s":>10s}{"cpu ms":>9s}')
    cases: dict[str, tuple[Callable[[int], np.ndarray], int]] = {
        'cv2 alone, JPEG': (lambda n: cv2.imread(str(images[n])), len(images)),
        'read_image, JPEG': (lambda n: read_image(images[n]), len(images)),
        'FrameFolder, JPEG': (lambda n: frames[n], len(images)),
        'VideoFile, in order': (lambda n: video[n], len(video)),
        'VideoFile, at random places': (lambda n: video[places[n]], len(video)),
    }
    for name, (read, count) in cases.items():
        height, width = read(0).shape[:2]
        rate, cpu = rate_of(read, count, args.seconds)
        print(f'{name:38s}{f"{width}x{height}":>12s}{rate:10.0f}{1e3 * cpu:9.2f}', flush=True)
        yield {'kind': 'decoder', 'name': name, 'size': [height, width], 'per_s': rate, 'cpu_s': cpu}


def rate_of(read: Callable[[int], object], count: int, seconds: float) -> tuple[float, float]:
    """Calls a second on the clock, and processor seconds a call, in about the given time."""
    start, cpu, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        read(calls % count)
        calls += 1
    return calls / (time.perf_counter() - start), (time.process_time() - cpu) / calls


# ---------------------------------------------------------------------------------------------------------- loader
def loaders(args: argparse.Namespace) -> Iterator[dict]:
    title = f"loader, {args.batch} pairs of {args.size} pixels"
    print(f"{title:38s}{'workers':>12s}{'pairs/s':>10s}{'busy':>9s}")
    for name in ('JPEGImages', 'Videos'):
        for workers in args.workers:
            rate = loader_rate(args, args.data_root / name, workers)
            busy = None if args.step_seconds is None else args.batch / rate / args.step_seconds
            shown = '' if busy is None else f'{busy:9.3f}'
            print(f'{name:38s}{workers:12d}{rate:10.1f}{shown}', flush=True)
            yield {'kind': 'loader', 'name': name, 'workers': workers, 'per_s': rate, 'busy': busy}


def loader_rate(args: argparse.Namespace, root: Path, workers: int) -> float:
    """Pairs a second after the first batch, which starts the workers."""
    changes = {
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.pin_memory': False,
        'train_dataloader.batch_size': args.batch,
        'train_dataloader.dataset.source.data_root': str(root),
        'train_dataloader.dataset.pipeline.0.size': (args.size, args.size),
    }
    loader = Runner.build_dataloader(load_config(CONFIG, changes).train_dataloader, seed=0)
    batches, count = iter(loader), 0
    next(batches)
    # What workers had ready before the clock started would count as fast.
    for _ in range(2 * workers):
        next(batches, None)
    start = time.perf_counter()
    while time.perf_counter() - start < args.seconds or not count:
        if next(batches, None) is None:
            batches = iter(loader)
            continue
        count += args.batch
    return count / (time.perf_counter() - start)


def plot(rows: list[dict], path: Path) -> None:
    """Bars of the rates."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.2))
    for axis, kind, title in zip(axes, ('decoder', 'loader'), ('frames/s', 'pairs/s'), strict=True):
        shown = [row for row in rows if row['kind'] == kind]
        names = [row['name'] + (f', {row["workers"]} workers' if kind == 'loader' else '') for row in shown]
        axis.bar_label(axis.barh(names, [row['per_s'] for row in shown]), fmt='%.0f', padding=3)
        axis.set_title(title)
        axis.margins(x=0.2)
        axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    sys.exit(main())
