"""Loads programs of tools/benchmarks as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / 'tools' / 'benchmarks'


def load_program(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program `name`.py; it finds its neighbours, as it does when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f'{name}_benchmark', FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module
