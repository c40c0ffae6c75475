"""Frames to normalised colours, and raw colours as a feature."""

import cv2
import numpy as np
import pytest
import torch

from mmliir.models import VideoPreprocessor
from mmliir.models.methods import RawColor


@pytest.fixture
def frames():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 2, 3, 19, 21), dtype=np.uint8))


def opencv_lab(frame):
    """(3, H, W) uint8 RGB -> (3, H, W) float Lab by OpenCV."""
    rgb = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()).astype(np.float32) / 255
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab).transpose(2, 0, 1)


def test_lab_is_opencvs_with_the_mean_and_std_of_mast(frames):
    normalized = VideoPreprocessor().normalize(frames)
    assert normalized.dtype == torch.float32 and normalized.shape == frames.shape
    for b in range(2):
        for t in range(2):
            lab = opencv_lab(frames[b, t])
            expected = np.stack([(lab[0] - 50) / 50, lab[1] / 127, lab[2] / 127])
            np.testing.assert_allclose(normalized[b, t].numpy(), expected, rtol=0, atol=0.5 / 127)


def test_colours_stay_in_float32_under_autocast(frames):
    """The engine prepares a training batch inside the optimizer's autocast context."""
    expected = VideoPreprocessor().normalize(frames)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        normalized = VideoPreprocessor().normalize(frames)
    assert normalized.dtype == torch.float32
    assert torch.equal(normalized, expected)


def test_rgb_is_scaled_to_one_then_normalised(frames):
    preprocessor = VideoPreprocessor('rgb', mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(preprocessor.normalize(frames), (frames.float() / 255 - mean) / std)


def test_forward_keeps_the_other_entries(frames):
    batch = dict(inputs=frames, data_samples=dict(video_id=torch.tensor([3, 4])))
    out = VideoPreprocessor()(batch, training=True)
    assert out['data_samples']['video_id'].tolist() == [3, 4]
    assert torch.equal(out['inputs'], VideoPreprocessor().normalize(frames))
    assert batch['inputs'].dtype == torch.uint8


@pytest.mark.parametrize('wrong', [torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)])
def test_anything_but_uint8_rgb_is_refused(wrong):
    with pytest.raises(ValueError, match='uint8 RGB'):
        VideoPreprocessor().normalize(wrong)


@pytest.mark.parametrize('changes', [{'color_space': 'hsv'}, {'mean': (1.0, 2.0)}, {'std': (1.0, 0.0, 1.0)}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError):
        VideoPreprocessor(**changes)


def test_raw_color_is_the_mean_of_each_block_and_of_what_is_there_at_the_edge(frames):
    model = RawColor(stride=8)
    features = model.extract_feature(frames[0])
    assert model.stride == 8 and features.shape == (2, 3, 3, 3)
    normalized = VideoPreprocessor().normalize(frames[0])
    for b in range(2):
        for y in range(3):
            for x in range(3):
                block = normalized[b, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
                torch.testing.assert_close(features[b, :, y, x], block.mean(dim=(1, 2)), rtol=0, atol=1e-5)


def test_raw_color_has_no_loss(frames):
    with pytest.raises(TypeError, match='frozen feature'):
        RawColor()(frames, None, mode='loss')


def test_raw_color_takes_frames_to_its_own_device(frames):
    assert RawColor().to('meta').extract_feature(frames[0]).device.type == 'meta'
