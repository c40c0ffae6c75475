"""Benchmark programs on memory, data, training steps and whole videos: they check what they say, and write it down."""

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


@linux
@pytest.mark.usefixtures('one_thread')
def test_a_stream_takes_what_its_references_take(monkeypatch, tmp_path):
    program = load_program('memory', monkeypatch)
    code, report = _run(program, monkeypatch, tmp_path / 'memory.json', '--threads', '1', '--protocols', 'crw')
    (row,) = report['rows']
    assert code == 0 and row['stream_mb'] <= row['step_mb'] + 20
    # Frame 0 and the 20 last ones; 6 x 8 cells with 256 channels and six label channels in float32.
    assert row['kept_frames'] == 21 and row['kept_mb'] == pytest.approx(21 * 48 * 4 * (256 + 6) / 1e6)
    assert row['dense_mb'] == pytest.approx(4 * 48**2 * 21 / 1e6)
    assert row['kept_mb'] < row['bound_mb']


@pytest.mark.usefixtures('one_thread')
def test_the_released_loop_gives_the_same_label_maps(monkeypatch, tmp_path):
    program = load_program('whole_video', monkeypatch)
    code, row = _run(program, monkeypatch, tmp_path / 'video.json', '--threads', '1')
    assert code == 0 and row['same_pixels'] > 0.999
    assert row['references'] == 5 and row['frames'] == 8
    parts = row['released_parts_cpu_s']
    # Frames 1..7 have 1, 2, 2, 3, 3, 4, 5 references.
    expected = parts['encode'] * (20 + 7) / 6 + parts['attend'] * 20 / 5 + 7 * (parts['read'] + parts['write'])
    assert row['released_cpu_s'] == pytest.approx(expected)


def test_rates_of_decoders_and_of_the_training_loader(monkeypatch, tmp_path):
    pytest.importorskip('av')
    program = load_program('data_loading', monkeypatch)
    code, report = _run(program, monkeypatch, tmp_path / 'loading.json', '--step-seconds', '2')
    rows = report['rows']
    names = {'JPEG, PIL', 'prepared bytes, memory-mapped', 'VideoFile, in order', 'JPEGImages', 'Videos'}
    assert code == 0 and {row['name'] for row in rows} >= names
    # 35 % of 790 TFLOP/s, and 0.566 TFLOP for two pairs
    assert report['needed_frames_per_s'] == pytest.approx(0.35 * 790 / 0.566 * 4)
    for row in rows:
        assert row['per_s'] > 0
        if row['kind'] == 'loader':
            assert row['busy'] == pytest.approx(2 / row['per_s'] / 2)
        else:
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
