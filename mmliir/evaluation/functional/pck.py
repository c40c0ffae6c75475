"""PCK, the percentage of correct keypoints, from its pieces: distances, lengths that count as one, who counts.

Source: Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", PAMI 2013, in the forms of
the label propagation benchmarks: JHMDB (ajabri/videowalk `code/eval/eval_pck.py`, xvjiarui/VFS, google-deepmind/tapnet)
and BADJA (aharley/pips `test_on_badja.py`, qianduoduolr/FGVC, AssafSinger94/dino-tracker). The benchmarks differ in
the scale, in the frames and joints that count, and in whether a distance equal to the threshold is a hit; each of
these is an argument here.

Letters: T frames, J joints.
"""

from typing import Literal

import numpy as np

# JHMDB: share of the diagonal of the joints' box.
BOX_SHARE = 0.6


def point_distances(
    prediction: np.ndarray, truth: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Return how far each predicted joint is from the true one.

    Args:
        prediction: (T, J, 2) float, (x, y). A point with a NaN or an infinity is infinitely far away: a lost joint is
            wrong.
        truth: (T, J, 2) float, finite.
        pixel_size: Width and height of a pixel in the unit of the result: (512 / W, 320 / H) measures in pixels of the
            frame stretched to 320 x 512.

    Returns:
        (T, J) float64.
    """
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if prediction.shape != truth.shape or truth.ndim != 3 or truth.shape[2] != 2:
        raise ValueError(f'prediction {prediction.shape} and truth {truth.shape} must have the same shape (T, J, 2).')
    if not np.isfinite(truth).all():
        raise ValueError('truth holds a NaN or an infinity: leave such joints out.')
    known = np.isfinite(prediction).all(axis=2)
    offsets = (np.where(known[..., None], prediction, 0.0) - truth) * np.asarray(pixel_size, np.float64)
    return np.where(known, np.linalg.norm(offsets, axis=2), np.inf)


def box_scales(truth: np.ndarray, counted: np.ndarray, share: float = BOX_SHARE) -> np.ndarray:
    """Return JHMDB's scale: a share of the diagonal of the box around the true joints that count.

    Args:
        truth: (T, J, 2) float, (x, y).
        counted: (T, J) bool.
        share: Of the diagonal.

    Returns:
        (T,) float64; 0 for a frame in which no joint counts.
    """
    where = counted[..., None]
    low = np.min(truth, axis=1, initial=np.inf, where=where)
    high = np.max(truth, axis=1, initial=-np.inf, where=where)
    diagonal = np.linalg.norm(high - low, axis=1)
    return share * np.where(counted.any(axis=1), diagonal, 0.0)


def area_scales(areas: np.ndarray) -> np.ndarray:
    """Return BADJA's scale, the square root of the object's area: (T,) pixels -> (T,) float64."""
    return np.sqrt(np.asarray(areas, np.float64))


def correct_points(
    distances: np.ndarray, scales: np.ndarray, alpha: float, tie: Literal['hit', 'miss']
) -> np.ndarray:
    """Say which joints are near enough.

    Args:
        distances: (T, J) float.
        scales: (T,) float, in the unit of the distances.
        alpha: Threshold, as a share of the scale.
        tie: What a distance of exactly the threshold is: 'hit' in JHMDB (distance / scale <= alpha), 'miss' in BADJA
            (distance < alpha * scale). Where the scale is 0 everything is a miss in both.

    Returns:
        (T, J) bool.
    """
    if tie == 'miss':
        return distances < alpha * scales[:, None]
    if tie != 'hit':
        raise ValueError(f"tie: expected 'hit' or 'miss', came {tie!r}.")
    with np.errstate(divide='ignore', invalid='ignore'):  # 0 / 0 compares as a miss
        return distances / scales[:, None] <= alpha


def pck_counts(correct: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count, for each joint, the frames in which it is right, and those in which it counts.

    Args:
        correct: (T, J) bool.
        counted: (T, J) bool: which joints count in which frames.

    Returns:
        hits, counts: (J,) int64 each. PCK of a joint is their quotient, summed over videos first; that of the
        benchmark is the mean over joints (`mmliir.evaluation.metrics.combine`).
    """
    return np.count_nonzero(correct & counted, axis=0), np.count_nonzero(counted, axis=0)
