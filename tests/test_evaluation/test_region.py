"""Region and boundary accuracy against slow loops and cases whose value is known."""

import math

import numpy as np
import pytest

from mmliir.evaluation.functional import (
    boundary_accuracy,
    boundary_map,
    boundary_tolerance,
    dilate,
    object_measures,
    region_similarity,
)
from mmliir.testing.reference_metrics import (
    slow_boundary_accuracy,
    slow_boundary_pixels,
    slow_region_similarity,
)


def _blobs(seed: int, frames: int = 3, height: int = 23, width: int = 31) -> np.ndarray:
    """Return (T, H, W) bool rectangles and specks, some of them cut by the frame's border."""
    rng = np.random.default_rng(seed)
    masks = rng.random((frames, height, width)) < 0.01 * (seed % 3)
    for mask in masks:
        y, x = rng.integers(-4, height), rng.integers(-4, width)
        mask[max(y, 0) : y + rng.integers(1, 14), max(x, 0) : x + rng.integers(1, 18)] = True
    return masks


@pytest.mark.parametrize('seed', range(12))
def test_measures_equal_the_slow_loops(seed):
    prediction, truth = _blobs(seed), _blobs(100 + seed)
    expected_j = [slow_region_similarity(*pair) for pair in zip(prediction, truth)]
    np.testing.assert_allclose(region_similarity(prediction, truth), expected_j, atol=1e-15)
    for tolerance in (None, 0, 2, 5):
        expected_f = [slow_boundary_accuracy(*pair, tolerance) for pair in zip(prediction, truth)]
        np.testing.assert_allclose(boundary_accuracy(prediction, truth, tolerance), expected_f, atol=1e-15)


@pytest.mark.parametrize('seed', range(12))
def test_boundary_map_equals_the_slow_loop(seed):
    for mask in _blobs(seed):
        assert set(map(tuple, np.argwhere(boundary_map(mask)).tolist())) == slow_boundary_pixels(mask)


def test_boundary_lies_half_a_pixel_up_and_left():
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 3] = True
    assert np.argwhere(boundary_map(mask)).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_a_mask_cut_by_the_border_has_no_boundary_there():
    mask = np.ones((4, 5), dtype=bool)
    assert not boundary_map(mask).any()
    mask[:, 0] = False
    assert np.argwhere(boundary_map(mask)).tolist() == [[y, 0] for y in range(4)]


@pytest.mark.parametrize(('size', 'pixels'), [((480, 854), 8), ((480, 910), 9), ((480, 720), 7), ((1, 1), 1)])
def test_tolerance_is_a_fraction_of_the_diagonal_rounded_up(size, pixels):
    assert boundary_tolerance(*size) == pixels == math.ceil(0.008 * math.hypot(*size))


def _dilate_by_distance(mask: np.ndarray, radius: int) -> np.ndarray:
    y, x = np.nonzero(mask)
    rows, columns = np.indices(mask.shape)
    near = (rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2 <= radius**2
    return near.any(axis=-1)


def test_disk_holds_the_pixels_within_the_radius():
    pixel = np.zeros((5, 5), dtype=bool)
    pixel[2, 2] = True
    assert dilate(pixel, 2).astype(int).tolist() == [
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
    ]
    assert dilate(np.pad(pixel, 10), 8).sum() == 197


@pytest.mark.parametrize('radius', [0, 1, 3, 8, 9, 62, 63, 64, 65, 140])
@pytest.mark.parametrize('width', [1, 7, 63, 64, 65, 130])
def test_dilation_is_by_distance_at_any_width_and_radius(radius, width):
    rng = np.random.default_rng([radius, width])
    mask = np.zeros((11, width), dtype=bool)
    # Corners and edges: what is shifted out of a row must not come back in the next one.
    mask[rng.integers(0, 11, 2), rng.choice([0, width - 1], 2)] = True
    assert np.array_equal(dilate(mask, radius), _dilate_by_distance(mask, radius))
    assert not dilate(np.zeros_like(mask), radius).any()


@pytest.mark.parametrize('seed', range(8))
def test_objects_of_label_maps_have_the_numbers_of_their_masks(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = np.zeros((2, 37, 150), dtype=np.uint8)
    for label_map in (prediction, truth):
        for object_id in (1, 2, 4, 255):
            y, x = rng.integers(-4, 36), rng.integers(-4, 149)
            label_map[max(y, 0) : y + rng.integers(1, 20), max(x, 0) : x + rng.integers(1, 90)] = object_id
    ids = (1, 2, 3, 4, 255)
    for tolerance in (None, 0, 3):
        expected = [
            [slow_region_similarity(prediction == k, truth == k) for k in ids],
            [boundary_accuracy((prediction == k)[None], (truth == k)[None], tolerance)[0] for k in ids],
        ]
        assert object_measures(prediction, truth, ids, tolerance).tolist() == expected
    with pytest.raises(ValueError, match='label maps'):
        object_measures(prediction, truth[:5], ids)


def test_perfect_is_one_and_disjoint_is_zero():
    truth = np.zeros((1, 60, 80), dtype=bool)
    truth[:, 5:20, 5:25] = True
    far = np.roll(truth, (30, 40), axis=(1, 2))
    assert region_similarity(truth, truth) == boundary_accuracy(truth, truth) == 1
    assert region_similarity(far, truth) == boundary_accuracy(far, truth) == 0


def test_empty_masks():
    full = np.zeros((1, 30, 40), dtype=bool)
    full[:, 10:20, 10:20] = True
    empty = np.zeros_like(full)
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1
    for pair in ((full, empty), (empty, full)):
        assert region_similarity(*pair) == boundary_accuracy(*pair) == 0


@pytest.mark.parametrize('offset', [0, 1, 3, 4])
def test_shifted_square_matches_up_to_the_tolerance(offset):
    truth = np.zeros((1, 60, 80), dtype=bool)
    truth[:, 20:40, 20:50] = True
    moved = np.roll(truth, offset, axis=2)
    score = boundary_accuracy(moved, truth, tolerance=3)[0]
    assert (score == 1) == (offset <= 3)


def test_value_by_hand():
    truth = np.zeros((1, 12, 12), dtype=bool)
    truth[:, 2:8, 2:8] = True
    prediction = np.zeros_like(truth)
    prediction[:, 2:8, 2:5] = True
    assert region_similarity(prediction, truth)[0] == 0.5
    # Boundary of the truth: columns 1-7 of the rows 1 and 7, columns 1 and 7 of the rows between: 24 pixels.
    # Of the prediction: columns 1-4, and 1 and 4: 18. In both: 4 + 4 and 5: 13. So F = 2 * 13 / (18 + 24).
    assert boundary_accuracy(prediction, truth, tolerance=0)[0] == pytest.approx(26 / 42, abs=1e-15)


def test_the_last_frame_does_not_see_the_first():
    prediction, truth = _blobs(3, frames=5), _blobs(103, frames=5)
    whole = boundary_accuracy(prediction, truth)
    parts = [boundary_accuracy(prediction[t : t + 1], truth[t : t + 1])[0] for t in range(5)]
    assert whole.tolist() == parts
    assert boundary_accuracy(prediction[:0], truth[:0]).shape == (0,)


def test_label_maps_and_other_sizes_are_refused():
    masks = np.zeros((2, 4, 5), dtype=bool)
    with pytest.raises(ValueError, match='object_id'):
        region_similarity(masks.astype(np.uint8), masks)
    with pytest.raises(ValueError, match='same shape'):
        boundary_accuracy(masks, masks[:, :3])
    with pytest.raises(ValueError, match=r'\(T, H, W\)'):
        boundary_accuracy(masks[0], masks[0])
