"""Learning rates by samples seen, and mixed precision."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmliir.engine import AutocastOptimWrapper, SampleStepLR


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
