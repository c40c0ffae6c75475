"""Region and boundary accuracy of one object's masks, as the DAVIS-2017 benchmark defines them.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR
2016, and the behaviour of the official tool (davisvideochallenge/davis2017-evaluation, commit ac7c43f), which
the tests compare with to 1e-12.

Why it is fast: a pixel outside the box around both masks changes neither measure, so everything happens in
that box; and there a mask is a string of bits, 64 pixels a word, so that a neighbour is a shift and a
dilation a few dozen of them.
"""

import dataclasses
import math
from collections.abc import Sequence

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
    return np.array([frame_measures(*pair, None)[0] for pair in zip(prediction, truth)], dtype=np.float64)


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
    values = [frame_measures(*pair, radius)[1] for pair in zip(prediction, truth)]
    return np.array(values, dtype=np.float64)


def object_measures(
    prediction: np.ndarray, truth: np.ndarray, object_ids: Sequence[int], tolerance: int | None = None
) -> np.ndarray:
    """Return J and F of several objects of one frame.

    Args:
        prediction: (H, W) uint8, the predicted label map.
        truth: (H, W) uint8, the annotated one.
        object_ids: K ids; each is compared with the same id.
        tolerance: See `boundary_accuracy`.

    Returns:
        (2, K) float64 in [0, 1]: row 0 is J, row 1 is F. The same numbers as `region_similarity` and
        `boundary_accuracy` of `label_map == object_id`.
    """
    if prediction.shape != truth.shape or truth.ndim != 2 or {prediction.dtype, truth.dtype} != {np.dtype(np.uint8)}:
        raise ValueError(
            f'label maps must be (H, W) uint8 of one size, got {prediction.shape} {prediction.dtype} and '
            f'{truth.shape} {truth.dtype}.'
        )
    radius = boundary_tolerance(*truth.shape) if tolerance is None else tolerance
    values = np.ones((2, len(object_ids)))
    box = _box_around(prediction | truth)  # of all objects: what follows looks at this part alone
    if box is None:
        return values
    prediction, truth = prediction[box], truth[box]
    for k, object_id in enumerate(object_ids):
        values[:, k] = frame_measures(prediction == object_id, truth == object_id, radius)
    return values


def frame_measures(prediction: np.ndarray, truth: np.ndarray, radius: int | None) -> tuple[float, float]:
    """Return J and F of one mask in one frame.

    Args:
        prediction: (H, W) bool; the whole frame, or a part of it that has a pixel of background around the
            object wherever the frame goes on.
        truth: Likewise.
        radius: Pixels by which boundaries may be apart; None leaves F out (NaN).
    """
    box = _box_around(prediction | truth)
    if box is None:
        return 1.0, 1.0
    prediction, truth = prediction[box], truth[box]
    both = np.count_nonzero(prediction & truth)
    either = np.count_nonzero(prediction | truth)
    if radius is None:
        return both / either, math.nan
    if both == either:
        return 1.0, 1.0  # the same mask, so the same boundary
    return both / either, _boundary_measure(_pack(prediction, radius), _pack(truth, radius), radius)


def boundary_tolerance(height: int, width: int) -> int:
    """Return the benchmark's tolerance in pixels: 0.008 of the diagonal, rounded up (8 at 854 x 480)."""
    return math.ceil(BOUNDARY_TOLERANCE * float(np.linalg.norm((height, width))))


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
    bits = _pack(mask, 0)
    return _unpack(_boundary(bits), bits)


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose distance (Euclidean) to a pixel of the mask is at most `radius`.

    Args:
        mask: (H, W) bool.
        radius: Pixels.

    Returns:
        (H, W) bool.
    """
    bits = _pack(mask, radius)
    inside = bits.words[: -bits.row_words] & bits.valid
    return _unpack(_dilate(inside, bits.row_words, radius), bits)


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


def _box_around(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Return the slices of the smallest box around what is not 0 and one pixel more, or None where all is 0.

    The extra pixel holds the boundary to the left and above; below and to the right it is the background that
    keeps the rules for the image's last row and column from acting inside the image.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return None
    return slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)


def _boundary_measure(prediction: '_Bits', truth: '_Bits', radius: int) -> float:
    """Return F of one frame."""
    predicted, annotated = _boundary(prediction), _boundary(truth)
    num_predicted, num_annotated = _count(predicted), _count(annotated)
    if num_predicted == 0 or num_annotated == 0:
        return 1.0 if num_predicted == num_annotated else 0.0
    precision = _count(predicted & _dilate(annotated, truth.row_words, radius)) / num_predicted
    recall = _count(annotated & _dilate(predicted, prediction.row_words, radius)) / num_annotated
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


# ------------------------------------------------------------------------------------- masks as strings of bits
_WORD = np.dtype('<u8')
_WORD_BITS = 64


@dataclasses.dataclass(frozen=True)
class _Bits:
    """A mask with 64 pixels a word, row after row in one string.

    Each row is followed by columns of its own, at least as many as anything is ever shifted: what leaves a row
    to one side stays in them and never reaches the next row's pixels.

    Attributes:
        words: ((H + 1) * row_words,), bit i of word n of a row is column 64 n + i. Column W repeats column W - 1,
            row H repeats row H - 1.
        valid: (H * row_words,), the bits that are pixels.
        row_words: Words a row.
        size: (H, W).
    """

    words: np.ndarray
    valid: np.ndarray
    row_words: int
    size: tuple[int, int]


def _pack(mask: np.ndarray, margin: int) -> _Bits:
    """Pack (H, W) bool; rows end with at least `margin` columns that hold no pixel."""
    height, width = mask.shape
    row_words = -(-(width + max(margin, 1)) // _WORD_BITS)
    pixels = np.zeros((height + 1, row_words * _WORD_BITS), dtype=bool)
    pixels[:height, :width] = mask
    pixels[:height, width] = mask[:, -1]
    pixels[height] = pixels[height - 1]
    row = np.arange(row_words * _WORD_BITS) < width
    valid = np.tile(np.packbits(row, bitorder='little').view(_WORD), height)
    return _Bits(np.packbits(pixels, bitorder='little').view(_WORD), valid, row_words, (height, width))


def _unpack(words: np.ndarray, like: _Bits) -> np.ndarray:
    """Return (H, W) bool of (H * row_words,) words."""
    height, width = like.size
    return np.unpackbits(words.view(np.uint8), bitorder='little').reshape(height, -1)[:, :width].astype(bool)


def _boundary(bits: _Bits) -> np.ndarray:
    """Return the boundary's words, (H * row_words,); see `boundary_map`."""
    # Where there is no neighbour, the repeated last row and column stand for "no difference".
    right = bits.words >> 1
    right[:-1] |= bits.words[1:] << (_WORD_BITS - 1)
    here, row = bits.words[: -bits.row_words], bits.row_words
    found = here ^ right[:-row]
    found |= here ^ bits.words[row:]
    found |= here ^ right[row:]
    found &= bits.valid
    return found


def _dilate(words: np.ndarray, row_words: int, radius: int) -> np.ndarray:
    """Return the words of the pixels within `radius`; bits beyond the pixels are anything.

    A disk is a stack of rows: half as wide as sqrt(radius^2 - dy^2) at the height dy. From the outermost row inwards
    they only grow, so each is the one before, grown.
    """
    found = np.zeros_like(words)
    grown, half_width = words, 0
    for dy in range(radius, -1, -1):
        grown, half_width = _grow(grown, half_width, math.isqrt(radius**2 - dy**2))
        offset = dy * row_words
        if offset == 0:
            found |= grown
        elif offset < len(words):
            found[offset:] |= grown[:-offset]
            found[:-offset] |= grown[offset:]
    return found


def _grow(words: np.ndarray, half_width: int, wanted: int) -> tuple[np.ndarray, int]:
    """Widen what was widened by `half_width` to each side to `wanted`."""
    while half_width < wanted:
        # Three copies side by side leave no gap up to this step.
        step = min(2 * half_width + 1, wanted - half_width, _WORD_BITS - 1)
        wider = words << step
        wider |= words >> step
        wider |= words
        wider[1:] |= words[:-1] >> (_WORD_BITS - step)
        wider[:-1] |= words[1:] << (_WORD_BITS - step)
        words, half_width = wider, half_width + step
    return words, half_width


def _count(words: np.ndarray) -> int:
    """Return the number of bits that are set."""
    if hasattr(np, 'bitwise_count'):  # NumPy 2
        return int(np.bitwise_count(words).sum(dtype=np.int64))
    return int.from_bytes(words.tobytes(), 'little').bit_count()
