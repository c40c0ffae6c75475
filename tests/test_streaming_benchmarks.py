"""Programs of tools/benchmarks: they check what they say, and what they write can be read."""

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
    drawn = ('--plot', str(tmp_path / 'v.png'))
    code, report = _run(program, monkeypatch, tmp_path / 'video.json', '--threads', '1', *drawn)
    (row,) = report['rows']
    assert code == 0 and row['same_pixels'] > 0.999
    assert row['references'] == 5 and row['frames'] == 8
    assert (tmp_path / 'v.png').is_file() and report['matrix_gflops'] > 0
    parts = row['released_parts_cpu_s']
    # Frames 1..7 have 1, 2, 2, 3, 3, 4, 5 references.
    expected = parts['encode'] * (20 + 7) / 6 + parts['attend'] * 20 / 5 + 7 * (parts['read'] + parts['write'])
    assert row['released_cpu_s'] == pytest.approx(expected)
    correlated = expected + (parts['correlate'] - parts['attend']) * 20 / 5
    assert row['correlated_cpu_s'] == pytest.approx(correlated)


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('protocol,with_prior', [('crw', False), ('liir_compat', True)])
def test_a_frame_is_split_into_parts(monkeypatch, tmp_path, protocol, with_prior):
    program = load_program('whole_video', monkeypatch)
    wanted = ('--threads', '1', '--protocol', protocol, '--released-frames', '0')
    code, report = _run(program, monkeypatch, tmp_path / 'video.json', *wanted)
    (row,) = report['rows']
    parts = row['parts']
    expected = {'read', 'encode', 'affinity and read-out', 'decode labels', 'rest of the step', 'PNG', 'file'}
    assert code == 0 and set(parts) == expected | ({'prior'} if with_prior else set())
    assert sum(part['share'] for part in parts.values()) == pytest.approx(1)
    # Of frames of 32 x 48 pixels too, most of the time is the encoder's.
    assert max(parts, key=lambda name: parts[name]['cpu_s']) == 'encode'
    assert row['encoder_gflop'] == pytest.approx(1.1, rel=0.1) and row['same_pixels'] is None


@pytest.mark.usefixtures('one_thread')
def test_variants_of_the_encoder_give_its_features(monkeypatch, tmp_path):
    program = load_program('encoder', monkeypatch)
    wanted = ('--threads', '1', '--only', 'folded', 'contiguous', 'channels last')
    code, report = _run(program, monkeypatch, tmp_path / 'encoder.json', *wanted)
    differences = {(row['variant'], row['batch']): row['difference'] for row in report['rows']}
    assert code == 0 and {('contiguous, folded', 1), ('channels last', 4), ('bfloat16, folded', 1)} <= set(differences)
    assert differences.pop(('bfloat16, folded', 1)) < 0.05 and max(differences.values()) < 1e-4


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


@linux
def test_scores_are_timed_against_reading_the_files(monkeypatch, tmp_path):
    program = load_program('metrics', monkeypatch)
    drawn = ('--plot', str(tmp_path / 'm.png'), '--repeats', '1')
    code, report = _run(program, monkeypatch, tmp_path / 'metrics.json', *drawn)
    rows = {row['run']: row for row in report['rows']}
    assert code == 0 and {'floor', 'ours', 'ours, 2 processes'} <= set(rows)
    # Two videos of four frames, of which the first and the last are not scored.
    assert report['frames'] == 4 and 0 < report['jf_mean'] < 1
    assert rows['floor']['cpu_s'] > 0 and (tmp_path / 'm.png').is_file()
