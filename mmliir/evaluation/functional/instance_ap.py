"""Average precision of instances with classes, as VIP defines it for parts of people.

Source: the behaviour of HCPLab-SYSU/ATEN `evaluate/test_inst_part_ap.py` (commit 2e4e54e) and 594422814/ContrastCorr
`eval_instance2.py` (commit 9b11794), which the tests compare with to 1e-9. Per class and threshold:

* each predicted instance takes the true instance of its class and frame with the largest IoU, and is right when that
  IoU is above (not at) the threshold. A true instance is not used up: several predictions may be right about one;
* predictions of all frames are sorted by score; of equal scores the later one comes first, which is what the tools do
  where their sort happens to be stable;
* AP is the area under the precision-recall curve made non-increasing, and recall counts all true instances.

What the tools do in odd cases is part of the number:

* A class with no true instance in the data set has AP 0 if it is never predicted, and NaN (0 / 0) if it is; both enter
  the mean over classes.
* Where an instance is listed but has no pixel, ContrastCorr's version drops all predictions of its class in its frame;
  the true instances still count. ATEN's version then pairs scores with the wrong instances or ends with an error, so
  that this rule is the one repeated here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .semantic import joint_counts

#: IoU above which a prediction is right; AP is the mean over these.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class InstanceMatches:
    """The predicted instances of one frame, each with its best true instance. N predictions, C classes.

    Attributes:
        classes: (N,) int64, each 1 .. C - 1.
        scores: (N,) float64.
        best_iou: (N,) float64, the largest IoU with a true instance of the same class; 0 where there is none.
        num_truth: (C,) int64, true instances of each class that have a pixel.
        dropped: Predictions left out because one of their class in this frame has no pixel.
    """

    classes: np.ndarray
    scores: np.ndarray
    best_iou: np.ndarray
    num_truth: np.ndarray
    dropped: int = 0


def match_instances(
    prediction: np.ndarray,
    predicted: Sequence[tuple[int, float]],
    truth: np.ndarray,
    true_classes: Mapping[int, int],
    num_classes: int,
) -> InstanceMatches:
    """Find the best true instance of each predicted one in a frame.

    Args:
        prediction: (H, W) uint8 ids, 0 = nothing.
        predicted: (class, score) of the ids 1, 2, ...; pixels of other ids belong to nothing.
        truth: (H, W) uint8 ids, 0 = nothing.
        true_classes: Id -> class; pixels of other ids belong to nothing.
        num_classes: C; the class 0 is the background, which has no instances.
    """
    counts = joint_counts(prediction, truth)
    true_area, predicted_area = counts.sum(axis=1), counts.sum(axis=0)
    num_truth = np.zeros(num_classes, dtype=np.int64)
    classes: list[int] = []
    scores: list[float] = []
    best: list[float] = []
    dropped = 0
    for class_id in range(1, num_classes):
        true_ids = [i for i, c in true_classes.items() if c == class_id and i != 0 and true_area[i]]
        num_truth[class_id] = len(true_ids)
        ids = [i for i, (c, _) in enumerate(predicted, start=1) if c == class_id]
        if not all(predicted_area[i] for i in ids):
            dropped += sum(bool(predicted_area[i]) for i in ids)
            continue
        classes += [class_id] * len(ids)
        scores += [predicted[i - 1][1] for i in ids]
        best += _best_iou(counts, ids, true_ids, predicted_area, true_area)
    return InstanceMatches(
        np.array(classes, dtype=np.int64), np.array(scores, dtype=np.float64), np.array(best), num_truth, dropped
    )


def _best_iou(counts, ids, true_ids, predicted_area, true_area) -> list[float]:
    if not ids or not true_ids:
        return [0.0] * len(ids)
    both = counts[np.ix_(true_ids, ids)]
    return (both / (true_area[true_ids][:, None] + predicted_area[ids][None] - both)).max(axis=0).tolist()


def average_precision_table(
    frames: Sequence[InstanceMatches], num_classes: int, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """Return AP of each class but the background at each threshold, over the frames of a data set.

    Args:
        frames: Of all frames, in order; the order matters among equal scores alone.
        num_classes: C.
        thresholds: K values of IoU.

    Returns:
        (C - 1, K) float64, see `average_precision`. A class without a true instance: 0 if it was never predicted, else
        NaN.
    """
    classes = np.concatenate([frame.classes for frame in frames])
    scores = np.concatenate([frame.scores for frame in frames])
    best = np.concatenate([frame.best_iou for frame in frames])
    num_truth = np.sum([frame.num_truth for frame in frames], axis=0)
    table = np.zeros((num_classes - 1, len(thresholds)))
    for class_id in range(1, num_classes):
        own = np.flatnonzero(classes == class_id)
        own = own[np.argsort(scores[own], kind='stable')[::-1]]
        table[class_id - 1] = [
            average_precision(best[own] > threshold, int(num_truth[class_id])) for threshold in thresholds
        ]
    return table


def average_precision(is_right: np.ndarray, num_truth: int) -> float:
    """Return the area under the precision-recall curve, with each precision raised to the largest at higher recall.

    Args:
        is_right: (N,) bool, the predictions from the highest score to the lowest.
        num_truth: Number of true instances, the denominator of recall.

    Returns:
        In [0, 1], or more than 1 where true instances are found more than once (recall counts each time, as the
        official tools do). 0 without predictions; NaN with predictions and without a true instance.
    """
    if not len(is_right):
        return 0.0
    if num_truth == 0:
        return math.nan
    right = np.cumsum(is_right)
    recall = np.concatenate(([0.0], right / num_truth, [1.0]))
    precision = np.concatenate(([0.0], right / np.arange(1, len(right) + 1), [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))
