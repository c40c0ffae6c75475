"""Random draws of a step as a function of the run's seed and the step's number."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmliir.registry import HOOKS

_STRIDE = 1_000_003  # steps of two runs with neighbouring seeds draw from different streams


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed the model's generator before every step, the same on all ranks.

    The hidden colour channel, the bank's points and the position shifts of step i depend on (seed, i) alone: a resumed
    run continues as an uninterrupted one would have, and two ranks draw what one process draws.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if hasattr(model, 'seed_step'):
            model.seed_step(int(runner.seed or 0) * _STRIDE + runner.iter)
