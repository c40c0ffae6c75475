#!/usr/bin/env python
"""Time our DAVIS scores against the official tool's, and compare every number.

The truth is that of DAVIS-2016 and of sequences with several objects, real masks; generated ones where there are no
data. The predictions are copies of it, shifted, grown or shrunk and with specks. Both are written as indexed PNG, as
DAVIS-2017 and this toolbox store them. The official tool runs in this process on the same files, which have been read
once before; so does `vos-benchmark`, another public tool, where it is installed. `floor` reads and inflates the files,
each once, and computes nothing; `share` is its processor time over that of a run.

The official tool is not a dependency. Get it with
`git clone https://github.com/davisvideochallenge/davis2017-evaluation`, put the checkout on PYTHONPATH and
install what it needs: `pip install scipy scikit-image tqdm`. The other is `pip install vos-benchmark`.

examples:
  python tools/benchmarks/metrics.py
  MMLIIR_DATA_ROOT=data PYTHONPATH=path/to/davis2017-evaluation python tools/benchmarks/metrics.py --plot metrics.png
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from common import (
    MEMORY_IS_MEASURED,
    Bars,
    Column,
    Cost,
    TextTable,
    add_report_arguments,
    data_root,
    describe_machine,
    peak_bytes,
    plot_bars,
    reset_peak,
    resident_bytes,
    timed,
    write_report,
)
from PIL import Image

from mmliir.datasets import write_label_map
from mmliir.datasets.png import read_ids
from mmliir.evaluation.metrics import DavisMetric, Scores
from mmliir.evaluation.metrics.davis import METRIC_VERSION
from mmliir.testing.synthetic import generate_video

OFFICIAL_MODULES = ('davis2017', 'scipy', 'skimage', 'tqdm')


#: Videos and frames that are generated where there are no data.
GENERATED = (6, 25)
SIZE = (480, 854)
TABLE = TextTable(
    [
        Column('run', 'run', width=20),
        Column('time s', 'wall_s', '.2f'),
        Column('cpu s', 'cpu_s', '.2f'),
        Column('peak MB', 'peak_mb', '.0f'),
        Column('official / it', 'ratio', '.1f', 15),
        Column('cpu', 'cpu_ratio', '.1f'),
        Column('share', 'share', '.2f'),
        Column('max difference', 'max_difference', '.1e', 16),
    ]
)


def main() -> int:
    """Run the comparison; 1 when a number differs."""
    args = _parse_args()
    missing = [name for name in OFFICIAL_MODULES if importlib.util.find_spec(name) is None]
    machine = describe_machine('cpu', 1, matrix_side=256 if args.quick else None)
    print(machine)
    if missing:
        print(f'the official tool is not importable (no {", ".join(missing)}): ours alone; --help says how to get it')
    with tempfile.TemporaryDirectory(prefix='mmliir-bench-') as folder:
        root = Path(folder)
        described = _write_data(args, root)
        rows, facts = _measure(root, args, with_official=not missing)
    print(f'{described}: {facts["frames"]} scored frames, {facts["scored_objects"]} objects')
    TABLE.print_header()
    for row in rows:
        TABLE.print_row(row)
    if args.json is not None:
        versions = {'metric_version': METRIC_VERSION, 'isal': importlib.util.find_spec('isal') is not None}
        write_report(args.json, machine, rows, data=described, **facts, **versions)
    if args.plot is not None:
        bars = {row['run']: row['cpu_s'] for row in rows if row['cpu_s'] is not None}
        plot_bars(args.plot, [Bars('processor seconds', bars, form='%.2f')], described)
    return int(any((row['max_difference'] or 0) > args.tolerance for row in rows))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--data-root',
        type=Path,
        nargs='+',
        metavar='DIR',
        help='DAVIS layout; whole sequences count (default: davis2016, davis2017_like in $MMLIIR_DATA_ROOT or data)',
    )
    parser.add_argument('--sequences', type=int, metavar='N', help='only the first N (default: all)')
    parser.add_argument('--objects', type=int, default=1, metavar='N', help='masks of N sequences on top of each other')
    parser.add_argument('--jobs', type=int, default=2, metavar='N', help='processes of the second run of ours')
    parser.add_argument(
        '--repeats', type=int, default=3, metavar='N', help='rounds of all runs, in turn; the fastest of each counts'
    )
    parser.add_argument('--tolerance', type=float, default=1e-12, help='largest difference that passes')
    parser.add_argument('--quick', action='store_true', help='two small generated videos')
    add_report_arguments(parser)
    args = parser.parse_args()
    if args.data_root is None:
        found = [data_root() / 'davis2016', data_root() / 'davis2017_like']
        args.data_root = [] if args.quick else [root for root in found if (root / 'Annotations' / '480p').is_dir()]
    absent = [root for root in args.data_root if not (root / 'Annotations' / '480p').is_dir()]
    if absent:
        parser.error(f'no DAVIS masks at {absent[0]}: expected Annotations/480p in it')
    return args


# ---------------------------------------------------------------------------------------------- data
def _write_data(args: argparse.Namespace, root: Path) -> str:
    """Write truth and perturbed predictions in the DAVIS-2017 layout; return what they are.

    With more than one object, those of the next sequences of the same size are laid over a sequence's own, cut to
    the same length.
    """
    masks = _real_masks(args.data_root) if args.data_root else _generated_masks(args.quick)
    names, num_objects = list(masks)[: args.sequences], args.objects
    (root / 'ImageSets' / '2017').mkdir(parents=True)
    (root / 'ImageSets' / '2017' / 'val.txt').write_text('\n'.join(names) + '\n')
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        layers = [masks[names[(i + k) % len(names)]] for k in range(num_objects)]
        layers = [layer for layer in layers if layer.shape[1:] == layers[0].shape[1:]]
        truth = np.zeros_like(layers[0][: min(map(len, layers))])
        prediction = truth.copy()
        objects = [(layer, k) for layer in layers for k in range(1, int(layer[0].max()) + 1)]
        for new_id, (layer, old_id) in reversed(list(enumerate(objects, start=1))):
            truth[layer[: len(truth)] == old_id] = new_id
            for t in range(len(truth)):
                mask = (layer[t] == old_id).astype(np.uint8)
                prediction[t][_perturbed(mask, t, rng) > 0] = new_id
        _write_masks(root / 'Annotations' / '480p' / name, truth)
        _write_masks(root / 'predictions' / name, prediction)
    return f'{len(names)} {"sequences" if args.data_root else "generated sequences"}'


def _real_masks(sources: list[Path]) -> dict[str, np.ndarray]:
    folders = [folder for source in sources for folder in _whole_sequences(source)]
    return {folder.name: _read_masks(folder) for folder in folders}


def _generated_masks(quick: bool) -> dict[str, np.ndarray]:
    count, num_frames = (2, 4) if quick else GENERATED
    size = (48, 64) if quick else SIZE
    videos = [generate_video(seed, num_frames, size, name=f'v{seed}') for seed in range(count)]
    return {video.name: video.annotations() for video in videos}


def _whole_sequences(source: Path) -> list[Path]:
    """Return the folders of annotations that have one for every frame."""
    folders = sorted(path for path in (source / 'Annotations' / '480p').iterdir() if path.is_dir())
    counts = {folder: len(list((source / 'JPEGImages' / '480p' / folder.name).glob('*.jpg'))) for folder in folders}
    return [folder for folder in folders if len(list(folder.glob('*.png'))) == counts[folder]]


def _perturbed(mask: np.ndarray, t: int, rng: np.random.Generator) -> np.ndarray:
    """Return the mask (H, W) moved by up to 12 pixels, grown or shrunk by up to 3, with four specks."""
    shifted = np.roll(mask, tuple(rng.integers(-12, 13, 2)), axis=(0, 1))
    kernel = np.ones((1 + 2 * (t % 4),) * 2, np.uint8)
    changed = (cv2.dilate if t % 2 else cv2.erode)(shifted, kernel)
    for y, x in rng.integers(0, (mask.shape[0] - 8, mask.shape[1] - 8), (4, 2)):
        changed[y : y + 8, x : x + 8] ^= 1
    return changed


def _read_masks(folder: Path) -> np.ndarray:
    """Return (T, H, W) uint8 ids; the one object of DAVIS-2016 is 255 there, and 1 here."""
    masks = np.stack([np.array(Image.open(path)) for path in sorted(folder.glob('*.png'))])
    return (masks > 0).astype(np.uint8) if set(np.unique(masks)) <= {0, 255} else masks


def _write_masks(folder: Path, masks: np.ndarray) -> None:
    for t, mask in enumerate(masks):
        write_label_map(folder / f'{t:05d}.png', mask)


# ---------------------------------------------------------------------------------------------- measure
def _measure(root: Path, args: argparse.Namespace, with_official: bool) -> tuple[list[dict], dict]:
    """Rows of the runs, and what was scored."""
    metric = DavisMetric(root)
    predictions = root / 'predictions'
    scores = metric.score(predictions)  # warms the file cache for everybody
    found: dict = {}
    several = f'ours, {args.jobs} processes'
    runs: dict[str, Callable[[], object]] = {
        'floor': lambda: _inflate(root),
        'ours': lambda: metric.score(predictions),
        several: lambda: metric.score(predictions, jobs=args.jobs),
    }
    if with_official:
        runs['official'] = lambda: found.update(_run_official(root, predictions))
    if importlib.util.find_spec('vos_benchmark') is not None:
        runs['vos-benchmark'] = lambda: _run_vos_benchmark(root, predictions)
    # In turn, and the fastest of each: what else the machine does then falls on all of them.
    rounds = [{name: _cost(run) for name, run in runs.items()} for _ in range(args.repeats)]
    fastest = {name: min((each[name][0] for each in rounds), key=lambda cost: cost.wall) for name in runs}
    peaks = {name: max(each[name][1] for each in rounds) / 1e6 if MEMORY_IS_MEASURED else None for name in runs}
    rows = []
    for name, cost in fastest.items():
        in_one = name != several  # what its other processes take is not seen from here
        official = fastest.get('official') if name not in ('official', 'floor') else None
        rows.append(
            {
                'run': name,
                'wall_s': cost.wall,
                'cpu_s': cost.cpu if in_one else None,
                'peak_mb': peaks[name] if in_one else None,
                'ratio': official.wall / cost.wall if official else None,
                'cpu_ratio': official.cpu / cost.cpu if official and in_one else None,
                'share': fastest['floor'].cpu / cost.cpu if in_one else None,
                'max_difference': _largest_difference(scores, found) if official and name == 'ours' else None,
            }
        )
    facts = {
        'frames': sum(len(sequence.frames) for sequence in scores.sequences),
        'scored_objects': sum(len(sequence.objects) for sequence in scores.sequences),
        'jf_mean': scores.jf_mean,
    }
    return rows, facts


def _cost(run: Callable[[], object]) -> tuple[Cost, int | None]:
    """What a run took, and the most bytes above what was resident before; None where that cannot be measured."""
    if not MEMORY_IS_MEASURED:
        return timed(run)[0], None
    before = resident_bytes()
    reset_peak()
    cost, _ = timed(run)
    return cost, peak_bytes() - before


def _inflate(root: Path) -> None:
    for folder in (root / 'Annotations' / '480p', root / 'predictions'):
        for path in sorted(folder.glob('*/*.png')):
            read_ids(path)


def _largest_difference(scores: Scores, official: dict) -> float:
    ours, theirs = _table(scores), _official_table(official)
    # NaN against NaN is equal; NaN against a number is not.
    differences = np.where(np.isnan(ours) & np.isnan(theirs), 0, np.abs(ours - theirs))
    return float(np.nan_to_num(differences, nan=np.inf).max())


def _run_official(root: Path, predictions: Path) -> dict:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore', RuntimeWarning)
        from davis2017.evaluation import DAVISEvaluation

        # codalab=True: it does not ask for JPEG frames, which it would not use.
        return DAVISEvaluation(str(root), 'semi-supervised', 'val', codalab=True).evaluate(str(predictions))


def _run_vos_benchmark(root: Path, predictions: Path) -> list:
    """Mean J and F of every object by hkchengrex/vos-benchmark, in this process; it can share videos out."""
    from vos_benchmark.benchmark import VideoEvaluator

    evaluate = VideoEvaluator(str(root / 'Annotations' / '480p'), str(predictions))
    return [evaluate(name) for name in sorted(path.name for path in predictions.iterdir())]


def _table(scores: Scores) -> np.ndarray:
    """Return (objects + 1, 6): the data set's value last."""
    rows = [row for sequence in scores.sequences for row in sequence.objects]
    return np.array([(*dataclasses.astuple(row.j), *dataclasses.astuple(row.f)) for row in (*rows, scores)])


def _official_table(result: dict) -> np.ndarray:
    columns = np.array([result[measure][key] for measure in 'JF' for key in 'MRD']).T
    return np.vstack([columns, columns.mean(axis=0)])


if __name__ == '__main__':
    sys.exit(main())
