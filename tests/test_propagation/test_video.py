"""Frames and an encoder to label maps."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.propagation import PRESETS, InputSettings, prepare_frame, propagate_features, propagate_video

PROTOCOL = replace(PRESETS['mast'], input=InputSettings(multiple_of=4))


class _Encoder:
    """Averages 4 x 4 blocks; remembers the sizes that it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, frames):
        assert frames.dtype == torch.uint8 and frames.shape[:2] == (1, 3)
        self.seen.append(tuple(frames.shape[2:]))
        return F.avg_pool2d(frames.float() / 255, 4, ceil_mode=True, count_include_pad=False)


def _video(frames=5, height=24, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def _labels(height=24, width=30):
    label_map = np.zeros((height, width), dtype=np.uint8)
    label_map[4:16, 6:20] = 5
    return label_map


def test_frames_are_encoded_once_and_results_have_the_frames_size():
    encode = _Encoder()
    out = list(propagate_video(_video(), encode, {0: _labels()}, PROTOCOL, 4))
    assert len(out) == 5 and all(o.shape == (24, 30) and o.dtype == np.uint8 for o in out)
    assert encode.seen == [(24, 32)] * 5  # padded to a multiple of 4
    assert np.array_equal(out[0], _labels())


def test_equals_propagating_the_features():
    frames, encode = _video(width=32), _Encoder()
    features = torch.cat([encode(prepare_frame(frame, PROTOCOL.input)) for frame in frames])
    expected = propagate_features(features, _labels(width=32), PROTOCOL.settings, 4)
    assert np.array_equal(
        np.stack(list(propagate_video(frames, encode, {0: _labels(width=32)}, PROTOCOL, 4))), expected
    )


@pytest.mark.parametrize('frames', [1, 2])
def test_very_short_videos(frames):
    assert len(list(propagate_video(_video(frames), _Encoder(), {0: _labels()}, PROTOCOL, 4))) == frames


def test_frames_before_the_first_labels_are_background():
    encode = _Encoder()
    out = list(propagate_video(_video(), encode, {2: _labels}, PROTOCOL, 4))
    assert (
        not out[0].any() and not out[1].any() and np.array_equal(out[2], _labels()) and len(encode.seen) == 3
    )


def test_late_labels_are_read_at_their_frame():
    late = np.zeros((24, 30), dtype=np.uint8)
    late[:3, :3] = 9
    out = list(propagate_video(_video(), _Encoder(), {0: _labels(), 3: lambda: late}, PROTOCOL, 4))
    assert 9 not in out[2] and (out[3][:3, :3] == 9).all()


@pytest.mark.parametrize(
    'size', [InputSettings(short_side=12), InputSettings(size=(16, 16)), InputSettings()]
)
def test_other_input_sizes(size):
    encode = _Encoder()
    out = list(propagate_video(_video(2), encode, {0: _labels()}, replace(PROTOCOL, input=size), 4))
    assert out[1].shape == (24, 30)


def test_padding_is_mid_grey_on_the_right_and_below():
    frame = prepare_frame(_video(1, 5, 6)[0], InputSettings(multiple_of=4))
    assert frame.shape == (1, 3, 8, 8) and (frame[..., 5:, :] == 119).all() and (frame[..., 6:] == 119).all()
    assert np.array_equal(frame[0, :, :5, :6].permute(1, 2, 0), _video(1, 5, 6)[0])


def test_no_gradient_is_kept():
    weight = torch.ones(1, requires_grad=True)
    out = list(propagate_video(_video(3), lambda x: _Encoder()(x) * weight, {0: _labels()}, PROTOCOL, 4))
    assert len(out) == 3


def test_bad_input_is_named_before_anything_is_encoded():
    encode = _Encoder()
    with pytest.raises(ValueError, match='0 frames'):
        propagate_video(_video(0), encode, {0: _labels()}, PROTOCOL, 4)
    with pytest.raises(ValueError, match='no given labels'):
        propagate_video(_video(), encode, {}, PROTOCOL, 4)
    with pytest.raises(ValueError, match='frames 0..4, but labels are given for frame 7'):
        propagate_video(_video(), encode, {0: _labels(), 7: _labels()}, PROTOCOL, 4)
    with pytest.raises(ValueError, match='24x30, its label map is 20x30.*nearest neighbour'):
        propagate_video(_video(), encode, {0: _labels(20)}, PROTOCOL, 4)
    with pytest.raises(ValueError, match='holds no object'):
        propagate_video(_video(), encode, {0: _labels() * 0}, PROTOCOL, 4)
    with pytest.raises(ValueError, match='uint8 RGB'):
        propagate_video(_video()[..., 0], encode, {0: _labels()}, PROTOCOL, 4)
    assert encode.seen == []


def test_a_frame_of_another_size_is_named():
    frames = [*_video(2), *_video(1, 20, 30)]
    with pytest.raises(ValueError, match='frame 2 of the video is 20x30, earlier frames are 24x30'):
        list(propagate_video(frames, _Encoder(), {0: _labels()}, PROTOCOL, 4))


@pytest.mark.parametrize('size', [(31, 40), (17, 90), (120, 33), (48, 64)])
def test_frames_resized_by_opencv_are_its_to_the_grey_level(size):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    expected = cv2.resize(frame, size[::-1])
    settings = InputSettings(size=size, resize='opencv')
    for given in (frame, torch.from_numpy(frame), frame[:, ::-1].copy()[:, ::-1]):
        ours = prepare_frame(given, settings)
        np.testing.assert_array_equal(ours[0].permute(1, 2, 0).numpy(), expected)
    averaged = prepare_frame(frame, InputSettings(size=size))[0].permute(1, 2, 0).numpy()
    assert (size == (48, 64)) == np.array_equal(averaged, expected)


def test_a_filter_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match='averaged or opencv'):
        InputSettings(resize='cubic')
