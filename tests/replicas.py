"""A small copy of every benchmark in its official layout, and what a perfect tracker would write for it."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmliir.datasets.masks import write_label_map
from mmliir.datasets.vip import read_instances
from mmliir.evaluation.benchmarks import BENCHMARKS
from mmliir.evaluation.tasks import Task
from mmliir.evaluation.tracks import TRACKS_NAME
from mmliir.testing.synthetic import SyntheticVideo, generate_video, write_davis_layout
from mmliir.testing.synthetic_badja import write_badja
from mmliir.testing.synthetic_jhmdb import write_jhmdb
from mmliir.testing.synthetic_tapvid import write_tapvid
from mmliir.testing.synthetic_vip import generate_vip_videos, write_vip
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos

#: Benchmarks that can be scored at home, and those that are predicted and handed in.
SCORED = tuple(name for name, task in BENCHMARKS.items() if task['metric'] is not None)
HANDED_IN = tuple(name for name in BENCHMARKS if name not in SCORED)


@functools.cache
def videos(count: int = 3, num_frames: int = 5, size: tuple[int, int] = (48, 64)) -> tuple[SyntheticVideo, ...]:
    """Generated videos called v0, v1, ..."""
    return tuple(generate_video(seed, num_frames, size, name=f'v{seed}') for seed in range(count))


def write_replica(benchmark: str, root: Path) -> None:
    """Write the data of a benchmark into a data root, in a folder of the usual name; what is there is left alone."""
    folder = root / Path(BENCHMARKS[benchmark]['dataset']['data_root']).name
    data = folder.name
    if data == 'davis2017':
        _write_davis2017(folder)
    elif folder.exists():
        return
    elif data == 'davis2016':
        write_davis_layout(folder, videos()[:2], year=2016)
    elif data == 'vip':
        write_vip(folder, generate_vip_videos(num_frames=3))
    elif data in ('jhmdb', 'badja'):
        {'jhmdb': write_jhmdb, 'badja': write_badja}[data](folder)
    elif data.startswith('youtube_vos'):
        write_youtube_vos(folder, num_valid=1, num_train=1, num_holdout=1, num_frames=16)
    else:
        write_tapvid(root, BENCHMARKS[benchmark]['dataset']['subset'], num_videos=2, num_frames=7)


def write_replicas(root: Path, benchmarks: Sequence[str] = tuple(BENCHMARKS)) -> Path:
    """Write the data of several benchmarks; return the data root."""
    for name in benchmarks:
        write_replica(name, root)
    return root


def write_perfect(task: Task, pred_dir: Path) -> None:
    """Write the truth as predictions, in the format of the benchmark."""
    dataset = task.dataset
    for name in dataset.names:
        folder = pred_dir / name
        folder.mkdir(parents=True)
        if dataset.kind == 'points':
            tracks, visible = dataset.truth_points(name)
            arrays = dict(queries=dataset.sample(name).queries, tracks=tracks.astype(np.float32), visible=visible)
            np.savez_compressed(folder / TRACKS_NAME, confidence=visible.astype(np.float32), **arrays)
        elif dataset.kind == 'instances':
            for path in dataset.annotation_paths(name):
                _write_instances(folder / path.name, path)
        else:
            frame_names = dataset.sample(name).frame_names
            for number, read in dataset.truth_labels(name).items():
                write_label_map(folder / f'{frame_names[number]}.png', read())


def _write_davis2017(folder: Path) -> None:
    """Both splits: 'val' with its truth, 'test-dev' with the first annotation alone."""
    if folder.exists():
        return
    write_davis_layout(folder, videos()[:2])
    write_davis_layout(folder, videos()[2:], split='test-dev')
    for path in sorted((folder / 'Annotations' / '480p' / videos()[2].name).iterdir())[1:]:
        path.unlink()


def _write_instances(path: Path, truth_path: Path) -> None:
    """A frame as `InstanceWriter` stores it: ids 1, 2, ... of what is seen, and a line `class score` each."""
    truth = read_instances(truth_path)
    seen = [int(number) for number in np.unique(truth.ids) if number]
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[seen] = np.arange(1, len(seen) + 1)
    write_label_map(path, numbers[truth.ids])
    path.with_suffix('.txt').write_text(''.join(f'{truth.classes[number]} 1\n' for number in seen))
