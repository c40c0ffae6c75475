"""All tests of training run in one thread."""

import pytest


@pytest.fixture(scope='module', autouse=True)
def _one_thread(one_thread):
    pass
