"""`mmliir compare`: two finished evaluations, metric by metric and sequence by sequence."""

import argparse
from pathlib import Path


def add_compare(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'compare',
        help='compare two finished evaluations in pairs',
        description=(
            'Compare two finished evaluations of one benchmark on the sequences that both have: each metric with the '
            '95 % interval of the difference (paired bootstrap over sequences), and each sequence. Runs on other data '
            'or by other formulas are refused.'
        ),
        epilog='example: mmliir compare work_dirs/untrained work_dirs/trained --out comparison.html',
    )
    for name in ('A', 'B'):
        parser.add_argument(name.lower(), type=Path, metavar=name, help='summary.json of an evaluation, or its folder')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write a page to this .html file')
    parser.set_defaults(run=_run_compare)


def _run_compare(args: argparse.Namespace) -> int:
    # Here, and not at the top: they bring the data sets and OpenCV, which `--help` does not wait for.
    from mmliir.evaluation.compare import compare, write_comparison
    from mmliir.evaluation.compare_tables import print_comparison, telling_names
    from mmliir.evaluation.summary import read_summary

    if args.out is not None and args.out.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f"--out {args.out}: expected a file name that ends in '.html'")
    runs = read_summary(args.a), read_summary(args.b)
    comparison = compare(*runs, telling_names(runs, (args.a, args.b)))
    print_comparison(comparison)
    if args.out is not None:
        print(f'written: {write_comparison(args.out, comparison).path}')
    return 0
