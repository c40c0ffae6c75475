"""The training loop: iterations over an endless stream of pairs, continued exactly where it stopped."""

from mmengine.runner import IterBasedTrainLoop

from mmliir.registry import LOOPS


@LOOPS.register_module()
class PairTrainLoop(IterBasedTrainLoop):
    """Train for `max_iters` steps; a resumed run starts at the next pair without decoding those already seen.

    Args:
        runner: The Runner.
        dataloader: Config or loader over a `PairSampler`.
        max_iters: Steps in all.
        val_begin, val_interval, dynamic_intervals: As in MMEngine; evaluation here comes from `PropagationEvalHook`.
    """

    def __init__(
        self, runner, dataloader, max_iters, val_begin=1, val_interval=1000, dynamic_intervals=None
    ):
        super().__init__(runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals)
        self.dataloader_iterator = None  # made in `run`, when the place to start from is known

    def run(self):
        """Train until `max_iters`."""
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        sampler = self.dataloader.batch_sampler.sampler
        sampler.seed = runner.seed  # a resumed run keeps the seed of its checkpoint
        sampler.resume_from(self._iter * self.dataloader.batch_sampler.batch_size)
        self.dataloader_iterator = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model
