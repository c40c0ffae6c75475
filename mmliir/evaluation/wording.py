"""How results are put into words: the same names and the same 'n of N' in tables, reports and on the terminal."""

import math

from mmliir.evaluation.functional.bootstrap import Interval
from mmliir.evaluation.metrics.results import BenchmarkResult

_LABELS = {
    'jf_mean': 'J&F',
    'j_mean': 'J',
    'f_mean': 'F',
    'j': 'J',
    'f': 'F',
    'miou': 'mIoU',
    'ap': 'AP',
    'ap_present': 'AP present',
    'average_jaccard': 'AJ',
    'pts_within': 'δ avg',
    'occlusion_accuracy': 'OA',
}

_STARTS = {'pck': 'PCK', 'ap@': 'AP@', 'ap_': 'AP ', 'iou_': 'IoU ', 'pts_within_': '< ', 'jaccard_': 'Jaccard '}


def metric_label(name: str) -> str:
    """A metric as people write it: 'jf_mean' is 'J&F', 'j_recall' is 'J recall', 'iou_hat' is 'IoU hat'."""
    if name in _LABELS:
        return _LABELS[name]
    if name.startswith(('j_', 'f_')):
        return f'{name[0].upper()} {name[2:].replace("_", " ")}'
    for start, label in _STARTS.items():
        if name.startswith(start):
            return label + name[len(start) :].replace('_', ' ')
    return name.replace('_', ' ')


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in per cent, one decimal place; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return '–'
    text = f'{100 * value:+.1f}' if signed else f'{100 * value:.1f}'
    return '0.0' if text in ('-0.0', '+0.0') else text


def interval_text(interval: Interval, signed: bool = False) -> str:
    """'58.1 to 66.0', in per cent, or a dash."""
    if not math.isfinite(interval.low):
        return '–'
    return f'{percent(interval.low, signed)} to {percent(interval.high, signed)}'


def coverage_text(result: BenchmarkResult) -> str:
    """'3 of 9 sequences', with what published scores are means over where that is another number."""
    text = f'{len(result.sequences)} of {result.num_sequences_in_split} sequences'
    if result.num_published not in (None, result.num_sequences_in_split):
        text += f' (published scores: {result.num_published})'
    return text


def is_complete(result: BenchmarkResult) -> bool:
    """Whether every sequence of the list at hand is scored."""
    return not result.missing and len(result.sequences) == result.num_sequences_in_split


def incompleteness(result: BenchmarkResult) -> str | None:
    """What is lacking, in one sentence; None when every sequence that published scores have is scored."""
    name = f'{result.benchmark} {result.split}'
    if result.missing:
        total = len(result.sequences) + len(result.missing)
        return (
            f'Incomplete: {len(result.missing)} of the {total} sequences of this run could not be scored, so its '
            f'numbers are means over {coverage_text(result)} of {name} and compare with nothing.'
        )
    if len(result.sequences) != result.num_sequences_in_split:
        return f'Part of the data set: {coverage_text(result)} of {name}. Compare it with the same sequences only.'
    if result.num_published not in (None, len(result.sequences)):
        return f'Not the published list: {coverage_text(result)} of {name}. Do not compare with published scores.'
    return None
