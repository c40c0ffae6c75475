#!/usr/bin/env python
"""Print a config as it is run: inheritance, a stage's changes and --cfg-options resolved.

examples:
  python tools/misc/print_config.py configs/liir_r18_ytvos.py
  python tools/misc/print_config.py configs/liir_r18_ytvos.py --stage intra --cfg-options train_dataloader.batch_size=8
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction

from mmliir.apis.configs import load_config
from mmliir.apis.train import stage_configs
from mmliir.utils.console import run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--stage', metavar='NAME', help='resolve this stage (default: the config as written)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()

    def run() -> None:
        cfg = load_config(args.config, args.cfg_options)
        if args.stage is not None:
            stages = dict(stage_configs(cfg, Path('work_dirs') / Path(args.config).stem, args.cfg_options))
            if args.stage not in stages:
                raise ValueError(f'{args.config} has no stage {args.stage!r}; its stages are {", ".join(stages)}')
            cfg = stages[args.stage]
        print(cfg.pretty_text)

    return run_command('print_config.py', run)


if __name__ == '__main__':
    sys.exit(main())
