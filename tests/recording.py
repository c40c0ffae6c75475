"""Train a tiny method in float64 and keep what each step computed."""

from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmliir.models import VideoPreprocessor
from mmliir.registry import HOOKS, MODELS

#: With these options a run computes in float64 (set PyTorch's default type to it, too) and is recorded.
DOUBLE = {'model.data_preprocessor.type': '_DoublePreprocessor'}


def recorded(folder) -> list[dict]:
    """The hooks of a recorded run."""
    return [dict(type='StepSeedHook'), dict(type='MemoryBankHook'), dict(type='_Recorder', folder=str(folder))]


@MODELS.register_module(name='_DoublePreprocessor')
class DoublePreprocessor(VideoPreprocessor):
    """Colours in float64."""

    def normalize(self, frames):
        return super().normalize(frames).double()


@HOOKS.register_module(name='_Recorder')
class Recorder(Hook):
    """Losses (mean over ranks) and gradients of every step, and the bank after it; each rank keeps a file."""

    priority = 'VERY_LOW'

    def __init__(self, folder):
        self.folder = Path(folder)
        self.steps = []
        self.gradients = None

    def before_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        assert all(p.dtype == torch.float64 for _, p in parameters)

        def keep(*_):
            self.gradients = {name: p.grad.clone() for name, p in parameters}

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        losses = {name: value.detach().clone() for name, value in outputs.items()}
        if dist.is_initialized():
            for value in losses.values():
                dist.all_reduce(value)
                value /= dist.get_world_size()
        bank = getattr(getattr(model, 'inter', None), 'bank', None)
        state = None if bank is None else bank.state_dict()
        self.steps.append(dict(losses=losses, gradients=self.gradients, bank=state))

    def after_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(steps=self.steps, weights=model.state_dict()), self.folder / f'rank_{runner.rank}.pt')
