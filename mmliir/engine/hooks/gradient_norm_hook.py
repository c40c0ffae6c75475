"""Log how large the gradients are."""

import torch
from mmengine.hooks import Hook

from mmliir.registry import HOOKS


@HOOKS.register_module()
class GradientNormHook(Hook):
    """Log `grad_norm`, the L2 norm of all gradients together, as the optimizer is about to use them.

    Args:
        interval: Steps between measurements; each waits for the GPU, so it is that of the log.
    """

    def __init__(self, interval: int = 50):
        if interval < 1:
            raise ValueError(f'interval must be at least 1 step, got {interval}')
        self.interval = interval

    def before_train(self, runner):
        """Look at the gradients from inside the optimizer's step: after it they are gone."""
        optimizer = runner.optim_wrapper.optimizer

        def measure(*_):
            step = runner.iter + 1
            if step % self.interval and step != runner.max_iters:
                return
            gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            runner.message_hub.update_scalar('train/grad_norm', float(norm))

        self._handle = optimizer.register_step_pre_hook(measure)

    def after_train(self, runner):
        self._handle.remove()
