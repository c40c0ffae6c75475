"""What the subcommands share: bars, and how arguments are read."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator

from mmliir.utils.machine import PRECISIONS
from mmliir.utils.progress import ProgressBar

#: Exit code: some sequences were scored and some could not be.
EXIT_INCOMPLETE = 3


@contextlib.contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress with the time left; give the function (done, total) that moves it."""
    with ProgressBar(task) as bar:
        yield bar.update


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


_SIZE_UNITS = {'': 1, 'B': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}


def byte_size(text: str) -> int:
    """'4GiB', '512 MiB', '1.5GB' or a number of bytes -> bytes."""
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([a-zA-Z]*)', text.strip())
    if match is None or match[2].upper() not in _SIZE_UNITS:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 4GiB, 512MiB or 1.5GB')
    size = int(float(match[1]) * _SIZE_UNITS[match[2].upper()])
    if size < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is less than a byte')
    return size


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--max-memory',
        type=byte_size,
        metavar='SIZE',
        help='bound on the memory of the propagation, such as 4GiB; the program and the encoder come on top',
    )


def add_precision(parser: argparse.ArgumentParser, default: str | None, meaning: str) -> None:
    parser.add_argument('--precision', choices=PRECISIONS, default=default, help=meaning)
    parser.add_argument(
        '--amp',
        dest='precision',
        action='store_const',
        const='bfloat16',
        default=argparse.SUPPRESS,
        help='the same as --precision bfloat16',
    )


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    add_precision(parser, 'float32', 'of the encoder (default: float32); auto takes bfloat16 where it is faster')
    parser.add_argument(
        '--compile', action='store_true', help='compile the encoder: a minute at the start, then faster (long runs)'
    )


class ConfigOptions(argparse.Action):
    """`--cfg-options KEY=VALUE ...` as MMEngine reads it, which is imported when there is one to read."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest, nargs=self.nargs)(parser, namespace, values, option_string)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]


def without_folder(text: str) -> str:
    """A path, or a SPEC that holds one, without the folder of this machine: '/home/x/mine.py:f' -> 'mine.py:f'."""
    return re.sub(r'(^|:)(?:~|/|[A-Za-z]:\\)[^:]*[/\\](?=[^/\\])', r'\1', text)
