"""Results of any benchmark as tables on the terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from mmliir.evaluation.functional.bootstrap import Interval
from mmliir.evaluation.metrics.results import BenchmarkResult, SequenceResult
from mmliir.evaluation.summary import intervals
from mmliir.evaluation.wording import coverage_text, metric_label, percent

MAX_ROWS = 40
NUM_WORST = 20
#: Metrics of a table; they fit into 80 columns beside a short name.
MAX_METRICS = 7


def worst_first(result: BenchmarkResult, metric: str | None = None) -> list[SequenceResult]:
    """The sequences, lowest headline (or another metric) first; those without a value last, ties in their order."""
    metric = metric or result.headline
    values = {id(row): row.metrics.get(metric, math.nan) for row in result.sequences}
    return sorted(result.sequences, key=lambda row: math.inf if math.isnan(values[id(row)]) else values[id(row)])


def result_table(result: BenchmarkResult, interval: Mapping[str, Interval] | None = None) -> Table:
    """A row a sequence, in per cent, and the data set's value with its 95 % interval last.

    Up to 40 sequences all stand there, in their order; of more, the 20 worst, and a line says so. Of the metrics it is
    the first 7.

    Args:
        result: Of any benchmark.
        interval: Metric -> interval; None computes them.

    Returns:
        The table; names are text and no markup.
    """
    interval = intervals(result) if interval is None else interval
    title = f'{result.benchmark} {result.split}, {coverage_text(result)} (in %, {result.metric_version})'
    shown, caption = list(result.sequences), []
    if len(shown) > MAX_ROWS:
        shown = worst_first(result)[:NUM_WORST]
        caption.append(f'the {NUM_WORST} worst of {len(result.sequences)} sequences; all are in per_sequence.csv')
    metrics = dict(list(result.metrics.items())[:MAX_METRICS])
    if len(metrics) < len(result.metrics):
        caption.append(f'{len(result.metrics) - len(metrics)} more metrics are in summary.json')
    if result.missing:
        caption.append(f'INCOMPLETE: {len(result.missing)} of the sequences could not be scored')
    table = Table(
        title=Text(title),
        caption=Text('\n'.join(caption)) if caption else None,
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title_justify='left',
        caption_justify='left',
    )
    table.add_column('sequence', overflow='fold', min_width=12)
    for name in metrics:
        table.add_column(Text(metric_label(name)), justify='right', no_wrap=True)
    for row in shown:
        table.add_row(Text(row.name), *(percent(row.metrics.get(name)) for name in metrics))
    for name, _ in result.missing:
        table.add_row(Text(f'{name} (missing)', style='dim'), *['–'] * len(metrics))
    table.add_section()
    table.add_row('data set', *(percent(value) for value in metrics.values()), style='bold')
    if any(math.isfinite(entry.low) for entry in interval.values()):
        # Under each other, so that seven metrics still fit into 80 columns.
        for end in ('low', 'high'):
            ends = (getattr(interval[name], end) if name in interval else None for name in metrics)
            label = '95 % from' if end == 'low' else 'to'
            table.add_row(Text(label, style='dim', justify='right'), *(Text(percent(v), style='dim') for v in ends))
    return table


def summary_table(results: Sequence[tuple[str, str, BenchmarkResult]]) -> Table:
    """Several benchmarks and protocols side by side: a row a model and benchmark, a column a protocol.

    Args:
        results: (model, protocol, result) of each; one of each model, benchmark and protocol.

    Returns:
        Headline metrics in per cent, ± half the 95 % interval; the metric's name and 'n of N' stand with the benchmark.

    Raises:
        ValueError: Nothing given, or two results for one place.
    """
    if not results:
        raise ValueError('a table of results needs one result at least')
    rows: dict[tuple[str, str, str, str], dict[str, BenchmarkResult]] = {}
    for model, protocol, result in results:
        # Parts of a data set are means over other sequences: they get rows of their own.
        key = (model, f'{result.benchmark} {result.split}', result.headline, coverage_text(result))
        row = rows.setdefault(key, {})
        if protocol in row:
            raise ValueError(f'two results for {model}, {result.benchmark} {result.split}, protocol {protocol}')
        row[protocol] = result
    protocols = list(dict.fromkeys(protocol for _, protocol, _ in results))
    models = list(dict.fromkeys(model for model, _, _ in results))
    title = 'in %, ± half the 95 % interval over sequences'
    if len(models) == 1:
        title = f'{models[0]}: {title}'
    caption = Text('* some of its sequences could not be scored') if any(r.missing for _, _, r in results) else None
    layout = dict(box=SIMPLE, padding=(0, 1, 0, 0), title_justify='left', caption_justify='left')
    table = Table(title=Text(title), caption=caption, **layout)
    if len(models) > 1:
        table.add_column('model', overflow='fold')
    for name in ('benchmark', 'metric', 'sequences'):
        table.add_column(name, overflow='fold')
    for protocol in protocols:
        table.add_column(Text(protocol), justify='right', no_wrap=True)
    for (model, benchmark, metric, coverage), row in rows.items():
        cells = [score_text(row[protocol]) if protocol in row else '' for protocol in protocols]
        head = [model] if len(models) > 1 else []
        coverage = coverage.replace(' sequences', '')
        table.add_row(*(Text(text) for text in (*head, benchmark, metric_label(metric), coverage)), *cells)
    return table


def score_text(result: BenchmarkResult, interval: Mapping[str, Interval] | None = None) -> str:
    """The headline in per cent, '61.2 ± 3.4' where there is an interval, with a * where sequences are missing."""
    interval = intervals(result) if interval is None else interval
    text = percent(result.metrics[result.headline])
    entry = interval.get(result.headline)
    if entry is not None and math.isfinite(entry.half):
        text += f' ± {percent(entry.half)}'
    return text + ('*' if result.missing else '')
