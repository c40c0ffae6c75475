#!/usr/bin/env python
"""How fast frames are decoded and training pairs are loaded, against what a training step needs.

First table, frames: `read_image` (cv2, with its checks) and other decoders on the JPEG frames of the training videos,
on those of --images (480p, say), on copies at the size of training as `mmliir data prepare resize --size` makes them,
and the same copies as bytes in one memory-mapped file; `VideoFile` (PyAV) in order and at random places. `cpu ms` is
processor time a frame, which a busy machine changes less than the clock; `cores` is how many decode as many frames as
a GPU at --gpu-tflops uses, in stage 1 of the recipe. simplejpeg is measured where it is installed.

Second table, pairs: the training's own data loader over frame folders and over video files. `busy` is the share of a
step of --step-seconds that loading takes: below 1, with workers, training does not wait.

Without --data-root, `data/train` or the folder `train` of MMLIIR_DATA_ROOT; where there is neither, generated frames.

examples:
  python tools/benchmarks/data_loading.py
  python tools/benchmarks/data_loading.py --data-root data/train --images data/davis2016/JPEGImages/480p/blackswan
  python tools/benchmarks/data_loading.py --step-seconds 33 --json loading.json --plot loading.png
  python tools/benchmarks/data_loading.py --quick
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from common import (
    Bars,
    Column,
    TextTable,
    add_report_arguments,
    data_root,
    describe_machine,
    plot_bars,
    timed,
    write_report,
)
from mmengine.runner import Runner
from PIL import Image

import mmliir.datasets  # noqa: F401  (registers samplers and sources)
from mmliir.apis.configs import load_config
from mmliir.datasets import FrameFolder, VideoFile, read_image
from mmliir.datasets.listing import list_pictures
from mmliir.testing.synthetic import generate_video
from mmliir.visualization import write_video

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'


#: Operations of stage 1 for a frame at 256 x 256 (train_step.py counts 0.566 TFLOP for two pairs).
TFLOP_A_FRAME = 0.566 / 4
FRAMES = TextTable(
    [
        Column('frames', 'name', 's', 40),
        Column('size', 'shown_size', 's', 11),
        Column('frames/s', 'per_s', '.0f'),
        Column('cpu ms', 'cpu_ms', '.3f'),
        Column('cores', 'cores', '.1f', 8),
    ]
)
PAIRS = TextTable(
    [
        Column('loader', 'name', 's', 40),
        Column('workers', 'workers', 'd', 11),
        Column('pairs/s', 'per_s', '.1f'),
        Column('busy', 'busy', '.3f'),
    ]
)


def main() -> int:
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix='mmliir-loading-') as folder:
        if args.quick:
            args.data_root, args.seconds, args.batch, args.size, args.workers = Path(folder), 0.05, 2, 32, [0, 1]
            write_generated_data(args.data_root, (48, 64), 12)
        elif args.data_root is None:
            print('no training videos found (--data-root): generated frames')
            args.data_root = Path(folder)
            write_generated_data(args.data_root, (256, 456), 40)
        cv2.setNumThreads(1)  # what a worker of a loader has
        machine = describe_machine('cpu', 1, matrix_side=128 if args.quick else None)
        print(machine)
        need = 0.01 * args.share * args.gpu_tflops / TFLOP_A_FRAME
        rate = f'{args.share:.0f} % of {args.gpu_tflops:.0f} TFLOP/s'
        print(f'stage 1 on a GPU at {rate} takes {need:.0f} frames/s, {need / 2:.0f} pairs/s')
        rows = []
        for table, measured in ((FRAMES, decoders(args, need, Path(folder))), (PAIRS, loaders(args))):
            table.print_header()
            for row in measured:
                table.print_row(row)
                rows.append(row)
    if args.json is not None:
        write_report(args.json, machine, rows, needed_frames_per_s=need)
    if args.plot is not None:
        plot(rows, args.plot)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, metavar='DIR', help='with JPEGImages/ and Videos/')
    parser.add_argument('--images', type=Path, nargs='*', metavar='DIR', help='more folders of JPEG frames')
    parser.add_argument('--seconds', type=float, default=3.0, help='of each measurement')
    parser.add_argument('--batch', type=int, default=12, metavar='N', help='pairs a step')
    parser.add_argument('--size', type=int, default=256, metavar='PIXELS', help='side of the square frames')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], metavar='N')
    parser.add_argument('--step-seconds', type=float, metavar='S', help='of a training step, to compare with')
    parser.add_argument(
        '--gpu-tflops', type=float, default=790, metavar='N', help='bf16 matrix rate of a GPU (790: measured H100s)'
    )
    parser.add_argument('--share', type=float, default=35, metavar='PERCENT', help='of that rate a step reaches')
    parser.add_argument('--quick', action='store_true', help='a few generated frames')
    add_report_arguments(parser)
    args = parser.parse_args()
    real = data_root()
    if args.data_root is None and not args.quick:
        args.data_root = next((root for root in (Path('data/train'), real / 'train') if root.is_dir()), None)
    if args.images is None:
        args.images = [] if args.quick else sorted((real / 'davis2016' / 'JPEGImages' / '480p').glob('*'))[:1]
    return args


def write_generated_data(root: Path, size: tuple[int, int], num_frames: int) -> None:
    for seed in range(2):
        video = generate_video(seed, num_frames, size, name=f'v{seed}')
        write_jpegs(root / 'JPEGImages' / video.name, video.frames)
        (root / 'Videos').mkdir(exist_ok=True)
        write_video(root / 'Videos' / f'{video.name}.mp4', (np.asarray(frame) for frame in video.frames))


def write_jpegs(folder: Path, frames) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        image = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f'{number:05d}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


# -------------------------------------------------------------------------------------------------------- decoders
def decoders(args: argparse.Namespace, need: float, folder: Path) -> Iterator[dict]:
    first = next(path for path in sorted((args.data_root / 'JPEGImages').iterdir()) if path.is_dir())
    file = next(path for path in sorted((args.data_root / 'Videos').iterdir()) if path.suffix == '.mp4')
    small = [
        cv2.resize(read_image(path), (args.size, args.size), interpolation=cv2.INTER_AREA)
        for path in list_pictures((args.images or [first])[0]).files[:48]
    ]
    prepared = write_jpegs(folder / 'prepared', small)
    cases: list[tuple[str, Callable[[int], np.ndarray], int]] = []
    for images in (first, *args.images):
        cases += jpeg_cases(images)
    cases += jpeg_cases(prepared, 'prepared ')
    cases.append(('prepared bytes, memory-mapped', *mapped(folder / 'prepared.npy', small)))
    video = VideoFile(file)
    places = np.random.default_rng(0).permutation(len(video)).tolist()
    cases.append(('VideoFile, in order', lambda n: video[n], len(video)))
    cases.append(('VideoFile, at random places', lambda n: video[places[n]], len(video)))
    for name, read, count in cases:
        height, width = read(0).shape[:2]
        rate, cpu = rate_of(read, count, args.seconds)
        yield {
            'kind': 'decoder',
            'name': name,
            'size': [height, width],
            'shown_size': f'{width}x{height}',
            'per_s': rate,
            'cpu_s': cpu,
            'cpu_ms': 1e3 * cpu,
            'cores': need * cpu,
        }


def jpeg_cases(folder: Path, of: str = '') -> list[tuple[str, Callable[[int], np.ndarray], int]]:
    """(name, frame by number, frames) of each decoder on the frames of a folder."""
    images, frames = list_pictures(folder).files, FrameFolder(folder)
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        'cv2 alone': lambda path: cv2.imread(str(path)),
        'cv2 alone, half the size': lambda path: cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2),
        'PIL': lambda path: np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert('RGB')),
        'read_image': read_image,
    }
    try:
        import simplejpeg
    except ImportError:
        pass
    else:
        readers['simplejpeg'] = lambda path: simplejpeg.decode_jpeg(path.read_bytes())
    cases = [
        (f'{of}JPEG, {name}', lambda n, read=read: read(images[n]), len(images)) for name, read in readers.items()
    ]
    return [*cases, (f'{of}JPEG, FrameFolder', lambda n: frames[n], len(images))]


def mapped(path: Path, frames: list[np.ndarray]) -> tuple[Callable[[int], np.ndarray], int]:
    """Frames as bytes in one file, read by copying; the file stays in the page cache."""
    np.save(path, np.stack(frames))
    stored = np.load(path, mmap_mode='r', allow_pickle=False)
    return lambda n: np.array(stored[n]), len(stored)


def rate_of(read: Callable[[int], object], count: int, seconds: float) -> tuple[float, float]:
    """Calls a second on the clock, and processor seconds a call, in about the given time."""
    calls = 0

    def work() -> None:
        nonlocal calls
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            read(calls % count)
            calls += 1

    cost, _ = timed(work)
    return calls / cost.wall, cost.cpu / calls


# ---------------------------------------------------------------------------------------------------------- loader
def loaders(args: argparse.Namespace) -> Iterator[dict]:
    for name in ('JPEGImages', 'Videos'):
        for workers in args.workers:
            rate = loader_rate(args, args.data_root / name, workers)
            busy = None if args.step_seconds is None else args.batch / rate / args.step_seconds
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
    frames = {f'{row["name"]} {row["shown_size"]}': row['per_s'] for row in rows if row['kind'] == 'decoder'}
    pairs = {f'{row["name"]}, {row["workers"]} workers': row['per_s'] for row in rows if row['kind'] == 'loader'}
    plot_bars(path, [Bars('frames/s', frames, log=True, form='%.0f'), Bars('pairs/s', pairs, form='%.0f')])


if __name__ == '__main__':
    sys.exit(main())
