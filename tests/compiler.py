"""The mark of tests that need compiled code."""

import os

import pytest

from mmliir.ops.native import build


def _reason() -> str:
    """Why nothing can be compiled here; source that does not compile is no reason but a failure."""
    if os.environ.get('MMLIIR_NATIVE') == '0':
        return 'MMLIIR_NATIVE=0'
    try:
        build.find_compiler()
    except build.NotBuilt as error:
        return str(error)
    return ''


needs_compiler = pytest.mark.skipif(bool(_reason()), reason=_reason() or 'there is a compiler')
