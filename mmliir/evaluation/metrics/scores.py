"""The results of a video segmentation benchmark: of an object, of a sequence, of a data set."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .results import BenchmarkResult, Ratio, SequenceResult


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean, recall and decay of one measure, as fractions; decay is NaN where the official tool's is."""

    mean: float
    recall: float
    decay: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the three numbers for JSON, None for NaN."""
        return {key: _json_number(value) for key, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class ObjectScores:
    """Scores of one object: J is region similarity, F boundary accuracy.

    `j_per_frame` and `f_per_frame` run over the scored frames; they are None from the official tool, which
    keeps them to itself.
    """

    sequence: str
    object_id: int
    j: Statistics
    f: Statistics
    j_per_frame: tuple[float, ...] | None = None
    f_per_frame: tuple[float, ...] | None = None

    @property
    def jf_mean(self) -> float:
        """Mean of J and F."""
        return (self.j.mean + self.f.mean) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        curves = {'j_per_frame': self.j_per_frame, 'f_per_frame': self.f_per_frame}
        return {
            'object_id': self.object_id,
            **_flat(self.j, self.f, self.jf_mean),
            **{key: list(curve) if curve is not None else None for key, curve in curves.items()},
        }


@dataclasses.dataclass(frozen=True)
class SequenceScores:
    """Scores of one sequence: means over its objects; `frames` are the names of the scored frames."""

    name: str
    frames: tuple[str, ...]
    objects: tuple[ObjectScores, ...]
    j: Statistics
    f: Statistics

    @property
    def jf_mean(self) -> float:
        """Mean of J and F."""
        return (self.j.mean + self.f.mean) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            'name': self.name,
            **_flat(self.j, self.f, self.jf_mean),
            'frames': list(self.frames),
            'objects': [scores.to_dict() for scores in self.objects],
        }


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a data set: `j` and `f` are means over all objects of all sequences, as the benchmark reports
    them.

    `notes` says in words what a reader of the numbers must know: a part of the split only, a part of the
    frames only, what was skipped.
    """

    benchmark: str
    split: str
    backend: str
    metric_version: str
    sequences: tuple[SequenceScores, ...]
    j: Statistics
    f: Statistics
    notes: tuple[str, ...] = ()

    @property
    def jf_mean(self) -> float:
        """Mean of J and F: the benchmark's headline number."""
        return (self.j.mean + self.f.mean) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; fractions, not per cent."""
        return {
            'benchmark': self.benchmark,
            'split': self.split,
            'backend': self.backend,
            'metric_version': self.metric_version,
            'num_sequences': len(self.sequences),
            'num_objects': sum(len(sequence.objects) for sequence in self.sequences),
            **_flat(self.j, self.f, self.jf_mean),
            'notes': list(self.notes),
            'sequences': [sequence.to_dict() for sequence in self.sequences],
        }


def to_result(
    scores: Scores,
    num_sequences_in_split: int,
    num_published: int | None,
    missing: tuple[tuple[str, str], ...] = (),
) -> BenchmarkResult:
    """The same numbers in the form that all benchmarks share."""
    return BenchmarkResult(
        benchmark=scores.benchmark,
        split=scores.split,
        metric_version=scores.metric_version,
        metrics=_metrics(scores),
        sequences=tuple(_sequence_result(sequence) for sequence in scores.sequences),
        num_sequences_in_split=num_sequences_in_split,
        num_published=num_published,
        missing=missing,
        notes=scores.notes,
    )


def with_objects(result: BenchmarkResult, scores: Scores) -> dict[str, Any]:
    """Plain JSON values of both: those of all benchmarks, and what DAVIS knows of objects beside them."""
    shared = result.to_dict()
    rows = [{**own.to_dict(), **row} for own, row in zip(scores.sequences, shared['sequences'], strict=True)]
    return {**scores.to_dict(), **shared, 'sequences': rows}


def _metrics(scores: Scores | SequenceScores) -> dict[str, float]:
    return {'jf_mean': scores.jf_mean} | {
        f'{measure}_{key}': getattr(getattr(scores, measure), key)
        for measure in ('j', 'f')
        for key in ('mean', 'recall', 'decay')
    }


def _sequence_result(scores: SequenceScores) -> SequenceResult:
    count = float(len(scores.objects))

    def ratio(measure: str, key: str) -> Ratio:
        return (sum(getattr(getattr(part, measure), key) for part in scores.objects),), (count,)

    ratios = {f'{m}_{key}': ratio(m, key) for m in ('j', 'f') for key in ('mean', 'recall', 'decay')}
    ratios['jf_mean'] = tuple(a + b for a, b in zip(ratios['j_mean'], ratios['f_mean'], strict=True))
    curves = {}
    if all(part.j_per_frame is not None for part in scores.objects):
        curves = {
            name: tuple(np.mean([getattr(part, f'{name}_per_frame') for part in scores.objects], axis=0).tolist())
            for name in ('j', 'f')
        }
    return SequenceResult(scores.name, _metrics(scores), ratios, scores.frames, curves)


def _flat(j: Statistics, f: Statistics, jf_mean: float) -> dict[str, float | None]:
    flat = {
        f'{measure}_{key}': value
        for measure, part in (('j', j), ('f', f))
        for key, value in part.to_dict().items()
    }
    return {'jf_mean': _json_number(jf_mean), **flat}


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else value


def mean_over(objects: Sequence[ObjectScores], measure: Literal['j', 'f']) -> Statistics:
    """Return the mean over objects of each statistic; a NaN stays a NaN, as in the official tool."""
    rows = [dataclasses.astuple(getattr(scores, measure)) for scores in objects]
    return Statistics(*(float(value) for value in np.mean(rows, axis=0)))
