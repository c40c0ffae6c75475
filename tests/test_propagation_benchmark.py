"""tools/benchmarks/propagation.py: results are equal, and what it writes can be read."""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
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
    cases = ['crw', 'liir', 'liir_paper', 'mast_far', 'liir_paper_far', 'dino', 'spa_then_temp', 'labels']
    arguments = [str(PROGRAM), '--quick', '--repeats', '1', '--threads', '1', '--cases', *cases, '--json', str(report)]
    monkeypatch.setattr(sys, 'argv', arguments)
    assert program.main() == 0, capsys.readouterr().out
    rows = json.loads(report.read_text())['rows']
    assert {'crw', 'mast', 'mast_shift', 'dino', 'vfs'} <= {row['algorithm'] for row in rows}
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


def _row(**given):
    row = {'case': 'crw', 'algorithm': 'native', 'is_public': False, 'cpu_s': 1.0, 'time_ratio': 1.0}
    return row | {'cpu_ratio': 1.0} | given


def test_the_fastest_public_way_is_named_before_the_others(program, capsys):
    program.print_fastest_public_ways(
        [
            _row(),
            _row(algorithm='mast', is_public=True, cpu_s=60.0, time_ratio=61.0, cpu_ratio=60.0),
            _row(algorithm='mast_shift', is_public=True, cpu_s=30.0, time_ratio=31.0, cpu_ratio=30.0),
            _row(algorithm='torch', cpu_s=2.0, time_ratio=2.0, cpu_ratio=2.0),
            _row(case='crw_1_label'),
        ]
    )
    assert capsys.readouterr().out == (
        'crw: fastest public way mast_shift, 31.0x the time of ours, 30.0x the processor seconds; mast: 60.0x\n'
    )


def test_a_case_that_is_slower_than_another_way_is_marked_and_an_error(program, monkeypatch, tmp_path, capsys):
    seconds = {'native': 2.0, 'torch': 1.0, 'crw': 4.0}

    def run_measurement(name, algorithm, args, folder):
        np.save(folder / f'{name}-{algorithm}.npy', np.zeros(1))
        own = [seconds[algorithm]]
        return {'wall': own, 'cpu': own, 'peak_bytes': 1, 'mask_bytes': 0, 'bits': None}

    monkeypatch.setattr(program, 'run_measurement', run_measurement)
    monkeypatch.setattr(program, 'fastest_backend', lambda device: 'native')
    monkeypatch.setattr(program, 'describe_backend', lambda device: 'native')
    monkeypatch.setattr(program, 'describe_machine', lambda *_, **__: mock.Mock(matrix_gflops=1.0))
    monkeypatch.setattr(sys, 'argv', [str(PROGRAM), '--cases', 'crw', '--device', 'cpu'])
    assert program.main() == program.SLOWER
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.endswith('SLOWER')] == ['torch']
