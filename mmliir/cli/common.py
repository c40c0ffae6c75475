"""What the subcommands share: bars, and how arguments are read."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Exit code: some sequences were scored and some could not be.
EXIT_INCOMPLETE = 3


@contextlib.contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on a terminal; give the function (done, total) that moves it."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    handle = bar.add_task(task, total=None)

    def report(done: int, total: int) -> None:
        bar.start()  # not before: what comes first may show a bar of its own, and two garble each other
        bar.update(handle, completed=done, total=total)

    try:
        yield report
    finally:
        bar.stop()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]


def without_folder(text: str) -> str:
    """A path, or a SPEC that holds one, without the folder of this machine: '/home/x/mine.py:f' -> 'mine.py:f'."""
    return re.sub(r'(^|:)(?:~|/|[A-Za-z]:\\)[^:]*[/\\](?=[^/\\])', r'\1', text)
