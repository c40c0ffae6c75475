"""Predictions on disk: whole sequences, resumed runs, refused mixtures."""

import dataclasses
import functools
import json
import threading

import numpy as np
import pytest
import torch.nn.functional as F

from mmliir.datasets.masks import read_label_map
from mmliir.evaluation.export import export_predictions
from mmliir.evaluation.protocol import DataFingerprint, ProtocolCard
from mmliir.propagation import PRESETS, propagate_video
from mmliir.structures import VideoSample
from mmliir.utils import files
from mmliir.utils.pipeline import OVERLAP_VARIABLE
from mmliir.utils.progress import ProgressBar

PROTOCOL = PRESETS['mast']
CARD = ProtocolCard(
    protocol='mast',
    settings={},
    input={},
    colour_space='rgb',
    model='average',
    checkpoint_sha256=None,
    data=DataFingerprint(2, 6, 'x'),
    metric_version='1',
    n_of_N=(2, 2),
    code_version='0',
    seed=None,
)


@pytest.fixture(autouse=True, params=['0', '1'], ids=['one after the other', 'overlapping'])
def _overlap(request, monkeypatch):
    """Everything here holds with and without threads that read and write."""
    monkeypatch.setenv(OVERLAP_VARIABLE, request.param)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith('mmliir')]


def _encode(frames):
    return F.avg_pool2d(frames.float() / 255, 4)


class _Frames(list):
    name = 'a list'


def _sample(name, seed=0, frames=3):
    pictures = np.random.default_rng(seed).integers(0, 256, (frames, 16, 20, 3), dtype=np.uint8)
    label_map = np.zeros((16, 20), dtype=np.uint8)
    label_map[4:12, 4:16] = 3
    return VideoSample(
        name, _Frames(pictures), tuple(f'{n:05d}' for n in range(frames)), {0: lambda: label_map}
    )


def _export(samples, out_dir, encode=_encode, card=CARD, **more):
    return export_predictions(samples, encode, PROTOCOL, 4, out_dir, card=card, **more)


def test_files_hold_what_was_propagated(tmp_path):
    samples = [_sample('a'), _sample('b', 1)]
    report = _export(samples, tmp_path / 'out')
    assert (
        report.written == ('a', 'b') and report.num_frames == 6 and not report.failed and not report.skipped
    )
    expected = list(propagate_video(samples[1].frames, _encode, samples[1].given_labels, PROTOCOL, 4))
    for n in range(3):
        assert np.array_equal(read_label_map(tmp_path / f'out/b/0000{n}.png').ids, expected[n])
    assert json.loads((tmp_path / 'out/run.json').read_text())['protocol'] == 'mast'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a', 'b', 'run.json']


def test_a_killed_run_goes_on_and_leaves_no_half_sequence(tmp_path):
    class Killed(BaseException):
        pass

    calls = []

    def dies_in_b(frames):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return _encode(frames)

    samples = [_sample('a'), _sample('b', 1)]
    with pytest.raises(Killed):
        _export(samples, tmp_path, dies_in_b)
    assert (tmp_path / 'a').is_dir() and not (tmp_path / 'b').exists()
    calls.clear()

    def counting(frames):
        calls.append(1)
        return _encode(frames)

    report = _export(samples, tmp_path, counting)
    assert report.skipped == ('a',) and report.written == ('b',) and len(calls) == 3
    assert not list(tmp_path.glob('.*'))


def test_a_full_disk_stops_the_run_and_nothing_later_is_written(tmp_path, monkeypatch):
    replace, written = files.os.replace, []

    def fill_up(source, target):
        if target.suffix == '.png' and len(written) == 4:
            raise OSError(28, 'No space left on device')
        written.append(target.name)
        replace(source, target)

    monkeypatch.setattr(files.os, 'replace', fill_up)
    with pytest.raises(OSError, match='No space left'):
        _export([_sample('a', frames=12), _sample('b')], tmp_path, card=None)
    assert written == [f'{n:05d}.png' for n in range(4)]
    assert sorted(path.name for path in (tmp_path / '.a.part').iterdir()) == written
    assert not (tmp_path / 'a').exists() and not (tmp_path / 'b').exists()


def test_an_interrupt_leaves_whole_sequences_only(tmp_path):
    def interrupted(frames):
        calls.append(1)
        if len(calls) == 16:
            raise KeyboardInterrupt
        return _encode(frames)

    calls, samples = [], [_sample('a', frames=12), _sample('b', 1, frames=12)]
    with pytest.raises(KeyboardInterrupt):
        _export(samples, tmp_path, interrupted)
    assert len(list((tmp_path / 'a').iterdir())) == 12 and not (tmp_path / 'b').exists()


def test_a_broken_sequence_is_reported_and_the_next_is_tried(tmp_path):
    broken = _sample('a')
    broken.frames[2] = np.zeros((4, 4, 3), dtype=np.uint8)
    report = _export([broken, _sample('b')], tmp_path)
    assert report.written == ('b',) and report.failed[0][0] == 'a' and '4x4' in report.failed[0][1]
    assert not (tmp_path / 'a').exists() and 'FAILED' in report.summary()


def test_an_error_of_the_encoder_is_not_hidden(tmp_path):
    def wrong(frames):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        _export([_sample('a')], tmp_path, wrong)


def test_predictions_of_other_settings_are_refused_and_kept(tmp_path):
    _export([_sample('a')], tmp_path)
    before = (tmp_path / 'a/00002.png').read_bytes()
    other = dataclasses.replace(CARD, model='other')
    with pytest.raises(ValueError, match='other settings'):
        _export([_sample('a')], tmp_path, card=other)
    assert (tmp_path / 'a/00002.png').read_bytes() == before
    report = _export([_sample('a', 5)], tmp_path, card=other, overwrite=True)
    assert report.written == ('a',) and json.loads((tmp_path / 'run.json').read_text())['model'] == 'other'


def test_overwrite_does_not_touch_other_peoples_sequences(tmp_path):
    _export([_sample('a'), _sample('b')], tmp_path)
    with pytest.raises(ValueError, match='would not overwrite'):
        _export([_sample('a')], tmp_path, overwrite=True)
    assert (tmp_path / 'a/00000.png').is_file() and (tmp_path / 'b/00000.png').is_file()


def test_without_a_card_complete_sequences_are_skipped(tmp_path):
    _export([_sample('a')], tmp_path, card=None)
    (tmp_path / 'a/00001.png').unlink()
    assert _export([_sample('a')], tmp_path, card=None).written == ('a',)
    assert _export([_sample('a')], tmp_path, card=None).skipped == ('a',)
    assert not (tmp_path / 'run.json').exists()


@pytest.mark.parametrize('names', [('a', 'a'), ('../a',), ('',)])
def test_names_that_cannot_be_folders_are_refused(names, tmp_path):
    with pytest.raises(ValueError):
        _export([_sample(name) for name in names], tmp_path)


def test_the_bar_goes_to_the_error_stream(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmliir.evaluation.export.ProgressBar', functools.partial(ProgressBar, line_interval=0))
    _export([_sample('a')], tmp_path, progress=True)
    captured = capsys.readouterr()
    assert captured.out == '' and 'frames' in captured.err
