"""tools/benchmarks/{memory,data_loading,whole_video}.py: they check what they say, and what they write can be read."""

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
    path = tmp_path / 'loading.json'
    code, report = _run(program, monkeypatch, path, '--step-seconds', '2')
    rows = report['rows']
    assert code == 0 and {row['name'] for row in rows} >= {'VideoFile, in order', 'JPEGImages', 'Videos'}
    for row in rows:
        assert row['per_s'] > 0
        if row['kind'] == 'loader':
            assert row['busy'] == pytest.approx(2 / row['per_s'] / 2)
