"""The benchmarks by name: what `mmliir eval --on` and `mmliir score` know.

`configs/_base_/tasks` has the same as configs, for the Runner's hooks and `tools/test.py`; a test keeps them equal.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

from mmliir.components import METRICS
from mmliir.datasets.catalog import find_data
from mmliir.evaluation.tasks import Task, build_task


def _task(name: str, dataset: dict, metric: dict | None, root: str | None = None) -> dict:
    root = f'data/{root or name}'
    return dict(
        name=name,
        dataset={**dataset, 'data_root': root},
        metric=None if metric is None else {**metric, 'data_root': root},
    )


def _davis(year: int, split: str = 'val') -> tuple[dict, dict]:
    return dict(type='DavisDataset', year=year, split=split), dict(type='DavisMetric', year=year, split=split)


def _tapvid(subset: str, query_mode: str = 'first') -> tuple[dict, dict]:
    common = dict(subset=subset, query_mode=query_mode)
    return dict(type='TapVidDataset', **common), dict(type='TapVidMetric', **common)


def _youtube_vos(year: int, split: str) -> tuple[dict, dict | None]:
    dataset = dict(type='YouTubeVosDataset', year=year, split=split, frames='all')
    has_truth = split == 'train_holdout'
    return dataset, dict(type='YouTubeVosMetric', year=year, split=split) if has_truth else None


BENCHMARKS: dict[str, dict] = {
    task['name']: task
    for task in (
        _task('davis2016', *_davis(2016)),
        _task('davis2017', *_davis(2017)),
        _task('vip', dict(type='VipDataset'), dict(type='VipSemanticMetric')),
        _task(
            'vip_instance', dict(type='VipDataset', annotation='instance'), dict(type='VipInstanceMetric'), root='vip'
        ),
        _task('jhmdb', dict(type='JhmdbDataset', split=1), dict(type='JhmdbMetric', split=1, evaluator='crw')),
        _task('badja', dict(type='BadjaDataset'), dict(type='BadjaMetric', evaluator='pips')),
        _task('tapvid_davis', *_tapvid('davis')),
        _task('tapvid_davis_strided', *_tapvid('davis', 'strided'), root='tapvid_davis'),
        _task('tapvid_kinetics', *_tapvid('kinetics')),
        _task('tapvid_rgb_stacking', *_tapvid('rgb_stacking')),
        _task('tapvid_kinetics_strided', *_tapvid('kinetics', 'strided'), root='tapvid_kinetics'),
        _task('tapvid_rgb_stacking_strided', *_tapvid('rgb_stacking', 'strided'), root='tapvid_rgb_stacking'),
        _task('robotap', *_tapvid('robotap')),
        _task('robotap_strided', *_tapvid('robotap', 'strided'), root='robotap'),
        _task('davis2017_test_dev', _davis(2017, 'test-dev')[0], None, root='davis2017'),
        _task('youtube_vos2018', *_youtube_vos(2018, 'valid')),
        _task('youtube_vos2019', *_youtube_vos(2019, 'valid')),
        _task('youtube_vos_holdout', *_youtube_vos(2018, 'train_holdout'), root='youtube_vos2018'),
    )
}


def find_benchmark(name: str) -> dict:
    """The task of a benchmark: `dict(name, dataset, metric)`.

    Raises:
        ValueError: No benchmark of this name; the message lists all.
    """
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
        raise ValueError(f'unknown benchmark {name!r}; {hint}there are {", ".join(BENCHMARKS)}')
    return BENCHMARKS[name]


def find_data_of(name: str, data_root: str | Path) -> Path:
    """The folder of the data of a benchmark.

    Raises:
        ValueError, FileNotFoundError: As `find_benchmark` and `find_data`.
    """
    return find_data(Path(find_benchmark(name)['dataset']['data_root']).name, data_root)


def open_benchmark(name: str, data_root: str | Path, sequences: Sequence[str] | None = None) -> Task:
    """Build a benchmark from a folder that holds its data, or a folder of such folders.

    Args:
        name: Of the benchmark.
        data_root: The data set itself, or a folder in which it has one of its usual names (`davis2016`, `DAVIS`, ...).
        sequences: Only these; None for all.

    Raises:
        ValueError: No benchmark of this name, or an unknown sequence.
        FileNotFoundError: The data are not there; names what was looked for.
    """
    task = find_benchmark(name)
    return build_task(task, find_data_of(name, data_root), sequences)


def open_metric(
    name: str, data_root: str | Path, sequences: Sequence[str] | None = None, split: str | None = None
) -> Task:
    """A benchmark for scoring alone: the task's data set is empty, and of DAVIS the frames need not be there.

    Args:
        name, data_root, sequences: See `open_benchmark`.
        split: Replaces the benchmark's.

    Raises:
        ValueError: No benchmark of this name, its truth is not public, or it has no splits to choose from.
    """
    task = find_benchmark(name)
    if task['metric'] is None:
        raise ValueError(f'{name} cannot be scored here: its truth is not public')
    changes = {'data_root': str(find_data_of(name, data_root))}
    changes |= {} if sequences is None else {'sequences': list(sequences)}
    if split is not None:
        own = task['metric'].get('split')
        if own is None or (isinstance(own, int) and not (split.isascii() and split.isdecimal())):
            wanted = 'has no splits' if own is None else f'has numbered splits, such as {own}'
            raise ValueError(f'--split {split}: {name} {wanted}; the benchmarks are {", ".join(BENCHMARKS)}')
        changes['split'] = int(split) if isinstance(own, int) else split
    metric = {**task['metric'], **changes}
    return Task(name, (), METRICS.build(metric), {**task, 'metric': metric})
