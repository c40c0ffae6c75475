"""`mmliir score`: the scores of a folder of predictions."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmliir.cli.common import EXIT_INCOMPLETE, names, positive, progress_bar
from mmliir.evaluation.protocol import read_run_card
from mmliir.utils.files import write_json_atomic

if TYPE_CHECKING:
    from mmliir.evaluation.metrics import Scores, SequenceScores

_EXAMPLES = """examples:
  mmliir score davis2017 --pred work_dirs/masks --data-root data/DAVIS --out s.json
  mmliir score jhmdb --pred work_dirs/tracks --data-root data

predictions: <pred>/<sequence>/<frame>.png, indexed, pixel value = id (DAVIS, YouTube-VOS, VIP; vip_instance also
<frame>.txt), or <pred>/<sequence>/tracks.npz (JHMDB, BADJA, TAP-Vid); see docs/datasets.md

exit code: 0 every sequence was scored, 3 some have no predictions (they are named, the others are scored), 2 an error
"""


def add_score(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'score',
        help='score a folder of predictions',
        description='Score a folder of predictions of any benchmark against the truth.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('benchmark', help='davis2016, davis2017, vip, jhmdb, ...: whose rules; a wrong name lists all')
    parser.add_argument('--pred', type=Path, required=True, metavar='DIR', help='predictions, a folder a sequence')
    parser.add_argument(
        '--data-root', type=Path, required=True, metavar='DIR', help='the data set, or a folder that holds it'
    )
    parser.add_argument('--split', help="list of sequences (default: the benchmark's)")
    parser.add_argument(
        '--sequences', type=names, metavar='A,B', help='score only these (default: all of the split)'
    )
    parser.add_argument(
        '--backend',
        choices=('mmliir', 'official'),
        default='mmliir',
        help='whose code computes: ours, or the original davis2017-evaluation if installed (default: mmliir)',
    )
    parser.add_argument('--jobs', type=positive, default=1, metavar='N', help='parallel work (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write all numbers to this JSON file')
    parser.set_defaults(run=_run_score)


def _run_score(args: argparse.Namespace) -> int:
    # Here, and not at the top: they bring PyTorch, which `--help` does not wait for.
    from mmliir.evaluation.benchmarks import open_metric
    from mmliir.evaluation.metrics import DavisMetric
    from mmliir.evaluation.scoring import drop_missing, score_task
    from mmliir.evaluation.tables import result_table

    if args.out is not None and args.out.is_dir():
        raise ValueError(f'--out {args.out} is a folder; give the name of a JSON file.')
    task = open_metric(args.benchmark, args.data_root, args.sequences, args.split)
    with progress_bar('scoring') as report:
        if isinstance(task.metric, DavisMetric):  # knows objects, too
            metric, missing = drop_missing(task, args.pred)
            result = metric.score(args.pred, args.backend, args.jobs, report)
        else:
            result = score_task(task, args.pred, args.backend, args.jobs, report, strict=False)
            missing = result.missing
    if args.out is not None:
        numbers = {**result.to_dict(), 'missing': [list(pair) for pair in missing]}
        write_json_atomic(args.out, {**numbers, 'run_card': read_run_card(args.pred)})
    if isinstance(task.metric, DavisMetric):
        print_scores(result)
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(result_table(result))
        for note in result.notes:
            print(f'note: {note}', file=sys.stderr)
    for name, reason in missing:
        print(f'not scored: {name}: {reason}', file=sys.stderr)
    return EXIT_INCOMPLETE if missing else 0


def print_scores(scores: 'Scores') -> None:
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


def _cells(scores: 'Scores | SequenceScores') -> list[str]:
    values = [scores.jf_mean, scores.j.mean, scores.j.recall, scores.j.decay]
    values += [scores.f.mean, scores.f.recall, scores.f.decay]
    return [f'{100 * value:.1f}' for value in values]
