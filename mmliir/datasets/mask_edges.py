"""Anti-aliasing of masks: which values are objects, and which are a blend of two along their border.

Arrays of values are told apart by structure and not by number: a blend lies, in value, between two flat areas, and in
the picture within two pixels of both.
"""

import itertools
from dataclasses import dataclass

import numpy as np

# How far from both of the areas that it mixes a blended pixel lies, in pixels: doubling a mask bilinearly reaches 2.
_REACH = 2
# Share of a value's pixels that must be explained so: tips of an outline see one area only.
_EXPLAINED = 0.8
# How far off the line between two colours a blend of them is stored, in grey levels of 256 a channel.
_ROUNDING = 6.0
# Of how many flat colours triples are looked at.
_MOST_MEETING = 12


@dataclass(frozen=True)
class Blends:
    """What was found out about the values of a mask.

    Attributes:
        index: (H, W) int, each pixel's value; blends replaced by the flat value they are nearest to.
        blended: Numbers of the values that were blends.
        ambiguous: Numbers of the flat values that could themselves be a blend of two others; with any, `index` is a
            guess.
    """

    index: np.ndarray
    blended: tuple[int, ...] = ()
    ambiguous: tuple[int, ...] = ()


def resolve_blends(index: np.ndarray, values: np.ndarray, background: int | None) -> Blends:
    """Replace the blended values along borders by what they are nearest to.

    Args:
        index: (H, W) int, numbers of rows of `values`.
        values: (V, C) numbers, the V different values of the picture: 1 channel of greys, or 3 of colours.
        background: Number of the background's value; None where it does not occur.

    Returns:
        The map without blends; `index` itself where there is none. A blend half-way between background and an object
        becomes the object.
    """
    values = np.asarray(values, dtype=np.float64)
    flat = _flat_values(index, len(values))
    thin = np.flatnonzero(~flat)
    if background is not None:
        flat[background] = True
        thin = thin[thin != background]
    if len(values) < 3 or not len(thin):
        return Blends(index)
    sure = np.flatnonzero(flat)
    # Nothing lies beyond: no blend.
    flat[[v for v in thin if not (_has_between(values, v) or _triples_around(values, v, sure))]] = True
    anchors, thin = np.flatnonzero(flat), thin[~flat[thin]]
    padded = np.pad(index, _REACH, mode='edge')
    found = {int(v): spots for v in thin if (spots := _blended_spots(padded, index, values, v, anchors)) is not None}
    if not found:
        return Blends(index)
    areas = np.setdiff1d(np.arange(len(values)), list(found))
    settled = index.copy()
    for value, (rows, columns, near) in found.items():
        settled[rows, columns] = _nearest(values, value, near, areas, background)
    ambiguous = [int(v) for v in areas if v != background and _has_between(values[areas], np.searchsorted(areas, v))]
    return Blends(settled, tuple(sorted(found)), tuple(ambiguous))


def _flat_values(index: np.ndarray, count: int) -> np.ndarray:
    """(V,) bool: the value fills a square of 3 x 3 pixels somewhere (the frame's border continues)."""
    padded = np.pad(index, 1, mode='edge')
    height, width = index.shape
    same = np.ones(index.shape, dtype=bool)
    for dy in range(3):
        for dx in range(3):
            same &= padded[dy : dy + height, dx : dx + width] == index
    return np.bincount(index[same].ravel(), minlength=count) > 0


def _pairs_around(values: np.ndarray, value: int, anchors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of anchors that the value lies between, in a straight line."""
    ends = [int(a) for a in anchors if a != value]
    if len(ends) < 2:
        return []
    away = values[ends] - values[value]
    length = np.linalg.norm(away, axis=1)
    # Opposite directions, and the corner that is left away from the line no more than rounding makes it.
    dots = away @ away.T
    span = np.linalg.norm(away[:, None] - away[None], axis=-1)
    cross = np.sqrt(np.maximum(np.outer(length**2, length**2) - dots**2, 0))
    between = (dots < 0) & (cross <= _ROUNDING * np.maximum(span, 1e-9))
    return [(ends[i], ends[j]) for i, j in zip(*np.nonzero(np.triu(between)), strict=True)]


def _triples_around(values: np.ndarray, value: int, anchors: np.ndarray) -> list[tuple[int, int, int]]:
    """Triples of colours that the value is a mixture of, for pixels where three areas meet; none of many colours."""
    if values.shape[1] < 3 or len(anchors) > _MOST_MEETING:
        return []
    found = []
    for corners in itertools.combinations((int(a) for a in anchors if a != value), 3):
        last = values[corners[2]]
        sides = np.stack([values[corners[0]] - last, values[corners[1]] - last], axis=1)
        share = np.linalg.lstsq(sides, values[value] - last, rcond=None)[0]
        is_near = np.linalg.norm(sides @ share + last - values[value]) <= _ROUNDING
        if is_near and share.min() > 0 and share.sum() < 1:
            found.append(corners)
    return found


def _has_between(values: np.ndarray, value: int) -> bool:
    """Whether a value lies between two of the others."""
    return bool(_pairs_around(values, int(value), np.arange(len(values))))


def _blended_spots(
    padded: np.ndarray, index: np.ndarray, values: np.ndarray, value: int, anchors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Rows, columns and surroundings (N, 25) of a value's pixels where it is a blend; None where it is none."""
    mixtures = [*_pairs_around(values, value, anchors), *_triples_around(values, value, anchors)]
    if not mixtures:
        return None
    rows, columns = np.nonzero(index == value)
    reach = range(2 * _REACH + 1)
    near = np.stack([padded[rows + dy, columns + dx] for dy in reach for dx in reach], axis=1)
    seen = {end: (near == end).any(axis=1) for end in set(itertools.chain(*mixtures))}
    explained = np.zeros(len(rows), dtype=bool)
    for ends in mixtures:
        explained |= np.logical_and.reduce([seen[end] for end in ends])
    return (rows, columns, near) if explained.mean() >= _EXPLAINED else None


def _nearest(
    values: np.ndarray, value: int, near: np.ndarray, areas: np.ndarray, background: int | None
) -> np.ndarray:
    """(N,): of the areas that each pixel sees, or of all where it sees none, the one whose value is nearest."""
    distance = np.linalg.norm(values[areas] - values[value], axis=1)
    distance[areas == background] += 1e-6  # half-way is the object
    seen = np.stack([(near == area).any(axis=1) for area in areas], axis=1)
    seen[~seen.any(axis=1)] = True
    return areas[np.where(seen, distance, np.inf).argmin(axis=1)]
