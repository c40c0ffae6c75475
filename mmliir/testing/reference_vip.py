"""VIP's scores as slow loops over pixels and instances, written from the definition: what the fast ones are tested
with.

Plain Python on nested lists; nothing here shares code with `mmliir.evaluation.functional`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Map = Sequence[Sequence[int]]


def slow_iou_per_class(pairs: Sequence[tuple[Map, Map]], num_classes: int, ignore: int = 255) -> list[float]:
    """Return the IoU of each class over all frames; NaN for a class that is in no map.

    Args:
        pairs: (prediction, truth) of each frame, rows of classes.
        num_classes: C.
        ignore: Truth of pixels that are left out.
    """
    both = [0] * num_classes
    either = [0] * num_classes
    for prediction, truth in pairs:
        for predicted_row, true_row in zip(prediction, truth):
            for predicted, true in zip(predicted_row, true_row):
                if true == ignore:
                    continue
                for class_id in {int(predicted), int(true)}:
                    either[class_id] += 1
                if predicted == true:
                    both[int(true)] += 1
    return [b / e if e else math.nan for b, e in zip(both, either)]


@dataclass(frozen=True)
class SlowFrame:
    """One frame: rows of ids, `predicted[i]` the (class, score) of id i + 1, `true_classes` id -> class."""

    prediction: Map
    predicted: Sequence[tuple[int, float]]
    truth: Map
    true_classes: Mapping[int, int]


def slow_average_precision(frames: Sequence[SlowFrame], class_id: int, threshold: float) -> float:
    """Return AP of one class at one threshold of IoU."""
    num_truth = 0
    candidates: list[tuple[float, int, bool]] = []  # score, order of reading, right or wrong
    for frame in frames:
        true = [_pixels(frame.truth, i) for i, c in frame.true_classes.items() if c == class_id]
        true = [pixels for pixels in true if pixels]
        num_truth += len(true)
        listed = [
            (_pixels(frame.prediction, i), score)
            for i, (c, score) in enumerate(frame.predicted, start=1)
            if c == class_id
        ]
        if any(not pixels for pixels, _ in listed):
            continue
        for pixels, score in listed:
            iou = max((len(pixels & other) / len(pixels | other) for other in true), default=0.0)
            candidates.append((score, len(candidates), iou > threshold))
    if not candidates:
        return 0.0
    if not num_truth:
        return math.nan
    candidates.sort(key=lambda candidate: candidate[:2], reverse=True)
    points = []
    right = 0
    for seen, (_, _, is_right) in enumerate(candidates, start=1):
        right += is_right
        points.append((right / num_truth, right / seen))
    area, reached = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        area += (recall - reached) * max(precision for _, precision in points[n:])
        reached = recall
    return area


def slow_ap_table(frames: Sequence[SlowFrame], num_classes: int, thresholds: Sequence[float]) -> list[list[float]]:
    """Return AP, a row each class from 1 on, a column each threshold."""
    return [[slow_average_precision(frames, c, t) for t in thresholds] for c in range(1, num_classes)]


def _pixels(ids: Map, instance: int) -> set[tuple[int, int]]:
    return {(y, x) for y, row in enumerate(ids) for x, value in enumerate(row) if value == instance}
