"""PCK on JHMDB, by each of the three published evaluations.

A joint is right where it is no farther from the truth than alpha times 0.6 of the diagonal of the box around the true
joints. PCK is counted for each joint over all frames of all clips, and is the mean over the 15 joints. What differs:

    evaluator  source                                                      first frame  joints that count
    'crw'      ajabri/videowalk@047f3f4 code/eval/eval_pck.py (as UVC)     left out     predicted at x >= 0
    'vfs'      xvjiarui/VFS@8e055cc mmaction/datasets/jhmdb_dataset.py     scored       predicted at x > 0
    'tapnet'   google-deepmind/tapnet@c2cbab8 training/                    scored       inside the image in the first
               supervised_point_prediction.py                                           frame, by the truth

The first frame is given, so that scoring it is worth about one point at alpha 0.1; Spa-then-Temp and FGVC evaluate as
VFS does. In 'crw' and 'vfs' a prediction left of the image leaves the score, hit or not, and leaves the box. A joint
that was lost (NaN), which the sources never write, is wrong in all three. TAP-Net takes the coordinates as they are
stored, counted from 1, so that inside is 0 <= x + 1 < width for ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mmliir.components import METRICS
from mmliir.datasets.jhmdb import PUBLISHED_CLIPS, JhmdbDataset, JhmdbTruth
from mmliir.evaluation.functional.pck import box_scales, correct_points, pck_counts, point_distances
from mmliir.utils.words import number_of

from .keypoints import KeypointMetric, as_ratio, check_alphas, read_predictions, sequence_result, share
from .results import Ratio, SequenceResult, coverage_notes

# Changes when the same files could give another number.
METRIC_VERSION = 'jhmdb-1'
#: Thresholds of the evaluations that are given beside the chosen one.
SIDE_ALPHAS = (0.1, 0.2)


def _predicted_not_left(x: np.ndarray, truth: JhmdbTruth) -> np.ndarray:
    return x >= 0


def _predicted_right_of_edge(x: np.ndarray, truth: JhmdbTruth) -> np.ndarray:
    return x > 0


def _inside_at_first(x: np.ndarray, truth: JhmdbTruth) -> np.ndarray:
    height, width = truth.frame_size
    stored = truth.joints[0] + 1
    return np.broadcast_to(((stored >= 0) & (stored < (width, height))).all(axis=-1), x.shape)


@dataclass(frozen=True)
class _Evaluator:
    """first_frame: the first one that is scored. counts: ((T, J) predicted x, truth) -> (T, J) bool."""

    first_frame: int
    counts: Callable[[np.ndarray, JhmdbTruth], np.ndarray]


_EVALUATORS = {
    'crw': _Evaluator(1, _predicted_not_left),
    'vfs': _Evaluator(0, _predicted_right_of_edge),
    'tapnet': _Evaluator(0, _inside_at_first),
}


@dataclass(frozen=True)
class _Measured:
    """One clip by one evaluation: (T', J) distances, (T',) scales and (T', J) who counts, of the T' scored frames."""

    distances: np.ndarray
    scales: np.ndarray
    counted: np.ndarray

    def ratio(self, alpha: float) -> Ratio:
        return as_ratio(*pck_counts(self._correct(alpha), self.counted))

    def curve(self, alpha: float) -> tuple[float, ...]:
        hits, counts = pck_counts(self._correct(alpha).T, self.counted.T)
        return tuple(share(*pair) for pair in zip(hits, counts))

    def _correct(self, alpha: float) -> np.ndarray:
        return correct_points(self.distances, self.scales, alpha, tie='hit')


@METRICS.register_module()
class JhmdbMetric(KeypointMetric):
    """Scores tracks of the 15 joints against the truth of JHMDB.

    Metrics: `pck@<alpha>` by the chosen evaluation, and `pck@0.1_<other>`, `pck@0.2_<other>` by the other two, because
    published tables mix them. Fractions.

    Args:
        data_root: As for `JhmdbDataset`.
        evaluator: Whose rules: see the module's table.
        alphas: Thresholds; the first is the headline.
        split: Which of the three.
        sequences: Score only these, in this order; None means all of the split.

    Raises:
        FileNotFoundError, ValueError: As `JhmdbDataset`; an unknown evaluator; alphas that are none.
    """

    benchmark = 'jhmdb'
    version = METRIC_VERSION

    def __init__(
        self,
        data_root: str | Path,
        evaluator: Literal['crw', 'vfs', 'tapnet'] = 'crw',
        alphas: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
        split: int = 1,
        sequences: Sequence[str] | None = None,
    ) -> None:
        if evaluator not in _EVALUATORS:
            raise ValueError(f'evaluator: expected one of {", ".join(map(repr, _EVALUATORS))}, came {evaluator!r}.')
        self.evaluator = evaluator
        self.alphas = check_alphas(alphas)
        self.dataset = JhmdbDataset(data_root, split, sequences)
        self.data_root, self.broken = self.dataset.data_root, self.dataset.broken
        self.split = f'test_split{split}'
        self.sequences = tuple(self.dataset.names)
        self.num_sequences_in_split = self.dataset.num_sequences_in_split
        self.num_published = PUBLISHED_CLIPS if split == 1 else None

    def score_sequence(self, pred_dir: Path, name: str) -> tuple[SequenceResult, Mapping[str, int]]:
        sample, truth = self.dataset.sample(name), self.dataset.truth(name)
        tracks = read_predictions(pred_dir, name, sample.queries, len(truth.joints))
        prediction = tracks.transpose(1, 0, 2)
        measured = {key: _measure(rule, prediction, truth) for key, rule in _EVALUATORS.items()}
        own = measured[self.evaluator]
        ratios = {f'pck@{alpha:g}': own.ratio(alpha) for alpha in self.alphas}
        for other in (key for key in _EVALUATORS if key != self.evaluator):
            ratios |= {f'pck@{alpha:g}_{other}': measured[other].ratio(alpha) for alpha in SIDE_ALPHAS}
        frames = sample.frame_names[_EVALUATORS[self.evaluator].first_frame :]
        curves = {f'pck@{alpha:g}': own.curve(alpha) for alpha in self.alphas[:2]}
        facts = {
            'evaluations': own.counted.size,
            'left out': int(np.count_nonzero(~own.counted)),
            'lost': int(np.count_nonzero(~np.isfinite(prediction).all(axis=2))),
            'longer': int(truth.num_frames > truth.num_annotated),
            'shorter': int(truth.num_frames < truth.num_annotated),
        }
        return sequence_result(name, ratios, frames, curves), facts

    def list_notes(self, facts: Sequence[Mapping[str, int]]) -> list[str]:
        total = {key: sum(row[key] for row in facts) for key in facts[0]}
        first = 'left out' if _EVALUATORS[self.evaluator].first_frame else 'scored (it is given)'
        notes = [f"Evaluation of '{self.evaluator}': the first frame is {first}."]
        notes += coverage_notes(
            len(self.sequences), self.num_sequences_in_split, self.num_published, 'split 1', 'clip'
        )
        if total['left out']:
            why = 'their joint is outside the image in the first frame'
            if self.evaluator != 'tapnet':
                why = 'they are predicted left of the image'
            notes.append(f'{total["left out"]} of {total["evaluations"]} evaluations are left out, because {why}.')
        if total['lost']:
            notes.append(f'{total["lost"]} predictions are NaN: they count as wrong.')
        for key in ('longer', 'shorter'):
            if total[key]:
                clips = number_of(total[key], 'clip')
                notes.append(f'{key.capitalize()} than annotated: {clips}, cut to the shorter of the two.')
        return notes


def _measure(rule: _Evaluator, prediction: np.ndarray, truth: JhmdbTruth) -> _Measured:
    scored = slice(rule.first_frame, None)
    lost = ~np.isfinite(prediction).all(axis=2)
    counted = rule.counts(np.where(lost, np.inf, prediction[..., 0]), truth)  # lost is wrong, not left out
    distances = point_distances(prediction, truth.joints)
    return _Measured(distances[scored], box_scales(truth.joints, counted)[scored], counted[scored])

