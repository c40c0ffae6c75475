"""Optimisation: clipping without waiting, mixed precision, fused optimizers, learning rates by samples seen."""

import bisect
from collections.abc import Sequence
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import Tensor

from mmliir.registry import OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS
from mmliir.utils.compute import computing_in


def without_unsupported_fused(settings: dict, parameter: Tensor) -> dict:
    """An optimizer's config, without `fused=True` where that cannot be.

    A fused optimizer updates all parameters by one kernel a chunk of them. Not every optimizer has one, nor every
    device.

    Args:
        settings: Config of an optimizer.
        parameter: One that is to be optimised, for its device and type.

    Returns:
        The config as it is, or a copy without `fused`; the updates are the same up to rounding.
    """
    if not settings.get('fused'):
        return settings
    trial = torch.nn.Parameter(torch.zeros(1, dtype=parameter.dtype, device=parameter.device))
    trial.grad = torch.zeros_like(trial)
    try:
        optimizer = settings['type'] if callable(settings['type']) else OPTIMIZERS.get(settings['type'])
        optimizer([trial], lr=1e-3, fused=True).step()
    except (TypeError, RuntimeError):  # no such argument, or no such kernel
        return {name: value for name, value in settings.items() if name != 'fused'}
    return settings


@OPTIM_WRAPPERS.register_module()
class DeferredOptimWrapper(OptimWrapper):
    """MMEngine's, but with `clip_grad` the norm of the gradients is not read at a step: the log reads it when due."""

    def _clip_grad(self) -> None:
        groups = self.optimizer.param_groups
        params = [p for group in groups for p in group['params'] if p.requires_grad and p.grad is not None]
        norm = self.clip_func(params, **self.clip_grad_kwargs) if params else None
        if norm is not None:  # clipping by value has none
            self.message_hub.update_scalar(f'train/{self.grad_name}', norm)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(DeferredOptimWrapper):
    """Convolutions in bfloat16 on CPU or GPU; affinities stay in float32. No loss scaling is needed.

    `mmliir.apis.train` puts it in the place of `DeferredOptimWrapper` where the run's precision is bfloat16.

    Args:
        optimizer: The optimizer.
        accumulative_counts: Steps whose gradients are added up before an update.
        clip_grad: As in MMEngine.
        device_type: 'cuda' or 'cpu'; None: 'cuda' when there is one.
    """

    def __init__(
        self, optimizer, accumulative_counts: int = 1, clip_grad: dict | None = None, device_type: str | None = None
    ):
        super().__init__(optimizer, accumulative_counts, clip_grad)
        self.device_type = device_type or ('cuda' if torch.cuda.is_available() else 'cpu')

    @contextmanager
    def optim_context(self, model):
        """Autocast around the forward pass."""
        with super().optim_context(model), computing_in('bfloat16', self.device_type):
            yield


class SampleStepParamScheduler(_ParamScheduler):
    """Multiply a parameter by a factor that changes when given numbers of samples have been seen.

    MAST and LIIR count samples, not steps (liir.md section 5.2), so the schedule does not depend on the batch size.

    Args:
        optimizer: The optimizer or its wrapper.
        param_name: The parameter.
        boundaries: Increasing numbers of samples at which the factor changes.
        factors: One more factor than boundaries; `factors[0]` holds before the first boundary.
        samples_per_step: Samples of one step over all ranks. None is filled in by the training script from the batch
            size and the number of ranks.
        begin, end, last_step, by_epoch, verbose: As in MMEngine; steps are iterations.
    """

    def __init__(
        self,
        optimizer,
        param_name: str,
        boundaries: Sequence[int],
        factors: Sequence[float],
        samples_per_step: int | None = None,
        begin: int = 0,
        end: int = int(1e9),
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ):
        if len(factors) != len(boundaries) + 1:
            raise ValueError(f'{len(boundaries)} boundaries need {len(boundaries) + 1} factors, got {len(factors)}')
        if by_epoch:
            raise ValueError('this schedule counts samples of iterations: set by_epoch=False')
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f'boundaries must increase, got {list(boundaries)}')
        if samples_per_step is None or samples_per_step < 1:
            raise ValueError(f'samples_per_step must be the global batch size, got {samples_per_step}')
        self.boundaries = list(boundaries)
        self.factors = list(factors)
        self.samples_per_step = samples_per_step
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    def _get_value(self):
        factor = self.factors[bisect.bisect_right(self.boundaries, self.last_step * self.samples_per_step)]
        return [base * factor for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class SampleStepLR(LRSchedulerMixin, SampleStepParamScheduler):
    """`SampleStepParamScheduler` of the learning rate."""
