"""`mmliir score`: the scores of a folder of predictions."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mmliir.cli.common import EXIT_INCOMPLETE, names, positive, progress_bar
from mmliir.evaluation.protocol import read_run_card
from mmliir.utils.files import write_json_atomic

_EXAMPLES = """examples:
  mmliir score davis2017 --pred work_dirs/masks --data-root data/DAVIS --out s.json
  mmliir score jhmdb --pred work_dirs/tracks --data-root data

predictions: <pred>/<sequence>/<frame>.png, indexed, pixel value = id (DAVIS, YouTube-VOS, VIP; vip_instance also
<frame>.txt), or <pred>/<sequence>/tracks.npz (JHMDB, BADJA, TAP-Vid); see docs/datasets.md

exit code: 0 every sequence was scored, 3 some could not be (they are named, the others are scored), 2 an error or
nothing to score
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
    # Here, and not at the top: they bring the data sets and OpenCV, which `--help` does not wait for.
    from mmliir.evaluation.benchmarks import open_metric
    from mmliir.evaluation.scoring import score_all_there_is
    from mmliir.evaluation.tables import result_table

    if args.out is not None and args.out.is_dir():
        raise ValueError(f'--out {args.out} is a folder; give the name of a JSON file.')
    task = open_metric(args.benchmark, args.data_root, args.sequences, args.split)
    with progress_bar('scoring') as report:
        result, numbers = score_all_there_is(task, args.pred, args.backend, args.jobs, report)
    if args.out is not None:
        write_json_atomic(args.out, {**numbers, 'run_card': read_run_card(args.pred)})
    Console(width=None if sys.stdout.isatty() else 120).print(result_table(result))
    for note in result.notes:
        print(f'note: {note}', file=sys.stderr)
    for name, reason in result.missing:
        print(f'not scored: {name}: {reason}', file=sys.stderr)
    return EXIT_INCOMPLETE if result.missing else 0
