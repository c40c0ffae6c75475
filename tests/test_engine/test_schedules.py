"""MMEngine's schedules through `param_scheduler` of our configs (liir.md A27): they count iterations."""

import math
from contextlib import nullcontext

import pytest
from mmengine.hooks import Hook
from train_cases import LIIR_CONFIG, ONE_STAGE, write_training_videos

from mmliir.apis.configs import load_config
from mmliir.apis.train import prepare_config, train
from mmliir.registry import HOOKS
from mmliir.utils.checkpoint import read_checkpoint

BASE = 1e-4


class PowerCutError(Exception):
    pass


@HOOKS.register_module(name='_RecordRates', force=True)
class RecordRates(Hook):
    """Remembers the learning rate that every step was taken with; the machine may stop before a step."""

    rates: list[float] = []

    def __init__(self, stop: int | None = None):
        self.stop = stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise PowerCutError
        RecordRates.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    return write_training_videos(tmp_path_factory.mktemp('videos'))


@pytest.fixture
def rates_of(videos, tmp_path):
    def run(schedule: list[dict], resume: bool = False, stop: int | None = None) -> list[float]:
        path = tmp_path / 'mine.py'
        path.write_text(
            f'_base_ = [{LIIR_CONFIG!r}]\nparam_scheduler = {schedule!r}\n'
            "custom_hooks = [dict(type='StepSeedHook'), dict(type='MemoryBankHook'),\n"
            f"                dict(type='_RecordRates', stop={stop})]\n"
        )
        RecordRates.rates = []
        with nullcontext() if stop is None else pytest.raises(PowerCutError):
            train(path, tmp_path / 'run', ONE_STAGE, data_root=videos, resume=resume)
        return RecordRates.rates

    return run


def cosine(step: int, steps: int, lowest: float) -> float:
    """Loshchilov and Hutter, ICLR 2017, Eq. 5."""
    return lowest + (BASE - lowest) * (1 + math.cos(math.pi * step / steps)) / 2


COSINE = [dict(type='CosineAnnealingLR', T_max=5, eta_min=1e-6)]
STEPS = [dict(type='MultiStepLR', milestones=[2, 4], gamma=0.5)]
WARM_UP = [
    dict(type='LinearLR', start_factor=0.25, begin=0, end=3),
    dict(type='CosineAnnealingLR', begin=3, T_max=2, eta_min=0.0),
]


COSINE_RATES = [cosine(step, 5, 1e-6) for step in range(5)]
STEP_RATES = [BASE * 0.5 ** ((step >= 2) + (step >= 4)) for step in range(5)]


@pytest.mark.parametrize(
    'schedule, expected',
    [
        (COSINE, COSINE_RATES),
        (STEPS, STEP_RATES),
        (WARM_UP, [0.25 * BASE, 0.625 * BASE, BASE, cosine(0, 2, 0.0), cosine(1, 2, 0.0)]),
    ],
    ids=['cosine', 'steps', 'warm-up'],
)
def test_rates_of_every_step_are_those_of_the_formula(rates_of, schedule, expected):
    assert rates_of(schedule) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    'schedule, expected', [(COSINE, COSINE_RATES), (STEPS, STEP_RATES)], ids=['cosine', 'steps']
)
def test_a_resumed_schedule_goes_on_where_it_stopped(rates_of, schedule, expected, tmp_path):
    first = rates_of(schedule, stop=3)
    assert read_checkpoint(tmp_path / 'run' / 'iter_2.pth')['param_schedulers']  # plain data, without unpickling
    rest = rates_of(schedule, resume=True)
    assert (len(first), len(rest)) == (3, 3) and first[2] == rest[0]
    assert first[:2] + rest == pytest.approx(expected, rel=1e-9)


def test_a_schedule_that_counts_epochs_is_refused():
    cfg = load_config(LIIR_CONFIG)
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[2], by_epoch=True)]
    with pytest.raises(ValueError, match='MultiStepLR.*by_epoch=True.*would never step.*iterations'):
        prepare_config(cfg, precision='float32', launcher='none', auto_scale_lr=False)
