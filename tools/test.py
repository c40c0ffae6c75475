#!/usr/bin/env python
"""Propagate a benchmark's first labels with a feature, write indexed PNGs, score them.

examples:
  python tools/test.py configs/liir_r18_ytvos.py CKPT --task davis2017 --data-root data/davis
  python tools/test.py configs/liir_r18_ytvos.py CKPT --task davis2016 --protocol crw --out work_dirs/crw
  python tools/test.py configs/frozen/raw_lab.py --task davis2016 --data-root data/davis2016
  bash tools/dist_test.sh configs/liir_r18_ytvos.py CKPT 8 --task vip --data-root data/vip

exit code: 0 every sequence was scored, 3 some could not be (they are named, the others are scored), 2 an error
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from mmliir.cli.common import EXIT_INCOMPLETE, ConfigOptions, add_encoder_options, positive, progress_bar
from mmliir.utils.console import run_command

TASKS = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'tasks'


def parse_args() -> argparse.Namespace:
    tasks = sorted(path.stem for path in TASKS.glob('*.py'))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', nargs='?', help="weights; 'untrained' for random ones; nothing for features without weights"
    )
    parser.add_argument('--task', required=True, choices=tasks, help='benchmark')
    parser.add_argument('--protocol', help="propagation protocol (default: the config's); a wrong name lists all")
    parser.add_argument(
        '--short-side', type=int, metavar='N', help='resize frames for the encoder; results keep their size'
    )
    parser.add_argument('--data-root', metavar='DIR', help="data of the benchmark (default: the task's)")
    parser.add_argument('--out', metavar='DIR', help='predictions and scores (default: under work_dirs)')
    parser.add_argument('--sequences', metavar='A,B', help='only these sequences')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's predictions in --out")
    add_encoder_options(parser)
    parser.add_argument('--seed', type=int, default=0, help='of untrained weights (default: 0)')
    parser.add_argument('--backend', choices=('mmliir', 'official'), default='mmliir', help='metric code')
    parser.add_argument('--jobs', type=positive, metavar='N', help='parallel work of the metric (default: all cores)')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={}, metavar='KEY=VALUE')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help='who started the processes, if several'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))

    def run() -> int:
        # Here, and not at the top: they bring PyTorch, which `--help` does not wait for.
        from mmengine.config import Config

        from mmliir.apis.evaluate import default_jobs, evaluate, refuse_nothing
        from mmliir.evaluation.sharding import current_shard
        from mmliir.evaluation.tables import result_table
        from mmliir.utils.env import peak_memory_gib

        task = Config.fromfile(str(TASKS / f'{args.task}.py')).task.to_dict()
        shard = current_shard(args.launcher)
        with progress_bar('scoring') as progress:
            result = evaluate(
                args.config,
                args.checkpoint,
                task,
                protocol=args.protocol,
                short_side=args.short_side,
                data_root=args.data_root,
                out_dir=args.out or default_out_dir(args),
                sequences=[name.strip() for name in args.sequences.split(',')] if args.sequences else None,
                precision=args.precision,
                compiled=args.compile,
                overwrite=args.overwrite,
                backend=args.backend,
                jobs=args.jobs or default_jobs(),
                seed=args.seed,
                options=args.cfg_options,
                progress=progress,
                shard=shard,
                strict=False,
            )
        refuse_nothing([(args.task, result)])
        code = EXIT_INCOMPLETE if result.missing else 0
        if not shard.is_main:
            return code
        if result.result is None:
            print(f'{args.task}: the truth is not public; make a submission with `mmliir submit`')
        else:
            Console(width=None if sys.stdout.isatty() else 120).print(result_table(result.result))
            print(f'protocol: {result.card.protocol}')
            for note in result.result.notes:
                print(f'note: {note}', file=sys.stderr)
        for name, reason in result.missing:
            print(f'not scored: {name}: {reason}', file=sys.stderr)
        print(f'predictions and scores.json: {result.out_dir}')
        print(f'peak memory of this process: {peak_memory_gib():.2f} GiB')
        return code

    return run_command('test.py', run)


def default_out_dir(args: argparse.Namespace) -> Path:
    """`work_dirs/<config>/<task>_<protocol>_<run>_<checkpoint>`: two checkpoints never share a folder."""
    from mmliir.apis.evaluate import UNTRAINED

    weights = 'frozen'
    if args.checkpoint:
        weights = f'{Path(args.checkpoint).resolve().parent.name}_{Path(args.checkpoint).stem}'
    if args.checkpoint == UNTRAINED:
        weights = f'{UNTRAINED}{args.seed}'
    protocol = args.protocol or 'default'
    if args.short_side:
        protocol += f'@{args.short_side}'
    return Path('work_dirs') / Path(args.config).stem / f'{args.task}_{protocol}_{weights}'


if __name__ == '__main__':
    sys.exit(main())
