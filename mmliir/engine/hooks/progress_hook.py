"""Progress of training with the loss and the time left."""

import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmliir.registry import HOOKS
from mmliir.utils.progress import ProgressBar


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show steps, loss, time per step and time left: a bar on a terminal, else a line now and then.

    Args:
        name: What is being done, in front of the bar.
        line_interval: Without a terminal: seconds between lines.
        bar_interval: On a terminal: seconds between looks at the loss, each of which waits for the GPU.
    """

    priority = 'VERY_LOW'

    def __init__(self, name: str = 'training', line_interval: float = 15.0, bar_interval: float = 1.0):
        self.name = name
        self.line_interval = line_interval
        self.bar_interval = bar_interval
        self._bar: ProgressBar | None = None

    def before_train(self, runner):
        self._start, self._first = time.monotonic(), runner.iter
        shown, intervals = is_main_process(), (self.line_interval, self.bar_interval)
        self._bar = ProgressBar(self.name, 'steps', shown, *intervals, transient=False)
        self._bar.update(runner.iter, runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = runner.iter + 1
        note = None
        if self._bar.is_due() or step == runner.max_iters:  # a look at the loss waits for the GPU
            pace = (time.monotonic() - self._start) / (step - self._first)
            note = f'{pace:.2f} s/step' + (f'  loss {float(outputs["loss"].detach()):.4f}' if outputs else '')
        self._bar.update(step, runner.max_iters, note=note)

    def after_train(self, runner):
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None
