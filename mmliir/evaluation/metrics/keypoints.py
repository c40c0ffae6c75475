"""What the metrics of annotated joints share: reading tracks, the loop over sequences, results from counts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmliir.evaluation.tracks import TRACKS_NAME, read_tracks

from .parallel import Progress
from .results import BenchmarkResult, Ratio, SequenceResult, combine, refuse_unscorable

Scored = TypeVar('Scored')

# Queries are written and read as float64; what differs by more was asked elsewhere.
_SAME_PLACE = 1e-3


class KeypointMetric(ABC):
    """PCK of annotated joints; a subclass says how one sequence is scored, and sets the attributes.

    Attributes:
        benchmark, split, version: What is scored, by which formulas.
        sequences: Names, in the order in which they are scored.
        num_sequences_in_split, num_published: As in `BenchmarkResult`.
        broken: Sequence -> why its truth cannot be used.
    """

    benchmark: str
    split: str
    version: str
    sequences: tuple[str, ...]
    num_sequences_in_split: int
    num_published: int | None
    broken: Mapping[str, str]

    def missing(self, pred_dir: str | Path) -> dict[str, str]:
        """Sequence -> why it cannot be scored, for those that have no predictions or no truth."""
        return missing_tracks(pred_dir, self.sequences) | dict(self.broken)

    def evaluate(self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None) -> BenchmarkResult:
        """Score one folder of predictions.

        Args:
            pred_dir: Folder with `<sequence>/tracks.npz`, as `PointWriter` writes them.
            jobs: Threads; they do not change any number.
            progress: Called with (sequences done, sequences in all).

        Raises:
            FileNotFoundError: A sequence has no predictions.
            ValueError: Its predictions are of other points or frames, or no predictions; a file of truth is damaged.
        """
        refuse_unscorable(self.broken)
        refuse_missing(pred_dir, self.sequences)
        scored = score_each(self.sequences, lambda name: self.score_sequence(Path(pred_dir), name), jobs, progress)
        results = tuple(result for result, _ in scored)
        return BenchmarkResult(
            benchmark=self.benchmark,
            split=self.split,
            metric_version=self.version,
            metrics={metric: combine(results, metric) for metric in results[0].ratios},
            sequences=results,
            num_sequences_in_split=self.num_sequences_in_split,
            num_published=self.num_published,
            notes=tuple(self.list_notes([facts for _, facts in scored])),
        )

    @abstractmethod
    def score_sequence(self, pred_dir: Path, name: str) -> tuple[SequenceResult, Mapping[str, object]]:
        """Return the result of one sequence, and the facts about it that `list_notes` needs."""

    @abstractmethod
    def list_notes(self, facts: Sequence[Mapping[str, object]]) -> list[str]:
        """Return what a reader of the numbers must know, from the facts of every sequence."""


def read_predictions(pred_dir: Path, name: str, queries: np.ndarray, num_frames: int) -> np.ndarray:
    """Read the tracks of one sequence, and see that they answer what was asked.

    Args:
        pred_dir: Folder with `<sequence>/tracks.npz`.
        name: Of the sequence.
        queries: (N, 3) float, (t, x, y), as the data set gives them.
        num_frames: T, as the data set has them.

    Returns:
        (N, T, 2) float64, (x, y) in pixels of the frames; NaN where a point was not followed.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is none, or of other points or frames.
    """
    path = Path(pred_dir) / name / TRACKS_NAME
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: predict {name!r} too, or name the sequences to score.')
    arrays = read_tracks(path)
    points, frames = arrays['visible'].shape
    if (points, frames) != (len(queries), num_frames):
        raise ValueError(
            f'{path} follows {points} points through {frames} frames, {name!r} has {len(queries)} points and '
            f'{num_frames} frames: it was made from other data, or with other settings of the data set. Predict again.'
        )
    apart = np.abs(arrays['queries'] - queries)
    if not (apart <= _SAME_PLACE).all():  # a NaN is not the same place either
        point = int(np.argmin((apart <= _SAME_PLACE).all(axis=1)))
        raise ValueError(
            f'{path}: point {point} was given at (t, x, y) = {_place(arrays["queries"][point])}, the data have it at '
            f'{_place(queries[point])}: it was made from frames of another size, or from other data. Predict again.'
        )
    return arrays['tracks'].astype(np.float64)


def missing_tracks(pred_dir: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Sequence -> why it cannot be scored, for those without a file of tracks."""
    paths = {name: Path(pred_dir) / name / TRACKS_NAME for name in names}
    return {name: f'no {path.name}' for name, path in paths.items() if not path.is_file()}


def refuse_missing(pred_dir: str | Path, names: Sequence[str], what: str = 'sequences') -> None:
    """Stop before anything is scored when a sequence has no tracks; `what` the names are of, for the message.

    Raises:
        FileNotFoundError: Names the folder, or the first such sequence and how many there are.
    """
    if not Path(pred_dir).is_dir():
        raise FileNotFoundError(f'Prediction folder not found: {pred_dir}. Expected <sequence>/{TRACKS_NAME} in it.')
    missing = missing_tracks(pred_dir, names)
    if missing:
        raise FileNotFoundError(
            f'{Path(pred_dir) / next(iter(missing)) / TRACKS_NAME} not found: {len(missing)} of the {len(names)} '
            f'{what} have no predictions ({", ".join(list(missing)[:5])}{", ..." if len(missing) > 5 else ""}). '
            'Predict them too, or name the sequences to score.'
        )


def score_each(
    names: Sequence[str], score: Callable[[str], Scored], jobs: int, progress: Progress | None
) -> list[Scored]:
    """Score the sequences one by one, with `jobs` threads, in order; an error of one ends all."""
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, got {jobs}.')
    results = []
    pool = ThreadPoolExecutor(jobs)
    try:
        for result in pool.map(score, names):
            results.append(result)
            if progress is not None:
                progress(len(results), len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def sequence_result(
    name: str,
    ratios: Mapping[str, Ratio],
    frames: tuple[str, ...],
    curves: Mapping[str, tuple[float, ...]],
) -> SequenceResult:
    """A sequence whose metrics are what its ratios alone give."""
    metrics = {metric: combine([SequenceResult(name, {}, ratios)], metric) for metric in ratios}
    return SequenceResult(name, metrics, ratios, frames, curves)


def as_ratio(numerators: Iterable[float], denominators: Iterable[float]) -> Ratio:
    """Two tuples of floats."""
    return tuple(float(value) for value in numerators), tuple(float(value) for value in denominators)


def share(right: float, counted: float) -> float:
    """right / counted; NaN where nothing counts."""
    return float(right / counted) if counted else math.nan


def check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    """The thresholds as they were given, each once and above 0.

    Raises:
        ValueError: They are not.
    """
    alphas = tuple(alphas)
    if not alphas or len(set(alphas)) != len(alphas) or not all(alpha > 0 for alpha in alphas):
        raise ValueError(f'alphas: expected different shares above 0, e.g. (0.1, 0.2), came {alphas!r}.')
    return alphas


def _place(query: np.ndarray) -> str:
    return '(' + ', '.join(f'{value:g}' for value in query) + ')'
