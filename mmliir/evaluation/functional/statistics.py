"""What DAVIS reports of a curve of per-frame scores: mean, recall and decay.

All three repeat the official tool (davisvideochallenge/davis2017-evaluation, commit ac7c43f) to the digit,
its odd corners included, because a number that is right in another way cannot be compared with a published
one.
"""

import numpy as np

RECALL_THRESHOLD = 0.5
NUM_BINS = 4
# The official tool keeps bin indices in 8 bits.
_INDEX_RANGE = 256


def mean(scores: np.ndarray) -> float:
    """Return the mean over frames.

    Args:
        scores: (T,) float, T >= 1, J or F of one object.

    Returns:
        The mean of the scores that are not NaN; NaN when none is left.
    """
    return _mean_of_known(_as_curve(scores))


def recall(scores: np.ndarray) -> float:
    """Return the fraction of frames with a score above one half.

    Args:
        scores: (T,) float, T >= 1.

    Returns:
        Fraction in [0, 1]. Exactly 0.5 does not count. A NaN counts as a frame below the threshold (unlike in
        `mean`, where it is left out); J and F are never NaN.
    """
    return float(np.mean(_as_curve(scores) > RECALL_THRESHOLD))


def decay(scores: np.ndarray) -> float:
    """Return how much is lost over time: the mean of the first quarter minus that of the last.

    Args:
        scores: (T,) float, T >= 1, in the order of time.

    Returns:
        Positive when scores fall. 0 for one frame.

    Quirks of the official tool that are kept:
        Neighbouring quarters share a frame, since each takes both of its ends.
        Frame numbers are kept in 8 bits, so from 256 scored frames on they wrap: the "last quarter" is then a
        stretch near the beginning, or empty, which gives NaN. `decay_wraps` tells when. (256 itself wraps in
        the tool with NumPy 2, where 255 + 1 stays in 8 bits, and not with NumPy 1. This is NumPy 2's.)
    """
    curve = _as_curve(scores)
    ends = decay_bin_ends(len(curve))
    first, last = (curve[start : (end + 1) % _INDEX_RANGE] for start, end in (ends[:2], ends[-2:]))
    return _mean_of_known(first) - _mean_of_known(last)


def decay_bin_ends(num_frames: int) -> list[int]:
    """Return the 5 frame indices between which the 4 bins of `decay` lie, both ends included.

    Equally spaced over the frames, halves rounded up (the official 1e-10 does that), then modulo 256.
    """
    positions = np.linspace(1, num_frames, NUM_BINS + 1)
    return [int(end) % _INDEX_RANGE for end in np.round(positions + 1e-10) - 1]


def decay_wraps(num_frames: int) -> bool:
    """Return whether so many scored frames are too many for the official decay to mean what its name says."""
    return num_frames >= _INDEX_RANGE


def _as_curve(scores: np.ndarray) -> np.ndarray:
    curve = np.asarray(scores, dtype=np.float64)
    if curve.ndim != 1 or curve.size == 0:
        raise ValueError(f'scores must be (T,) with T >= 1, one number a frame; got shape {curve.shape}.')
    return curve


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else float('nan')
