"""Bootstrap intervals against a slow loop, closed forms, and what must not change them."""

import math

import numpy as np
import pytest

from mmliir.evaluation.functional import bootstrap
from mmliir.evaluation.functional.bootstrap import (
    bootstrap_interval,
    bootstrap_values,
    paired_difference,
    ratio_value,
)
from mmliir.evaluation.metrics.results import SequenceResult, combine


def ratios(num_sequences=7, groups=3, seed=0):
    rng = np.random.default_rng(seed)
    denominators = rng.integers(0, 4, (num_sequences, groups)).astype(float)
    return rng.random((num_sequences, groups)) * denominators, denominators


def slow_value(numerators, denominators, rows):
    parts = []
    for group in range(numerators.shape[1]):
        above = sum(numerators[row, group] for row in rows)
        below = sum(denominators[row, group] for row in rows)
        if below > 0:
            parts.append(above / below)
    return sum(parts) / len(parts) if parts else math.nan


def test_every_draw_is_the_value_of_its_resample():
    numerators, denominators = ratios()
    drawn = np.random.default_rng(5).integers(0, 7, size=(200, 7))
    expected = [slow_value(numerators, denominators, rows) for rows in drawn]
    np.testing.assert_allclose(bootstrap_values(numerators, denominators, 200, seed=5), expected, rtol=1e-12)


def test_a_resample_without_any_denominator_is_nan_and_is_left_out():
    numerators, denominators = np.array([[1.0], [0.5], [0.0]]), np.array([[1.0], [1.0], [0.0]])
    values = bootstrap_values(numerators, denominators, 2000)
    assert np.isnan(values).mean() == pytest.approx(1 / 27, abs=0.02)
    found = bootstrap_interval(numerators, denominators, draws=2000)
    assert (found.low, found.high) == (0.5, 1.0)


def test_value_is_that_of_combine():
    numerators, denominators = ratios(9, 4, seed=3)
    rows = [
        SequenceResult(str(n), {}, {'m': (tuple(numerators[n]), tuple(denominators[n]))})
        for n in range(len(numerators))
    ]
    assert ratio_value(numerators, denominators) == pytest.approx(combine(rows, 'm'), rel=1e-14)
    assert math.isnan(ratio_value(np.zeros((3, 2)), np.zeros((3, 2))))


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(0.6, 0.15, 200)
    found = bootstrap_interval(values[:, None], np.ones((200, 1)))
    error = values.std() / math.sqrt(200)  # of the mean of a resample: the values themselves are the population
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error * 1.96)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error * 1.96)
    assert found.half == pytest.approx(1.96 * error, rel=0.05)


def test_two_sequences_give_the_three_possible_means():
    values = bootstrap_values(np.array([[0.0], [1.0]]), np.ones((2, 1)))
    shares = [np.mean(values == value) for value in (0, 0.5, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


def test_seed_alone_decides_and_blocks_do_not(monkeypatch):
    numerators, denominators = ratios(11, 2)
    first = bootstrap_values(numerators, denominators, 500, seed=1)
    assert not np.array_equal(first, bootstrap_values(numerators, denominators, 500, seed=2), equal_nan=True)
    monkeypatch.setattr(bootstrap, '_BLOCK_ENTRIES', 11 * 7)
    np.testing.assert_array_equal(first, bootstrap_values(numerators, denominators, 500, seed=1))


@pytest.mark.parametrize(
    ('numerators', 'denominators', 'reason'),
    [
        ([[0.5]], [[1.0]], '1 sequence to draw from'),
        ([[0.5], [0.0]], [[1.0], [0.0]], '1 sequence to draw from'),
        ([[0.0], [0.0]], [[0.0], [0.0]], 'no sequences to draw from'),
        ([[0.5], [math.nan]], [[1.0], [1.0]], 'no finite value'),
    ],
)
def test_where_nothing_can_be_drawn_there_is_no_interval_and_a_reason(numerators, denominators, reason):
    found = bootstrap_interval(np.array(numerators), np.array(denominators))
    assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(found.half) and reason in found.note
    both = (np.array(numerators), np.array(denominators))
    paired = paired_difference(both, both)
    assert math.isnan(paired.interval.low) and math.isnan(paired.sign_flips) and reason in paired.interval.note


def test_paired_difference_is_the_difference_of_the_same_resamples():
    first, second = ratios(12, 2, seed=1), ratios(12, 3, seed=2)
    found = paired_difference(first, second, draws=999, seed=4)
    draws = bootstrap_values(*second, 999, 4) - bootstrap_values(*first, 999, 4)
    assert (found.interval.low, found.interval.high) == tuple(np.quantile(draws, [0.025, 0.975]))
    assert found.interval.value == found.second - found.first == ratio_value(*second) - ratio_value(*first)
    flips = sum(1 for draw in draws if draw == 0 or (draw > 0) != (found.interval.value > 0)) / 999
    assert found.sign_flips == pytest.approx(flips)


def test_pairing_removes_what_the_sequences_share():
    """A gain of exactly 0.01 on every sequence is certain, however much the sequences differ."""
    base = np.random.default_rng(0).random((20, 1)) * 0.9
    found = paired_difference((base, np.ones_like(base)), (base + 0.01, np.ones_like(base)))
    assert found.interval.low == pytest.approx(0.01) and found.interval.high == pytest.approx(0.01)
    assert found.sign_flips == 0
    back = paired_difference((base + 0.01, np.ones_like(base)), (base, np.ones_like(base)))
    assert back.interval.value == pytest.approx(-0.01) and back.sign_flips == 0
    assert paired_difference((base, np.ones_like(base)), (base, np.ones_like(base))).sign_flips == 1


@pytest.mark.parametrize(
    ('numerators', 'denominators', 'options', 'message'),
    [
        (np.ones(3), np.ones(3), {}, r'\(S, G\)'),
        (np.ones((3, 1)), np.ones((3, 2)), {}, r'\(3, 1\) and \(3, 2\)'),
        (np.ones((0, 1)), np.ones((0, 1)), {}, 'one of each'),
        (np.ones((3, 1)), -np.ones((3, 1)), {}, 'not negative'),
        (np.ones((3, 1)), np.ones((3, 1)), {'level': 95}, 'level'),
        (np.ones((3, 1)), np.ones((3, 1)), {'draws': 0}, 'draws'),
    ],
)
def test_wrong_input_is_named(numerators, denominators, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(numerators, denominators, **options)


def test_runs_of_different_sequences_are_refused():
    with pytest.raises(ValueError, match='same sequences, got 3 and 4'):
        paired_difference((np.ones((3, 1)),) * 2, (np.ones((4, 1)),) * 2)
