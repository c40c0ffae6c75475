"""One thread: tiny tensors gain nothing from more, and equality to the bit needs the same number everywhere."""

import pytest
import torch


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
