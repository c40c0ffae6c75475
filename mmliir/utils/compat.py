"""The one place that knows which engine distribution is installed and what it cannot do.

Two distributions provide the package `mmengine`: `mmengine` and its maintained drop-in `onedl-mmengine`. Both are
accepted; neither is a hard requirement, because each would overwrite the other's files.
"""

import sys
from pathlib import Path

MINIMUM_ENGINE = '0.10.7'
_EXIT_ERROR = 2

_INSTALL_HINT = (
    "mmliir needs an engine, and exactly one of the two: `pip install 'mmliir[mm]'` (mmengine + mmcv-lite) or "
    "`pip install 'mmliir[onedl]'` (onedl-mmengine + onedl-mmcv)."
)


def check_engine() -> str:
    """Return the version of the installed engine, or say which one to install.

    Raises:
        ImportError: No engine is installed, or it is older than `MINIMUM_ENGINE`.
    """
    try:
        import mmengine
    except ImportError as error:
        raise ImportError(f'{_INSTALL_HINT} (the import said: {error})') from error
    from mmengine.utils import digit_version

    if digit_version(mmengine.__version__) < digit_version(MINIMUM_ENGINE):
        raise ImportError(f'mmengine {mmengine.__version__} is older than {MINIMUM_ENGINE}. {_INSTALL_HINT}')
    return mmengine.__version__


def require_engine() -> None:
    """Check the engine when the package is imported; the `mmliir` command then ends with one line, not a traceback.

    Every way into the command imports the package first, so that this cannot stand in the command itself.

    Raises:
        ImportError: See `check_engine`.
        SystemExit: The same, where the running program is the `mmliir` command.
    """
    try:
        check_engine()
    except ImportError as error:
        if not _is_our_command():
            raise
        print(f'mmliir: error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(_EXIT_ERROR)


def _is_our_command() -> bool:
    """Whether this process runs the installed script `mmliir`, or `python -m mmliir`."""
    program = sys.argv[0] if sys.argv else ''
    if program == '-m':  # what Python puts there until it has found the module
        return any(pair == ('-m', 'mmliir') for pair in zip(sys.orig_argv, sys.orig_argv[1:]))
    return Path(program).stem in ('mmliir', 'mmliir-script')
