"""The one place that knows which engine distribution is installed and what it cannot do.

Two distributions provide the package `mmengine`: `mmengine` and its maintained drop-in `onedl-mmengine`. Both are
accepted; neither is a hard requirement, because each would overwrite the other's files.
"""

MINIMUM_ENGINE = '0.10.7'

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
