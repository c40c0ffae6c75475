"""Videos: decoded again, they have the frames, the size and nearly the colours that went in."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mmliir.visualization import video_writer as module
from mmliir.visualization import write_video


def smooth_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """A colour field that moves: red grows to the right, green downwards, blue with time."""
    y, x = np.mgrid[0:height, 0:width]
    frames = []
    for number in range(count):
        red, green = 255 * x / width, 255 * y / height
        blue = np.full_like(red, 40 + 150 * number / max(1, count - 1))
        frames.append(np.stack([red, green, blue], axis=-1).astype(np.uint8))
    return frames


def decode(path) -> list[np.ndarray]:
    av = pytest.importorskip('av')
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
def test_decoded_video_has_the_frames_that_went_in(tmp_path, suffix):
    av = pytest.importorskip('av')
    frames = smooth_frames(9, 48, 64)
    path = write_video(tmp_path / f'new/clip{suffix}', iter(frames), fps=12.5)
    decoded = decode(path)
    assert len(decoded) == 9 and decoded[0].shape == (48, 64, 3)
    for number, (got, expected) in enumerate(zip(decoded, frames, strict=True)):
        assert np.abs(got.astype(int) - expected).mean() < 4, f'frame {number}'
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 12.5 and stream.codec_context.format.name == 'yuv420p'
        assert stream.codec_context.colorspace == 1, 'players would guess the colour matrix'


def test_odd_sizes_are_padded_with_a_copy_of_the_edge(tmp_path):
    pytest.importorskip('av')
    frame = smooth_frames(1, 45, 63)[0]
    (decoded,) = decode(write_video(tmp_path / 'odd.mp4', [frame]))
    assert decoded.shape == (46, 64, 3)
    assert np.abs(decoded[:45, :63].astype(int) - frame).mean() < 4
    assert np.abs(decoded[:45, 63].astype(int) - frame[:, 62]).mean() < 6


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path):
    pytest.importorskip('av')
    path = tmp_path / 'clip.mp4'
    path.write_bytes(b'old')

    def broken():
        yield from smooth_frames(2, 32, 32)
        yield np.zeros((16, 32, 3), np.uint8)

    with pytest.raises(ValueError, match=r'Frame 2 is \(16, 32\), the first one was \(32, 32\)'):
        write_video(path, broken())
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ('frames', 'options', 'message'),
    [
        ([], {}, 'at least one frame'),
        ([np.zeros((8, 8, 3))], {}, 'float64'),
        ([np.zeros((8, 8), np.uint8)], {}, r'\(8, 8\)'),
        ([np.zeros((8, 8, 3), np.uint8)], {'fps': 0}, 'fps'),
        ([np.zeros((8, 8, 3), np.uint8)], {'crf': 90}, 'crf'),
    ],
)
def test_wrong_input_is_named(tmp_path, frames, options, message):
    pytest.importorskip('av')
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / 'clip.mp4', frames, **options)
    assert not list(tmp_path.iterdir())


def test_unknown_suffix_is_refused(tmp_path):
    pytest.importorskip('av')
    with pytest.raises(ValueError, match="'clip.avi'"):
        write_video(tmp_path / 'clip.avi', smooth_frames(1, 8, 8))


def test_without_h264_the_video_is_webm(tmp_path, monkeypatch):
    pytest.importorskip('av')
    monkeypatch.setattr(module, '_ENCODERS', [one for one in module._ENCODERS if one[1] == '.webm'])
    path = write_video(tmp_path / 'clip.mp4', smooth_frames(3, 32, 32))
    assert path == tmp_path / 'clip.webm' and len(decode(path)) == 3


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(ImportError, match=r"pip install 'mmliir\[video\]'"):
        write_video(tmp_path / 'clip.mp4', smooth_frames(1, 8, 8))


_WRITE = """
import sys
import numpy as np
from mmliir.visualization import write_video
rng = np.random.default_rng(0)
texture = rng.integers(0, 256, (31, 109, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
frames = (np.roll(texture, 3 * n, axis=1)[:240, :864] for n in range(8))
write_video(sys.argv[1], frames, reproducible=sys.argv[2] == 'True')
"""


def write_with_memory(path, fill: str, reproducible: bool) -> bytes:
    """Write a video in a process of its own whose fresh memory glibc fills with a value."""
    env = {**os.environ, 'MALLOC_PERTURB_': fill}
    command = [sys.executable, '-c', _WRITE, str(path), str(reproducible)]
    subprocess.run(command, env=env, check=True, timeout=60)
    return path.read_bytes()


def test_equal_frames_give_equal_bytes_whatever_was_in_memory(tmp_path):
    """libx264's look-ahead reads memory that nobody wrote; glibc fills it with what MALLOC_PERTURB_ says."""
    pytest.importorskip('av')
    first, second = (write_with_memory(tmp_path / f'{fill}.mp4', fill, True) for fill in ('1', '170'))
    assert first == second
