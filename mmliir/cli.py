"""The `mmliir` command.

A subcommand is one function that adds its parser and names the function to run (`_add_score` and `_run_score`
are the form to copy); it is listed in `SUBCOMMANDS`. What it runs lives elsewhere: here are arguments in,
tables out.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmliir.evaluation.metrics import DavisMetric, Scores, SequenceScores
from mmliir.evaluation.protocol import read_run_card
from mmliir.utils.files import write_json_atomic
from mmliir.version import __version__

# Set to 1 to see where an error comes from.
TRACEBACK_VARIABLE = 'MMLIIR_TRACEBACK'
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
_BENCHMARK_YEARS = {'davis2017': 2017, 'davis2016': 2016}
# What a user can cause and repair. Anything else is a bug of ours and keeps its traceback.
_USER_ERRORS = (ValueError, OSError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0, 2 for an error of the user's, 130 when interrupted.

    Raises:
        SystemExit: From argparse, for `--help`, `--version` and arguments it does not know.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print('mmliir: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`mmliir ... | head`). Python would complain once more when it
        # flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except _USER_ERRORS as error:
        if os.environ.get(TRACEBACK_VARIABLE) == '1':
            raise
        print(f'mmliir: error: {" ".join(str(error).split())}', file=sys.stderr)
        return EXIT_ERROR


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, every subcommand in it."""
    parser = argparse.ArgumentParser(
        prog='mmliir',
        description='Learn pixel correspondence from raw video, and use it.',
        epilog=f'An error is one line; {TRACEBACK_VARIABLE}=1 shows where it comes from.',
    )
    parser.add_argument('--version', action='version', version=f'mmliir {__version__}')
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in SUBCOMMANDS:
        add(subparsers)
    return parser


def _add_score(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'score',
        help='score a folder of predicted masks',
        description='Score a folder of predicted masks, <pred>/<sequence>/<frame>.png, against the truth.',
        epilog='example: mmliir score davis2017 --pred work_dirs/masks --data-root data/DAVIS --out s.json',
    )
    parser.add_argument('benchmark', choices=sorted(_BENCHMARK_YEARS), help='which rules and which list')
    parser.add_argument(
        '--pred',
        type=Path,
        required=True,
        metavar='DIR',
        help='predictions: 8-bit PNG, pixel value = object id, size of the truth',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        required=True,
        metavar='DIR',
        help='data in the DAVIS layout: Annotations/480p, ImageSets',
    )
    parser.add_argument('--split', default='val', help='list of sequences (default: val)')
    parser.add_argument(
        '--sequences', type=_names, metavar='A,B', help='score only these (default: all of the split)'
    )
    parser.add_argument(
        '--backend',
        choices=('mmliir', 'official'),
        default='mmliir',
        help='whose code computes: ours, or the original davis2017-evaluation if installed (default: mmliir)',
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='threads (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write all numbers to this JSON file')
    parser.set_defaults(run=_run_score)


def _run_score(args: argparse.Namespace) -> int:
    if args.out is not None and args.out.is_dir():
        raise ValueError(f'--out {args.out} is a folder; give the name of a JSON file.')
    metric = DavisMetric(args.data_root, _BENCHMARK_YEARS[args.benchmark], args.split, args.sequences)
    with progress_bar('scoring') as report:
        scores = metric.score(args.pred, args.backend, args.jobs, report)
    if args.out is not None:
        write_json_atomic(args.out, {**scores.to_dict(), 'run_card': read_run_card(args.pred)})
    print_scores(scores)
    return 0


def print_scores(scores: Scores) -> None:
    """Print a table on stdout, a row a sequence and the data set's value last, and the notes on stderr."""
    title = f'{scores.benchmark} {scores.split} (in %, {scores.metric_version}, {scores.backend})'
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify='left')
    table.add_column('sequence', overflow='fold')
    for name in ('ids', 'J&F', 'J mean', 'recall', 'decay', 'F mean', 'recall', 'decay'):
        table.add_column(name, justify='right', no_wrap=True)
    for sequence in scores.sequences:
        table.add_row(sequence.name, str(len(sequence.objects)), *_cells(sequence))
    table.add_section()
    num_objects = sum(len(sequence.objects) for sequence in scores.sequences)
    table.add_row('mean over ids', str(num_objects), *_cells(scores), style='bold')
    # A pipe has no width of its own: never fold or cut numbers there.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for note in scores.notes:
        print(f'note: {note}', file=sys.stderr)


def _cells(scores: Scores | SequenceScores) -> list[str]:
    values = [scores.jf_mean, scores.j.mean, scores.j.recall, scores.j.decay]
    values += [scores.f.mean, scores.f.recall, scores.f.decay]
    return [f'{100 * value:.1f}' for value in values]


@contextlib.contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on a terminal; give the function (done, total) that moves it."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        handle = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(handle, completed=done, total=total)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]


SUBCOMMANDS: tuple[Callable[[argparse._SubParsersAction], None], ...] = (_add_score,)
