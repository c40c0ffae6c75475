"""A comparison of two evaluations as tables for the terminal."""

import math
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmliir.evaluation.compare import Comparison, verdict_text
from mmliir.evaluation.summary import Summary
from mmliir.evaluation.wording import interval_text, metric_label, percent

_MAX_ROWS = 40


def print_comparison(comparison: Comparison) -> None:
    """Print both tables and the verdict on stdout, and what a reader must know on stderr."""
    # A pipe has no width of its own: never fold or cut numbers there.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in (metric_table(comparison), sequence_table(comparison)):
        console.print(table)
    console.print(Text(verdict_text(comparison)))
    for warning in comparison.warnings:
        print(f'note: {warning}', file=sys.stderr)


def metric_table(comparison: Comparison) -> Table:
    """A row a metric: both values, the difference, its 95 % interval and how often its sign flips."""
    count = len(comparison.sequences)
    title = f'{comparison.benchmark} {comparison.split}, {count} sequences in both (in %, {comparison.metric_version})'
    table = _table(title, 'metric', *comparison.names, 'difference', '95 % interval', 'sign flips')
    for name, row in comparison.metrics.items():
        table.add_row(
            Text(metric_label(name)),
            percent(row.first),
            percent(row.second),
            percent(row.interval.value, signed=True),
            interval_text(row.interval, signed=True),
            '–' if math.isnan(row.sign_flips) else f'{100 * row.sign_flips:.1f} %',
        )
    return table


def sequence_table(comparison: Comparison) -> Table:
    """A row a sequence, the largest loss first; of many, the 20 largest losses and gains."""
    known = sorted((row for row in comparison.sequences if not math.isnan(row.difference)), key=lambda r: r.difference)
    rows = [*known, *(row for row in comparison.sequences if math.isnan(row.difference))]
    title = metric_label(comparison.headline)
    if len(rows) > _MAX_ROWS:
        title += f': the {_MAX_ROWS // 2} largest losses and gains of {len(rows)} sequences; --out has all'
        half = _MAX_ROWS // 2
        rows = [*known[:half], *known[max(half, len(known) - half) :]]
    table = _table(title, 'sequence', *comparison.names, 'difference')
    for row in rows:
        table.add_row(Text(row.name), percent(row.first), percent(row.second), percent(row.difference, signed=True))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=Text(title), box=SIMPLE, padding=(0, 1, 0, 0), title_justify='left')
    table.add_column(first, overflow='fold')
    for name in others:
        table.add_column(Text(name), justify='right')
    return table


def telling_names(runs: tuple[Summary, Summary], paths: tuple[Path, Path]) -> tuple[str, str]:
    """The shortest names that tell the runs apart: models, protocols, folders, or A and B."""
    cards = [run.card or {} for run in runs]
    folders = [(path if path.is_dir() else path.parent).resolve().name for path in paths]
    models = [str(card.get('model', '')) for card in cards]
    protocols = [str(card.get('protocol', '')) for card in cards]
    if all((*models, *protocols)) and models[0] != models[1] and protocols[0] != protocols[1]:
        return tuple(f'{model}, {protocol}' for model, protocol in zip(models, protocols, strict=True))
    for names in (
        models,
        protocols,
        folders,
    ):
        if all(names) and names[0] != names[1]:
            return names[0], names[1]
    return 'A', 'B'
