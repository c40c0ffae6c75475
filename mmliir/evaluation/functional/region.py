"""Region and boundary accuracy of one object's masks, as the DAVIS-2017 benchmark defines them.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR
2016, and the behaviour of the official tool (davisvideochallenge/davis2017-evaluation, commit ac7c43f), which
the tests compare with to 1e-12.

Why it is fast: a pixel outside the box around both masks changes neither measure, so everything happens in
that box.
"""

import math

import cv2
import numpy as np

# Fraction of the image diagonal by which two boundaries may be apart and still match (official default).
BOUNDARY_TOLERANCE = 0.008


def region_similarity(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return J, the intersection over the union of two masks, frame by frame.

    Args:
        prediction: (T, H, W) bool, one object's predicted mask.
        truth: (T, H, W) bool, the same object's annotated mask.

    Returns:
        (T,) float64 in [0, 1]; 1 where both masks are empty.
    """
    _check_masks(prediction, truth)
    scores = np.ones(len(truth))
    for t, (predicted, annotated) in enumerate(zip(prediction, truth)):
        union = np.count_nonzero(predicted | annotated)
        if union:
            scores[t] = np.count_nonzero(predicted & annotated) / union
    return scores


def boundary_accuracy(prediction: np.ndarray, truth: np.ndarray, tolerance: int | None = None) -> np.ndarray:
    """Return F, the harmonic mean of boundary precision and recall, frame by frame.

    A boundary pixel counts as found when a pixel of the other boundary lies within `tolerance` (Euclidean,
    inclusive). When only the truth is empty the precision is 0 and the recall 1, when only the prediction is,
    the reverse: F is 0 in both cases. Two empty boundaries score 1; a mask that fills the frame has an empty
    one, see `boundary_map`.

    Args:
        prediction: (T, H, W) bool, one object's predicted mask.
        truth: (T, H, W) bool, the same object's annotated mask.
        tolerance: Pixels. None means that of the benchmark, `boundary_tolerance(H, W)`.

    Returns:
        (T,) float64 in [0, 1].
    """
    _check_masks(prediction, truth)
    height, width = truth.shape[1:]
    radius = boundary_tolerance(height, width) if tolerance is None else tolerance
    disk = disk_footprint(radius)
    return np.array([_frame_accuracy(*pair, disk) for pair in zip(prediction, truth)], dtype=np.float64)


def boundary_tolerance(height: int, width: int) -> int:
    """Return the benchmark's tolerance in pixels: 0.008 of the diagonal, rounded up (8 at 854 x 480)."""
    return math.ceil(BOUNDARY_TOLERANCE * float(np.linalg.norm((height, width))))


def disk_footprint(radius: int) -> np.ndarray:
    """Return a (2 * radius + 1) square uint8, 1 where the distance to the centre is at most `radius`."""
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(np.uint8)


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Return the one-pixel-wide boundary of a mask, lying half a pixel up and left of the true edge.

    A pixel is on the boundary when it differs from its right, its lower or its lower right neighbour. The
    last row looks only to the right, the last column only down, and the last pixel of all is never on it:
    where the frame's border cuts a mask there is no boundary.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool.
    """
    boundary = np.zeros(mask.shape, dtype=bool)
    here, right, below = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1]
    boundary[:-1, :-1] = (here ^ right) | (here ^ below) | (here ^ mask[1:, 1:])
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary


def _check_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, masks in (('prediction', prediction), ('truth', truth)):
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise ValueError(
                f'{name} must be (T, H, W) bool, got shape {masks.shape} of {masks.dtype}. Compare the label '
                'map with '
                'one object id (`label_maps == object_id`).'
            )
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction {prediction.shape} and truth {truth.shape} must have the same shape (T, H, W).'
        )


def _frame_accuracy(prediction: np.ndarray, truth: np.ndarray, disk: np.ndarray) -> float:
    """Return F of one frame; masks (H, W) bool, `disk` the neighbourhood in which boundaries match."""
    box = _box_around(prediction | truth)
    if box is None:
        return 1.0
    predicted, annotated = boundary_map(prediction[box]), boundary_map(truth[box])
    num_predicted, num_annotated = np.count_nonzero(predicted), np.count_nonzero(annotated)
    if num_predicted == 0 or num_annotated == 0:
        return 1.0 if num_predicted == num_annotated else 0.0
    precision = np.count_nonzero(predicted & _dilate(annotated, disk)) / num_predicted
    recall = np.count_nonzero(annotated & _dilate(predicted, disk)) / num_annotated
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _box_around(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Return the slices of the smallest box around a mask and one pixel more, or None for an empty mask.

    The extra pixel holds the boundary to the left and above; below and to the right it is the background that
    keeps the rules for the image's last row and column from acting inside the image.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return None
    return slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)


def _dilate(mask: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return (H, W) bool, True where the footprint around the pixel meets the mask."""
    return cv2.dilate(mask.view(np.uint8), footprint).view(bool)
