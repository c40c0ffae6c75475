"""How much a score would move with other sequences: the percentile bootstrap over sequences, of ratio metrics.

A data set's value is the mean over groups of (sum of numerators / sum of denominators); the sequences are drawn anew,
with replacement, and the value is computed again. The interval holds the middle 95 % of these values (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). It tells how far the score depends on which sequences
the benchmark happens to have; it knows nothing of seeds, of training, and of how the sequences were chosen. With fewer
than about 20 sequences it is too narrow.

Shape letters: S sequences, G groups (objects, joints, classes), D draws.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

NUM_DRAWS = 10_000
LEVEL = 0.95
# Draws are made in blocks, so that memory stays small with a thousand sequences. The numbers do not depend on it.
_BLOCK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A value and the interval around it.

    Attributes:
        value: Of the data as they are; NaN where every denominator is 0.
        low, high: Ends of the interval; NaN where there is none.
        note: Why there is none; empty where there is one.
    """

    value: float
    low: float
    high: float
    note: str = ''

    @property
    def half(self) -> float:
        """Half the length, NaN where there is no interval. The value need not lie in the middle."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference:
    """Second run minus first run, on the same sequences.

    Attributes:
        first, second: Values of the runs.
        interval: Of `second - first`; each draw takes the same sequences for both.
        sign_flips: Share of the draws in which the difference is 0 or has the other sign; 1 where it is 0 itself, NaN
            where there is no interval.
    """

    first: float
    second: float
    interval: Interval
    sign_flips: float


def ratio_value(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """The data set's value.

    Args:
        numerators, denominators: (S, G) float; denominators are not negative.

    Returns:
        Mean over groups of sum / sum, groups with denominator 0 left out; NaN where none is left.
    """
    numerators, denominators = _checked(numerators, denominators)
    return float(_mean_of_ratios(numerators.sum(axis=0), denominators.sum(axis=0)))


def bootstrap_values(
    numerators: np.ndarray, denominators: np.ndarray, draws: int = NUM_DRAWS, seed: int = 0
) -> np.ndarray:
    """The value of each resample of the sequences.

    Args:
        numerators, denominators: (S, G) float, S >= 1; denominators are not negative.
        draws: D.
        seed: Of the draws. Equal S, D and seed give the same resamples, whatever the numbers are.

    Returns:
        (D,) float64; NaN where all denominators of a resample are 0.
    """
    numerators, denominators = _checked(numerators, denominators)
    values = [
        _mean_of_ratios(counts @ numerators, counts @ denominators)
        for counts in _resamples(len(numerators), draws, seed)
    ]
    return np.concatenate(values)


def bootstrap_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    level: float = LEVEL,
    draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Interval:
    """The value and its percentile interval.

    Args:
        numerators, denominators: (S, G) float, S >= 1; denominators are not negative.
        level: Share of the resamples inside, 0 to 1.
        draws: D.
        seed: Of the draws.

    Returns:
        Without an interval, and with the reason, where fewer than two sequences count or a number is not finite.

    Raises:
        ValueError: Shapes that differ, no sequence, a negative denominator, a level outside 0 to 1.
    """
    numerators, denominators = _checked(numerators, denominators)
    value = float(_mean_of_ratios(numerators.sum(axis=0), denominators.sum(axis=0)))
    reason = _why_none(numerators, denominators)
    if reason:
        return Interval(value, math.nan, math.nan, reason)
    return Interval(value, *_ends(bootstrap_values(numerators, denominators, draws, seed), level))


def paired_difference(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    level: float = LEVEL,
    draws: int = NUM_DRAWS,
    seed: int = 0,
) -> PairedDifference:
    """Compare two runs on the same sequences.

    Args:
        first, second: (numerators, denominators) of a run, (S, G) float each; row s is the same sequence in both. G may
            differ.
        level, draws, seed: As for `bootstrap_interval`.

    Raises:
        ValueError: As there, or runs with different numbers of sequences.
    """
    first, second = _checked(*first), _checked(*second)
    if len(first[0]) != len(second[0]):
        raise ValueError(f'both runs need the same sequences, got {len(first[0])} and {len(second[0])}')
    values = [ratio_value(*run) for run in (first, second)]
    observed = values[1] - values[0]
    reason = _why_none(*first) or _why_none(*second)
    if reason:
        return PairedDifference(*values, Interval(observed, math.nan, math.nan, reason), math.nan)
    differences = bootstrap_values(*second, draws, seed) - bootstrap_values(*first, draws, seed)
    known = differences[~np.isnan(differences)]
    flips = float(np.mean(known * np.sign(observed) <= 0))
    return PairedDifference(*values, Interval(observed, *_ends(differences, level)), flips)


def _checked(numerators: np.ndarray, denominators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numerators, denominators = (np.asarray(part, dtype=np.float64) for part in (numerators, denominators))
    if numerators.ndim != 2 or numerators.shape != denominators.shape or not numerators.size:
        raise ValueError(
            'numerators and denominators are (S, G), a sequence a row, a group a column, one of each at least; '
            f'got {numerators.shape} and {denominators.shape}'
        )
    if (denominators < 0).any():
        raise ValueError(f'denominators are counts and not negative; got {denominators.min()}')
    return numerators, denominators


def _why_none(numerators: np.ndarray, denominators: np.ndarray) -> str:
    if not (np.isfinite(numerators).all() and np.isfinite(denominators).all()):
        return 'no interval: a sequence has no finite value'
    counted = int((denominators > 0).any(axis=1).sum())
    if counted < 2:
        return f'no interval: {counted or "no"} sequence{"" if counted == 1 else "s"} to draw from'
    return ''


def _resamples(num_sequences: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sequence is drawn, (D', S) float64, in blocks of draws."""
    if draws < 1:
        raise ValueError(f'draws: expected 1 or more, got {draws}')
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ENTRIES // num_sequences)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = rng.integers(0, num_sequences, size=(rows, num_sequences))
        drawn += np.arange(rows)[:, None] * num_sequences
        counts = np.bincount(drawn.ravel(), minlength=rows * num_sequences)
        yield counts.reshape(rows, num_sequences).astype(np.float64)


def _mean_of_ratios(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """(..., G) each -> (...), groups with denominator 0 left out; NaN where none is left."""
    known = denominators > 0
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=known)
    count = known.sum(axis=-1)
    return np.where(count > 0, ratios.sum(axis=-1) / np.maximum(count, 1), np.nan)


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f'level is a share between 0 and 1, got {level}')
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
