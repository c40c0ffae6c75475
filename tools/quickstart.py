#!/usr/bin/env python
"""From nothing to a report in minutes: generate videos, train LIIR on them, evaluate before and after.

Exit code 1 when the trained encoder does not beat the untrained one and raw Lab colours by the required margin.
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

from mmliir.apis.quickstart import MARGIN, run_quickstart
from mmliir.utils.console import run_command

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/quickstart', metavar='DIR', help='everything goes here')
    parser.add_argument('--seed', type=int, default=0, help='of weights and training (default: 0)')
    parser.add_argument('--config', default=str(ROOT / 'configs' / 'liir_r18_quickstart.py'), help='config file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()

    def run() -> int:
        task = Config.fromfile(str(ROOT / 'configs' / '_base_' / 'tasks' / 'davis2017.py')).task.to_dict()
        result = run_quickstart(args.config, args.work_dir, task, args.seed, args.cfg_options)
        margin = result.trained - max(result.raw_lab, result.untrained)
        print(f'J&F: raw Lab {result.raw_lab:.1f}, untrained {result.untrained:.1f}, trained {result.trained:.1f}')
        print(f'margin {margin:+.1f} points, required {MARGIN:+.0f}: {"passed" if result.passed else "FAILED"}')
        print(f'report: {result.report}')
        return 0 if result.passed else 1

    return run_command('quickstart', run)


if __name__ == '__main__':
    sys.exit(main())
