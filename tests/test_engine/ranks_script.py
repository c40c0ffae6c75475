"""Train a tiny LIIR and keep what each step computed; run by `test_ranks.py`, alone or under torchrun.

usage: ranks_script.py RECIPE VIDEOS WORK_DIR BATCH_PER_RANK STEPS LAUNCHER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from recording import DOUBLE, recorded
from train_cases import BANK_RECIPES, INTRA_RECIPES, RECIPES

from mmliir.apis.train import train


def main(recipe, videos, work_dir, batch, steps, launcher):
    torch.set_default_dtype(torch.float64)
    config, options = {**RECIPES, **BANK_RECIPES, **INTRA_RECIPES}[recipe]
    options = {
        **options,
        **DOUBLE,
        'stages': None,  # the last stage alone: every part is on from the first step
        'train_dataloader.batch_size': int(batch),
        'train_cfg.max_iters': int(steps),
        'optim_wrapper.optimizer.lr': 1e-3,
        'custom_hooks': recorded(Path(work_dir) / 'records'),
    }
    train(config, work_dir, options, launcher=launcher, data_root=videos)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
