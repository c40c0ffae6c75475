"""The `mmliir` command.

A subcommand is a module with one function that adds its parser and names the function to run (`mmliir/cli/convert.py`
is the form to copy); it is listed in `SUBCOMMANDS`. What it runs lives elsewhere: here are arguments in, tables out.
What brings PyTorch is imported by the function that runs, so that `--help` does not wait for it.
"""

import argparse
from collections.abc import Callable, Sequence

from mmliir.cli.compare import add_compare
from mmliir.cli.convert import add_convert
from mmliir.cli.data import add_data
from mmliir.cli.eval import add_eval
from mmliir.cli.propagate import add_propagate
from mmliir.cli.score import add_score
from mmliir.cli.submit import add_submit
from mmliir.utils.console import TRACEBACK_VARIABLE, run_command
from mmliir.version import __version__

SUBCOMMANDS: tuple[Callable[[argparse._SubParsersAction], None], ...] = (
    add_propagate,
    add_eval,
    add_score,
    add_compare,
    add_submit,
    add_convert,
    add_data,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0, 2 for an error of the user's, 130 when interrupted.

    Raises:
        SystemExit: From argparse, for `--help`, `--version` and arguments it does not know.
    """
    args = build_parser().parse_args(argv)
    return run_command('mmliir', lambda: args.run(args))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, every subcommand in it."""
    parser = argparse.ArgumentParser(
        prog='mmliir',
        description='Learn pixel correspondence from raw video, and use it.',
        epilog=f'An error is one line; {TRACEBACK_VARIABLE}=1 shows where it comes from.',
    )
    parser.add_argument('--version', action='version', version=f'mmliir {__version__}')
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in SUBCOMMANDS:
        add(subparsers)
    return parser
