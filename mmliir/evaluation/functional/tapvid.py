"""TAP-Vid measures of points that were followed: average Jaccard, points within thresholds, occlusion accuracy.

The definition is that of `compute_tapvid_metrics` (google-deepmind/tapnet, tapnet/tapvid/evaluation_datasets.py;
Doersch et al., NeurIPS 2022). Coordinates are those of the benchmark: frames scaled to 256x256 pixels, whatever size
they were followed at; an offset common to truth and prediction changes nothing.

Shape letters: N queries, T frames, K thresholds.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Pixels of a frame of `SIDE` by `SIDE`; a distance counts as within when it is smaller.
THRESHOLDS = (1, 2, 4, 8, 16)
SIDE = 256

QueryMode = Literal['first', 'strided']
Aggregate = Literal['pooled', 'track']


@dataclass(frozen=True)
class TapVidCounts:
    """What all measures are ratios of: numbers of frames, of each query.

    Attributes:
        evaluated: (N,) frames that count.
        agree: (N,) of these, where the predicted visibility is the true one.
        present: (N,) of these, where the point is visible.
        within: (N, K) of the last, where the prediction is within the threshold, visible or not.
        true_positives: (N, K) of the last, where it is predicted to be visible.
        false_positives: (N, K) evaluated frames predicted as visible where the point is not, or is not within.
    """

    evaluated: np.ndarray
    agree: np.ndarray
    present: np.ndarray
    within: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray


def evaluated_frames(query_frames: np.ndarray, num_frames: int, query_mode: QueryMode) -> np.ndarray:
    """Return which frames count, (N, T) bool: 'first' those after the query's, 'strided' all but the query's.

    Args:
        query_frames: (N,) frame numbers.
        num_frames: T.
        query_mode: How queries were taken.
    """
    if query_mode not in ('first', 'strided'):
        raise ValueError(f"query_mode must be 'first' or 'strided', got {query_mode!r}")
    time, given = np.arange(num_frames)[None], np.asarray(query_frames)[:, None]
    return time > given if query_mode == 'first' else time != given


def tapvid_counts(
    query_frames: np.ndarray,
    truth_tracks: np.ndarray,
    truth_visible: np.ndarray,
    tracks: np.ndarray,
    visible: np.ndarray,
    query_mode: QueryMode = 'first',
) -> TapVidCounts:
    """Count, for each query of a video.

    A prediction that is not a number is within no threshold, and a false positive where it is claimed to be visible.

    Args:
        query_frames: (N,) frame in which each point is given.
        truth_tracks: (N, T, 2) float, (x, y) on frames of 256x256.
        truth_visible: (N, T) bool.
        tracks: (N, T, 2) float, the predictions, likewise.
        visible: (N, T) bool, the predictions.
        query_mode: See `evaluated_frames`.

    Raises:
        ValueError: Shapes that do not fit.
    """
    expected = (len(query_frames), truth_visible.shape[1] if truth_visible.ndim == 2 else -1)
    for name, array, shape in (
        ('truth_tracks', truth_tracks, (*expected, 2)),
        ('truth_visible', truth_visible, expected),
        ('tracks', tracks, (*expected, 2)),
        ('visible', visible, expected),
    ):
        if array.shape != shape:
            raise ValueError(f'{name} has the shape {array.shape}, expected {shape} (queries, frames)')
    counted = evaluated_frames(query_frames, expected[1], query_mode)
    truth_visible, visible = truth_visible.astype(bool), visible.astype(bool)
    near = _within(truth_tracks, tracks)
    present = counted & truth_visible
    correct = near & present[..., None]
    claimed = counted & visible
    return TapVidCounts(
        evaluated=counted.sum(axis=1),
        agree=(counted & (visible == truth_visible)).sum(axis=1),
        present=present.sum(axis=1),
        within=correct.sum(axis=1),
        true_positives=(correct & visible[..., None]).sum(axis=1),
        false_positives=(claimed[..., None] & ~(near & truth_visible[..., None])).sum(axis=1),
    )


def tapvid_scores(counts: TapVidCounts, aggregate: Aggregate = 'pooled') -> dict[str, float]:
    """Return the measures of a video as fractions.

    With A = evaluated, P = present, W = within, T = true and F = false positives: `pts_within_<k>px` = W / P,
    `jaccard_<k>px` = T / (P + F), `occlusion_accuracy` = agree / A; `pts_within` and `average_jaccard` are means over
    the five thresholds. 0 / 0 is NaN: nothing was there to be right or wrong about.

    Args:
        counts: Of the video.
        aggregate: 'pooled' is the benchmark: counts are summed over the queries first. 'track' is FGVC's: the measures
            of each query, averaged over the queries where they are not NaN; a query that is visible for few frames
            counts as much as another.

    Returns:
        'average_jaccard', 'pts_within', 'occlusion_accuracy', then one of each threshold.
    """
    if aggregate not in ('pooled', 'track'):
        raise ValueError(f"aggregate must be 'pooled' or 'track', got {aggregate!r}")

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=0, keepdims=True) if aggregate == 'pooled' else values

    with np.errstate(divide='ignore', invalid='ignore'):
        within = total(counts.within) / total(counts.present)[:, None]
        jaccard = total(counts.true_positives) / (total(counts.present)[:, None] + total(counts.false_positives))
        accuracy = total(counts.agree) / total(counts.evaluated)
    scores = {
        'average_jaccard': jaccard.mean(axis=1),
        'pts_within': within.mean(axis=1),
        'occlusion_accuracy': accuracy,
        **{f'pts_within_{threshold}px': within[:, k] for k, threshold in enumerate(THRESHOLDS)},
        **{f'jaccard_{threshold}px': jaccard[:, k] for k, threshold in enumerate(THRESHOLDS)},
    }
    return {name: _mean_of_known(values) for name, values in scores.items()}


def pts_within_over_time(
    query_frames: np.ndarray,
    truth_tracks: np.ndarray,
    truth_visible: np.ndarray,
    tracks: np.ndarray,
    query_mode: QueryMode = 'first',
) -> np.ndarray:
    """Return `pts_within` of each frame alone, (T,) float64; NaN where no point counts. Arguments as above."""
    present = evaluated_frames(query_frames, truth_visible.shape[1], query_mode) & truth_visible.astype(bool)
    shares = (_within(truth_tracks, tracks) & present[..., None]).mean(axis=2)
    with np.errstate(divide='ignore', invalid='ignore'):
        return shares.sum(axis=0) / present.sum(axis=0)


def _within(truth_tracks: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """(N, T, K) bool; a comparison with NaN is false."""
    with np.errstate(over='ignore', invalid='ignore'):
        squared = np.sum(np.square(tracks - truth_tracks), axis=-1)
    return squared[..., None] < np.square(THRESHOLDS)


def _mean_of_known(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # of no known value: NaN is the answer
        return float(np.nanmean(values)) if len(values) else float('nan')
