"""Stop when the loss or the weights are no longer numbers."""

import torch
import torch.distributed as dist
from mmengine.hooks import CheckpointHook, Hook

from mmliir.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the run, on all ranks, at a NaN or infinite loss or weight, before it is saved over a good checkpoint.

    The loss of every step counts, but is read only now and then: each look waits for the GPU and for all ranks. There
    is a look before every checkpoint.

    Args:
        interval: Steps between looks.
    """

    priority = 'HIGH'  # before the checkpoint hook

    def __init__(self, interval: int = 50):
        if interval < 1:
            raise ValueError(f'interval must be at least 1 step, got {interval}')
        self.interval = interval
        self._intervals = {interval}
        self._finite: torch.Tensor | None = None  # whether every loss since the last look was finite

    def before_train(self, runner):
        """Find out when checkpoints are due."""
        saving = [hook.interval for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        self._intervals = {self.interval, *(steps for steps in saving if steps > 0)}
        self._finite = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if outputs is None:
            return
        loss, step = outputs['loss'].detach(), runner.iter + 1
        finite = torch.isfinite(loss).all()
        self._finite = finite if self._finite is None else self._finite & finite
        if any(step % interval == 0 for interval in self._intervals) or step == runner.max_iters:
            self._look(runner, loss, step)

    def _look(self, runner, loss: torch.Tensor, step: int) -> None:
        """
        Raises:
            ValueError: On every rank, when any rank has met a loss or a weight that is no number.
        """
        with torch.no_grad():
            norms = torch.stack(torch._foreach_norm([p.detach().float() for p in runner.model.parameters()]))
            weights = torch.isfinite(norms).all()
            fine = torch.stack([self._finite.to(weights.device), weights]).int()
        if dist.is_initialized():
            dist.all_reduce(fine, op=dist.ReduceOp.MIN)
        losses_fine, weights_fine = (bool(flag) for flag in fine)
        self._finite = None
        if not (losses_fine and weights_fine):
            culprit = 'the weights are' if losses_fine else 'the loss was'
            raise ValueError(
                f'{culprit} not finite by step {step} (this rank\'s last loss: {float(loss):g}): stopped. The last '
                f'checkpoint in {runner.work_dir} is from before; try a lower learning rate, a larger temperature, or '
                '--precision float32'
            )
