import json
import math
from pathlib import Path

import numpy as np
import pytest
from vip_cases import cases

from mmliir.evaluation.functional.instance_ap import (
    THRESHOLDS,
    average_precision,
    average_precision_table,
    match_instances,
)
from mmliir.testing.reference_vip import SlowFrame, slow_ap_table

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'vip_official.json').read_text())['cases']
CASES = cases()


def matches_of(frames):
    return [match_instances(f.instances, f.predicted, f.true_instances, f.true_classes, 20) for f in frames]


@pytest.mark.parametrize('name', CASES)
def test_ap_equals_the_official_evaluators(name):
    table = average_precision_table(matches_of(CASES[name]), 20)
    np.testing.assert_allclose(table, np.array(GOLDEN[name]['ap_table'], float), rtol=0, atol=1e-9)
    official = GOLDEN[name]['ap']
    assert table.mean() == pytest.approx(math.nan if official is None else official, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize('name', CASES)
def test_ap_equals_slow_loops(name):
    frames = CASES[name][:6]
    slow = slow_ap_table(
        [SlowFrame(f.instances.tolist(), f.predicted, f.true_instances.tolist(), f.true_classes) for f in frames],
        20,
        THRESHOLDS,
    )
    np.testing.assert_allclose(average_precision_table(matches_of(frames), 20), slow, rtol=0, atol=1e-12)


def test_the_cases_reach_the_odd_rules():
    """Each odd rule moves the number of a case, so that the equalities above prove something about it."""
    assert sum(frame.dropped for frame in matches_of(CASES['vanished'])) > 0
    assert GOLDEN['vanished']['aten_agrees'].startswith('IndexError')
    assert max(map(max, GOLDEN['twice']['ap_table'])) == 2.0  # true instances are found twice
    assert GOLDEN['predicted-without-truth']['ap'] is None
    ties = matches_of(CASES['equal-scores'])
    assert not np.allclose(
        average_precision_table(ties, 20), average_precision_table(ties[::-1], 20), rtol=0, atol=1e-3
    )


def one(prediction, truth, predicted=((1, 1.0),), classes=None):
    maps = np.array([prediction], np.uint8), np.array([truth], np.uint8)
    return match_instances(maps[0], predicted, maps[1], classes or {1: 1}, 3)


def test_an_iou_at_the_threshold_is_wrong_and_above_it_is_right():
    at = one([1, 0, 0, 0, 0], [1, 1, 0, 0, 0])
    above = one([1, 1, 0, 0, 0], [1, 1, 1, 0, 0])
    assert at.best_iou.tolist() == [0.5]
    assert average_precision_table([at], 3)[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert average_precision_table([above], 3)[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_only_instances_of_the_same_class_match():
    other = one([1, 1, 0], [1, 1, 0], classes={1: 2})
    assert other.best_iou.tolist() == [0.0] and other.num_truth.tolist() == [0, 0, 1]


def test_a_true_instance_without_a_pixel_does_not_count():
    assert one([1, 0], [1, 0], classes={1: 1, 2: 1}).num_truth.tolist() == [0, 1, 0]


def test_one_vanished_instance_takes_those_of_its_class_along_but_no_others():
    found = one([1, 3, 0], [1, 3, 0], predicted=((1, 0.9), (1, 0.8), (2, 0.7)), classes={1: 1, 3: 2})
    assert found.classes.tolist() == [2] and found.dropped == 1 and found.num_truth.tolist() == [0, 1, 1]


def test_scores_order_predictions_across_frames():
    good, bad = one([1], [1], ((1, 0.2),)), one([1], [0], ((1, 0.9),))
    assert average_precision_table([good, bad], 3, [0.5])[0, 0] == 0.5  # the wrong one comes first
    low = one([1], [0], ((1, 0.1),))
    assert average_precision_table([good, low], 3, [0.5])[0, 0] == 1.0


def test_of_equal_scores_the_later_frame_comes_first():
    good, bad = one([1], [1]), one([1], [0])
    assert average_precision_table([good, bad], 3, [0.5])[0, 0] == 0.5
    assert average_precision_table([bad, good], 3, [0.5])[0, 0] == 1.0


def test_area_under_the_curve_in_closed_form():
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # precision at the second recall is higher than between the two: the curve is made non-increasing
    assert average_precision(np.array([False, True, True]), 4) == pytest.approx(0.5 * 2 / 3)
    assert average_precision(np.array([False, False]), 5) == 0.0


def test_a_class_without_truth_is_zero_until_it_is_predicted():
    assert average_precision(np.array([], bool), 0) == 0.0
    assert math.isnan(average_precision(np.array([False]), 0))
