import json
import math
from pathlib import Path

import numpy as np
import pytest
from vip_cases import cases, fingerprint

from mmliir.evaluation.functional.semantic import confusion_matrix, iou_per_class, joint_counts, mean_iou
from mmliir.testing.reference_vip import slow_iou_per_class

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'vip_official.json').read_text())['cases']
CASES = cases()


def confusion_of(frames):
    return sum(confusion_matrix(frame.categories, frame.true_categories, 20) for frame in frames)


@pytest.mark.parametrize('name', CASES)
def test_the_inputs_are_those_the_official_numbers_were_made_from(name):
    assert set(CASES) == set(GOLDEN)
    assert fingerprint(CASES[name]) == GOLDEN[name]['inputs_sha256']


@pytest.mark.parametrize('name', CASES)
def test_iou_equals_the_four_official_evaluators(name):
    confusion = confusion_of(CASES[name])
    official = np.array(GOLDEN[name]['iou'], dtype=float)
    np.testing.assert_allclose(iou_per_class(confusion), official, rtol=0, atol=1e-12)
    assert mean_iou(confusion) == pytest.approx(GOLDEN[name]['miou'], abs=1e-12)


@pytest.mark.parametrize('name', ['random', 'few-classes', 'lagging'])
def test_iou_equals_a_loop_over_pixels(name):
    frames = CASES[name][:4]
    slow = slow_iou_per_class([(f.categories.tolist(), f.true_categories.tolist()) for f in frames], 20)
    np.testing.assert_allclose(iou_per_class(confusion_of(frames)), slow, rtol=0, atol=1e-12)


def test_rows_of_the_confusion_matrix_are_truth():
    truth = np.array([[0, 1, 1, 255]], np.uint8)
    prediction = np.array([[1, 1, 0, 2]], np.uint8)
    assert confusion_matrix(prediction, truth, 3).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert joint_counts(prediction, truth)[255, 2] == 1


def test_void_counts_nothing_whatever_is_predicted_there():
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    for there in ((0, 2), (77, 255)):
        prediction = np.array([[0, 1, *there]], np.uint8)
        assert mean_iou(confusion_matrix(prediction, truth, 3)) == 1.0


def test_a_class_that_occurs_nowhere_is_not_in_the_mean():
    same = np.array([[0, 3]], np.uint8)
    confusion = confusion_matrix(same, same, 5)
    assert np.isnan(iou_per_class(confusion)).tolist() == [False, True, True, False, True]
    assert mean_iou(confusion) == 1.0
    assert math.isnan(mean_iou(np.zeros((5, 5), int)))


def test_only_all_frames_together_make_the_score():
    """The mean of the frames' own scores is another number."""
    frames = CASES['random']
    each = [mean_iou(confusion_of([frame])) for frame in frames]
    assert abs(np.mean(each) - mean_iou(confusion_of(frames))) > 1e-3


@pytest.mark.parametrize(
    'prediction, truth, culprit', [(20, 3, 'prediction holds class 20'), (3, 21, 'truth holds class 21')]
)
def test_a_class_that_does_not_exist_is_refused(prediction, truth, culprit):
    """The official tools count it for the next class: 20 * 3 + 20 is the entry of (4, 0)."""
    with pytest.raises(ValueError, match=culprit):
        confusion_matrix(np.full((2, 2), prediction, np.uint8), np.full((2, 2), truth, np.uint8), 20)


def test_maps_that_do_not_fit_are_refused():
    small, large = np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match='same shape'):
        confusion_matrix(small, large, 20)
    with pytest.raises(ValueError, match=r'\(H, W\) uint8, got shape \(2, 2\) of int64'):
        confusion_matrix(small.astype(int), small, 20)
