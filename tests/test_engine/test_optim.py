"""Learning rates by samples seen, mixed precision, fused optimizers, clipping."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import nn

from mmliir.engine import AutocastOptimWrapper, DeferredMessageHub, DeferredOptimWrapper, SampleStepLR
from mmliir.engine.optim import without_unsupported_fused
from mmliir.engine.runner import CorrespondenceRunner
from mmliir.registry import OPTIMIZERS


def learning_rates(steps, **settings):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = SampleStepLR(optimizer, **settings)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return rates


def test_rate_changes_at_the_step_that_has_seen_the_boundarys_samples():
    rates = learning_rates(9, boundaries=[8, 20], factors=[1.0, 0.5, 0.25], samples_per_step=4)
    samples = [4 * step for step in range(9)]
    expected = [1e-3 if s < 8 else 5e-4 if s < 20 else 2.5e-4 for s in samples]
    assert rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('batch', [1, 2, 4])
def test_schedule_does_not_depend_on_the_batch_size(batch):
    rates = learning_rates(24 // batch, boundaries=[8, 16], factors=[1.0, 0.5, 0.1], samples_per_step=batch)
    by_sample = [rate for rate in rates for _ in range(batch)]
    assert by_sample == pytest.approx([1e-3] * 8 + [5e-4] * 8 + [1e-4] * 8, rel=1e-12)


def test_factors_are_of_the_base_rate_and_may_start_below_one():
    assert learning_rates(2, boundaries=[1], factors=[0.1, 1.0], samples_per_step=1) == pytest.approx(
        [1e-4, 1e-3]
    )


def test_paper_schedules_are_those_of_the_dossier():
    from train_cases import LIIR_CONFIG

    from mmliir.apis.configs import load_config
    from mmliir.apis.train import stage_configs

    def rate(cfg, samples):
        scheduler = {k: v for k, v in cfg.param_scheduler[0].items() if k != 'type'}
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
        built = SampleStepLR(optimizer, **{**scheduler, 'samples_per_step': 1})
        built.last_step = samples
        return built._get_value()[0]

    from pathlib import Path

    (_, first), (_, second) = stage_configs(load_config(LIIR_CONFIG), Path('work'))
    for samples, factor in [
        (399_999, 1),
        (400_000, 0.5),
        (799_999, 0.25),
        (800_000, 0.125),
        (2_000_000, 0.0625),
    ]:
        assert rate(first, samples) == pytest.approx(1e-3 * factor)
    for samples, factor in [
        (0, 1),
        (55_000, 0.9),
        (85_000, 0.75),
        (174_999, 0.5),
        (249_999, 0.25),
        (300_000, 0.0625),
    ]:
        assert rate(second, samples) == pytest.approx(1e-4 * factor)
    assert (first.train_dataloader.batch_size, second.train_dataloader.batch_size) == (24, 12)
    assert (first.train_cfg.max_iters, second.train_cfg.max_iters) == (30 * 71583 // 24, 5 * 71583 // 12)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(boundaries=[8], factors=[1.0], samples_per_step=1), '1 boundaries need 2 factors'),
        (dict(boundaries=[8, 4], factors=[1.0, 0.5, 0.2], samples_per_step=1), 'must increase'),
        (dict(boundaries=[8], factors=[1.0, 0.5]), 'global batch size, got None'),
    ],
)
def test_wrong_schedules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        learning_rates(1, **settings)


def test_autocast_runs_convolutions_in_bfloat16_inside_the_context_only():
    layer = nn.Conv2d(1, 1, 1)
    wrapper = AutocastOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1), device_type='cpu')
    assert isinstance(wrapper, OptimWrapper)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 1, 2, 2)).dtype == torch.bfloat16
    assert layer(torch.ones(1, 1, 2, 2)).dtype == torch.float32


def trained(settings, dtype=torch.float32, clip_grad=None, steps=20):
    """The weights after some steps of a small regression, and the wrapper."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3)).to(dtype)
    settings = without_unsupported_fused(settings, next(model.parameters()))
    wrapper = DeferredOptimWrapper(OPTIMIZERS.build({**settings, 'params': model.parameters()}), clip_grad=clip_grad)
    images = torch.randn(4, 3, 9, 9, dtype=dtype)
    for _ in range(steps):
        wrapper.update_params((model(images) - images[:, :1, 2:-2, 2:-2]).square().mean())
    return torch.cat([p.detach().flatten() for p in model.parameters()]), wrapper


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_a_fused_optimizer_takes_the_same_steps(dtype, tolerance):
    adam = dict(type='Adam', lr=1e-2, weight_decay=0.01)
    fused, wrapper = trained({**adam, 'fused': True}, dtype)
    assert wrapper.optimizer.param_groups[0]['fused'] is True
    plain, _ = trained({**adam, 'fused': False}, dtype)
    start, _ = trained(adam, dtype, steps=0)
    torch.testing.assert_close(fused, plain, rtol=0, atol=tolerance)
    assert (plain - start).abs().max() > 1e-2


@pytest.mark.parametrize(
    'settings, device, kept',
    [
        (dict(type='Adam', fused=True), 'cpu', True),
        (dict(type='SGD', fused=True), 'cpu', True),
        (dict(type='Adam', fused=True), 'meta', False),  # no kernel for this device
        (dict(type='RMSprop', fused=True), 'cpu', False),  # no such argument
    ],
)
def test_fused_is_left_out_where_it_cannot_be(settings, device, kept):
    resolved = without_unsupported_fused({**settings, 'lr': 0.5}, torch.zeros(1, device=device))
    assert resolved == ({**settings, 'lr': 0.5} if kept else {'type': settings['type'], 'lr': 0.5})


def test_every_config_that_trains_asks_for_a_fused_optimizer_and_waits_for_no_norm():
    from train_cases import ROOT

    from mmliir.apis.configs import load_config

    names = sorted((ROOT / 'configs').glob('*.py'))
    assert len(names) >= 4
    for path in names:
        wrapper = load_config(path).optim_wrapper
        assert wrapper.optimizer.get('fused') is True, path
        assert wrapper.type in ('DeferredOptimWrapper', 'AutocastOptimWrapper'), path


def test_clipping_logs_the_norm_and_clips_as_mmengine_does():
    hub = DeferredMessageHub.get_instance('clipping')
    ours, wrapper = trained(dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=0.05), steps=5)
    norms = hub.get_scalar('train/grad_norm').data[0].tolist()
    theirs_hub = MessageHub.get_instance('clipping-theirs')
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3))
    theirs = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), clip_grad=dict(max_norm=0.05))
    images = torch.randn(4, 3, 9, 9)
    for _ in range(5):
        theirs.update_params((model(images) - images[:, :1, 2:-2, 2:-2]).square().mean())
    assert torch.equal(ours, torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert norms == theirs_hub.get_scalar('train/grad_norm').data[0].tolist() and min(norms) > 0.05
    assert isinstance(wrapper, DeferredOptimWrapper)


def test_an_optimizer_that_is_built_already_is_left_alone():
    """MMEngine takes objects in place of configs."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = CorrespondenceRunner.__new__(CorrespondenceRunner)
    runner.model = model
    wrapper = runner.build_optim_wrapper(dict(type='OptimWrapper', optimizer=optimizer))
    assert wrapper.optimizer is optimizer
