#!/usr/bin/env python
"""Train and test the rows of an ablation table of LIIR, and print the paper's numbers with ours beside them.

Typed again after a kill it goes on; what is complete is not done again, and tables share trainings.

examples:
  python tools/analysis_tools/ablation_table.py --table 4 --list
  python tools/analysis_tools/ablation_table.py --table 4 --data-root data/youtube_vos --eval-root data/davis \\
      --out work_dirs/ablations --seeds 0 1
  python tools/analysis_tools/ablation_table.py --table 4 --base configs/liir_r18_clips_cpu.py --data-root data/clips \\
      --eval-root data/davis2016 --task davis2016 --short-side 240 --out work_dirs/ablations_cpu --seeds 0 1
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

from mmliir.apis.ablation import run_table
from mmliir.apis.ablation_report import print_result, print_rows, result_path
from mmliir.apis.ablation_rows import get_table, read_tables
from mmliir.apis.evaluate import default_jobs
from mmliir.cli.common import add_precision
from mmliir.propagation import PRESETS
from mmliir.utils.console import run_command

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TASKS = CONFIGS / '_base_' / 'tasks'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', required=True, metavar='NAME', help='4, 5a, 5b, 5c, 5d, A.1 or C.1')
    parser.add_argument('--data-root', metavar='DIR', help="training videos (default: the base config's)")
    parser.add_argument('--eval-root', metavar='DIR', help='the benchmark (default: looked for beside the videos)')
    parser.add_argument(
        '--task', choices=sorted(path.stem for path in TASKS.glob('*.py')), help="benchmark (default: the table's)"
    )
    parser.add_argument('--out', metavar='DIR', default='work_dirs/ablations', help='everything goes here')
    parser.add_argument('--base', metavar='CONFIG', help='apply the rows to this config (default: the main recipe)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N', help='of the runs (default: 0)')
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='only these rows; --list shows them')
    parser.add_argument('--protocol', choices=sorted(PRESETS), help="propagation protocol (default: the base config's)")
    parser.add_argument('--short-side', type=int, metavar='N', help='resize frames for the encoder when testing')
    add_precision(parser, 'float32', 'of training and encoding (default: float32); auto asks the machine')
    parser.add_argument('--jobs', type=int, default=default_jobs(), metavar='N', help='threads of the metric')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--train-only', action='store_true', help='train, test nothing')
    parser.add_argument('--list', action='store_true', help='show the rows and what they change, and stop')
    return parser.parse_args()


def main() -> int:
    args = parse_args()

    def run() -> None:
        tables = CONFIGS / 'ablations' / 'tables.yml'
        table = get_table(read_tables(tables), args.table)
        if args.list:
            print_rows(table, args.base, args.cfg_options)
            return
        task = Config.fromfile(str(TASKS / f'{args.task or table.task}.py')).task.to_dict()
        result = run_table(
            tables,
            args.table,
            args.out,
            task=None if args.train_only else task,
            data_root=args.data_root,
            eval_root=args.eval_root,
            base=args.base,
            seeds=args.seeds,
            rows=args.rows,
            protocol=args.protocol,
            short_side=args.short_side,
            precision=args.precision,
            options=args.cfg_options,
            jobs=args.jobs,
        )
        print_result(result)
        print('checkpoints: ' + str(Path(args.out) / 'stages'))
        if not args.train_only:
            print(f'table: {result_path(args.out, result)}.md, .svg, .json')

    return run_command('ablation_table.py', run)


if __name__ == '__main__':
    sys.exit(main())
