"""The files of a finished evaluation: `summary.json` with everything, `per_sequence.csv` for a spreadsheet.

Both are a function of the predictions and the card: no time, no duration, no folder, no host name is in them, so that
an evaluation that was killed and went on, or ran in parts, gives the same bytes.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmliir.evaluation.functional.bootstrap import LEVEL, NUM_DRAWS, Interval, bootstrap_interval
from mmliir.evaluation.metrics.results import BenchmarkResult, SequenceResult
from mmliir.evaluation.protocol import ProtocolCard
from mmliir.evaluation.wording import is_complete
from mmliir.utils.files import read_text, write_json_atomic, write_text_atomic

SUMMARY_NAME = 'summary.json'
CSV_NAME = 'per_sequence.csv'
FORMAT = 'mmliir-summary-1'
# A spreadsheet takes a cell that starts so for a formula (OWASP, "CSV Injection"). The apostrophe is among them because
# it is what protects: only so can `read_csv` take exactly one away.
_PROTECTED = ('=', '+', '-', '@', '\t', '\r', "'")
# Finished evaluations that an error names.
_MOST_HINTS = 8
_MAX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Summary:
    """A finished evaluation.

    Attributes:
        result: All scores.
        card: What they depend on, `ProtocolCard.to_dict()`; None where it is not known.
        intervals: Metric -> its 95 % interval over sequences; metrics that are no ratios (AP) are not in it.
        versions: Name -> version of what it ran with; None where that is not told.
        command: What makes it again, one string an argument; of the whole run and not of a part of it.
    """

    result: BenchmarkResult
    card: Mapping[str, Any] | None
    intervals: Mapping[str, Interval]
    versions: Mapping[str, str] | None = None
    command: tuple[str, ...] | None = None


def ratio_arrays(sequences: Sequence[SequenceResult], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators of a metric, (S, G) float64 each.

    Raises:
        ValueError: The sequences have different numbers of groups.
    """
    sizes = sorted({len(part) for sequence in sequences for part in sequence.ratios[metric]})
    if len(sizes) != 1:
        raise ValueError(f'{metric}: expected one number of groups in all sequences, got {sizes}')
    parts = (np.array([sequence.ratios[metric][n] for sequence in sequences], dtype=np.float64) for n in (0, 1))
    return tuple(parts)


def intervals(result: BenchmarkResult, draws: int = NUM_DRAWS, seed: int = 0) -> dict[str, Interval]:
    """The 95 % interval of every metric that is a ratio, see `functional.bootstrap`.

    A metric whose ratios do not give its value has none, and a note.
    """
    if not result.sequences:
        return {}
    shared = [name for name in result.metrics if all(name in sequence.ratios for sequence in result.sequences)]
    return {name: _interval(result, name, draws, seed) for name in shared}


def _interval(result: BenchmarkResult, name: str, draws: int, seed: int) -> Interval:
    value = result.metrics[name]
    found = bootstrap_interval(*ratio_arrays(result.sequences, name), LEVEL, draws, seed)
    if np.isclose(found.value, value, rtol=0, atol=1e-6, equal_nan=True):
        return Interval(value, found.low, found.high, found.note)
    reason = f'no interval: the ratios of the sequences give {found.value:.4f}, the metric says {value:.4f}'
    return Interval(value, math.nan, math.nan, reason)


def make_summary(
    result: BenchmarkResult,
    card: ProtocolCard | Mapping[str, Any] | None,
    versions: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Summary:
    """Put the intervals to a result and its card."""
    card = card.to_dict() if isinstance(card, ProtocolCard) else card
    return Summary(result, card, intervals(result), versions, None if command is None else tuple(command))


def write_summary(out_dir: str | Path, summary: Summary) -> tuple[Path, Path]:
    """Write `summary.json` and `per_sequence.csv` into a folder, each whole or not at all; return their paths.

    The CSV is UTF-8 as RFC 4180 has it: a row a sequence, a column a metric (fractions, empty where there is no value),
    and the reason in the last column `missing` where a sequence could not be scored. Text that a spreadsheet would take
    for a formula (it starts with = + - @ tab or return) gets an apostrophe in front, and so does text that starts with
    an apostrophe; `read_csv` takes it away.
    """
    out_dir = Path(out_dir)
    values = to_dict(summary)
    return (
        write_json_atomic(out_dir / SUMMARY_NAME, values),
        write_text_atomic(out_dir / CSV_NAME, to_csv(summary.result)),
    )


def to_dict(summary: Summary) -> dict[str, Any]:
    """Everything as plain JSON values; None for NaN."""
    result = summary.result
    return {
        'format': FORMAT,
        'coverage': {
            'scored': len(result.sequences),
            'missing': len(result.missing),
            'in_split': result.num_sequences_in_split,
            'published': result.num_published,
            'complete': is_complete(result),
        },
        'intervals': {
            name: {
                'value': _plain(entry.value),
                'low': _plain(entry.low),
                'high': _plain(entry.high),
                'level': LEVEL,
                'draws': NUM_DRAWS,
                'over': 'sequences',
                'note': entry.note,
            }
            for name, entry in summary.intervals.items()
        },
        'versions': None if summary.versions is None else dict(summary.versions),
        'command': None if summary.command is None else list(summary.command),
        'card': None if summary.card is None else dict(summary.card),
        'result': result.to_dict(),
    }


def read_summary(path: str | Path) -> Summary:
    """Read what `write_summary` wrote; nothing in the file is executed.

    Args:
        path: The file, or the folder that it lies in.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is no summary, or one of a format that this version does not know.
    """
    path = Path(path)
    path = path / SUMMARY_NAME if path.is_dir() else path
    if not path.is_file():
        below = sorted(str(found.parent) for found in path.parent.glob(f'*/**/{SUMMARY_NAME}'))
        hint = f'. Below it are {", ".join(below[:_MOST_HINTS])}{", ..." if len(below) > _MOST_HINTS else ""}'
        raise FileNotFoundError(
            f'{path} not found: give the {SUMMARY_NAME} of a finished evaluation, or its folder{hint if below else ""}'
        )
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f'{path} has {path.stat().st_size} bytes: no {SUMMARY_NAME} is that big')
    text = read_text(path)
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not JSON ({error}); evaluate again') from error
    found = values.get('format') if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(f'{path} is not a summary: expected the format {FORMAT!r}, got {found!r}; evaluate again')
    try:
        return _from_dict(values)
    except KeyError as error:
        raise ValueError(f'{path} is damaged: the entry {error} is missing; evaluate again') from error
    except (TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(f'{path} is damaged ({error}); evaluate again') from error


def to_csv(result: BenchmarkResult) -> str:
    """The text of `per_sequence.csv`."""
    names = list(dict.fromkeys([*result.metrics, *(key for row in result.sequences for key in row.metrics)]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\r\n')
    writer.writerow([_protect(text) for text in ('sequence', *names, 'missing')])
    for row in result.sequences:
        cells = (_plain(row.metrics.get(name, math.nan)) for name in names)
        writer.writerow([_protect(row.name), *('' if cell is None else repr(cell) for cell in cells), ''])
    for name, reason in result.missing:
        writer.writerow([_protect(name), *[''] * len(names), _protect(reason)])
    return stream.getvalue()


def read_csv(path: str | Path) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Read a `per_sequence.csv`.

    Returns:
        (sequence -> metric -> fraction or NaN, sequence -> why it is missing).

    Raises:
        ValueError: It is no such file.
    """
    scores, missing = {}, {}
    try:
        text = Path(path).read_bytes().decode('utf-8-sig')  # line ends inside a cell stay
    except UnicodeDecodeError:
        text = read_text(path)
    rows = csv.reader(io.StringIO(text, newline=''), strict=True)
    header = [_unprotect(cell) for cell in next(rows, [])]
    if header[:1] != ['sequence'] or header[-1:] != ['missing']:
        raise ValueError(f"{path}: expected columns 'sequence', metrics, 'missing', got {header[:5]}")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f'{path}, line {rows.line_num}: expected {len(header)} cells, got {len(row)}')
        name = _unprotect(row[0])
        if row[-1]:
            missing[name] = _unprotect(row[-1])
        else:
            scores[name] = dict(_numbers(header[1:-1], row[1:-1]))
    return scores, missing


def _from_dict(values: Mapping[str, Any]) -> Summary:
    result = BenchmarkResult.from_dict(values['result'])
    if not result.metrics:
        raise ValueError('it has no metric')
    found = {
        name: Interval(*(_number(entry[key]) for key in ('value', 'low', 'high')), str(entry['note']))
        for name, entry in values['intervals'].items()
    }
    for what in ('card', 'versions'):
        if not isinstance(values[what], dict | None):
            raise ValueError(f'{what}: expected an object or null, got {type(values[what]).__name__}')
    command = values['command']
    if not isinstance(command, list | None):
        raise ValueError(f'command: expected a list or null, got {type(command).__name__}')
    return Summary(result, values['card'], found, values['versions'], None if command is None else tuple(command))


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no JSON number')


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _protect(text: str) -> str:
    return f"'{text}" if text.startswith(_PROTECTED) else text


def _unprotect(text: str) -> str:
    return text.removeprefix("'")


def _numbers(names: Sequence[str], cells: Sequence[str]) -> Iterator[tuple[str, float]]:
    for name, cell in zip(names, cells, strict=True):
        yield name, float(cell) if cell else math.nan
