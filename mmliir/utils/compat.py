"""The one place that knows which engine distribution is installed and what it cannot do.

Two distributions provide the package `mmengine`: `mmengine` and its maintained drop-in `onedl-mmengine`. Both are
accepted; neither is a hard requirement, because each would overwrite the other's files.
"""

import importlib.metadata
import importlib.util
import re
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

    The engine is found and not imported, which takes 0.4 s: `mmliir --help` and `mmliir score` do without.

    Raises:
        ImportError: No engine is installed, or it is older than `MINIMUM_ENGINE`.
    """
    loaded = sys.modules.get('mmengine')
    version = getattr(loaded, '__version__', None) or _version_on_disk()
    if _numbers(version) < _numbers(MINIMUM_ENGINE):
        raise ImportError(f'mmengine {version} is older than {MINIMUM_ENGINE}. {_INSTALL_HINT}')
    return version


def _version_on_disk() -> str:
    """The version that the package on disk states: of two distributions that were installed over each other, too."""
    try:
        spec = importlib.util.find_spec('mmengine')
    except ValueError:  # what Python says of a package that is blocked or half loaded
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{_INSTALL_HINT} (there is no package 'mmengine')")
    path = Path(spec.submodule_search_locations[0]) / 'version.py'
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ImportError(f'{_INSTALL_HINT} (reading its version: {error})') from error
    stated = re.search(r"""^__version__ *= *['"]([^'"]+)""", text, re.MULTILINE)
    if stated is not None:
        return stated[1]
    # onedl-mmengine asks for that of its distribution.
    distribution = re.search(r"""^__version__ *= *version\( *['"]([^'"]+)""", text, re.MULTILINE)
    if distribution is None:
        raise ImportError(f'{_INSTALL_HINT} ({path} states no version)')
    try:
        return importlib.metadata.version(distribution[1])
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f'{_INSTALL_HINT} ({path} is of {distribution[1]}, which is not installed)') from error


def _numbers(version: str) -> tuple[int, ...]:
    """'0.10.7rc1' -> (0, 10, 7)."""
    found = re.match(r'\d+(?:\.\d+)*', version)
    return tuple(int(part) for part in found[0].split('.')) if found else ()


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
