"""Fixtures that several test folders use."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of real clips: `MMLIIR_DATA_ROOT`, or `../shared/data` beside the repository; else skip."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    root = Path(os.environ.get('MMLIIR_DATA_ROOT', default))
    if not root.is_dir():
        pytest.skip(f'real clips not found at {root}: set MMLIIR_DATA_ROOT')
    return root


@pytest.fixture(scope='module')
def one_thread():
    """Tiny tensors gain nothing from more threads, and equality to the bit needs the same number everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
