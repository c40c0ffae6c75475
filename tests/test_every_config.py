"""Every config that trains: two steps of every stage, saved, continued to the bit, and evaluated."""

import os
from pathlib import Path

import pytest
import torch
from train_cases import ROOT, tiny_for

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import evaluate
from mmliir.apis.train import train
from mmliir.testing.synthetic import generate_videos, write_davis_layout, write_youtube_vos_layout
from mmliir.utils.checkpoint import read_checkpoint

CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if not {'_base_', 'frozen'} & set(path.relative_to(ROOT).parts)
)


#: On real clips only these by default; with MMLIIR_TEST_ALL_CONFIGS=1 all.
RECIPES = [f'configs/{name}.py' for name in ('liir_r18_ytvos', 'liir_r18_ytvos_compat', 'mast_r18_ytvos')]


@pytest.fixture(scope='module')
def youtube_vos(tmp_path_factory):
    """Four generated videos in the layout of YouTube-VOS, all frames."""
    root = tmp_path_factory.mktemp('youtube_vos')
    write_youtube_vos_layout(root, generate_videos(range(4), num_frames=10, size=(32, 32)))
    return str(root)


@pytest.fixture(scope='module')
def davis(tmp_path_factory):
    """One generated video in the layout of DAVIS."""
    root = tmp_path_factory.mktemp('davis')
    write_davis_layout(root, generate_videos([90], num_frames=4, size=(32, 40)))
    return root


def run(config, work_dir, data, **arguments) -> Path:
    """Two steps of every stage; each is kept."""
    options = {
        **tiny_for(config),
        'train_cfg.max_iters': 2,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
    }
    return train(config, work_dir, options, data_root=data, **arguments)


def assert_equal(ours: Path, theirs: Path) -> None:
    first, second = (read_checkpoint(path) for path in (ours, theirs))
    assert set(first['state_dict']) == set(second['state_dict'])
    for name, value in second['state_dict'].items():
        assert torch.equal(first['state_dict'][name], value), name
    bank, other = first.get('feature_bank'), second.get('feature_bank')
    assert (bank is None) == (other is None)
    if bank:
        assert all(torch.equal(bank[key], other[key]) for key in ('features', 'video_ids'))
        assert all(bank[key] == other[key] for key in ('filled', 'next_slot', 'sample'))


def test_there_are_the_recipes_and_the_ablations():
    assert {f'configs/{name}_ytvos.py' for name in ('liir_r18', 'mast_r18')} <= set(CONFIGS)
    assert 'configs/liir_r18_ytvos_compat.py' in CONFIGS
    assert sum('ablations' in name for name in CONFIGS) >= 29


@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_saves_continues_to_the_bit_and_is_evaluated(name, youtube_vos, davis, tmp_path):
    check(ROOT / name, youtube_vos, davis, tmp_path)


@pytest.mark.real
@pytest.mark.parametrize('name', CONFIGS if os.environ.get('MMLIIR_TEST_ALL_CONFIGS') else RECIPES)
@pytest.mark.parametrize('clips', ['JPEGImages', 'Videos'])
def test_config_does_so_on_real_clips(name, clips, data_root, davis, tmp_path):
    if clips == 'Videos':
        pytest.importorskip('av')
    check(ROOT / name, str(data_root / 'train' / clips), davis, tmp_path)


def check(config: Path, videos: str, davis: Path, tmp_path: Path) -> None:
    """Two steps of each stage; the second again from the first one's checkpoint; a video of DAVIS."""
    whole = run(config, tmp_path / 'whole', videos)
    continued = run(config, tmp_path / 'cut', videos, resume=str(whole.with_name('iter_1.pth')))
    assert_equal(continued, whole)

    options = {key: value for key, value in tiny_for(config).items() if key.startswith('model.')}
    task = load_config(ROOT / 'configs' / '_base_' / 'tasks' / 'davis2017.py').task.to_dict()
    done = evaluate(config, whole, task, data_root=davis, out_dir=tmp_path / 'out', options=options)
    assert 0 <= done.result.metrics['jf_mean'] <= 1
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 4
