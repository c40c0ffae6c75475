"""Progress with the time left: a bar on a terminal, a line now and then where there is none."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """Says on the standard error stream how far something is; a context manager.

    It appears with the first `update`: what comes before may show a bar of its own, and two garble each other.

    Args:
        name: What is being done.
        unit: Of what is counted, behind the numbers.
        shown: False: says nothing. None: a bar on a terminal, and nothing elsewhere.
        line_interval: Where there is no terminal, seconds between lines; what ends sooner prints none.
        bar_interval: On a terminal, seconds between notes that are asked for, see `is_due`.
        transient: Whether the bar goes away when it is done.
    """

    def __init__(
        self,
        name: str,
        unit: str = '',
        shown: bool | None = True,
        line_interval: float = 15.0,
        bar_interval: float = 1.0,
        transient: bool = True,
    ) -> None:
        console = Console(stderr=True)
        self._name, self._unit = name, unit
        self._shown = console.is_terminal if shown is None else shown
        self._started = self._told = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        self._interval = line_interval
        if self._shown and console.is_terminal:
            self._interval = bar_interval
            columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            columns += (TextColumn('{task.fields[note]}'), TimeRemainingColumn(), TextColumn('left'))
            self._bar = Progress(*columns, console=console, transient=transient)
            self._task = self._bar.add_task(name, total=None, note='')

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def is_due(self) -> bool:
        """Whether a note given now is shown soon; a note that costs something need not be made before."""
        return self._shown and time.monotonic() - self._told >= self._interval

    def update(self, done: int, total: int, name: str | None = None, note: str | None = None) -> None:
        """Move on.

        Args:
            done: How many of `total` are done.
            total: How many there are.
            name: What is being done from now on; None: as before.
            note: Shown behind the numbers; None: as before on a bar, none on a line.
        """
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        self._name = name or self._name
        if self._bar is not None:
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total, description=self._name)
            if note is not None:
                self._bar.update(self._task, note=note)
                self._told = time.monotonic()
        elif self.is_due():
            self._told = time.monotonic()
            print(self._line(done, total, note or ''), file=sys.stderr, flush=True)

    def _line(self, done: int, total: int, note: str) -> str:
        parts = [f'{self._name}: {done}/{total} {self._unit}'.rstrip(), note]
        if done > self._first:
            left = int((time.monotonic() - self._started) / (done - self._first) * (total - done))
            parts.append(f'{left // 60}:{left % 60:02d} left')
        return '  '.join(part for part in parts if part)
