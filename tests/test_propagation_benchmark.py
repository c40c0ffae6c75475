"""tools/benchmarks/propagation.py: results are equal, and what it writes can be read."""

import json
import sys
from pathlib import Path

import pytest
from benchmark_programs import FOLDER, load_program

from mmliir.ops import window_offsets

PROGRAM = FOLDER / 'propagation.py'
pytestmark = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured on Linux')


@pytest.fixture
def program(monkeypatch):
    return load_program('propagation', monkeypatch)


def test_the_quick_run_agrees_with_every_public_algorithm(program, monkeypatch, tmp_path, capsys):
    report = tmp_path / 'report.json'
    cases = ['crw', 'liir', 'liir_paper', 'dino', 'labels']
    arguments = [str(PROGRAM), '--quick', '--repeats', '1', '--threads', '1', '--cases', *cases, '--json', str(report)]
    monkeypatch.setattr(sys, 'argv', arguments)
    assert program.main() == 0, capsys.readouterr().out
    rows = json.loads(report.read_text())['rows']
    assert {'crw', 'mast', 'mast_shift', 'dino'} <= {row['algorithm'] for row in rows}
    assert all(row['max_difference'] < 1e-4 for row in rows if row['max_difference'] is not None)


def test_a_difference_is_an_error(program, monkeypatch):
    arguments = [str(PROGRAM), '--quick', '--repeats', '1', '--threads', '1', '--cases', 'crw', '--tolerance', '0']
    monkeypatch.setattr(sys, 'argv', arguments)
    assert program.main() == 1


def test_the_counted_products_are_those_of_the_windows_in_the_frame(program):
    case = program.CRW.small()
    pairs = (case.height * case.width) ** 2  # the first reference
    for y in range(case.height):
        for x in range(case.width):
            for dx, dy in window_offsets(case.radius, 'circle').tolist():
                inside = 0 <= y + dy < case.height and 0 <= x + dx < case.width
                pairs += inside * (case.references - 1)
    assert case.useful_flop() == 2 * case.channels * pairs
