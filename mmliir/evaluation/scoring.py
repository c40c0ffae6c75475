"""Loop 2 of an evaluation: from the files of predictions to scores."""

import dataclasses
import glob
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mmliir.evaluation.metrics import BenchmarkResult, DavisMetric
from mmliir.evaluation.metrics.scores import to_result, with_objects
from mmliir.evaluation.tasks import Task
from mmliir.utils.words import number_of

Scored = TypeVar('Scored')

# Names that an error shows.
_SHOWN = 5


def score_task(
    task: Task,
    pred_dir: Path,
    backend: str = 'mmliir',
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> BenchmarkResult:
    """The scores of a folder of predictions that must be whole.

    Args:
        task: The benchmark.
        pred_dir: Predictions, a folder a sequence.
        backend, jobs, progress: See `mmliir.apis.evaluate.run_task`.

    Raises:
        ValueError, FileNotFoundError: A sequence cannot be scored: predictions are absent or wrong, or its truth is.
    """
    return _evaluation(task, backend)(task.metric, Path(pred_dir), jobs, progress)


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
        task, pred_dir, backend, jobs, progress: As for `score_task`.
        failed: Sequences known to have no predictions -> why.

    Returns:
        The result, None where no sequence is left.
    """
    evaluate = _evaluation(task, backend)
    result, missing = score_each_sound(
        task, pred_dir, lambda metric: evaluate(metric, Path(pred_dir), jobs, progress), jobs, failed
    )
    return None if result is None else dataclasses.replace(result, missing=missing), missing


def score_each_sound(
    task: Task,
    pred_dir: Path,
    score: Callable[[Any], Scored],
    jobs: int = 1,
    failed: Mapping[str, str] | None = None,
) -> tuple[Scored | None, tuple[tuple[str, str], ...]]:
    """`score_sound`, with a function of one's own in place of the metric's `evaluate`.

    Args:
        task, pred_dir, jobs, failed: As for `score_sound`.
        score: Metric -> scores of all its sequences; raises `ValueError` or `OSError` where one is wrong.

    Returns:
        What `score` returned for the metric of the sound sequences, None where there is none; (name, reason) of the
        others.
    """
    lost = {**task.metric.missing(pred_dir), **(failed or {})}
    kept = [name for name in task.metric.sequences if name not in lost]
    if not kept:
        return None, tuple(sorted(lost.items()))
    try:
        found = score(task.metric_on(kept) if lost else task.metric)
    except (ValueError, OSError):
        broken = _broken(task, pred_dir, kept, jobs)
        if not broken:
            raise
        return score_each_sound(task, pred_dir, score, jobs, lost | broken)
    return found, tuple(sorted(lost.items()))


def score_all_there_is(
    task: Task,
    pred_dir: Path,
    backend: str = 'mmliir',
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BenchmarkResult, dict[str, Any]]:
    """`score_sound` where nothing is no answer.

    Args:
        task, pred_dir, backend, jobs, progress: As for `score_task`.

    Returns:
        The result, and all numbers as plain JSON values: of DAVIS, those of the objects too.

    Raises:
        FileNotFoundError, ValueError: No sequence can be scored; why, and where predictions may be.
    """
    numbers: dict[str, Any] = {}
    if isinstance(task.metric, DavisMetric):
        scores, missing = score_each_sound(
            task, pred_dir, lambda metric: metric.score(pred_dir, backend, jobs, progress), jobs
        )
        result = None
        if scores is not None:
            result = to_result(scores, task.metric.num_sequences_in_split, task.metric.num_published, missing)
            numbers = with_objects(result, scores)
    else:
        result, missing = score_sound(task, pred_dir, backend, jobs, progress)
        numbers = {} if result is None else result.to_dict()
    if result is None:
        _refuse_no_scores(pred_dir, missing)
    return result, numbers


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


def _refuse_no_scores(pred_dir: Path, missing: Sequence[tuple[str, str]]) -> NoReturn:
    """Say why nothing is left to score, and where predictions were seen that may have been meant.

    Raises:
        FileNotFoundError: There is no folder of predictions.
        ValueError: No sequence has predictions that can be scored.
    """
    pred_dir, names = Path(pred_dir), {name for name, _ in missing}
    if not pred_dir.is_dir():
        came = 'is a file' if pred_dir.exists() else 'does not exist'
        raise FileNotFoundError(
            f'Prediction folder not found: {pred_dir} {came}. Expected a folder with a folder a sequence in it.'
        )
    reasons = '; '.join(f'{name}: {why}' for name, why in missing[:3])
    raise ValueError(
        f'{pred_dir}: nothing to score, none of {number_of(len(names), "sequence")} is complete ({reasons})'
        f'{_elsewhere(pred_dir, names)}'
    )


def _elsewhere(pred_dir: Path, names: Collection[str]) -> str:
    """A hint where the folder lies above or below the predictions, or what it holds; empty where it holds them."""
    if any((pred_dir / name).is_dir() for name in names):
        return ''
    if pred_dir.resolve().name in names:
        return f'. {pred_dir} is the folder of one sequence: give the folder above it'
    name = glob.escape(min(names))
    below = [path.parent for pattern in (f'*/{name}', f'*/*/{name}') for path in sorted(pred_dir.glob(pattern))]
    if below:
        return f'. Folders of these sequences are in {below[0]}: is it the one that is meant?'
    inside = sorted(path.name for path in pred_dir.iterdir() if not path.name.startswith('.'))
    shown = ', '.join(inside[:_SHOWN]) + (', ...' if len(inside) > _SHOWN else '')
    return f'. The folder holds {shown or "nothing"}; expected a folder a sequence'


def _evaluation(task: Task, backend: str) -> Callable[..., BenchmarkResult]:
    """(metric, folder, jobs, progress) -> result, by the code that `backend` names.

    Raises:
        ValueError: The benchmark has no tool of its own that can be called.
    """
    if backend == 'mmliir':
        return lambda metric, pred_dir, jobs, progress: metric.evaluate(pred_dir, jobs=jobs, progress=progress)
    if hasattr(task.metric, 'evaluate_official'):
        return lambda metric, pred_dir, jobs, progress: metric.evaluate_official(pred_dir, progress=progress)
    raise ValueError(f'backend {backend!r}: {task.name} is scored by mmliir alone')
