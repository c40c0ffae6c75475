"""The result of any benchmark: what a table, a file and a report need to know, and nothing of one benchmark.

Every metric class has the form

    class XMetric:                                    # METRICS.register_module()
        benchmark: str                                # 'vip', as on the command line
        split: str
        version: str                                  # 'vip-1': changes when the same files could give another number
        sequences: tuple[str, ...]                    # what it scores, in order
        num_sequences_in_split: int                   # in the list at hand
        num_published: int | None                     # that published scores are means over
        broken: Mapping[str, str]                     # of `sequences`, whose truth cannot be used -> why; never all
        def __init__(self, data_root, ..., sequences=None)
        def missing(self, pred_dir) -> dict[str, str] # sequence -> why it cannot be scored: absent files, or `broken`
        def evaluate(self, pred_dir, jobs=1, progress=None) -> BenchmarkResult      # raises on bad files

`jobs` are processes or threads and change no number; `progress(done, total)` is called as frames or sequences are done.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmliir.utils.words import number_of

_MOST_NAMES = 5
#: (numerators, denominators), one of each a group: see `SequenceResult.ratios`.
Ratio = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class SequenceResult:
    """Scores of one sequence.

    Attributes:
        name: Of the sequence.
        metrics: Metric -> fraction, as the benchmark would report this sequence alone; NaN where it says nothing.
        ratios: Metric -> (numerators, denominators), each with G groups. The data set's value is the mean over groups
            of (sum of the sequences' numerators / sum of their denominators), groups whose denominator is 0 left out;
            see `combine`. J over objects: G = 1, (sum of the objects' J, number of objects). PCK: a group a joint.
            mIoU: a group a class, (intersection, union). What cannot be written so (AP) is not in it, and has no
            confidence interval.
        frames: Names of the frames of `curves`.
        curves: Metric -> fraction of each of these frames; empty where there is none.
    """

    name: str
    metrics: Mapping[str, float]
    ratios: Mapping[str, Ratio]
    frames: tuple[str, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values, None for NaN."""
        return {
            'name': self.name,
            'metrics': _plain(self.metrics),
            'ratios': {key: [list(part) for part in ratio] for key, ratio in self.ratios.items()},
            'frames': list(self.frames),
            'curves': {key: [_number(value) for value in curve] for key, curve in self.curves.items()},
        }


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Scores of a data set.

    Attributes:
        benchmark, split, metric_version: What was scored, by which formulas.
        metrics: Metric -> fraction, the headline first: 'jf_mean', 'j_mean', ... ; 'miou', 'ap'; 'pck@0.1';
            'average_jaccard', 'pts_within', 'occlusion_accuracy'.
        sequences: One a scored sequence.
        num_sequences_in_split: N of "n of N": sequences of the list at hand.
        num_published: Sequences that published scores are means over; None where that is not known.
        missing: (name, reason) of the sequences of the run that could not be scored. A result with any is incomplete.
        notes: What a reader of the numbers must know, in words.
    """

    benchmark: str
    split: str
    metric_version: str
    metrics: Mapping[str, float]
    sequences: tuple[SequenceResult, ...]
    num_sequences_in_split: int
    num_published: int | None = None
    missing: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Name of the first metric."""
        return next(iter(self.metrics))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; fractions, not per cent; None for NaN."""
        return {
            'benchmark': self.benchmark,
            'split': self.split,
            'metric_version': self.metric_version,
            'metrics': _plain(self.metrics),
            'num_sequences': len(self.sequences),
            'num_sequences_in_split': self.num_sequences_in_split,
            'num_published': self.num_published,
            'missing': [list(pair) for pair in self.missing],
            'notes': list(self.notes),
            'sequences': [sequence.to_dict() for sequence in self.sequences],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'BenchmarkResult':
        """Inverse of `to_dict`; entries that it does not know are left alone."""
        sequences = tuple(
            SequenceResult(
                row['name'],
                _numbers(row['metrics']),
                {key: (tuple(ratio[0]), tuple(ratio[1])) for key, ratio in row['ratios'].items()},
                tuple(row['frames']),
                {key: tuple(_float(value) for value in curve) for key, curve in row['curves'].items()},
            )
            for row in values['sequences']
        )
        return cls(
            values['benchmark'],
            values['split'],
            values['metric_version'],
            _numbers(values['metrics']),
            sequences,
            values['num_sequences_in_split'],
            values['num_published'],
            tuple((name, reason) for name, reason in values['missing']),
            tuple(values['notes']),
        )


def combine(sequences: Sequence[SequenceResult], metric: str) -> float:
    """The data set's value of a metric from its sequences' ratios; NaN where every denominator is 0."""
    numerators = np.sum([sequence.ratios[metric][0] for sequence in sequences], axis=0, dtype=np.float64)
    denominators = np.sum([sequence.ratios[metric][1] for sequence in sequences], axis=0, dtype=np.float64)
    known = denominators > 0
    return float(np.mean(numerators[known] / denominators[known])) if known.any() else math.nan


def coverage_notes(
    count: int, num_listed: int, num_published: int | None, benchmark: str, what: str = 'sequence', where: str = 'list'
) -> list[str]:
    """What a reader must know where not all that is listed, or not what published scores are over, was scored.

    Args:
        count: Sequences that are scored.
        num_listed: That the list at hand names.
        num_published: That published scores are over; None where that is not known.
        benchmark: And split, as a reader knows them: 'VIP val'.
        what: One of them: 'sequence', 'video', 'clip'.
        where: What names them: 'list val', 'files'.
    """
    notes = []
    if count != num_listed:
        notes.append(f'{count} of the {number_of(num_listed, what)} in the {where} scored.')
    if num_published is not None and count != num_published:
        notes.append(
            f'{number_of(count, what)}; published scores on {benchmark} are over {num_published}: not comparable.'
        )
    return notes


def refuse_unscorable(broken: Mapping[str, str]) -> None:
    """Raise `ValueError` where the truth of a sequence cannot be used, with how many there are."""
    if broken:
        name, reason = next(iter(broken.items()))
        more = f' ({len(broken)} such sequences)' if len(broken) > 1 else ''
        raise ValueError(f'{name} cannot be scored{more}: {reason} Name the sequences to score.')


def unasked_notes(pred_dir: Path, asked: Collection[str]) -> list[str]:
    """Name the folders of predictions that are of no sequence that is scored; hidden ones are unfinished work."""
    folders = sorted(path.name for path in pred_dir.iterdir() if path.is_dir() and not path.name.startswith('.'))
    other = [name for name in folders if name not in asked]
    if not other:
        return []
    more = ', ...' if len(other) > _MOST_NAMES else ''
    shown = ', '.join(other[:_MOST_NAMES])
    are = 'is' if len(other) == 1 else 'are'
    return [f'{number_of(len(other), "folder")} of predictions {are} of no sequence that is scored: {shown}{more}.']


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _float(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {key: _number(value) for key, value in metrics.items()}


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {key: _float(value) for key, value in metrics.items()}
