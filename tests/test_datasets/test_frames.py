import gc
import pickle
from fractions import Fraction
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from mmliir.datasets import BrokenMediaError, FrameArray, FrameFolder, VideoFile, open_frames, read_image

av = pytest.importorskip('av')

BITS = 8
CELL = 16


def numbered_frame(number):
    """A frame that says its number in eight black or white blocks, safe against compression."""
    frame = np.full((48, BITS * CELL, 3), 90, np.uint8)
    for bit in range(BITS):
        frame[:32, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0
    frame[32:, :, 0] = 40 + 3 * (number % 50)
    return frame


def number_of(frame):
    blocks = frame[8:24].reshape(16, BITS, CELL, 3).mean(axis=(0, 2, 3))
    return int(sum(1 << bit for bit in range(BITS) if blocks[bit] > 128))


def write_video(path, count=40, gop=12, stamps=None, codec='libx264', options=None, container_options=None):
    with av.open(str(path), 'w', options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = BITS * CELL, 48, 'yuv420p'
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = options or {}
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format='rgb24')
            frame.pts = stamps[number] if stamps is not None else number * 40
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('video') / 'clip.mp4', options={'bf': '3'})


def write_frames(folder, names, size=(20, 30)):
    folder.mkdir()
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((*size, 3), value * 10, np.uint8))
    return folder


# -- folders ------------------------------------------------------------------------------------------------


def test_frames_of_a_folder_come_in_natural_order(tmp_path):
    names = ['f10.png', 'f2.png', 'f1.PNG', 'f9.png', '._f0.png']
    folder = write_frames(tmp_path / 'clip', ['x.png'])
    (folder / 'x.png').unlink()
    for name in names:
        cv2.imwrite(str(folder / 'tmp.png'), np.full((4, 4, 3), len(name), np.uint8))
        (folder / 'tmp.png').rename(folder / name)
    frames = FrameFolder(folder)
    assert frames.frame_names == ('f1', 'f2', 'f9', 'f10')
    assert frames.name == 'clip' and len(frames) == 4 and frames.frame_size == (4, 4)


def test_colours_are_rgb(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / '0.png'), red)
    assert FrameFolder(tmp_path)[0][0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('kept', [0, 0.3, 0.9, 'tail'])
def test_a_truncated_image_is_refused_and_named(tmp_path, suffix, kept):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    cut = data[:-2] if kept == 'tail' else data[: int(kept * len(data))]
    path = tmp_path / f'00000{suffix}'
    path.write_bytes(cut)
    with pytest.raises(BrokenMediaError, match=f'00000{suffix}'):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_are_legal(tmp_path):
    image = np.full((16, 16, 3), 100, np.uint8)
    (tmp_path / 'a.jpg').write_bytes(cv2.imencode('.jpg', image)[1].tobytes() + b'maker note')
    assert read_image(tmp_path / 'a.jpg').shape == (16, 16, 3)


def test_not_an_image(tmp_path):
    (tmp_path / 'a.jpg').write_text('<html>not found</html>')
    with pytest.raises(BrokenMediaError, match='a.jpg'):
        FrameFolder(tmp_path)[0]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        FrameFolder(tmp_path / 'nothing')
    with pytest.raises(BrokenMediaError, match='it is empty'):
        FrameFolder(tmp_path)
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(BrokenMediaError, match='notes.txt'):
        FrameFolder(tmp_path)


def test_frames_of_different_sizes_are_refused(tmp_path):
    folder = write_frames(tmp_path / 'clip', ['0.png', '1.png'])
    cv2.imwrite(str(folder / '2.png'), np.zeros((30, 20, 3), np.uint8))
    frames = FrameFolder(folder)
    assert frames[1].shape == (20, 30, 3)
    with pytest.raises(BrokenMediaError, match=r'0.png is 30x20, 2.png is 20x30'):
        frames[2]


def test_frame_array_checks_its_input():
    frames = FrameArray(np.zeros((2, 4, 6, 3), np.uint8), 'a')
    assert len(list(frames)) == 2 and frames.frame_names == ('00000', '00001')
    with pytest.raises(ValueError, match='uint8'):
        FrameArray(np.zeros((2, 4, 6, 3), np.float32))
    with pytest.raises(IndexError, match='0 to 1'):
        frames[2]


# -- videos -------------------------------------------------------------------------------------------------


def test_frame_n_is_the_nth_picture_in_order_and_at_random(clip):
    video = VideoFile(clip)
    assert len(video) == 40
    assert [number_of(frame) for frame in video] == list(range(40))
    for index in np.random.default_rng(0).permutation(40):
        assert number_of(video[int(index)]) == index
    assert number_of(video[-1]) == 39


def test_random_access_gives_the_same_pixels_as_reading_in_order(clip):
    in_order = list(VideoFile(clip))
    video = VideoFile(clip)
    for index in (39, 13, 14, 11, 25, 0, 24, 12):
        assert np.array_equal(video[index], in_order[index])


def test_variable_frame_rate_counts_pictures_not_time(tmp_path):
    steps = np.random.default_rng(1).choice([20, 40, 130, 700], size=30)
    stamps = np.cumsum(steps).tolist()
    video = VideoFile(write_video(tmp_path / 'vfr.mp4', 30, stamps=stamps))
    assert len(video) == 30
    assert [number_of(video[i]) for i in (29, 3, 17, 18, 5)] == [29, 3, 17, 18, 5]


@pytest.mark.parametrize(('name', 'codec'), [('a.mkv', 'libx264'), ('a.avi', 'mpeg4'), ('a.ts', 'libx264')])
def test_other_containers_are_frame_exact(tmp_path, name, codec):
    video = VideoFile(write_video(tmp_path / name, 30, codec=codec))
    assert len(video) == 30
    assert [number_of(video[i]) for i in (0, 29, 7, 8, 20, 0)] == [0, 29, 7, 8, 20, 0]


def test_time_stamps_that_are_missing_are_counted(tmp_path):
    # A raw stream has no container and thus no time stamps that can be sought.
    video = VideoFile(write_video(tmp_path / 'raw.h264', 20))
    assert len(video) == 20
    assert [number_of(video[i]) for i in (19, 4, 5)] == [19, 4, 5]


def test_open_groups_of_pictures_decode_clean_after_a_seek(tmp_path):
    path = write_video(tmp_path / 'open.mp4', 40, options={'x264-params': 'open-gop=1:bframes=3:keyint=10'})
    in_order, video = list(VideoFile(path)), VideoFile(path)
    for index in range(39, -1, -3):
        assert np.array_equal(video[index], in_order[index])


def test_a_rotation_in_the_metadata_is_applied(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    start = data.index(b'tkhd') + 4 + 40  # version, flags, times, ids, duration, layer, volume; then the matrix
    one = (1 << 16).to_bytes(4, 'big')
    minus_one = ((1 << 32) - (1 << 16)).to_bytes(4, 'big')
    assert data[start : start + 4] == one
    data[start : start + 20] = bytes(4) + one + bytes(4) + minus_one + bytes(4)  # clockwise by 90 degrees
    (tmp_path / 'phone.mp4').write_bytes(data)
    upright, stored = VideoFile(tmp_path / 'phone.mp4'), VideoFile(clip)
    assert upright.frame_size == (BITS * CELL, 48)
    assert np.array_equal(upright[5], np.rot90(stored[5], -1))


@pytest.mark.parametrize('faststart', [False, True])
def test_a_cut_off_mp4_is_refused(tmp_path, faststart):
    options = {'movflags': 'faststart'} if faststart else {}
    path = write_video(tmp_path / 'whole.mp4', 60, container_options=options)
    data = path.read_bytes()
    assert (data.index(b'moov') < data.index(b'mdat')) == faststart
    (tmp_path / 'cut.mp4').write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(BrokenMediaError, match='cut.mp4'):
        len(VideoFile(tmp_path / 'cut.mp4'))


def test_a_cut_off_mkv_is_refused(tmp_path):
    path = write_video(tmp_path / 'whole.mkv', 120)
    data = path.read_bytes()
    (tmp_path / 'cut.mkv').write_bytes(data[: int(0.5 * len(data))])
    with pytest.raises(BrokenMediaError, match='cut.mkv'):
        list(VideoFile(tmp_path / 'cut.mkv'))


def test_noise_in_the_middle_never_gives_a_wrong_frame(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    start = data.index(b'mdat') + len(data) // 3
    data[start : start + 400] = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8).tobytes()
    (tmp_path / 'noise.mp4').write_bytes(data)
    with pytest.raises(BrokenMediaError, match='noise.mp4'):
        for number, frame in enumerate(VideoFile(tmp_path / 'noise.mp4')):
            assert number_of(frame) == number


def test_files_that_are_no_video(tmp_path):
    (tmp_path / 'a.mp4').write_text('no video at all, but long enough to be looked at')
    with pytest.raises(BrokenMediaError, match='cannot be opened as video'):
        len(VideoFile(tmp_path / 'a.mp4'))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        VideoFile(tmp_path / 'b.mp4')
    with pytest.raises(FileNotFoundError, match='use FrameFolder'):
        VideoFile(tmp_path)


def _read_number(video, index):
    return number_of(video[index])


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_an_open_video_works_in_workers(clip, method):
    video = VideoFile(clip)
    assert number_of(video[20]) == 20  # the decoder is open here
    with get_context(method).Pool(1) as pool:
        assert pool.starmap_async(_read_number, [(video, i) for i in (21, 3, 39)]).get(120) == [21, 3, 39]
    assert number_of(video[21]) == 21
    assert number_of(pickle.loads(pickle.dumps(video))[7]) == 7


def _read_inherited(video, queue):
    gc.collect()  # frees decoders that the parent left
    queue.put([number_of(video[i]) for i in (21, 3, 39)])


def test_a_forked_worker_may_read_and_free_what_it_inherits(clip):
    video, other = VideoFile(clip), VideoFile(clip)
    assert number_of(video[20]) == 20 and number_of(other[2]) == 2
    other.itself = other  # garbage that only the collector finds
    del other
    context = get_context('fork')
    queue = context.Queue()
    worker = context.Process(target=_read_inherited, args=(video, queue))
    worker.start()
    assert queue.get(timeout=60) == [21, 3, 39]
    worker.join(60)
    assert worker.exitcode == 0
    assert number_of(video[21]) == 21, 'the worker moved the decoder of its parent'


def test_open_frames_chooses(tmp_path, clip):
    folder = write_frames(tmp_path / 'clip', ['0.png'])
    assert isinstance(open_frames(folder), FrameFolder)
    assert isinstance(open_frames(clip), VideoFile)
    with pytest.raises(ValueError, match='one image'):
        open_frames(folder / '0.png')


@pytest.mark.real
def test_real_clips_are_counted_as_their_headers_say(data_root):
    paths = sorted((data_root / 'train' / 'Videos').glob('*.mp4'))[:6]
    for path in paths:
        with av.open(str(path)) as container:
            assert len(VideoFile(path)) == container.streams.video[0].frames
