"""A progress bar with the time left, on a terminal; a line now and then where there is none."""

import sys
import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmliir.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show steps, loss, time per step and time left.

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
        self._bar: Progress | None = None

    def before_train(self, runner):
        self._start = self._last_line = time.monotonic()
        self._first = runner.iter
        if not is_main_process() or not sys.stderr.isatty():
            return
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('loss {task.fields[loss]:.4f}'),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(self.name, total=runner.max_iters, completed=runner.iter, loss=float('nan'))
        self._bar.start()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = runner.iter + 1
        now = time.monotonic()
        interval = self.line_interval if self._bar is None else self.bar_interval
        is_due = is_main_process() and (now - self._last_line >= interval or step == runner.max_iters)
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
        if not is_due:
            return
        self._last_line = now
        loss = float(outputs['loss'].detach()) if outputs else float('nan')
        if self._bar is not None:
            self._bar.update(self._task, loss=loss)
        else:
            pace = (now - self._start) / (step - self._first)
            left = pace * (runner.max_iters - step)
            print(
                f'{self.name}: step {step}/{runner.max_iters}  loss {loss:.4f}  {pace:.2f} s/step  '
                f'{int(left // 60)}:{int(left % 60):02d} left',
                file=sys.stderr,
                flush=True,
            )

    def after_train(self, runner):
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
