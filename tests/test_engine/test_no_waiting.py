"""Between two lines of the log, training never waits for the GPU: no value is read, no copy blocks."""

import sys

import pytest
import torch
from mmengine.hooks import Hook
from torch.overrides import _get_current_function_mode
from torch.overrides import _pop_mode as _pop_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode
from train_cases import BANK_RECIPES, RECIPES, write_training_videos
from waiting import NoWaiting, WaitError, models_on_meta

from mmliir.apis.train import train
from mmliir.engine.hooks import ProgressHook
from mmliir.registry import HOOKS

STEPS = 4  # the bank of 5 frames is full before the last


class Seen(Exception):
    """Enough steps: (steps, what was watched)."""


@HOOKS.register_module(name='_WatchWaiting')
class WatchWaiting(Hook):
    """Forbid waits from the first batch on, and end the run after some steps."""

    priority = 'VERY_LOW'

    def before_train_epoch(self, runner):
        self.mode = NoWaiting()
        self.mode.__enter__()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert outputs['loss'].is_meta and data_batch['inputs'].device.type == 'cpu'
        if runner.iter + 1 == STEPS:
            for hook in runner.hooks:
                if isinstance(hook, ProgressHook):
                    hook.after_train(runner)  # takes the bar away
            raise Seen(runner.iter + 1, self.mode)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    return write_training_videos(tmp_path_factory.mktemp('videos'))


@pytest.fixture(autouse=True)
def _modes():
    """A run that raises leaves its mode behind."""
    yield
    while _get_current_dispatch_mode() is not None:
        _pop_mode()
    while _get_current_function_mode() is not None:
        _pop_function_mode()


def run(recipe, videos, work_dir, changes=()):
    """All hooks of the config and the one above, on a device that has no values."""
    config, options = {**RECIPES, **BANK_RECIPES}[recipe]
    hooks = ['StepSeedHook', 'MemoryBankHook', 'FiniteLossHook', 'GradientNormHook', '_WatchWaiting']
    options = {
        **options,
        'stages': None,
        'train_cfg.max_iters': 1000,
        'train_dataloader.sampler.pairs_per_epoch': 1,  # no epoch ends at a step: its end is a line of the log
        'default_hooks.logger.interval': 50,
        'default_hooks.checkpoint.interval': 50,
        'custom_hooks': [dict(type=name) for name in hooks],
        **dict(changes),
    }
    with models_on_meta(), pytest.raises(Seen) as seen:
        train(config, work_dir, options, data_root=videos)
    return seen.value.args


@pytest.mark.parametrize('recipe', ['liir_paper', 'liir_compat', 'mast', 'liir_enqueue', 'liir_query'])
def test_a_step_waits_for_nothing(recipe, videos, tmp_path):
    steps, watch = run(recipe, videos, tmp_path)
    assert steps == STEPS and watch.seen > 100 * STEPS
    # Two frames of two pairs a step travel, as bytes; all else that travels are a few numbers.
    images = [(dtype, size) for dtype, size in watch.transfers if size >= 3 * 32 * 32 or dtype.is_floating_point]
    draws = 5 * 4 * 8 * 8 if recipe == 'liir_query' else 0  # frames, points, query locations
    assert images == [(torch.uint8, 2 * 2 * 3 * 32 * 32)] * STEPS
    assert all(size <= max(64, draws) for dtype, size in watch.transfers if dtype != torch.uint8)


@pytest.mark.parametrize('terminal', [False, True])
def test_gradients_are_clipped_and_progress_is_shown_without_waiting(terminal, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
    progress = dict(type='ProgressHook', line_interval=3600, bar_interval=3600)
    options = {
        'optim_wrapper.clip_grad': dict(max_norm=1.0),
        'custom_hooks': [dict(type='StepSeedHook'), progress, dict(type='_WatchWaiting')],
    }
    steps, _watch = run('mast', videos, tmp_path, options)
    assert steps == STEPS


@pytest.mark.parametrize(
    'work',
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.to('cpu'),
        lambda x: torch.arange(3).to(x.device),
        lambda x: x.new_tensor([1.0, 2.0, 3.0]),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.equal(x, x),
    ],
    ids=['float', 'bool', 'mask', 'nonzero', 'to host', 'to device', 'new_tensor', 'tensor', 'host index', 'equal'],
)
def test_the_watch_finds_every_kind_of_wait(work):
    x = torch.empty(3, device='meta')
    with pytest.raises(WaitError), NoWaiting():
        work(x)


def test_the_watch_lets_work_on_the_device_and_waiting_for_nothing_pass():
    x = torch.empty(3, 4, device='meta', requires_grad=True)
    with NoWaiting() as watch:
        rows = torch.arange(2).to('meta', non_blocking=True)
        (x[rows].masked_fill(x[:2] > 0, 0.0) * 2).sum().backward()
        assert int(torch.arange(3).sum()) == 3  # values of the host
    assert watch.seen > 5 and x.grad.is_meta
