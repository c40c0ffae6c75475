"""How commands end: errors that a user can repair are one line and exit code 2; anything else keeps its traceback."""

import os
import sys
from collections.abc import Callable

# Set to 1 to see where an error comes from.
TRACEBACK_VARIABLE = 'MMLIIR_TRACEBACK'
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
# What a user can cause and repair. Anything else is a bug of ours and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError)


def run_command(program: str, function: Callable[[], int | None]) -> int:
    """Run a command and turn what the user can repair into one line on stderr.

    Args:
        program: Name in front of the message.
        function: The command; returns an exit code, None for 0.

    Returns:
        Exit code: the command's, 2 for an error of the user's, 130 when interrupted.
    """
    try:
        return function() or 0
    except KeyboardInterrupt:
        print(f'{program}: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`... | head`). Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except (*USER_ERRORS, TypeError, KeyError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) == '1' or not _is_users(error):
            raise
        print(f'{program}: error: {" ".join(_message(error).split())}', file=sys.stderr)
        return EXIT_ERROR


def _is_users(error: BaseException) -> bool:
    """A TypeError or KeyError is the user's only where a config names an argument or component that is not there."""
    if isinstance(error, TypeError):
        return 'unexpected keyword argument' in str(error) or 'required positional argument' in str(error)
    if isinstance(error, KeyError):
        return 'registry' in str(error)
    return True


def _message(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
