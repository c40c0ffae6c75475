"""A training set and a LIIR small enough for tests of training."""

import os
import subprocess
import sys
from pathlib import Path

from mmliir.apis.configs import load_config
from mmliir.testing.synthetic import generate_videos, write_frame_folders

ROOT = Path(__file__).resolve().parents[1]
LIIR_CONFIG = str(ROOT / 'configs' / 'liir_r18_ytvos.py')

#: The paper's config at a size that trains a step in milliseconds; all parts stay on.
TINY = {
    'model.backbone.base_channels': 4,
    'model.position_encoder.channels': 4,
    'model.position_encoder.size': (16, 16),
    'model.projection.in_channels': 16,
    'model.projection.out_channels': 8,
    'model.reconstruction_head.radius': 2,
    'model.inter.bank.num_frames': 5,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.dataset.pipeline.0.size': (32, 32),
    'train_dataloader.sampler.pairs_per_epoch': 7,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 2,
    'train_cfg.max_iters': 5,
}
COMPAT_CONFIG = str(ROOT / 'configs' / 'liir_r18_ytvos_compat.py')
MAST_CONFIG = str(ROOT / 'configs' / 'mast_r18_ytvos.py')
#: The recipe of LIIR_pytorch, and the baseline, as small.
TINY_COMPAT = {
    **TINY,
    'model.inter.projection.in_channels': 16,
    'model.inter.projection.out_channels': 6,
    'model.inter.reconstruction_head.radius': 1,
    'model.inter.bank.window_radius': 1,
    'model.compactness.threshold': 0.05,  # rows of 25 cells of an untrained encoder are flat
}
TINY_MAST = {
    name: value
    for name, value in TINY.items()
    if not name.startswith(('model.position_encoder.', 'model.inter.'))
}


def _without(options: dict, prefix: str) -> dict:
    return {name: value for name, value in options.items() if not name.startswith(prefix)}


def tiny_for(config) -> dict:
    """The options above that a config has a place for, whatever parts it is made of."""
    cfg = load_config(config).to_dict()
    options = {**TINY_COMPAT, 'model.inter.bank.points_per_frame': 2}

    def has(name: str) -> bool:
        value = cfg
        for key in name.split('.'):
            if isinstance(value, (list, tuple)):
                value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return value is not None

    kept = {name: value for name, value in options.items() if has(name)}
    return {**kept, 'train_dataloader.sampler.pairs_per_epoch': 7, 'train_dataloader.dataset.source.cache': None}


#: name -> config, options
RECIPES = {
    'liir_paper': (LIIR_CONFIG, TINY),
    'liir_compat': (COMPAT_CONFIG, TINY_COMPAT),
    'mast': (MAST_CONFIG, TINY_MAST),
}
#: Recipes of the bank that none of the configs has by itself.
BANK_RECIPES = {
    'liir_enqueue': (
        LIIR_CONFIG,
        {
            **TINY,
            'model.inter.bank.sample': 'enqueue',
            'model.inter.source': 'both',
            'model.inter.modulation.per': 'batch',
            'model.inter.momentum_scope': 'projection',
        },
    ),
    'liir_query': (LIIR_CONFIG, {**TINY, 'model.inter.bank.sample': 'query', 'model.inter.source': 'query'}),
}
#: The first stage alone, plain and with the encoder traced as for compiling it.
INTRA_RECIPES = {
    'liir_intra': (LIIR_CONFIG, _without(TINY, 'model.inter.')),
    'liir_intra_traced': (LIIR_CONFIG, {**_without(TINY, 'model.inter.'), 'compile': {'backend': 'eager'}}),
}
for _, _options in INTRA_RECIPES.values():
    _options.update({'model.inter': None, 'model.compactness': None})
#: The second stage alone: inter-video term and compactness from the first step.
ONE_STAGE = {**TINY, 'stages': None}


def write_training_videos(root) -> str:
    """Four videos of ten 32x32 frames as frame folders; returns the folder."""
    write_frame_folders(root, generate_videos(range(4), num_frames=10, size=(32, 32)))
    return str(root)


def as_arguments(options: dict) -> list[str]:
    """Options as the command line takes them."""
    return [f'{name}={str(value).replace(" ", "")}' for name, value in options.items()]


def environment() -> dict:
    """One thread, this checkout, no left-overs of a distributed run."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT')
    }
    paths = [str(ROOT), str(ROOT / 'tests'), kept.get('PYTHONPATH', '')]
    return {**kept, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(p for p in paths if p)}


def run_train(*arguments: str, cwd=ROOT, timeout: float = 120) -> subprocess.CompletedProcess:
    """`python tools/train.py ARGUMENTS` as a user types it."""
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'train.py'), *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
