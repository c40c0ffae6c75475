"""A table of ablations as text for people: the paper's columns, ours beside them, with spread and what is missing."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmliir.apis.ablation_rows import AblationTable, Row, resolve_row, resolve_stages
from mmliir.apis.configs import ABSENT
from mmliir.utils.files import write_json_atomic, write_text_atomic
from mmliir.visualization import interval_chart

_NOTHING = '–'
_PAPER_COLUMNS = {'davis2017': 'J&F', 'vip': 'VIP'}


@dataclass(frozen=True)
class RowScores:
    """Scores of one row with one seed, in per cent, and the version of the code that made them."""

    jf: float
    j: float
    f: float
    code_version: str


@dataclass(frozen=True)
class RowResult:
    """A row and what is there of it.

    Attributes:
        row: The row.
        changed: Dotted name -> (value in the base, value in the row).
        scores: Seed -> scores; a seed that was not tested is missing.
        trained: How many seeds have a complete training.
    """

    row: Row
    changed: Mapping[str, tuple]
    scores: Mapping[int, RowScores]
    trained: int


@dataclass(frozen=True)
class TableResult:
    """A whole table.

    Attributes:
        table: The table.
        base: Name of the config that the rows change.
        task: The benchmark of our column; None when nothing was tested.
        protocol: Of the base; rows that change it say so.
        schedule: Steps and pairs of each stage, for people.
        sequences: (tested, in the published split).
        seeds: Asked for.
        rows: In the order of the table.
    """

    table: AblationTable
    base: str
    task: str | None
    protocol: str
    schedule: str
    sequences: tuple[int, int]
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]


@dataclass(frozen=True)
class Spread:
    """Mean of `count` values and their standard deviation (n - 1 in the denominator; NaN for one value)."""

    mean: float
    deviation: float
    count: int

    def __str__(self) -> str:
        spread = '' if math.isnan(self.deviation) else f' ± {self.deviation:.1f}'
        return f'{self.mean:.1f}{spread}'


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None of no values."""
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values))


def gain(row: RowResult, first: RowResult) -> Spread | None:
    """J&F of a row minus that of another with the same seed; None when no seed has both."""
    return spread([scores.jf - first.scores[seed].jf for seed, scores in row.scores.items() if seed in first.scores])


def count_pairs_in_order(result: TableResult) -> tuple[int, int]:
    """Pairs of rows whose means come in the paper's order, and all pairs that the paper tells apart and we have."""
    points = []
    for entry in result.rows:
        own = spread([scores.jf for scores in entry.scores.values()])
        if own is not None and result.table.task in entry.row.paper:
            points.append((entry.row.paper[result.table.task], own.mean))
    pairs = [(a[0] - b[0], a[1] - b[1]) for a, b in combinations(points, 2) if a[0] != b[0]]
    return sum(paper * own > 0 for paper, own in pairs), len(pairs)


def describe_changes(changed: Mapping[str, tuple]) -> str:
    """What a row changes, in short: 'inter off, compactness.num_mixtures 1 (2)', the base's value in brackets."""
    parts = []
    for name, (before, after) in changed.items():
        if after == ABSENT:
            continue  # the inside of a part that is off, or of one that was replaced
        short = '.'.join(name.split('.')[1:] if name.startswith('model.') else name.split('.'))
        if after is None:
            parts.append(f'{short} off')
        else:
            parts.append(f'{short} {after}' + ('' if before == ABSENT else f' ({before})'))
    return ', '.join(parts) or _NOTHING


def table_cells(result: TableResult) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the printed table."""
    paper_tasks = [task for task in _PAPER_COLUMNS if any(task in entry.row.paper for entry in result.rows)]
    header = ['row', *(f'paper {_PAPER_COLUMNS[task]}' for task in paper_tasks), 'paper gain']
    header += ['our J&F', 'our gain', 'J', 'F', 'seeds', 'changes']
    first = result.rows[0]
    cells = []
    for entry in result.rows:
        line = [entry.row.label, *(_number(entry.row.paper.get(task)) for task in paper_tasks)]
        line.append(_paper_gain(entry, first, result.table.task))
        own = [spread([getattr(s, name) for s in entry.scores.values()]) for name in ('jf', 'j', 'f')]
        difference = None if entry is first else gain(entry, first)
        line += [_NOTHING if own[0] is None else str(own[0]), _signed(difference)]
        line += [_NOTHING if value is None else str(value) for value in own[1:]]
        cells.append([*line, _state(entry, result), describe_changes(entry.changed)])
    return header, cells


def table_notes(result: TableResult) -> list[str]:
    """What a reader of the numbers must know."""
    tested, published = result.sequences
    notes = [
        f'Paper: LIIR (CVPR 2022), Table {result.table.name}, {result.table.task} val; VIP val is mIoU. Ours: '
        + (f'{result.task}, {tested} of {published} sequences' if result.task else 'not tested')
        + f', protocol `{result.protocol}`, base `{result.base}`, {result.schedule}.',
        'Per cent; mean ± standard deviation over seeds. A gain is against the first row, seed by seed.',
    ]
    if result.task not in (None, result.table.task):
        notes.append(f'Our numbers are {result.task}, the paper\'s {result.table.task}: compare gains, not values.')
    done = sum(len(entry.scores) for entry in result.rows)
    expected = len(result.rows) * len(result.seeds)
    if done < expected:
        notes.append(f'INCOMPLETE: {done} of {expected} results ({len(result.rows)} rows, {len(result.seeds)} seeds).')
    right, pairs = count_pairs_in_order(result)
    if pairs:
        notes.append(f'{right} of {pairs} pairs of rows come in the paper\'s order.')
    versions = sorted({scores.code_version for entry in result.rows for scores in entry.scores.values()})
    if len(versions) > 1:
        notes.append(f'Tested with several versions of the code: {", ".join(versions)}.')
    return [*notes, *result.table.notes]


def to_markdown(result: TableResult) -> str:
    """The table and its notes as a Markdown page."""
    header, cells = table_cells(result)
    lines = [f'# Table {result.table.name}: {result.table.title}', '']
    rows = (header, ['---'] * len(header), *cells)
    lines += ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |' for line in rows]
    return '\n'.join([*lines, '', *(f'* {note}' for note in table_notes(result)), ''])


def to_svg(result: TableResult) -> str:
    """The paper's number and ours, a line a row."""
    groups = {}
    for entry in result.rows:
        own = spread([scores.jf for scores in entry.scores.values()])
        paper = entry.row.paper.get(result.table.task)
        groups[entry.row.label] = {
            f'paper, {result.table.task}': None if paper is None else (paper, 0.0),
            f'ours, {result.task}': None if own is None else (own.mean, own.deviation if own.count > 1 else 0.0),
        }
    return interval_chart(groups, x_label='J&F in per cent', title=f'Table {result.table.name}: {result.table.title}')


def result_path(out_dir: str | Path, result: TableResult) -> Path:
    """Where a table is written, without suffix: its name, the benchmark and the protocol."""
    name = f'table{result.table.name}_{result.task}_{result.protocol}'.lower()
    return Path(out_dir) / ''.join(letter if letter.isalnum() or letter in '_@+=-' else '' for letter in name)


def write_result(out_dir: str | Path, result: TableResult) -> list[Path]:
    """Write the table as .md, .svg (when there is a number of ours) and .json; return the paths."""
    path = result_path(out_dir, result)
    header, cells = table_cells(result)
    rows = {
        entry.row.name: {
            'paper': dict(entry.row.paper),
            'changed': {name: list(pair) for name, pair in entry.changed.items()},
            'scores': {str(seed): vars(scores) for seed, scores in entry.scores.items()},
        }
        for entry in result.rows
    }
    content = {
        'table': result.table.name, 'base': result.base, 'task': result.task, 'protocol': result.protocol,
        'schedule': result.schedule,
        'sequences': list(result.sequences), 'seeds': list(result.seeds), 'notes': table_notes(result), 'rows': rows,
    }  # fmt: skip
    written = [write_text_atomic(path.with_name(f'{path.name}.md'), to_markdown(result))]
    written.append(write_json_atomic(path.with_name(f'{path.name}.json'), json.loads(json.dumps(content, default=str))))
    if any(entry.scores for entry in result.rows):
        written.append(write_text_atomic(path.with_name(f'{path.name}.svg'), to_svg(result)))
    return written


def print_result(result: TableResult) -> None:
    """Print the table on stdout and its notes below it."""
    header, cells = table_cells(result)
    table = Table(title=f'Table {result.table.name}: {result.table.title}', box=SIMPLE, title_justify='left')
    for number, name in enumerate(header):
        words = number in (0, len(header) - 1)
        table.add_column(name, justify='left' if words else 'right', no_wrap=not words, overflow='fold')
    for line in cells:
        table.add_row(*line)
    console = Console(width=None if sys.stdout.isatty() else 200)  # a pipe has no width of its own
    console.print(table)
    for note in table_notes(result):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def print_rows(table: AblationTable, base: str | Path | None = None, options: dict | None = None) -> None:
    """Print the rows of a table, what each changes on a base, and whose training it is tested with."""
    stages, protocol = resolve_stages(base or table.base, options)
    shown = Table(title=f'Table {table.name}: {table.title}', box=SIMPLE, title_justify='left')
    for name in ('row', 'label', 'weights', 'changes', 'config'):
        shown.add_column(name, overflow='fold')
    for row in table.rows.values():
        weights = f'of {row.checkpoint}' if row.test_only else 'trained'
        changes = describe_changes(resolve_row(table, row, stages, protocol).changed)
        shown.add_row(row.name, row.label, weights, changes, row.config.name)
    Console(width=None if sys.stdout.isatty() else 200).print(shown)


def _state(entry: RowResult, result: TableResult) -> str:
    done, asked = len(entry.scores), len(result.seeds)
    if done or not entry.trained:
        return f'{done} of {asked}'
    return f'0 of {asked}, trained {entry.trained}'


def _paper_gain(entry: RowResult, first: RowResult, task: str) -> str:
    if entry is first or task not in entry.row.paper or task not in first.row.paper:
        return _NOTHING
    return f'{entry.row.paper[task] - first.row.paper[task]:+.1f}'


def _signed(value: Spread | None) -> str:
    if value is None:
        return _NOTHING
    return f'{value.mean:+.1f}' + ('' if math.isnan(value.deviation) else f' ± {value.deviation:.1f}')


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f'{value:.1f}'
