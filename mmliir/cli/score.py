"""`mmliir score`: the scores of a folder of predictions."""

import argparse
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmliir.cli.common import names, progress_bar
from mmliir.evaluation.metrics import DavisMetric, Scores, SequenceScores
from mmliir.evaluation.protocol import read_run_card
from mmliir.utils.files import write_json_atomic

_BENCHMARK_YEARS = {'davis2017': 2017, 'davis2016': 2016}


def add_score(subparsers: argparse._SubParsersAction) -> None:
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
        '--sequences', type=names, metavar='A,B', help='score only these (default: all of the split)'
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
