#!/usr/bin/env python
"""Train a method from its config.

examples:
  python tools/train.py configs/liir_r18_ytvos.py --data-root data/youtube_vos
  python tools/train.py configs/liir_r18_ytvos.py --resume
  python tools/train.py configs/liir_r18_ytvos.py --cfg-options train_dataloader.batch_size=4 train_cfg.max_iters=100
  bash tools/dist_train.sh configs/liir_r18_ytvos.py 2
"""

import argparse
import os
import sys

from mmliir.cli.common import ConfigOptions, add_precision
from mmliir.utils.console import run_command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', metavar='DIR', help='logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument(
        '--data-root', metavar='DIR', help='training videos: YouTube-VOS, frame folders, or video files'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue the run in the work dir where it stopped, or continue this checkpoint',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a run that the work dir holds')
    parser.add_argument('--stage', metavar='NAME', help="run only this stage of the config's stages")
    add_precision(parser, None, "of the encoder (default: the config's, which is auto: bfloat16 where it is faster)")
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--seed', type=int, metavar='N', help='seed of the run (default: the config, 0)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help="changes to the config by dotted name; they win over the config's stages",
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = dict(args.cfg_options)
    if args.seed is not None:
        options['randomness.seed'] = args.seed

    def run() -> None:
        from mmliir.apis.train import train  # brings PyTorch, which `--help` does not wait for

        last = train(
            args.config,
            work_dir=args.work_dir,
            options=options,
            resume=True if args.resume == 'auto' else (args.resume or False),
            precision=args.precision,
            launcher=args.launcher,
            auto_scale_lr=args.auto_scale_lr,
            stage=args.stage,
            data_root=args.data_root,
            overwrite=args.overwrite,
        )
        print(f'last checkpoint: {last}')

    return run_command('train.py', run)


if __name__ == '__main__':
    sys.exit(main())
