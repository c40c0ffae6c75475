"""`mmliir submit`: the archive that a benchmark's server takes, made and checked."""

import argparse
import sys
from pathlib import Path

_SPLITS = {'davis2017_test_dev': 'test-dev', 'youtube_vos2018': 'valid', 'youtube_vos2019': 'valid'}


def add_submit(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'submit',
        help="make, or check, the archive for a benchmark's server",
        description=(
            'Make the zip file that the server of a benchmark takes, and check it: every video and frame, sizes, '
            'indexed PNG, ids, nothing else in it. With --check alone, check one that is there.'
        ),
        epilog='example: mmliir submit davis2017_test_dev --pred work_dirs/masks --data-root data/DAVIS --out t.zip',
    )
    parser.add_argument('benchmark', choices=sorted(_SPLITS), help='whose server')
    parser.add_argument(
        '--data-root', type=Path, required=True, metavar='DIR', help="the benchmark's data, or a folder that holds it"
    )
    parser.add_argument('--split', metavar='NAME', help='default: test-dev of DAVIS, valid of YouTube-VOS')
    parser.add_argument('--pred', type=Path, metavar='DIR', help='predictions, <sequence>/<frame>.png')
    parser.add_argument('--out', type=Path, metavar='FILE', help='the zip file to write')
    parser.add_argument('--check', type=Path, metavar='FILE', help='look at this zip file, write nothing')
    parser.add_argument('--overwrite', action='store_true', help='replace the file --out')
    parser.set_defaults(run=_run_submit)


def _run_submit(args: argparse.Namespace) -> int:
    if (args.check is None) == (args.pred is None or args.out is None):
        raise ValueError('give --pred DIR and --out FILE to make an archive, or --check FILE alone')
    # Here, and not at the top: they bring the data sets and OpenCV, which `--help` does not wait for.
    from mmliir.datasets import DavisDataset, YouTubeVosDataset
    from mmliir.evaluation.benchmarks import find_data_of
    from mmliir.evaluation.submission import validate_submission, write_submission

    split = args.split or _SPLITS[args.benchmark]
    data_root = find_data_of(args.benchmark, args.data_root)
    if args.benchmark == 'davis2017_test_dev':
        dataset = DavisDataset(data_root, 2017, split)
    else:
        # What is stored are the sampled frames; whether all frames are at hand does not matter here.
        dataset = YouTubeVosDataset(data_root, int(args.benchmark[-4:]), split, frames='sampled')
    if dataset.num_published not in (None, len(dataset)):
        print(f'note: {len(dataset)} videos at hand, the server expects {dataset.num_published}', file=sys.stderr)
    if args.check is not None:
        problems = validate_submission(args.check, dataset)
        for problem in problems:
            print(problem)
        print(f'{args.check}: {f"{len(problems)} problems" if problems else "valid"}', file=sys.stderr)
        return 2 if problems else 0
    if args.out.exists() and not args.overwrite:
        raise ValueError(f'{args.out} is there already: name another file, or say --overwrite')
    written = write_submission(args.pred, dataset, args.out)
    print(f'written and checked: {written} ({len(dataset.names)} videos of {args.benchmark} {split})')
    return 0
