"""Which stream of a file is the video, how its pictures are turned, and tags in other encodings."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from mmliir.datasets import BrokenMediaError, VideoFile, VideoFileSource, open_frames
from mmliir.datasets.video_streams import UPRIGHT, Orientation, StreamFacts, best_stream, read_orientation

av = pytest.importorskip('av')
from av.stream import Disposition  # noqa: E402  (without PyAV there is nothing to test)

needs_ffmpeg = pytest.mark.skipif(shutil.which('ffmpeg') is None, reason='needs the ffmpeg command')
SIZE = (48, 64)


def picture(number, size=SIZE):
    """No two of its eight turns and mirrors are alike."""
    frame = np.full((*size, 3), 40, np.uint8)
    frame[: size[0] // 2, : size[1] // 4] = (220, 60, 60)
    frame[: size[0] // 4, size[1] // 4 : size[1] // 2] = (60, 200, 60)
    frame[-8:] = 20 * number
    return frame


def write(path, *streams, metadata=None):
    """Streams of (codec, size, pictures, disposition)."""
    with av.open(str(path), 'w') as container:
        container.metadata.update(metadata or {})
        opened = []
        for codec, (height, width), count, disposition in streams:
            stream = container.add_stream(codec, rate=10)
            stream.height, stream.width = height, width
            stream.pix_fmt = 'rgb24' if codec == 'png' else 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
            stream.disposition = disposition
            opened.append((stream, count, (height, width)))
        for stream, count, size in opened:
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(picture(number, size), format='rgb24')
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


NONE, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic
VIDEO = ('libx264', SIZE, 6, DEFAULT)


@pytest.mark.parametrize(
    'name, streams',
    [
        ('cover_last.mp4', [VIDEO, ('mjpeg', (96, 128), 1, COVER)]),
        ('png_cover.mp4', [VIDEO, ('png', (96, 128), 1, COVER)]),
        ('unmarked_cover_first.mkv', [('mjpeg', (96, 128), 1, NONE), VIDEO]),
        ('unmarked_large_cover.mkv', [('mjpeg', (3000, 3000), 1, DEFAULT), ('libx264', SIZE, 6, NONE)]),
        ('small_copy_first.mkv', [('libx264', (24, 32), 9, NONE), ('libx264', SIZE, 6, NONE)]),
        ('small_but_default.mkv', [VIDEO, ('libx264', (96, 128), 9, NONE)]),
        ('alone.mkv', [('libx264', SIZE, 6, NONE)]),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_the_video_is_taken_and_no_cover(tmp_path, name, streams):
    video = open_frames(write(tmp_path / name, *streams))
    assert len(video) == 6 and video.frame_size == SIZE
    assert len(list(video)) == 6 and video[4].shape == (*SIZE, 3) and video.frame_rate == 10


@needs_ffmpeg
def test_a_cover_that_is_the_first_stream_of_an_mp4(tmp_path):
    write(tmp_path / 'video.mp4', VIDEO)
    write(tmp_path / 'cover.mkv', ('mjpeg', (96, 128), 1, NONE))
    command = 'ffmpeg -v error -i cover.mkv -i video.mp4 -map 0 -map 1 -c copy -disposition:0 attached_pic both.mp4'
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    assert len(open_frames(tmp_path / 'both.mp4')) == 6


def test_a_file_with_a_cover_alone_says_so(tmp_path):
    write(tmp_path / 'video.mp4', VIDEO, ('mjpeg', (96, 128), 1, COVER))
    with av.open(str(tmp_path / 'video.mp4')) as source, av.open(str(tmp_path / 'song.mp4'), 'w') as target:
        cover = source.streams.video[1]
        copy = target.add_stream_from_template(cover)
        copy.disposition = COVER
        for packet in source.demux(cover):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    with pytest.raises(BrokenMediaError, match=r'song.mp4 holds no video: the only picture in it is a cover'):
        len(open_frames(tmp_path / 'song.mp4'))


@pytest.mark.parametrize(
    'streams, wanted',
    [
        ([], None),
        ([StreamFacts(0, 100, is_cover=True)], None),
        ([StreamFacts(0, 900, is_cover=True), StreamFacts(2, 100)], 2),
        ([StreamFacts(0, 100), StreamFacts(1, 900)], 1),
        ([StreamFacts(0, 100, is_default=True), StreamFacts(1, 900)], 0),
        ([StreamFacts(0, 100, is_default=True), StreamFacts(1, 5_000_200)], 1),  # as ffmpeg weighs it
        ([StreamFacts(0, 900, is_default=True, is_still=True), StreamFacts(1, 100)], 1),
        ([StreamFacts(0, 100, is_still=True)], 0),  # a video of one picture
        ([StreamFacts(3, 100), StreamFacts(1, 100)], 1),
    ],
)
def test_the_choice_is_that_of_ffmpeg(streams, wanted):
    assert best_stream(streams) == wanted


# -- orientation --------------------------------------------------------------------------------------------

# (a, b, c, d) of the matrix, in units of 1; what becomes of (H, W, C).
ORIENTATIONS = {
    'upright': ((1, 0, 0, 1), lambda x: x),
    'mirrored': ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    'upside down, mirrored': ((1, 0, 0, -1), lambda x: x[::-1]),
    'half turn': ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    'clockwise': ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    'anticlockwise': ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    'transposed': ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    'transposed the other way': ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
}


def with_matrix(path, target, entries):
    """Copy an MP4 with (a, b, c, d), 16.16 fixed point, in the header of its track."""
    data = bytearray(path.read_bytes())
    start = data.index(b'tkhd') + 4 + 40  # version, flags, times, ids, duration, layer, volume; then the matrix
    a, b, c, d = (round(entry * 65536).to_bytes(4, 'big', signed=True) for entry in entries)
    data[start : start + 20] = a + b + bytes(4) + c + d
    target.write_bytes(data)
    return target


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    return write(tmp_path_factory.mktemp('orientation') / 'stored.mp4', VIDEO)


@pytest.mark.parametrize('name', ORIENTATIONS)
def test_all_eight_orientations_are_applied(tmp_path, stored, name):
    entries, turn = ORIENTATIONS[name]
    video = VideoFile(with_matrix(stored, tmp_path / 'turned.mp4', entries))
    wanted = [turn(frame) for frame in VideoFile(stored)]
    assert video.frame_size == wanted[0].shape[:2]
    assert all(np.array_equal(frame, one) for frame, one in zip(video, wanted, strict=True))
    assert video[3].flags.c_contiguous


@needs_ffmpeg
@pytest.mark.parametrize('name', ORIENTATIONS)
def test_ffmpeg_turns_them_the_same_way(tmp_path, stored, name):
    path = with_matrix(stored, tmp_path / 'turned.mp4', ORIENTATIONS[name][0])
    command = ['ffmpeg', '-v', 'error', '-i', str(path), '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-']
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.stack(list(VideoFile(path))).astype(int)
    # The two convert colours by code of different versions.
    assert np.abs(frames - np.frombuffer(raw, np.uint8).reshape(frames.shape)).mean() < 2


@pytest.mark.parametrize('scale', [1, 2, 0.5])
@pytest.mark.parametrize('name', ORIENTATIONS)
def test_a_scale_and_a_degree_of_slant_play_no_part(name, scale):
    entries, turn = ORIENTATIONS[name]
    frame = np.arange(24).reshape(4, 6, 1)
    (a, b, c, d), slant = (np.array(entries) * 65536 * scale).round().astype(int), round(400 * scale)
    for shift in (-slant, 0, slant):
        # A slight turn on top: cosines stay, sines come.
        matrix = [a + shift * (a == 0), b + shift * (b == 0), 0, c - shift * (c == 0), d + shift * (d == 0), 7, 9, 0, 1]
        assert np.array_equal(read_orientation(matrix).apply(frame), turn(frame))


def test_matrices_that_say_nothing_and_those_of_no_quarter():
    assert read_orientation([0] * 9) == UPRIGHT == Orientation()
    half = round(65536 * 0.7071)
    assert read_orientation([half, half, 0, -half, half, 0, 0, 0, 1 << 30]) is None
    assert read_orientation([65536, 8000, 0, -8000, 65536, 0, 0, 0, 1 << 30]) is None


def test_a_slanted_video_is_refused_by_name(tmp_path, stored):
    path = with_matrix(stored, tmp_path / 'slanted.mp4', (0.7071, 0.7071, -0.7071, 0.7071))
    with pytest.raises(BrokenMediaError, match=r'slanted.mp4: it is to be shown turned by .*45.* degrees'):
        VideoFile(path)[0]


# -- tags and names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('name, codec', [('a.avi', 'mpeg4'), ('a.mp4', 'libx264'), ('a.mkv', 'libx264')])
def test_titles_in_latin_1_are_no_reason_to_refuse_a_video(tmp_path, name, codec):
    path = write(tmp_path / name, (codec, SIZE, 6, DEFAULT), metadata={'title': 'Kxsekuchen', 'artist': 'Fxr'})
    data = path.read_bytes()
    assert b'Kxsekuchen' in data
    path.write_bytes(data.replace(b'Kxsekuchen', b'K\xe4sekuchen').replace(b'Fxr', b'F\xfcr'))
    video = open_frames(path)
    assert len(video) == 6 and video[5].shape == (*SIZE, 3) and video.frame_rate == 10
    assert VideoFileSource(str(tmp_path)).num_frames(0) == 6


@pytest.mark.skipif(os.name != 'posix', reason='names of bytes are of POSIX')
def test_a_name_that_is_no_utf8_is_read_and_can_be_told(tmp_path):
    good, bad = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b'/k\xe4se.mp4', b'/br\xf6t.mp4'))
    write(tmp_path / 'x.mp4', VIDEO).rename(good)
    with open(bad, 'wb') as stream:
        stream.write(b'no video')
    assert len(open_frames(good)) == 6
    source = VideoFileSource(str(tmp_path), max_broken=1)
    assert source.names == [os.path.basename(good)]
    ((_, reason),) = source.broken
    reason.encode('utf-8')


@pytest.mark.skipif(os.name != 'posix', reason='needs links')
def test_a_link_that_leads_nowhere_is_skipped_in_training(tmp_path):
    write(tmp_path / 'x.mp4', VIDEO)
    (tmp_path / 'gone.mp4').symlink_to(tmp_path / 'nowhere.mp4')
    source = VideoFileSource(str(tmp_path), max_broken=1)
    assert source.names == ['x.mp4'] and 'gone.mp4' in source.broken[0][1]
