"""Interrupted training: what is saved, and that a resumed run is the uninterrupted one, to the bit."""

import shutil
from pathlib import Path

import mmengine.runner.runner as engine_runner
import pytest
import torch
from mmengine.hooks import Hook
from train_cases import LIIR_CONFIG, ONE_STAGE, TINY, write_training_videos

from mmliir.apis.train import train
from mmliir.datasets import VideoPairDataset
from mmliir.registry import HOOKS
from mmliir.utils.checkpoint import read_checkpoint

STOP_HOOK = dict(type='_PowerCut', step=3)


class PowerCutError(Exception):
    pass


@HOOKS.register_module(name='_PowerCut', force=True)
class PowerCut(Hook):
    """The machine stops in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            raise PowerCutError


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    return write_training_videos(tmp_path_factory.mktemp('videos'))


@pytest.fixture(scope='module')
def whole_run(videos, tmp_path_factory):
    """Five steps without a break: (checkpoint, indices of the pairs read)."""
    read = []
    with pytest.MonkeyPatch.context() as patch:
        _record_reads(patch, read)
        path = train(
            LIIR_CONFIG,
            tmp_path_factory.mktemp('whole'),
            {**ONE_STAGE, 'randomness.seed': 3},
            data_root=videos,
        )
    return path, read


def _record_reads(patch, read):
    original = VideoPairDataset.__getitem__
    patch.setattr(
        VideoPairDataset, '__getitem__', lambda self, index: (read.append(index), original(self, index))[1]
    )


def assert_same(ours, theirs, where=''):
    """Equal to the bit, at any depth."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f'{where}/{key}')
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f'{where}/{index}')
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def cut_run(videos, work_dir, **options):
    with pytest.raises(PowerCutError):
        hooks = [dict(type='StepSeedHook'), dict(type='MemoryBankHook'), STOP_HOOK]
        train(LIIR_CONFIG, work_dir, {**ONE_STAGE, 'custom_hooks': hooks, **options}, data_root=videos)


def test_a_cut_and_resumed_run_ends_as_the_uninterrupted_one_to_the_bit(
    videos, whole_run, tmp_path, monkeypatch
):
    whole_path, whole_reads = whole_run
    cut_run(videos, tmp_path / 'cut', **{'randomness.seed': 3})
    assert (tmp_path / 'cut' / 'last_checkpoint').read_text().endswith('iter_2.pth')
    reads = []
    _record_reads(monkeypatch, reads)
    # no seed here: the run keeps that of its checkpoint
    path = train(LIIR_CONFIG, tmp_path / 'cut', ONE_STAGE, resume=True, data_root=videos)
    ours, theirs = read_checkpoint(path), read_checkpoint(whole_path)
    assert ours['meta']['iter'] == theirs['meta']['iter'] == 5
    assert ours['meta']['seed'] == 3
    assert 'inter.momentum_encoder.encoder.backbone.conv1.weight' in ours['state_dict']
    assert ours['feature_bank']['filled'] == 5 and ours['feature_bank']['next_slot'] == 0
    for part in ('state_dict', 'feature_bank', 'optimizer', 'param_schedulers'):
        assert_same(ours[part], theirs[part], part)
    # the pairs that were seen before the checkpoint are not decoded again
    assert len(whole_reads) == 10 and reads == whole_reads[4:]


def test_logged_losses_continue_in_the_resumed_run(videos, whole_run, tmp_path):
    cut_run(videos, tmp_path / 'logs', **{'randomness.seed': 3})
    path = train(LIIR_CONFIG, tmp_path / 'logs', ONE_STAGE, resume=True, data_root=videos)
    ours, theirs = (read_checkpoint(p)['message_hub']['log_scalars'] for p in (path, whole_run[0]))
    for name in ('train/loss', 'train/loss_reconstruction', 'train/loss_compact', 'train/negative_mass'):
        assert torch.equal(ours[name]['values'], theirs[name]['values']), name
        assert len(ours[name]['values']) == 5


def test_another_seed_gives_another_run(videos, whole_run, tmp_path):
    path = train(LIIR_CONFIG, tmp_path / 'other_seed', {**ONE_STAGE, 'randomness.seed': 4}, data_root=videos)
    name = 'encoder.backbone.conv1.weight'
    assert not torch.equal(
        read_checkpoint(path)['state_dict'][name], read_checkpoint(whole_run[0])['state_dict'][name]
    )


def test_a_checkpoint_holds_plain_data_and_resumes_after_a_move(videos, whole_run, tmp_path):
    checkpoint = torch.load(whole_run[0], weights_only=True)
    assert checkpoint['mmliir_format'] == 1 and checkpoint['meta']['stage'] == 'train'
    moved = tmp_path / 'moved.pth'
    shutil.copy(whole_run[0], moved)
    options = {**ONE_STAGE, 'train_cfg.max_iters': 6}
    path = train(LIIR_CONFIG, tmp_path / 'longer', options, resume=str(moved), data_root=videos)
    assert read_checkpoint(path)['meta']['iter'] == 6


@pytest.mark.parametrize(
    'schedule',
    [
        dict(type='SampleStepLR', boundaries=[10, 14], factors=[1.0, 0.5, 0.25], by_epoch=False),
        dict(type='MultiStepLR', milestones=[5, 7], gamma=0.5, by_epoch=False),
        dict(type='ExponentialLR', gamma=0.9, by_epoch=False),
    ],
    ids=lambda schedule: schedule['type'],
)
def test_a_run_continued_for_longer_equals_one_that_was_long_from_the_start(videos, tmp_path, schedule):
    options = {**ONE_STAGE, 'param_scheduler': [schedule], 'optim_wrapper.optimizer.lr': 1e-3}
    short = train(LIIR_CONFIG, tmp_path / 'short', {**options, 'train_cfg.max_iters': 5}, data_root=videos)
    longer = {**options, 'train_cfg.max_iters': 8}
    continued = train(LIIR_CONFIG, tmp_path / 'continued', longer, resume=str(short), data_root=videos)
    whole = train(LIIR_CONFIG, tmp_path / 'whole', longer, data_root=videos)
    ours, theirs = (read_checkpoint(path) for path in (continued, whole))
    assert ours['optimizer']['param_groups'][0]['lr'] == theirs['optimizer']['param_groups'][0]['lr'] < 1e-3
    for name, value in theirs['state_dict'].items():
        assert torch.equal(ours['state_dict'][name], value), name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'train_dataloader.batch_size': 3}, '2 samples a step .* this run has 3'),
        ({'param_scheduler.0.boundaries': [1, 2, 3, 4, 5, 6]}, 'schedule SampleStepLR of the run differs: boundaries'),
        ({'model.inter': None}, r'0 tensors of the model are not in it and \d+ of its tensors are not in the model'),
        ({'model.inter.bank.num_frames': 1}, 'a bank of 5 frames, this config allows 1'),
        ({'model.inter.bank.sample': 'enqueue'}, "sample 'step'.* this config .*'enqueue'"),
    ],
)
def test_a_run_is_continued_by_its_own_config_only(videos, whole_run, tmp_path, changes, message):
    off = tuple(f'{name}.' for name, value in changes.items() if value is None)
    kept = {name: value for name, value in ONE_STAGE.items() if not name.startswith(off or '\0')}
    options = {**kept, 'train_cfg.max_iters': 6, **changes}
    with pytest.raises(ValueError, match=message):
        train(LIIR_CONFIG, tmp_path / 'other', options, resume=str(whole_run[0]), data_root=videos)


def test_a_checkpoint_without_the_bank_of_the_model_is_not_resumed(videos, whole_run, tmp_path):
    checkpoint = read_checkpoint(whole_run[0])
    del checkpoint['feature_bank']
    torch.save(checkpoint, tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match='holds no feature bank.*load_from'):
        train(LIIR_CONFIG, tmp_path / 'other', ONE_STAGE, resume=str(tmp_path / 'bare.pth'), data_root=videos)


def test_the_norm_of_the_gradients_is_logged_and_is_that_of_all_parameters(videos, tmp_path):
    seen = []

    @HOOKS.register_module(name='_Norm', force=True)
    class Norm(Hook):
        def before_train(self, runner):
            def keep(*_):
                parts = [p.grad.flatten() for p in runner.model.parameters() if p.grad is not None]
                seen.append(torch.linalg.vector_norm(torch.cat(parts)).item())

            runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    hooks = [dict(type='StepSeedHook'), dict(type='MemoryBankHook'), dict(type='GradientNormHook', interval=2)]
    options = {**ONE_STAGE, 'custom_hooks': [*hooks, dict(type='_Norm')]}
    path = train(LIIR_CONFIG, tmp_path, options, data_root=videos)
    logged = read_checkpoint(path)['message_hub']['log_scalars']['train/grad_norm']['values'].tolist()
    assert logged == pytest.approx([seen[1], seen[3], seen[4]], rel=1e-5)  # steps 2, 4, and the last
    (log,) = tmp_path.rglob('*.log')
    assert 'grad_norm: ' in log.read_text()


def test_the_config_inside_a_checkpoint_is_never_executed(videos, whole_run, tmp_path):
    checkpoint = torch.load(whole_run[0], weights_only=True)
    marker = tmp_path / 'executed'
    checkpoint['meta']['cfg'] = f"open({str(marker)!r}, 'w').close()\nmodel = dict(type='LIIR')\n"
    torch.save(checkpoint, tmp_path / 'evil.pth')
    options = {**ONE_STAGE, 'train_cfg.max_iters': 6}
    train(LIIR_CONFIG, tmp_path / 'evil', options, resume=str(tmp_path / 'evil.pth'), data_root=videos)
    assert not marker.exists()


def test_a_failing_save_keeps_the_old_checkpoint_and_leaves_no_partial_file(
    videos, whole_run, tmp_path, monkeypatch
):
    assert not list(whole_run[0].parent.rglob('*.partial'))
    original = engine_runner.save_checkpoint
    saves = []

    def disk_full(checkpoint, path, **kwargs):
        saves.append(path)
        if len(saves) == 2:
            Path(path).write_bytes(b'PK\x03\x04 half of a checkpoint')
            raise OSError('No space left on device')
        original(checkpoint, path, **kwargs)

    monkeypatch.setattr(engine_runner, 'save_checkpoint', disk_full)
    same_name = {'default_hooks.checkpoint.filename_tmpl': 'newest.pth'}
    with pytest.raises(OSError, match='No space left'):
        train(LIIR_CONFIG, tmp_path / 'full', {**ONE_STAGE, **same_name}, data_root=videos)
    assert all(not str(path).endswith('newest.pth') for path in saves)  # never written in place
    assert read_checkpoint(tmp_path / 'full' / 'newest.pth')['meta']['iter'] == 2
    assert not list((tmp_path / 'full').rglob('*.partial'))


def test_weights_without_training_state_are_no_run_to_resume(videos, whole_run, tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(
        {'state_dict': read_checkpoint(whole_run[0])['state_dict'], 'meta': {'stage': 'train'}}, weights
    )
    with pytest.raises(ValueError, match='load_from'):
        train(LIIR_CONFIG, tmp_path / 'foreign', ONE_STAGE, resume=str(weights), data_root=videos)


@pytest.mark.parametrize('pointer', ['', '/elsewhere/cut/iter_2.pth', '/elsewhere/cut/iter_999.pth'])
def test_resume_finds_the_newest_checkpoint_when_its_pointer_is_damaged_or_moved(
    videos, whole_run, tmp_path, pointer, request
):
    work_dir = tmp_path / f'cut_{request.node.callspec.indices["pointer"]}'
    cut_run(videos, work_dir, **{'randomness.seed': 3})
    (work_dir / 'last_checkpoint').write_text(pointer)
    path = train(LIIR_CONFIG, work_dir, ONE_STAGE, resume=True, data_root=videos)
    assert_same(read_checkpoint(path)['state_dict'], read_checkpoint(whole_run[0])['state_dict'])


# --- stages ---


@pytest.fixture(scope='module')
def two_stages(videos, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('two_stages')
    return train(LIIR_CONFIG, work_dir, {**TINY, 'train_cfg.max_iters': 2}, data_root=videos)


def test_stage_one_has_no_bank_and_stage_two_starts_from_its_weights(videos, two_stages, tmp_path):
    first = read_checkpoint(two_stages.parent / 'stage_intra' / 'iter_2.pth')
    second = read_checkpoint(two_stages)
    assert first['meta']['stage'] == 'intra' and second['meta']['stage'] == 'inter'
    assert 'feature_bank' not in first and second['feature_bank']['filled'] == 4
    assert not any(name.startswith('inter.') for name in first['state_dict'])
    # two steps of Adam at 1e-4 do not lead far away from where stage 1 ended; scratch does not lead there
    name = 'encoder.backbone.layer4.1.conv1.weight'
    for prefix in ('', 'inter.momentum_encoder.'):
        moved = (second['state_dict'][prefix + name] - first['state_dict'][name]).abs().max()
        assert moved <= 2.1e-4


def test_resuming_a_complete_run_trains_nothing(videos, two_stages, monkeypatch):
    monkeypatch.setattr('mmliir.apis.train.CorrespondenceRunner.from_cfg', None)
    options = {**TINY, 'train_cfg.max_iters': 2}
    assert train(LIIR_CONFIG, two_stages.parent, options, resume=True, data_root=videos) == two_stages


def test_resuming_a_checkpoint_of_stage_one_goes_on_to_stage_two(videos, two_stages, tmp_path):
    first = str(two_stages.parent / 'stage_intra' / 'iter_2.pth')
    options = {**TINY, 'train_cfg.max_iters': 3}
    path = train(LIIR_CONFIG, tmp_path / 'on', options, resume=first, data_root=videos)
    assert path == tmp_path / 'on' / 'iter_3.pth'
    assert read_checkpoint(path)['meta']['stage'] == 'inter'
    assert read_checkpoint(tmp_path / 'on' / 'stage_intra' / 'iter_3.pth')['meta']['iter'] == 3


def test_resuming_a_checkpoint_of_stage_two_skips_stage_one(videos, two_stages, tmp_path):
    options = {**TINY, 'train_cfg.max_iters': 3}
    path = train(LIIR_CONFIG, tmp_path / 'second', options, resume=str(two_stages), data_root=videos)
    assert read_checkpoint(path)['meta']['iter'] == 3
    assert not (tmp_path / 'second' / 'stage_intra').exists()


def test_stage_two_alone_starts_from_stage_one_or_says_what_is_missing(videos, two_stages, tmp_path):
    options = {**TINY, 'train_cfg.max_iters': 2}
    with pytest.raises(ValueError, match=r"stage 'inter' starts from stage 'intra', which is not complete"):
        train(LIIR_CONFIG, tmp_path / 'alone', options, stage='inter', data_root=videos)
    shutil.copytree(two_stages.parent / 'stage_intra', tmp_path / 'again' / 'stage_intra')
    path = train(LIIR_CONFIG, tmp_path / 'again', options, stage='inter', data_root=videos)
    assert_same(read_checkpoint(path)['state_dict'], read_checkpoint(two_stages)['state_dict'])


def test_unknown_stage_is_named_with_those_there(videos, tmp_path):
    with pytest.raises(ValueError, match="no stage 'semantic'; its stages are intra, inter"):
        train(LIIR_CONFIG, tmp_path, TINY, stage='semantic', data_root=videos)


def test_a_new_run_does_not_take_an_earlier_runs_end_for_its_own(videos, whole_run, tmp_path):
    shutil.copytree(whole_run[0].parent, tmp_path / 'used')
    cut = {**ONE_STAGE, 'custom_hooks': [dict(type='_PowerCut', step=1)]}
    with pytest.raises(PowerCutError):
        train(LIIR_CONFIG, tmp_path / 'used', {**cut, 'randomness.seed': 8}, data_root=videos, overwrite=True)
    options = {**ONE_STAGE, 'randomness.seed': 8}
    path = train(LIIR_CONFIG, tmp_path / 'used', options, resume=True, data_root=videos)
    assert read_checkpoint(path)['meta']['seed'] == 8
