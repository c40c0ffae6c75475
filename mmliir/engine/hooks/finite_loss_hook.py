"""Stop when the loss is no longer a number."""

import math

from mmengine.hooks import Hook

from mmliir.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the run at a NaN or infinite loss, before it can be saved over a good checkpoint.

    Args:
        interval: Steps between looks; each look waits for the GPU. Checkpoint intervals should be multiples of it.
    """

    priority = 'HIGH'  # before the checkpoint hook

    def __init__(self, interval: int = 50):
        if interval < 1:
            raise ValueError(f'interval must be at least 1 step, got {interval}')
        self.interval = interval

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = runner.iter + 1
        if outputs is None or (step % self.interval and step != runner.max_iters):
            return
        loss = float(outputs['loss'].detach())
        if not math.isfinite(loss):
            raise ValueError(
                f'the loss is {loss} at step {step}: stopped. The last checkpoint in {runner.work_dir} is from before; '
                'try a lower learning rate, a larger temperature, or float32 instead of --amp'
            )
