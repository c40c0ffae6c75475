"""Intersection over union of classes, from one confusion matrix over all frames of a data set.

Source: the behaviour of the evaluators of VIP (HCPLab-SYSU/ATEN `evaluate/test_parsing.py`, commit 2e4e54e;
Liusifei/UVC and ajabri/videowalk `eval_vip.py`), which the tests compare with to 1e-12. IoU_c = n_cc / (row_c +
column_c - n_cc), and mIoU is the mean over all classes that occur in the truth or in a prediction, background included.
"""

import math

import numpy as np

#: What a truth map holds where nothing is known; these pixels are in no count, whatever is predicted there.
VOID_ID = 255
_NUM_VALUES = 256


def joint_counts(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count the pixels of each pair of values.

    Args:
        prediction: (H, W) uint8.
        truth: (H, W) uint8.

    Returns:
        (256, 256) int64; entry [t, p] is the number of pixels where the truth is t and the prediction p.

    Raises:
        ValueError: The maps differ in shape or are not uint8.
    """
    for name, label_map in (('prediction', prediction), ('truth', truth)):
        if label_map.ndim != 2 or label_map.dtype != np.uint8:
            raise ValueError(f'{name} must be (H, W) uint8, got shape {label_map.shape} of {label_map.dtype}.')
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction {prediction.shape} and truth {truth.shape} must have the same shape (H, W).')
    codes = truth.astype(np.intp) * _NUM_VALUES + prediction
    counts = np.bincount(codes.reshape(-1), minlength=_NUM_VALUES * _NUM_VALUES)
    return counts.reshape(_NUM_VALUES, _NUM_VALUES).astype(np.int64, copy=False)


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore: int | None = VOID_ID
) -> np.ndarray:
    """Return the confusion matrix of two label maps.

    Args:
        prediction: (H, W) uint8 classes.
        truth: (H, W) uint8 classes.
        num_classes: C, background included.
        ignore: Value of the truth whose pixels are left out; None: there is none.

    Returns:
        (C, C) int64; entry [t, p] is the number of pixels of class t predicted as p.

    Raises:
        ValueError: A class that is not below C. (The official tools count such a prediction for another class, or end
            with an error of NumPy.)
    """
    counts = joint_counts(prediction, truth)
    if ignore is not None:
        counts[ignore] = 0
    for name, totals in (('truth', counts.sum(axis=1)), ('prediction', counts.sum(axis=0))):
        unknown = np.flatnonzero(totals[num_classes:]) + num_classes
        if unknown.size:
            shown = ', '.join(map(str, unknown[:5])) + (', ...' if unknown.size > 5 else '')
            raise ValueError(f'the {name} holds class {shown}; classes go from 0 to {num_classes - 1}')
    return counts[:num_classes, :num_classes].copy()


def intersection_and_union(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two (C,) int64 from a (C, C) confusion matrix: pixels in both maps, and pixels in either."""
    intersection = np.diag(confusion).copy()
    return intersection, confusion.sum(axis=0) + confusion.sum(axis=1) - intersection


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """Return (C,) float64 in [0, 1] from a (C, C) confusion matrix; NaN for a class that occurs nowhere."""
    intersection, union = intersection_and_union(confusion)
    iou = np.full(len(union), math.nan)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def mean_iou(confusion: np.ndarray) -> float:
    """Return the mean of `iou_per_class` over the classes that occur; NaN where none does."""
    iou = iou_per_class(confusion)
    known = ~np.isnan(iou)
    return float(iou[known].mean()) if known.any() else math.nan
