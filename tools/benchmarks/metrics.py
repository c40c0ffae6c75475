"""Time our DAVIS scores against the official tool's, and compare every number.

The truth is that of DAVIS-2016 and of sequences with several objects, real masks; the predictions are copies of it,
shifted, grown or shrunk and with specks. Both are written as indexed PNG, as DAVIS-2017 and this toolbox store them.
The official tool runs in this process on the same files, which have been read once before.

    MMLIIR_DATA_ROOT=../shared/data PYTHONPATH=path/to/davis2017-evaluation python tools/benchmarks/metrics.py

The official tool is not a dependency. Get it with
`git clone https://github.com/davisvideochallenge/davis2017-evaluation`, put the checkout on PYTHONPATH and
install what it needs: `pip install scipy scikit-image tqdm`.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmliir.datasets import write_label_map
from mmliir.evaluation.metrics import METRIC_VERSION, DavisMetric, Scores
from mmliir.utils.files import write_json_atomic
from mmliir.version import __version__

OFFICIAL_MODULES = ('davis2017', 'scipy', 'skimage', 'tqdm')


def main() -> int:
    """Run the comparison; 1 when a number differs, 2 when the data are missing."""
    args = _parse_args()
    absent = [root for root in args.data_root if not (root / 'Annotations' / '480p').is_dir()]
    if absent:
        print(f'No DAVIS masks at {absent[0]}. Set MMLIIR_DATA_ROOT or --data-root.', file=sys.stderr)
        return 2
    missing = [name for name in OFFICIAL_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        print(f'The official tool is not importable (no {", ".join(missing)}): timing ours alone.')
        print(__doc__.split('\n\n')[-1].strip())
    with tempfile.TemporaryDirectory(prefix='mmliir-bench-') as folder:
        root = Path(folder)
        sequences = _write_data(args.data_root, root, args.objects, args.sequences)
        row = _measure(root, sequences, args, with_official=not missing)
    row = {**_environment(), 'objects': args.objects, **row}
    _print(row)
    if args.json is not None:
        write_json_atomic(args.json, row)
    return int(row['max_abs_difference'] is not None and row['max_abs_difference'] > args.tolerance)


def _parse_args() -> argparse.Namespace:
    clips = Path(os.environ.get('MMLIIR_DATA_ROOT', Path(__file__).parents[3] / 'shared' / 'data'))
    data_root = [clips / 'davis2016', clips / 'davis2017_like']
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data-root', type=Path, nargs='+', default=data_root, help='in the DAVIS layout; whole sequences count'
    )
    parser.add_argument(
        '--sequences', type=int, default=None, metavar='N', help='only the first N (default: all)'
    )
    parser.add_argument(
        '--objects', type=int, default=1, help='masks of so many sequences on top of each other'
    )
    parser.add_argument('--jobs', type=int, default=2, help='processes of the second run of ours')
    parser.add_argument(
        '--repeats', type=int, default=3, help='rounds of all runs, in turn; the fastest of each counts'
    )
    parser.add_argument('--tolerance', type=float, default=1e-12, help='largest difference that passes')
    parser.add_argument('--json', type=Path, default=None, metavar='FILE', help='write the row here')
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- data
def _write_data(sources: list[Path], root: Path, num_objects: int, limit: int | None) -> int:
    """Write truth and perturbed predictions in the DAVIS-2017 layout; return the number of sequences.

    With more than one object, those of the next sequences of the same size are laid over a sequence's own, cut to
    the same length.
    """
    folders = [folder for source in sources for folder in _whole_sequences(source)][:limit]
    names = [folder.name for folder in folders]
    masks = {folder.name: _read_masks(folder) for folder in folders}
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
    return len(names)


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
def _measure(root: Path, sequences: int, args: argparse.Namespace, with_official: bool) -> dict:
    metric = DavisMetric(root)
    predictions = root / 'predictions'
    scores = metric.score(predictions)  # warms the file cache for everybody
    found: dict = {}
    runs: dict[str, Callable[[], object]] = {
        'ours': lambda: metric.score(predictions),
        'ours_jobs': lambda: metric.score(predictions, jobs=args.jobs),
    }
    if with_official:
        runs['official'] = lambda: found.update(_run_official(root, predictions))
    # In turn, and the fastest of each: what else the machine does then falls on all of them.
    rounds = [{name: _seconds(run) for name, run in runs.items()} for _ in range(args.repeats)]
    fastest = {name: tuple(min(times) for times in zip(*(each[name] for each in rounds), strict=True)) for name in runs}
    one, many = fastest['ours'][0], fastest['ours_jobs'][0]
    row = {
        'sequences': sequences,
        'frames': sum(len(sequence.frames) for sequence in scores.sequences),
        'scored_objects': sum(len(sequence.objects) for sequence in scores.sequences),
        'jf_mean': scores.jf_mean,
        'ours_s': one,
        'ours_cpu_s': fastest['ours'][1],
        'jobs': args.jobs,
        'ours_jobs_s': many,
        'official_s': None,
        'official_cpu_s': None,
        'ratio': None,
        'ratio_jobs': None,
        'ratio_cpu': None,
        'numbers_compared': None,
        'max_abs_difference': None,
    }
    if with_official:
        row['official_s'], row['official_cpu_s'] = fastest['official']
        row['ratio_cpu'] = row['official_cpu_s'] / row['ours_cpu_s']
        row['ratio'], row['ratio_jobs'] = row['official_s'] / one, row['official_s'] / many
        ours, theirs = _table(scores), _official_table(found)
        # NaN against NaN is equal; NaN against a number is not.
        differences = np.where(np.isnan(ours) & np.isnan(theirs), 0, np.abs(ours - theirs))
        row['numbers_compared'] = differences.size
        row['max_abs_difference'] = float(np.nan_to_num(differences, nan=np.inf).max())
    return row


def _run_official(root: Path, predictions: Path) -> dict:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore', RuntimeWarning)
        from davis2017.evaluation import DAVISEvaluation

        # codalab=True: it does not ask for JPEG frames, which it would not use.
        return DAVISEvaluation(str(root), 'semi-supervised', 'val', codalab=True).evaluate(str(predictions))


def _table(scores: Scores) -> np.ndarray:
    """Return (objects + 1, 6): the data set's value last."""
    rows = [row for sequence in scores.sequences for row in sequence.objects]
    return np.array([(*dataclasses.astuple(row.j), *dataclasses.astuple(row.f)) for row in (*rows, scores)])


def _official_table(result: dict) -> np.ndarray:
    columns = np.array([result[measure][key] for measure in 'JF' for key in 'MRD']).T
    return np.vstack([columns, columns.mean(axis=0)])


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that pass, and those of processor time of this process with all its threads."""
    start, start_cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - start_cpu


# ---------------------------------------------------------------------------------------------- report
def _environment() -> dict:
    return {
        'mmliir': __version__,
        'metric_version': METRIC_VERSION,
        'python': platform.python_version(),
        'numpy': np.__version__,
        'opencv': cv2.__version__,
        'isal': importlib.util.find_spec('isal') is not None,
        'cores': os.cpu_count(),
        'load_average': os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
    }


def _print(row: dict) -> None:
    def number(value: float | None, form: str) -> str:
        return 'n/a' if value is None else format(value, form)

    print(f'{row["sequences"]} sequences, {row["frames"]} scored frames, {row["scored_objects"]} objects')
    print(f'{"":<18}{"seconds":>10}{"official / ours":>18}')
    print(f'{"official":<18}{number(row["official_s"], ".2f"):>10}')
    print(f'{"ours, 1 process":<18}{row["ours_s"]:>10.2f}{number(row["ratio"], ".1f"):>18}')
    processes = f'ours, {row["jobs"]} processes'
    print(f'{processes:<18}{row["ours_jobs_s"]:>10.2f}{number(row["ratio_jobs"], ".1f"):>18}')
    cpu = f'official {number(row["official_cpu_s"], ".2f")}, ours {row["ours_cpu_s"]:.2f}'
    print(f'processor seconds of one process: {cpu}, ratio {number(row["ratio_cpu"], ".1f")}')
    difference, count = number(row['max_abs_difference'], '.1e'), number(row['numbers_compared'], 'd')
    print(f'largest difference of {count} numbers: {difference}')
    settings = {key: row[key] for key in _environment()}
    print(json.dumps(settings))


if __name__ == '__main__':
    sys.exit(main())
