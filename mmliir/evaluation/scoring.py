"""Loop 2 of an evaluation: from the files of predictions to scores."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmliir.evaluation.metrics import BenchmarkResult
from mmliir.evaluation.tasks import Task


def score_task(
    task: Task,
    pred_dir: Path,
    backend: str = 'mmliir',
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    failed: Mapping[str, str] | None = None,
    strict: bool = True,
) -> BenchmarkResult:
    """Loop 2: the scores of a folder of predictions.

    Args:
        task: The benchmark.
        pred_dir: Predictions, a folder a sequence.
        backend, jobs, progress, strict: See `mmliir.apis.evaluate.run_task`.
        failed: Sequences known to have no predictions -> why.

    Raises:
        ValueError, FileNotFoundError: Predictions are absent (`strict`), none is there at all, or one is wrong.
    """
    metric, missing = task.metric, ()
    if not strict:
        metric, missing = drop_missing(task, pred_dir, failed)
    if backend == 'mmliir':
        result = metric.evaluate(pred_dir, jobs=jobs, progress=progress)
    elif hasattr(metric, 'evaluate_official'):
        result = metric.evaluate_official(pred_dir, progress=progress)
    else:
        raise ValueError(f'backend {backend!r}: {task.name} is scored by mmliir alone')
    return dataclasses.replace(result, missing=missing)


def score_sound(
    task: Task,
    pred_dir: Path,
    backend: str = 'mmliir',
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    failed: Mapping[str, str] | None = None,
) -> tuple[BenchmarkResult | None, tuple[tuple[str, str], ...]]:
    """The scores of every sequence that can be scored, and (name, reason) of the others.

    Absent predictions are one reason; files that cannot be read or do not fit, of predictions or of truth, are another.

    Args:
        task, pred_dir, backend, jobs, progress, failed: As for `score_task`.

    Returns:
        The result, None where no sequence is left.
    """
    failed = dict(failed or {})
    lost = {**task.metric.missing(pred_dir), **failed}
    if set(task.metric.sequences) <= set(lost):
        return None, tuple(sorted(lost.items()))
    try:
        result = score_task(task, pred_dir, backend, jobs, progress, failed, strict=False)
    except (ValueError, OSError):
        broken = _broken(task, pred_dir, [name for name in task.metric.sequences if name not in lost], jobs)
        if not broken:
            raise
        return score_sound(task, pred_dir, backend, jobs, progress, failed | broken)
    return result, result.missing


def _broken(task: Task, pred_dir: Path, names: list[str], jobs: int) -> dict[str, str]:
    """Sequence -> why, of those that cannot be scored; halves that are sound are looked at once."""
    try:
        task.metric_on(names).evaluate(pred_dir, jobs=jobs)
    except (ValueError, OSError) as error:
        if len(names) == 1:
            return {names[0]: str(error)}
        half = len(names) // 2
        return _broken(task, pred_dir, names[:half], jobs) | _broken(task, pred_dir, names[half:], jobs)
    return {}


def drop_missing(
    task: Task, pred_dir: Path, failed: Mapping[str, str] | None = None
) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """The task's metric of the sequences that have predictions, and (name, reason) of the others.

    Raises:
        FileNotFoundError: There is no folder of predictions.
        ValueError: No sequence has predictions.
    """
    pred_dir = Path(pred_dir)
    if not pred_dir.is_dir():
        raise FileNotFoundError(f'Prediction folder not found: {pred_dir}. Expected a folder a sequence in it.')
    missing = {**task.metric.missing(pred_dir), **(failed or {})}
    kept = [name for name in task.metric.sequences if name not in missing]
    if not kept:
        reasons = '; '.join(f'{name}: {why}' for name, why in list(missing.items())[:3])
        raise ValueError(f'{pred_dir}: nothing to score, none of {len(missing)} sequences is complete ({reasons})')
    return task.metric if not missing else task.metric_on(kept), tuple(sorted(missing.items()))
