"""The mark of tests that need compiled code."""

import os

import pytest

from mmliir.ops import native


def _reason() -> str:
    """Why nothing can be compiled here; source that does not compile is no reason but a failure."""
    if os.environ.get('MMLIIR_NATIVE') == '0':
        return 'MMLIIR_NATIVE=0'
    try:
        native._find_compiler()
    except FileNotFoundError as error:
        return str(error)
    return ''


needs_compiler = pytest.mark.skipif(bool(_reason()), reason=_reason() or 'there is a compiler')
