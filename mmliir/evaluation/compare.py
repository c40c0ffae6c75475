"""Two finished runs on the same sequences, compared in pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmliir.evaluation.functional.bootstrap import Interval, PairedDifference, paired_difference
from mmliir.evaluation.metrics.results import SequenceResult
from mmliir.evaluation.protocol import card_differences
from mmliir.evaluation.report import Report, ScoreRow, ScoreTable, WrittenReport, write_report
from mmliir.evaluation.summary import Summary, ratio_arrays
from mmliir.evaluation.wording import coverage_text, incompleteness, interval_text, metric_label, percent

#: Percentile intervals over fewer sequences than this are too narrow.
_FEW = 20
_MAX_BARS = 60
# What two runs may differ in without a word: it is what is compared, or says nothing of the scores.
_IDENTITY = ('data', 'n_of_N', 'metric_version')


@dataclass(frozen=True)
class SequenceDifference:
    """The headline of one sequence in both runs; NaN where a run says nothing of it."""

    name: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two runs on the sequences that both have.

    Attributes:
        benchmark, split, metric_version: What both were scored by.
        names: What the runs are called.
        headline: The metric of `sequences`.
        metrics: Metric -> values on these sequences, and the difference second - first with its 95 % interval. Metrics
            that are no ratios (AP) have values only where both runs have all sequences, and no interval.
        sequences: In the order of the first run.
        only_first, only_second: Sequences that the other run lacks, left out.
        changes: (dotted key of the card, value of the first, of the second): what else differs.
        warnings: What a reader must know, in words.
    """

    benchmark: str
    split: str
    metric_version: str
    names: tuple[str, str]
    headline: str
    metrics: Mapping[str, PairedDifference]
    sequences: tuple[SequenceDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changes: tuple[tuple[str, Any, Any], ...]
    warnings: tuple[str, ...]


def compare(first: Summary, second: Summary, names: tuple[str, str] = ('A', 'B')) -> Comparison:
    """Compare two runs in pairs; each resample takes the same sequences of both.

    Raises:
        ValueError: They are not of one benchmark, split, metric version and data, or have no sequence in common.
    """
    _check_same(first, second, names)
    rows = [{row.name: row for row in run.result.sequences} for run in (first, second)]
    shared = [name for name in rows[0] if name in rows[1]]
    if not shared:
        raise ValueError(f'{names[0]} and {names[1]} have no scored sequence in common: there is nothing to compare')
    pairs = ([rows[0][name] for name in shared], [rows[1][name] for name in shared])
    headline = first.result.headline
    whole = len(shared) == len(rows[0]) == len(rows[1])
    return Comparison(
        benchmark=first.result.benchmark,
        split=first.result.split,
        metric_version=first.result.metric_version,
        names=names,
        headline=headline,
        metrics={
            name: _compare_metric(name, first, second, pairs, whole)
            for name in first.result.metrics
            if name in second.result.metrics
        },
        sequences=tuple(
            SequenceDifference(name, *(row.metrics.get(headline, math.nan) for row in (one, other)))
            for name, one, other in zip(shared, *pairs, strict=True)
        ),
        only_first=tuple(name for name in rows[0] if name not in rows[1]),
        only_second=tuple(name for name in rows[1] if name not in rows[0]),
        changes=tuple(row for row in card_differences(dict(first.card), dict(second.card)) if not _is_identity(row[0])),
        warnings=_warnings(first, second, names, len(shared)),
    )


def verdict_text(comparison: Comparison) -> str:
    """What the headline says, in one sentence, and no more than it says."""
    found = comparison.metrics[comparison.headline]
    label, (a, b) = metric_label(comparison.headline), comparison.names
    value = found.interval.value
    if not math.isfinite(value):
        return f'{label}: there is no difference to speak of, a value is missing.'
    said = f'{b} is {percent(value, signed=True)} points {label} against {a}'
    if not math.isfinite(found.interval.low):
        return f'{said}; {found.interval.note}.'
    clear = found.interval.low > 0 or found.interval.high < 0
    verdict = 'it excludes 0' if clear else 'it holds 0, so these sequences do not tell the two apart'
    return f'{said}, 95 % interval {interval_text(found.interval, signed=True)} over sequences: {verdict}.'


def comparison_report(comparison: Comparison) -> Report:
    """The page of a comparison."""
    (a, b), label = comparison.names, metric_label(comparison.headline)
    found = comparison.metrics[comparison.headline]
    ordered = sorted(
        comparison.sequences,
        key=lambda row: math.inf if math.isnan(row.difference) else row.difference,
    )
    column = f'{label} {b} − {a}'
    note = (
        'The sequences that lose most come first. A loss is a bar to the left; the longest bar fills its half. '
        f'{label} in per cent.'
    )
    if len(ordered) > _MAX_BARS:
        note += f' Bars of the {_MAX_BARS} first of {len(ordered)}; the table has all.'
    tables = [
        ScoreTable(
            'Metrics',
            ('metric', 'difference', '95 % interval', a, b, 'sign flips'),
            tuple(
                (
                    metric_label(name),
                    percent(row.interval.value, signed=True),
                    interval_text(row.interval, signed=True),
                    percent(row.first),
                    percent(row.second),
                    '–' if math.isnan(row.sign_flips) else f'{100 * row.sign_flips:.1f} %',
                )
                for name, row in comparison.metrics.items()
            ),
            note='In per cent and points. Paired percentile bootstrap: each resample takes the same sequences of both '
            'runs. Sign flips: share of the resamples in which the difference is 0 or has the other sign. Neither '
            'covers seeds or training, and with fewer than 20 sequences the interval is too narrow. Of decay, less is '
            'better.',
        ),
        ScoreTable(
            'Sequences',
            ('sequence', column, a, b),
            tuple((row.name, row.difference, row.first, row.second) for row in ordered),
            bars=(column,),
            note=note,
            max_bars=_MAX_BARS,
            centred=True,
        ),
    ]
    if comparison.changes:
        rows = tuple((key, _short(one), _short(other)) for key, one, other in comparison.changes)
        tables.append(ScoreTable('What else differs', ('setting', a, b), rows))
    left_out = [
        f'Only in {name}, left out: {", ".join(lost)}.'
        for name, lost in ((a, comparison.only_first), (b, comparison.only_second))
        if lost
    ]
    summary = [
        ScoreRow(name, {label: value if 0 <= value <= 1 or math.isnan(value) else None}, highlight=name == b)
        for name, value in ((a, found.first), (b, found.second))
    ]
    return Report(
        title=f'{a} and {b} on {comparison.benchmark} {comparison.split}',
        subtitle=f'{verdict_text(comparison)} {len(ordered)} sequences in both; metric {comparison.metric_version}.',
        warnings=comparison.warnings or None,
        summary_rows=summary,
        tables=tables,
        notes=left_out or None,
    )


def write_comparison(path: str | Path, comparison: Comparison) -> WrittenReport:
    """Write the page of a comparison as one self-contained HTML file."""
    return write_report(path, comparison_report(comparison))


def _check_same(first: Summary, second: Summary, names: tuple[str, str]) -> None:
    a, b = names
    for what in ('benchmark', 'split', 'metric_version', 'headline'):
        values = [getattr(run.result, what) for run in (first, second)]
        if values[0] != values[1]:
            advice = 'score both with one version' if what == 'metric_version' else 'compare runs of one benchmark'
            raise ValueError(
                f'{a} and {b} cannot be compared: {what.replace("_", " ")} is {values[0]!r} in {a} and {values[1]!r} '
                f'in {b}; {advice}'
            )
    options = [((run.card or {}).get('input') or {}).get('benchmark') or {} for run in (first, second)]
    if options[0].get('metric') != options[1].get('metric'):
        raise ValueError(
            f'{a} and {b} cannot be compared: the metric was asked for {options[0].get("metric")} in {a} and for '
            f'{options[1].get("metric")} in {b}; score both in one way'
        )
    data = [(run.card or {}).get('data') for run in (first, second)]
    for name, found in zip(names, data, strict=True):
        if not isinstance(found, dict) or 'sha256' not in found:
            raise ValueError(
                f'{name} does not say which data it saw (its card has no data fingerprint): evaluate it again'
            )
    if data[0]['sha256'] != data[1]['sha256']:
        seen = [f'{found.get("num_sequences")} sequences, {found.get("num_frames")} frames' for found in data]
        raise ValueError(
            f'{a} and {b} cannot be compared: they saw different data (fingerprint {str(data[0]["sha256"])[:12]}, '
            f'{seen[0]}, in {a}; {str(data[1]["sha256"])[:12]}, {seen[1]}, in {b}); evaluate both on the same sequences'
        )


def _compare_metric(
    name: str,
    first: Summary,
    second: Summary,
    pairs: tuple[list[SequenceResult], list[SequenceResult]],
    whole: bool,
) -> PairedDifference:
    if all(name in row.ratios for rows in pairs for row in rows):
        return paired_difference(*(ratio_arrays(rows, name) for rows in pairs))
    # Not a ratio: known for all sequences of a run together, and for no part of them.
    values = [run.result.metrics[name] if whole else math.nan for run in (first, second)]
    reason = 'no interval: it is no ratio of sums'
    return PairedDifference(*values, Interval(values[1] - values[0], math.nan, math.nan, reason), math.nan)


def _is_identity(key: str) -> bool:
    return key.split('.')[0] in _IDENTITY


def _warnings(first: Summary, second: Summary, names: tuple[str, str], shared: int) -> tuple[str, ...]:
    texts = [incompleteness(run.result) for run in (first, second)]
    if texts[0] == texts[1]:
        found = [f'Both runs: {texts[0]}'] if texts[0] else []
    else:
        found = [f'{name}: {text}' for name, text in zip(names, texts, strict=True) if text]
    for name, run in zip(names, (first, second), strict=True):
        if len(run.result.sequences) != shared:
            found.append(f'{name} has {coverage_text(run.result)}; {shared} of them are in both and are compared.')
    protocols = [str((run.card or {}).get('protocol')) for run in (first, second)]
    if protocols[0] != protocols[1]:
        found.insert(0, f'The protocols differ ({protocols[0]}, {protocols[1]}): a difference may be theirs.')
    inputs = [(run.card or {}).get('input') or {} for run in (first, second)]
    changed = [name for name in ('precision', 'compiled', 'affinity') if inputs[0].get(name) != inputs[1].get(name)]
    if changed:
        said = '; '.join(f'{name}: {inputs[0].get(name)}, {inputs[1].get(name)}' for name in changed)
        found.insert(0, f'The runs were computed in other ways ({said}): a small difference may be theirs.')
    if shared < _FEW:
        found.append(f'{shared} sequences are few: intervals over so few are too narrow.')
    return tuple(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + '...'
