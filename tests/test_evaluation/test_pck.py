"""The pieces of PCK: closed forms."""

import numpy as np
import pytest

from mmliir.evaluation.functional.pck import area_scales, box_scales, correct_points, pck_counts, point_distances


def test_a_distance_is_euclidean_in_the_unit_asked_for():
    truth = np.zeros((2, 1, 2))
    prediction = np.array([[[3.0, 4.0]], [[-6.0, 8.0]]])
    assert point_distances(prediction, truth).tolist() == [[5.0], [10.0]]
    assert point_distances(prediction, truth, (2.0, 0.0)).tolist() == [[6.0], [12.0]]


@pytest.mark.parametrize('lost', [np.nan, np.inf, -np.inf])
def test_a_lost_point_is_infinitely_far_and_never_right(lost):
    prediction = np.array([[[lost, 0.0], [0.0, 0.0]]])
    distances = point_distances(prediction, np.zeros((1, 2, 2)))
    assert distances.tolist() == [[np.inf, 0.0]]
    for tie in ('hit', 'miss'):
        assert correct_points(distances, np.ones(1), 1e9, tie).tolist() == [[False, True]]


def test_the_box_is_around_the_joints_that_count_alone():
    truth = np.array([[[0.0, 0.0], [3.0, 4.0], [100.0, 100.0]]] * 3)
    counted = np.array([[True, True, False], [True, True, True], [False, False, False]])
    assert box_scales(truth, counted) == pytest.approx([0.6 * 5, 0.6 * np.hypot(100, 100), 0.0])


def test_the_area_counts_as_a_length():
    assert area_scales([0, 25, 100]).tolist() == [0.0, 5.0, 10.0]


def test_a_distance_at_the_threshold_is_a_hit_for_jhmdb_and_a_miss_for_badja():
    distances, scales = np.array([[0.5, 1.0, 1.5]]), np.array([2.0])
    assert correct_points(distances, scales, 0.5, 'hit').tolist() == [[True, True, False]]
    assert correct_points(distances, scales, 0.5, 'miss').tolist() == [[True, False, False]]


def test_nothing_is_right_where_the_scale_is_zero():
    for tie in ('hit', 'miss'):
        assert not correct_points(np.array([[0.0, 1.0]]), np.zeros(1), 0.5, tie).any()


def test_counts_are_of_each_joint_over_frames():
    correct = np.array([[True, True, False], [True, False, False]])
    counted = np.array([[True, False, True], [True, True, False]])
    hits, counts = pck_counts(correct, counted)
    assert hits.tolist() == [2, 0, 0] and counts.tolist() == [2, 1, 1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='same shape'):
        point_distances(np.zeros((2, 3, 2)), np.zeros((3, 3, 2)))
    with pytest.raises(ValueError, match='truth holds a NaN'):
        point_distances(np.zeros((1, 1, 2)), np.full((1, 1, 2), np.nan))
    with pytest.raises(ValueError, match="expected 'hit' or 'miss'"):
        correct_points(np.zeros((1, 1)), np.ones(1), 0.1, 'strict')
