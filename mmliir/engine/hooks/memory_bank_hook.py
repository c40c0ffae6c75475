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

    def before_train(self, runner):
        """Refuse a data set without negatives; say so when the bank holds frames more than once.

        Raises:
            ValueError: One video only: every entry of the bank would be of the query's own video.
        """
        bank = _bank(runner)
        lengths = getattr(runner.train_dataloader.dataset, 'num_frames', None)
        if bank is None or lengths is None:
            return
        if sum(frames > 1 for frames in lengths) < 2:  # a video of one frame gives no pair
            raise ValueError(
                'the inter-video part needs negatives from other videos, but pairs come from one video only: add '
                'videos, or switch the part off with --cfg-options model.inter=None'
            )
        if bank.num_frames > sum(lengths):
            runner.logger.warning(
                f'the bank holds {bank.num_frames} frames, the training data has {sum(lengths)}: frames will be in it '
                'more than once, encoded at different times'
            )

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
        if bank is None or not runner._resume:
            return
        if _KEY not in checkpoint:
            raise ValueError(
                'the checkpoint holds no feature bank, but the model has one: resume with the config that wrote it, or '
                'start from its weights with --cfg-options load_from=CKPT'
            )
        bank.load_state_dict(checkpoint[_KEY], next(runner.model.parameters()).device)
