"""The run stops at a number that is none, everywhere and before it is saved."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import CheckpointHook

from mmliir.engine.hooks.finite_loss_hook import FiniteLossHook


def a_runner(max_iters=1000, hooks=()):
    return SimpleNamespace(
        iter=0, max_iters=max_iters, model=torch.nn.Linear(2, 2), hooks=list(hooks), work_dir='work_dirs/run'
    )


def feed(hook, runner, losses):
    """Steps with these losses; the number of the step at which the hook stopped the run, or None."""
    hook.before_train(runner)
    for loss in losses:
        try:
            hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(loss)})
        except ValueError as error:
            return runner.iter + 1, str(error)
        runner.iter += 1
    return None


def test_finite_losses_go_on():
    assert feed(FiniteLossHook(2), a_runner(), [1.0, 0.5, 0.1, 0.0]) is None


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_a_loss_that_is_no_number_stops_at_the_next_look_even_if_later_ones_are(bad):
    step, text = feed(FiniteLossHook(5), a_runner(), [1.0, bad, 1.0, 1.0, 1.0, 1.0])
    assert step == 5 and 'the loss was not finite by step 5' in text and 'work_dirs/run' in text


def test_there_is_a_look_before_every_checkpoint_and_at_the_end():
    saving = CheckpointHook(interval=3, by_epoch=False)
    assert feed(FiniteLossHook(50), a_runner(hooks=[saving]), [1.0, float('nan'), 1.0, 1.0])[0] == 3
    assert feed(FiniteLossHook(50), a_runner(max_iters=4), [1.0, 1.0, 1.0, float('nan')])[0] == 4
    assert FiniteLossHook.priority == 'HIGH'  # so it comes before the hook that saves


def test_weights_that_are_no_numbers_stop_the_run_though_the_loss_is_one():
    runner = a_runner()
    with torch.no_grad():
        runner.model.bias[1] = float('nan')
    step, text = feed(FiniteLossHook(1), runner, [1.0])
    assert step == 1 and 'the weights are not finite' in text


def test_what_another_rank_met_stops_this_one(monkeypatch):
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'all_reduce', lambda tensor, op: tensor.zero_() if op == dist.ReduceOp.MIN else None)
    step, text = feed(FiniteLossHook(2), a_runner(), [1.0, 1.0])
    assert step == 2 and "this rank's last loss: 1" in text


def test_an_interval_below_one_step_is_refused():
    with pytest.raises(ValueError, match='at least 1 step, got 0'):
        FiniteLossHook(0)
