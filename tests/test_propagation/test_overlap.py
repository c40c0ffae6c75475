"""Reading ahead, and encoding on a stream of its own: the same label maps, the same errors at the same frames."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.propagation import PRESETS, InputSettings, propagate_points, propagate_video, video
from mmliir.utils.pipeline import OVERLAP_VARIABLE

PROTOCOL = replace(PRESETS['mast'], input=InputSettings(multiple_of=4))


def _encode(frames):
    return F.avg_pool2d(frames.float() / 255, 4, ceil_mode=True, count_include_pad=False)


class _Frames:
    """Remembers who read which frame; `broken` cannot be read."""

    name = 'clip'

    def __init__(self, count=12, broken=None):
        self._frames = np.random.default_rng(0).integers(0, 256, (count, 24, 30, 3), dtype=np.uint8)
        self.read, self.broken = [], broken

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, number):
        self.read.append((number, threading.current_thread() is threading.main_thread()))
        if number == self.broken:
            raise ValueError(f'clip/{number:05d}.jpg cannot be decoded')
        return self._frames[number]


def _labels():
    label_map = np.zeros((24, 30), dtype=np.uint8)
    label_map[4:16, 6:20] = 5
    return label_map


def _run(frames, given=None):
    return propagate_video(frames, _encode, given or {0: _labels()}, PROTOCOL, 4)


@pytest.fixture
def overlap(monkeypatch):
    monkeypatch.setenv(OVERLAP_VARIABLE, '1')


def test_an_error_that_is_kept_keeps_no_thread(overlap):
    """As a notebook keeps the last one, with all that its frames refer to."""
    calls = []

    def encode(frames):
        calls.append(1)
        return _encode(frames) * (float('nan') if len(calls) == 4 else 1)

    maps = propagate_video(_Frames(), encode, {0: _labels()}, PROTOCOL, 4)
    with pytest.raises(ValueError) as kept:
        list(maps)
    assert 'NaN' in str(kept.value) or 'finite' in str(kept.value)
    assert kept.tb is not None and not _own_threads()


def _own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith('mmliir')]


def test_label_maps_are_the_same_and_each_frame_is_read_once_by_another_thread(monkeypatch):
    late = np.zeros((24, 30), dtype=np.uint8)
    late[:3, :3] = 9
    given = {2: _labels, 7: lambda: late}
    alone, beside = _Frames(), _Frames()
    expected = np.stack(list(_run(alone, given)))
    monkeypatch.setenv(OVERLAP_VARIABLE, '1')
    assert np.array_equal(np.stack(list(_run(beside, given))), expected)
    assert alone.read == [(number, True) for number in range(2, 12)]
    assert beside.read == [(2, True)] + [(number, False) for number in range(3, 12)]
    assert not _own_threads()


@pytest.mark.parametrize('value', ['0', '1'])
def test_a_broken_frame_comes_after_all_label_maps_before_it(monkeypatch, value):
    monkeypatch.setenv(OVERLAP_VARIABLE, value)
    maps = _run(_Frames(broken=6))
    taken = []
    with pytest.raises(ValueError, match=r'clip/00006.jpg cannot be decoded'):
        for label_map in maps:
            taken.append(label_map)
    assert len(taken) == 6 and not _own_threads()


@pytest.mark.usefixtures('overlap')
@pytest.mark.parametrize('concurrent,most', [(None, 1), (False, 1), (True, 2)])
def test_several_threads_read_only_where_frames_allow_it(concurrent, most):
    class Busy(_Frames):
        now = at_once = 0
        lock = threading.Lock()

        def __getitem__(self, number):
            with self.lock:
                self.now += 1
                self.at_once = max(self.at_once, self.now)
            time.sleep(0.005)
            with self.lock:
                self.now -= 1
            return super().__getitem__(number)

    frames = Busy()
    if concurrent is not None:
        frames.concurrent = concurrent
    assert len(list(_run(frames))) == 12 and frames.at_once == most


@pytest.mark.usefixtures('overlap')
def test_a_frame_of_another_size_is_named(monkeypatch):
    frames = list(_Frames()._frames)
    frames[4] = frames[4][:20]
    maps = _run(frames)
    assert len([next(maps) for _ in range(4)]) == 4
    with pytest.raises(ValueError, match='frame 4 of the video is 20x30, earlier frames are 24x30'):
        next(maps)


@pytest.mark.usefixtures('overlap')
def test_a_video_that_is_left_leaves_no_thread():
    maps = _run(_Frames())
    next(maps), next(maps)
    assert _own_threads()
    del maps
    assert not _own_threads()


@pytest.mark.parametrize('value', ['0', '1'])
def test_a_label_map_comes_with_its_frame(monkeypatch, value):
    monkeypatch.setenv(OVERLAP_VARIABLE, value)
    frames = _Frames(5)
    maps = _run(frames, {2: _labels()})
    shown = [maps.frame for _ in maps]
    assert shown[0] is None and shown[1] is None
    for number in range(2, 5):
        assert np.array_equal(shown[number], frames._frames[number])


def test_points_are_the_same(monkeypatch):
    queries = np.array([[2, 10.0, 8.0], [0, 20.0, 15.0], [5, 3.0, 3.0]])
    found = []
    for value in '01':
        monkeypatch.setenv(OVERLAP_VARIABLE, value)
        found.append(propagate_points(_Frames(8), _encode, queries, PROTOCOL, 4, both_ways=True))
    np.testing.assert_array_equal(found[0].tracks, found[1].tracks)
    np.testing.assert_array_equal(found[0].confidence, found[1].confidence)
    assert not _own_threads()


# ------------------------------------------------------------------------------------- streams of a GPU, without a GPU
class _Stream:
    """Stands in for `EncoderStream`: notes what is asked of it."""

    events: list = []

    def __init__(self, device):
        self.events.clear()

    def begin(self, work):
        feature = work()
        self.events.append(f'begin {int(feature[0, 0, 0])}')
        return feature

    def take(self, pending):
        self.events.append(f'take {int(pending[0, 0, 0])}')
        return pending

    def close(self):
        self.events.append('close')


@pytest.fixture
def gpu(monkeypatch):
    """A device that calls itself 'cuda'; frame n is encoded as n."""
    monkeypatch.setattr(video, 'EncoderStream', _Stream)
    monkeypatch.setattr(video, 'stage_frame', lambda frame, device: torch.from_numpy(frame))
    monkeypatch.setattr(video, 'encode_frame', lambda frame, **settings: frame[:1, :1].float())
    return SimpleNamespace(type='cuda')


def _numbered(count):
    return [np.full((4, 4, 3), number, dtype=np.uint8) for number in range(count)]


def _encoded(gpu, frames, monkeypatch):
    monkeypatch.setattr(video, 'overlap_for', lambda device: SimpleNamespace(readers=1, ahead=3))
    return video.encode_frames(frames, range(len(frames)), None, None, gpu, 'clip', frames[0])


def test_the_next_frame_is_encoded_while_the_caller_works_on_this_one(gpu, monkeypatch):
    for item in _encoded(gpu, _numbered(4), monkeypatch):
        _Stream.events.append(f'step {item.number}')
    assert _Stream.events == [
        'begin 0', 'begin 1', 'take 0', 'step 0', 'begin 2', 'take 1', 'step 1', 'begin 3', 'take 2', 'step 2',
        'take 3', 'step 3', 'close',
    ]  # fmt: skip


def test_a_broken_frame_does_not_take_the_one_before_it_along(gpu, monkeypatch):
    frames = _numbered(4)
    frames[2] = frames[2][:2]
    seen = []
    with pytest.raises(ValueError, match='frame 2 of clip is 2x4'):
        for item in _encoded(gpu, frames, monkeypatch):
            seen.append(item.number)
    assert seen == [0, 1] and _Stream.events[-1] == 'close'


def test_the_callers_stream_waits_for_what_it_takes_and_memory_is_held_until_then(monkeypatch):
    cuda = MagicMock()
    callers, own = MagicMock(), MagicMock()
    cuda.current_stream.return_value, cuda.Stream.return_value = callers, own
    monkeypatch.setattr(torch, 'cuda', cuda)
    stream = video.EncoderStream(torch.device('cpu'))
    assert own.mock_calls == [call.wait_stream(callers)]  # weights that the caller copied are there
    result = MagicMock()
    pending = stream.begin(lambda: result)
    cuda.stream.assert_called_once_with(own)
    assert callers.mock_calls == []  # nothing waits yet
    assert stream.take(pending) is result
    assert callers.mock_calls == [call.wait_event(own.record_event.return_value)]
    result.record_stream.assert_called_once_with(callers)
    stream.close()
    assert callers.mock_calls[-1] == call.wait_stream(own)


@pytest.mark.parametrize('l2_normalise', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_features_are_compared_in_float32_within_autocast_too(dtype, l2_normalise):
    """What `--amp` makes: features in half precision, logits, soft-max and read-out in float32."""
    settings = replace(PRESETS['mast'].settings, l2_normalise=l2_normalise)
    features = torch.randn(4, 16, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    fields = []
    for precise, region in ((True, False), (False, False), (False, True)):
        session = video.PropagationSession(settings, 4, (24, 32))
        label_map = np.zeros((24, 32), dtype=np.uint8)
        label_map[4:16, 6:20] = 5
        with torch.autocast('cpu', torch.bfloat16, enabled=region):
            session.step(features[0].float() if precise else features[0], label_map)
            for feature in features[1:3]:
                session.step(feature.float() if precise else feature)
            last = features[3].float() if precise else features[3]
            fields.append(session._attend(session._prepare(last)))
    assert fields[1].dtype == torch.float32
    assert torch.equal(fields[0], fields[1]) and torch.equal(fields[0], fields[2])
