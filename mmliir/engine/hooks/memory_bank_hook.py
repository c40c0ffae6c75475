"""Keep the feature bank and the momentum encoder up to date, and carry the bank through checkpoints."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmliir.registry import HOOKS

_KEY = 'feature_bank'


def _bare(model):
    return model.module if is_model_wrapper(model) else model


def _bank(runner):
    """The model's feature bank, or None."""
    return getattr(getattr(_bare(runner.model), 'inter', None), 'bank', None)


@HOOKS.register_module()
class MemoryBankHook(Hook):
    """After every step: momentum update, and the step's reference frames enter the bank (LIIR section 3.2).

    Does nothing for models without the inter-video term, so one config serves both stages.
    """

    priority = 'NORMAL'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = _bare(runner.model)
        if getattr(model, 'inter', None) is None:
            return
        with runner.optim_wrapper.optim_context(model):
            model.update_memory()

    def before_save_checkpoint(self, runner, checkpoint):
        bank = _bank(runner)
        if bank is not None:
            checkpoint[_KEY] = bank.state_dict()

    def after_load_checkpoint(self, runner, checkpoint):
        bank = _bank(runner)
        if bank is not None and _KEY in checkpoint and runner._resume:
            bank.load_state_dict(checkpoint[_KEY], next(runner.model.parameters()).device)
