"""DAVIS measures as slow loops over pixels, TAP-Vid's over points, written from the definition: what the fast ones are
tested against.

Plain Python on nested sequences of truth values; nothing here shares code with
`mmliir.evaluation.functional`.
"""

import math
from collections.abc import Sequence

Mask = Sequence[Sequence[bool]]


def slow_region_similarity(prediction: Mask, truth: Mask) -> float:
    """Return J of one frame: pixels in both masks over pixels in either; 1 when neither has a pixel.

    Args:
        prediction: H rows of W truth values.
        truth: Likewise.
    """
    both = either = 0
    for predicted_row, annotated_row in zip(prediction, truth):
        for predicted, annotated in zip(predicted_row, annotated_row):
            both += bool(predicted) and bool(annotated)
            either += bool(predicted) or bool(annotated)
    return both / either if either else 1.0


def slow_boundary_pixels(mask: Mask) -> set[tuple[int, int]]:
    """Return the (row, column) of each boundary pixel.

    Inside the frame a pixel is compared with its right, lower and lower right neighbours; on the last row
    with the right one only, in the last column with the lower one only.
    """
    height, width = len(mask), len(mask[0])
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours = []
            if x + 1 < width:
                neighbours.append((y, x + 1))
            if y + 1 < height:
                neighbours.append((y + 1, x))
            if x + 1 < width and y + 1 < height:
                neighbours.append((y + 1, x + 1))
            if any(bool(mask[v][u]) != bool(mask[y][x]) for v, u in neighbours):
                found.add((y, x))
    return found


def slow_boundary_accuracy(prediction: Mask, truth: Mask, tolerance: int | None = None) -> float:
    """Return F of one frame by comparing each boundary pixel with each of the other boundary.

    Args:
        prediction: H rows of W truth values.
        truth: Likewise.
        tolerance: Largest distance of two matching pixels; None means 0.008 of the diagonal, rounded up.
    """
    if tolerance is None:
        tolerance = math.ceil(0.008 * math.hypot(len(truth), len(truth[0])))
    predicted, annotated = slow_boundary_pixels(prediction), slow_boundary_pixels(truth)
    if not predicted and not annotated:
        return 1.0
    precision = _share_near(predicted, annotated, tolerance) if predicted else 1.0
    recall = _share_near(annotated, predicted, tolerance) if annotated else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_statistics(scores: Sequence[float]) -> tuple[float, float, float]:
    """Return (mean, recall, decay) of one object's scores, one a frame, with the 8-bit frame numbers of the
    benchmark.

    The frame numbers of the quarters, counted from 1, are 1 + k (n - 1) / 4 rounded to the nearest, halves
    up.
    """
    count = len(scores)
    # Halves up in whole numbers: floor(1 + k (n - 1) / 4 + 1 / 2), minus 1 to count from 0.
    ends = [((4 + k * (count - 1) + 2) // 4 - 1) & 0xFF for k in range(5)]
    first, last = scores[ends[0] : ends[1] + 1 & 0xFF], scores[ends[3] : ends[4] + 1 & 0xFF]
    above = sum(1 for score in scores if score > 0.5)
    return _average(scores), above / count, _average(first) - _average(last)


def slow_tapvid_scores(
    query_frames: Sequence[int],
    truth_tracks: Sequence[Sequence[Sequence[float]]],
    truth_visible: Sequence[Sequence[bool]],
    tracks: Sequence[Sequence[Sequence[float]]],
    visible: Sequence[Sequence[bool]],
    query_mode: str,
    aggregate: str = 'pooled',
) -> dict[str, float]:
    """Return the TAP-Vid measures of one video, point by point, on frames of 256x256.

    Args:
        query_frames: N frame numbers.
        truth_tracks: N rows of T (x, y).
        truth_visible: N rows of T truth values.
        tracks: As `truth_tracks`, predicted.
        visible: As `truth_visible`, predicted.
        query_mode: 'first': frames after the query's count; 'strided': all others.
        aggregate: 'pooled': one ratio of a video. 'track': one of each query, and the mean of those that are known.
    """
    queries = range(len(query_frames))
    groups = [list(queries)] if aggregate == 'pooled' else [[n] for n in queries]
    rows = []
    for group in groups:
        counted = [
            (n, t)
            for n in group
            for t in range(len(truth_visible[n]))
            if (t > query_frames[n] if query_mode == 'first' else t != query_frames[n])
        ]
        present = [(n, t) for n, t in counted if truth_visible[n][t]]
        same = sum(bool(visible[n][t]) == bool(truth_visible[n][t]) for n, t in counted)
        row = {'occlusion_accuracy': _ratio(same, len(counted))}
        for threshold in (1, 2, 4, 8, 16):
            hits = {
                (n, t)
                for n, t in present
                if sum((a - b) ** 2 for a, b in zip(tracks[n][t], truth_tracks[n][t])) < threshold**2
            }
            claims = [(n, t) for n, t in counted if visible[n][t]]
            right = sum(place in hits for place in claims)
            row[f'pts_within_{threshold}px'] = _ratio(len(hits), len(present))
            row[f'jaccard_{threshold}px'] = _ratio(right, len(present) + len(claims) - right)
        row['pts_within'] = _average([row[f'pts_within_{threshold}px'] for threshold in (1, 2, 4, 8, 16)])
        row['average_jaccard'] = _average([row[f'jaccard_{threshold}px'] for threshold in (1, 2, 4, 8, 16)])
        rows.append(row)
    names = rows[0] if rows else ()
    return {name: _average([row[name] for row in rows if not math.isnan(row[name])]) for name in names}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _share_near(pixels: set[tuple[int, int]], others: set[tuple[int, int]], tolerance: int) -> float:
    near = 0
    for y, x in pixels:
        near += any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in others)
    return near / len(pixels)


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
