"""`tools/train.py` as a user types it."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from train_cases import (
    COMPAT_CONFIG,
    LIIR_CONFIG,
    ONE_STAGE,
    RECIPES,
    ROOT,
    TINY,
    TINY_COMPAT,
    as_arguments,
    environment,
    run_train,
    write_training_videos,
)

from mmliir.apis import train as train_api
from mmliir.apis.configs import load_config
from mmliir.apis.train import prepare_config, stage_configs, train
from mmliir.testing.synthetic import generate_videos
from mmliir.utils.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    return write_training_videos(tmp_path_factory.mktemp('videos'))


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs the script in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMLIIR_TRACEBACK', raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['tools/train.py', *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def error_line(result) -> str:
    """The error of a command that ended as it should: exit code 2, one line, no traceback."""
    code, _, err = result
    assert code == 2, err
    assert 'Traceback' not in err
    lines = [line for line in err.splitlines() if line.startswith('train.py: error: ')]
    assert len(lines) == 1 and err.rstrip().endswith(lines[0])
    return lines[0]


def test_both_stages_train_on_frame_folders_and_resume_continues(videos, tmp_path):
    work_dir = tmp_path / 'run'
    arguments = [LIIR_CONFIG, '--data-root', videos, '--work-dir', str(work_dir), '--cfg-options']
    done = run_train(*arguments, *as_arguments({**TINY, 'train_cfg.max_iters': 2}))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f'last checkpoint: {work_dir / "iter_2.pth"}'
    assert (work_dir / 'last_checkpoint').is_file() and (
        work_dir / 'stage_intra' / 'last_checkpoint'
    ).is_file()
    assert read_checkpoint(work_dir / 'iter_2.pth')['meta']['stage'] == 'inter'


def test_resume_continues_both_stages(videos, tmp_path, command):
    arguments = [LIIR_CONFIG, '--data-root', videos, '--work-dir', str(tmp_path / 'resumed')]
    assert command(*arguments, '--cfg-options', *as_arguments({**TINY, 'train_cfg.max_iters': 2}))[0] == 0
    options = as_arguments({**TINY, 'train_cfg.max_iters': 3})
    code, out, err = command(*arguments, '--resume', '--cfg-options', *options)
    assert code == 0, err
    assert out.splitlines()[-1] == f'last checkpoint: {tmp_path / "resumed" / "iter_3.pth"}'
    for folder in (tmp_path / 'resumed' / 'stage_intra', tmp_path / 'resumed'):
        assert read_checkpoint(folder / 'iter_3.pth')['meta']['iter'] == 3
        assert sorted(path.name for path in folder.glob('*.pth')) == ['iter_2.pth', 'iter_3.pth']


def test_it_trains_on_video_files(tmp_path, command):
    pytest.importorskip('av')
    from mmliir.visualization import write_video

    (tmp_path / 'clips').mkdir()
    for video in generate_videos(range(3), num_frames=10, size=(32, 48)):
        write_video(tmp_path / 'clips' / f'{video.name}.mp4', video.frames)
    options = as_arguments({**ONE_STAGE, 'train_cfg.max_iters': 2})
    code, out, err = command(
        LIIR_CONFIG,
        '--data-root',
        str(tmp_path / 'clips'),
        '--work-dir',
        str(tmp_path / 'files'),
        '--cfg-options',
        *options,
    )
    assert code == 0, err
    checkpoint = read_checkpoint(tmp_path / 'files' / 'iter_2.pth')
    assert checkpoint['feature_bank']['filled'] == 4


def test_amp_trains_with_finite_weights(videos, tmp_path, command):
    options = as_arguments({**ONE_STAGE, 'train_cfg.max_iters': 2})
    arguments = [
        LIIR_CONFIG,
        '--data-root',
        videos,
        '--work-dir',
        str(tmp_path / 'amp'),
        '--amp',
        '--seed',
        '5',
    ]
    code, _, err = command(*arguments, '--cfg-options', *options)
    assert code == 0, err
    checkpoint = read_checkpoint(tmp_path / 'amp' / 'iter_2.pth')
    assert checkpoint['meta']['seed'] == 5
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    assert "type='AutocastOptimWrapper'" in checkpoint['meta']['cfg']


def newest(work_dir: Path) -> tuple[float, str]:
    """When the last checkpoint of any stage was written, and its name; (0, '') before the first."""
    found = [(0.0, '')]
    for path in work_dir.rglob('iter_*.pth'):
        with suppress(FileNotFoundError):  # the run deletes old ones while we look
            found.append((path.stat().st_mtime, path.name))
    return max(found)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES)
def test_a_run_killed_at_random_ends_as_one_that_was_not_by_the_same_command(recipe, videos, tmp_path):
    """All stages, killed twice at places that differ from run to run; typed again until it ends."""
    work_dir = tmp_path / 'killed'
    config, tiny = RECIPES[recipe]
    options = {**tiny, 'train_cfg.max_iters': 24, 'default_hooks.checkpoint.max_keep_ckpts': 1}
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), config, '--resume', '--data-root', videos]
    command += ['--work-dir', str(work_dir), '--cfg-options', *as_arguments(options)]
    chance = random.Random()
    kills = 0
    with open(tmp_path / 'log', 'wb') as log:
        for attempt in range(10):
            process = subprocess.Popen(command, env=environment(), cwd=tmp_path, stdout=log, stderr=log)
            seen, written = newest(work_dir), 0
            until = chance.randint(1, 8) if attempt < 2 else None  # checkpoints of this attempt
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                now = newest(work_dir)
                written, seen = written + (now != seen), now
                if until is not None and written >= until:
                    time.sleep(chance.uniform(0.0, 0.1))
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            if process.wait(120) == 0:
                break
            assert process.returncode == -signal.SIGKILL, (tmp_path / 'log').read_text()[-2000:]
    assert process.returncode == 0 and kills >= 1
    whole = train(config, tmp_path / 'whole', options, data_root=videos)
    expected, ours = read_checkpoint(whole), read_checkpoint(work_dir / whole.name)
    for name, value in expected['state_dict'].items():
        assert torch.equal(ours['state_dict'][name], value), name
    for name in () if recipe == 'mast' else ('features', 'video_ids'):
        assert torch.equal(ours['feature_bank'][name], expected['feature_bank'][name])


# --- what goes wrong ---


def test_a_work_dir_that_holds_a_run_is_not_trained_over_by_mistake(videos, tmp_path):
    options = {**ONE_STAGE, 'train_cfg.max_iters': 2}
    first = train(LIIR_CONFIG, tmp_path / 'run', options, data_root=videos)
    before = first.read_bytes()
    with pytest.raises(ValueError, match=r'holds a run \(iter_2.pth\): --resume .*--work-dir .*--overwrite'):
        train(LIIR_CONFIG, tmp_path / 'run', {**options, 'randomness.seed': 8}, data_root=videos)
    assert first.read_bytes() == before
    again = train(LIIR_CONFIG, tmp_path / 'run', {**options, 'randomness.seed': 8}, data_root=videos, overwrite=True)
    assert again == first and first.read_bytes() != before


@pytest.mark.parametrize(
    ('config', 'key'),
    [(LIIR_CONFIG, 'model.projection.in_channels'), (COMPAT_CONFIG, 'model.inter.projection.in_channels')],
)
def test_a_part_that_does_not_fit_the_last_stage_is_named_before_the_first(config, key, videos, tmp_path):
    options = {**(TINY_COMPAT if config == COMPAT_CONFIG else TINY), key: 99}
    with pytest.raises(ValueError, match=f'{key} is 99, but the backbone has 16 channels'):
        train(config, tmp_path / 'run', options, data_root=videos)
    assert not list(tmp_path.rglob('*.pth'))


def test_a_complete_stage_is_named_when_the_run_goes_on(videos, tmp_path, capsys):
    options = {**TINY, 'train_cfg.max_iters': 2}
    train(LIIR_CONFIG, tmp_path, options, resume=True, data_root=videos)
    assert "stage 'intra' begins" in capsys.readouterr().err
    train(LIIR_CONFIG, tmp_path, options, resume=True, data_root=videos)
    text = capsys.readouterr().err
    assert "stage 'intra' is complete: " in text and "stage 'inter' is complete: " in text


def test_help_shows_examples_and_every_option(command):
    code, out, _ = command('--help')
    assert code == 0
    for text in ('examples:', '--data-root', '--resume', '--cfg-options', '--stage', '--amp', '--launcher'):
        assert text in out


def test_a_missing_data_root_is_one_line_for_a_user_in_a_shell(tmp_path):
    done = run_train(LIIR_CONFIG, '--data-root', 'nowhere', '--work-dir', str(tmp_path / 'w'), cwd=tmp_path)
    line = error_line((done.returncode, done.stdout, done.stderr))
    assert 'training videos not found: nowhere is not a folder' in line and 'docs/datasets.md' in line


def test_an_unknown_config_is_named_with_those_there(command):
    line = error_line(command(str(ROOT / 'configs' / 'liir_r18.py')))
    assert 'config not found' in line and 'liir_r18_ytvos.py' in line


def test_a_frozen_feature_cannot_be_trained(command):
    assert 'frozen feature' in error_line(command(str(ROOT / 'configs' / 'frozen' / 'raw_lab.py')))


@pytest.mark.parametrize(
    'option, says',
    [
        ('modle.backbone.base_channels=8', "did you mean 'model'"),
        ('model.backbone.base_chanels=8', "unexpected keyword argument 'base_chanels'"),
        ('model.backbone.type=ResNet19', 'ResNet19 is not in the'),
        ('model.reconstruction_head.loss.wieght=2', "unexpected keyword argument 'wieght'"),
        ('train_dataloader.batchsize=2', "unexpected keyword argument 'batchsize'"),
        ('train_dataloader.dataset.source.data_rot=x', "unexpected keyword argument 'data_rot'"),
        ('train_cfg.max_iter=2', "unexpected keyword argument 'max_iter'"),
        ('optim_wrapper.optimizer.learning_rate=2', "unexpected keyword argument 'learning_rate'"),
        ('param_scheduler.0.boundries=[1]', "unexpected keyword argument 'boundries'"),
        ('randomness.sed=2', "unexpected keyword argument 'sed'"),
        ('model.reconstruction_head.temperature=0', 'temperature must be'),
        ('model.reconstruction_head.border=wrap', "'wrap'"),
    ],
)
def test_a_mistyped_or_impossible_option_is_one_line_that_names_it(videos, tmp_path, command, option, says):
    options = [*as_arguments(ONE_STAGE), option]
    line = error_line(
        command(LIIR_CONFIG, '--data-root', videos, '--work-dir', str(tmp_path), '--cfg-options', *options)
    )
    assert says in line


def test_a_folder_without_videos_says_what_was_looked_for(tmp_path, command):
    (tmp_path / 'empty').mkdir()
    line = error_line(
        command(LIIR_CONFIG, '--data-root', str(tmp_path / 'empty'), '--work-dir', str(tmp_path))
    )
    assert 'no frame folders' in line and '.jpg' in line


def test_resuming_a_missing_broken_or_foreign_checkpoint_is_one_line(videos, tmp_path, command):
    (tmp_path / 'broken.pth').write_bytes(b'PK\x03\x04')
    torch.save({'state_dict': {'fc.weight': torch.zeros(2, 2)}}, tmp_path / 'foreign.pth')

    def resume(name):
        arguments = [LIIR_CONFIG, '--data-root', videos, '--work-dir', str(tmp_path / f'resume_{name}')]
        return error_line(command(*arguments, '--resume', name, '--cfg-options', *as_arguments(ONE_STAGE)))

    assert 'checkpoint not found' in resume('gone.pth')
    assert 'broken.pth' in resume('broken.pth')
    assert 'does not fit this model' in resume('foreign.pth')


def test_starting_from_foreign_weights_is_one_line(videos, tmp_path, command):
    torch.save({'state_dict': {'fc.weight': torch.zeros(2, 2)}}, tmp_path / 'foreign.pth')
    options = as_arguments({**ONE_STAGE, 'load_from': tmp_path / 'foreign.pth'})
    arguments = [LIIR_CONFIG, '--data-root', videos, '--work-dir', str(tmp_path), '--cfg-options', *options]
    assert 'does not fit this model' in error_line(command(*arguments))


def test_torchrun_is_asked_for_where_it_is_needed(videos, tmp_path, command, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    line = error_line(command(LIIR_CONFIG, '--data-root', videos, '--launcher', 'pytorch', '--work-dir', 'w'))
    assert 'torchrun' in line
    assert os.environ.get('LOCAL_RANK', '0') == '0'


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_on_gpus_the_ranks_are_known_before_a_stage_is_prepared(launcher, monkeypatch):
    """The schedule counts the samples of all ranks, in the first stage too."""
    started = []
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(train_api.torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(train_api, 'set_multi_processing', lambda **settings: None)
    monkeypatch.setattr(train_api, 'init_dist', lambda *args, **settings: started.append((args, settings)))
    monkeypatch.setattr(train_api.dist, 'is_initialized', lambda: bool(started))
    monkeypatch.setattr(train_api.dist, 'get_world_size', lambda: 4)
    cfg = load_config(LIIR_CONFIG)
    train_api.prepare_distributed(launcher, cfg.env_cfg)
    assert started == [((launcher,), {'backend': 'nccl'})]
    name, stage = stage_configs(cfg, Path('work'))[0]
    prepare_config(stage, precision='float32', launcher=launcher, auto_scale_lr=False)
    assert name == 'intra' and stage.param_scheduler[0].samples_per_step == 24 * 4
