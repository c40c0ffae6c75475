"""Mean, recall and decay against loops and cases worked by hand."""

import math

import numpy as np
import pytest

from mmliir.evaluation.functional import decay, decay_bin_ends, decay_wraps, mean, recall
from mmliir.testing.reference_metrics import slow_statistics


@pytest.mark.parametrize('length', [*range(1, 20), 100, 254, 255, 256, 257, 258, 300, 351, 512, 513, 700])
def test_statistics_equal_the_slow_loop(length):
    scores = np.random.default_rng(length).random(length)
    expected = slow_statistics(scores.tolist())
    np.testing.assert_allclose((mean(scores), recall(scores), decay(scores)), expected, atol=1e-14)


def test_half_is_not_recalled():
    assert recall(np.array([0.5, 0.5000001, 0.4, 1.0])) == 0.5


def test_decay_is_the_first_quarter_minus_the_last():
    # Nine frames: ends 0, 2, 4, 6, 8, both ends of a quarter included.
    scores = np.array([1.0, 0.9, 0.8, 0.0, 0.0, 0.0, 0.3, 0.2, 0.1])
    assert decay_bin_ends(9) == [0, 2, 4, 6, 8]
    assert decay(scores) == pytest.approx(0.9 - 0.2, abs=1e-15)


def test_halves_are_rounded_up():
    # 1 + k (n - 1) / 4 for n = 3: 1, 1.5, 2, 2.5, 3.
    assert decay_bin_ends(3) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(('length', 'ends'), [(1, [0] * 5), (2, [0, 0, 1, 1, 1]), (4, [0, 1, 2, 2, 3])])
def test_bins_of_short_sequences(length, ends):
    assert decay_bin_ends(length) == ends


def test_decay_of_one_frame_is_zero():
    assert decay(np.array([0.7])) == 0


def test_long_sequences_wrap_as_in_the_official_tool():
    assert [decay_wraps(length) for length in (255, 256, 257)] == [False, True, True]
    assert decay_bin_ends(351) == [0, 88, 175, 7, 94]
    falling = np.linspace(1, 0, 351)
    assert decay(falling) == pytest.approx(falling[:89].mean() - falling[7:95].mean())
    assert decay(falling) != pytest.approx(falling[:89].mean() - falling[263:].mean(), abs=0.1)
    assert math.isnan(decay(np.linspace(1, 0, 300)))


def test_nan_is_left_out_of_the_mean_and_below_the_threshold():
    scores = np.array([1.0, math.nan, 0.8])
    assert mean(scores) == pytest.approx(0.9)
    assert recall(scores) == pytest.approx(2 / 3)


@pytest.mark.parametrize('scores', [np.zeros(0), np.zeros((2, 3))])
def test_no_curve_is_refused(scores):
    for statistic in (mean, recall, decay):
        with pytest.raises(ValueError, match='T >= 1'):
            statistic(scores)
