"""Benchmark programs of training: what they count, and what they compare it with."""

import json
import sys
from pathlib import Path

import pytest
from benchmark_programs import load_program

linux = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured on Linux')


def _run(program, monkeypatch, path, *arguments):
    monkeypatch.setattr(sys, 'argv', ['benchmark', '--quick', '--json', str(path), *arguments])
    code = program.main()
    return code, json.loads(path.read_text())


def test_decoders_are_compared_with_what_a_gpu_takes(monkeypatch, tmp_path):
    pytest.importorskip('av')
    program = load_program('data_loading', monkeypatch)
    path = tmp_path / 'loading.json'
    code, report = _run(program, monkeypatch, path, '--workers', '0', '--plot', str(path.with_suffix('.png')))
    frames = [row for row in report['rows'] if row['kind'] == 'decoder']
    sizes = {row['name']: row['size'] for row in frames}
    assert code == 0 and path.with_suffix('.png').is_file()
    assert sizes['JPEG, PIL'] == sizes['JPEG, read_image'] == sizes['VideoFile, in order'] == [48, 64]
    assert sizes['JPEG, cv2 alone, half the size'] == [24, 32]
    assert sizes['prepared JPEG, read_image'] == sizes['prepared bytes, memory-mapped'] == [32, 32]
    # 35 % of 790 TFLOP/s, and 0.566 TFLOP for two pairs
    assert report['needed_frames_per_s'] == pytest.approx(0.35 * 790 / 0.566 * 4)
    for row in frames:
        assert row['cores'] == pytest.approx(report['needed_frames_per_s'] * row['cpu_s'])


@linux
@pytest.mark.usefixtures('one_thread')
def test_a_training_step_is_counted_and_compared_with_the_matrix_rate(monkeypatch, tmp_path):
    program = load_program('train_step', monkeypatch)
    arguments = ('--threads', '1', '--batch', '1', '2', '--ways', 'amp', 'contiguous', 'unfused')
    code, report = _run(program, monkeypatch, tmp_path / 'step.json', *arguments)
    rows = report['rows']
    assert code == 0 and len(rows) == 2 * (4 + 3)
    by_key = {(row['variant'], row['way'], row['batch']): row for row in rows}
    for row in rows:
        assert row['share'] == pytest.approx(row['tflop'] / row['seconds'] / row['matrix_tflop_per_s'])
        assert row['peak_gib'] > 0
    one, two = (by_key['stage 1 (intra)', 'float32', batch]['tflop'] for batch in (1, 2))
    assert two == pytest.approx(2 * one)
    # Another way does the same products; the bank's frames are encoded besides.
    assert len({row['tflop'] for row in rows if row['variant'] == 'stage 1 (intra)' and row['batch'] == 2}) == 1
    assert by_key['stage 2 (all)', 'float32', 2]['tflop'] > 1.1 * two


@linux
@pytest.mark.slow
def test_every_fixed_choice_stands_beside_what_the_machine_chooses(monkeypatch, tmp_path):
    program = load_program('choices', monkeypatch)
    code, report = _run(program, monkeypatch, tmp_path / 'choices.json', '--threads', '1', '--margin', '1')
    rows = report['rows']
    assert code == 0 and len(rows) == 3 * 2 * 2
    for work in program.WORKS:
        own = [row for row in rows if row['work'] == work]
        assert len({(row['precision'], row['layout']) for row in own}) == 4
        assert [row['note'] for row in own].count('chosen') == 1
        assert max(row['of_best'] for row in own if row['of_best'] is not None) == 1
