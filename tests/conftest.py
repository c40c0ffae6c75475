"""Fixtures that several test folders use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of real clips: `MMLIIR_DATA_ROOT`, or `../shared/data` beside the repository; else skip."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    root = Path(os.environ.get('MMLIIR_DATA_ROOT', default))
    if not root.is_dir():
        pytest.skip(f'real clips not found at {root}: set MMLIIR_DATA_ROOT')
    return root
