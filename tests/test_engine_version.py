"""The engine is found and its version read without importing it, of either distribution."""

import importlib.metadata
import importlib.util
from types import SimpleNamespace

import pytest

from mmliir.utils import compat


@pytest.mark.parametrize(
    'text,version',
    [
        ("__version__ = '0.10.7'\n", '0.10.7'),
        ('# a comment\n__version__="0.11.0rc1"\n', '0.11.0rc1'),
        ("import version\n\n__version__ = version('numpy')\n", importlib.metadata.version('numpy')),
    ],
)
def test_both_ways_to_state_a_version_are_read(tmp_path, monkeypatch, text, version):
    (tmp_path / 'version.py').write_text(text)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: found)
    assert compat._version_on_disk() == version


@pytest.mark.parametrize(
    'text,said',
    [('nothing here\n', 'states no version'), ("__version__ = version('no-such-thing')\n", 'not installed')],
)
def test_a_package_without_a_version_is_named(tmp_path, monkeypatch, text, said):
    (tmp_path / 'version.py').write_text(text)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: found)
    with pytest.raises(ImportError, match=said):
        compat._version_on_disk()


def test_the_installed_engine_is_read_as_it_calls_itself():
    import mmengine

    assert compat._version_on_disk() == mmengine.__version__
