"""tools/benchmarks/common.py: what the benchmark programs share."""

import argparse
import json
import time
from pathlib import Path

import pytest
import torch
from benchmark_programs import load_program

linux = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured on Linux')


@pytest.fixture
def common(monkeypatch):
    return load_program('common', monkeypatch)


def test_processor_seconds_count_work_and_not_sleep(common):
    asleep, _ = common.timed(lambda: time.sleep(0.05))
    busy, result = common.timed(lambda: sum(range(10**6)))
    assert asleep.wall >= 0.05 and asleep.cpu < 0.02
    assert busy.cpu > 0 and result == sum(range(10**6))
    assert (asleep + busy) * 2 == common.Cost(2 * (asleep.wall + busy.wall), 2 * (asleep.cpu + busy.cpu))


@linux
def test_the_peak_is_that_since_the_reset(common):
    def touch(megabytes):
        torch.ones(megabytes * 2**18)

    touch(200)
    before = common.resident_bytes()
    common.reset_peak()
    touch(50)
    assert 45 * 2**20 < common.peak_bytes() - before < 100 * 2**20


def test_a_table_is_aligned_and_leaves_places_of_missing_values_empty(common):
    columns = [('case', 'case', 's', 8), ('s', 'wall', '.2f', 7), ('x', 'x', '.1f', 5)]
    table = common.TextTable([common.Column(*column) for column in columns])
    lines = [table.header(), table.line({'case': 'crw', 'wall': 1.234, 'x': None}), table.line({'case': 'b', 'x': 2.0})]
    assert lines == ['case          s    x', 'crw        1.23', 'b                2.0']


def test_a_report_holds_the_machine_and_the_rows(common, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, 'set_num_threads', lambda threads: None)
    machine = common.describe_machine('cpu', 1, matrix_side=32)
    assert machine.matrix_gflops > 0 and '32^2 float32' in str(machine)
    common.write_report(tmp_path / 'r.json', machine, [{'a': 1}], note='n')
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['rows'] == [{'a': 1}] and report['note'] == 'n' and report['threads'] == 1


def test_a_plot_of_bars_is_a_png(common, tmp_path):
    pytest.importorskip('matplotlib')
    panels = [common.Bars('time', {'a': 1.0, 'b': 2.0}, log=True, line=1), common.Bars('memory', {'c': 3.0})]
    common.plot_bars(tmp_path / 'bars.png', panels, 'both')
    assert (tmp_path / 'bars.png').read_bytes()[:4] == b'\x89PNG'


def test_a_failed_measurement_ends_the_program_with_its_reason(common, tmp_path):
    program = tmp_path / 'program.py'
    program.write_text('import sys\nif sys.argv[1:]: sys.exit("no such case")\nprint("noise")\nprint(\'{"a": 1}\')\n')
    assert common.measure_in_process(program, [], 'it') == {'a': 1}
    with pytest.raises(SystemExit, match='the case: no such case'):
        common.measure_in_process(program, ['x'], 'the case')


def test_what_cannot_be_is_said_before_minutes_of_measuring(common, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    common.add_report_arguments(parser)
    assert parser.parse_args(['--json', str(tmp_path / 'x.json')]).json == tmp_path / 'x.json'
    with pytest.raises(SystemExit):
        parser.parse_args(['--json', str(tmp_path / 'nowhere' / 'x.json')])
    assert 'expected a file in a folder that is there' in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert common.settled_device('auto') == 'cpu'
        with pytest.raises(SystemExit, match='sees no GPU'):
            common.settled_device('cuda')
