"""What below a folder is a video, and what lies beside them."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import AutoSource, FrameFolderSource, VideoFileSource
from mmliir.datasets.finding import find_frame_folders, find_video_files, look_for_videos
from mmliir.datasets.pictures import warn_once
from mmliir.datasets.prepare import resize_frames, write_file_list

needs_links = pytest.mark.skipif(os.name != 'posix', reason='needs links')


@pytest.fixture(autouse=True)
def forget_what_was_said():
    warn_once.cache_clear()


def frames(folder, suffix='.jpg', count=3, size=(12, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{number:05d}{suffix}')


def masks(folder, mode='P', count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        ids = np.zeros((12, 16), np.uint8)
        ids[2 + number : 6 + number, 3:9] = 1 if mode == 'P' else 255
        image = Image.fromarray(ids)
        if mode == 'P':
            image.putpalette(bytes(range(256)) * 3)
        image.convert(mode).save(folder / f'{number:05d}.png')


def test_a_davis_root_gives_its_frames_once(tmp_path, caplog):
    for resolution in ('480p', 'Full-Resolution'):
        for name in ('bear', 'flow-dance'):
            frames(tmp_path / 'JPEGImages' / resolution / name)
            masks(tmp_path / 'Annotations' / resolution / name)
            masks(tmp_path / 'Annotations_unsupervised' / resolution / name)
    source = AutoSource(str(tmp_path))
    assert source.names == ['JPEGImages/480p/bear', 'JPEGImages/480p/flow-dance']
    said = '\n'.join(record.message for record in caplog.records)
    for text in ('Annotations (4 places: masks', 'Annotations_unsupervised (4', 'another resolution'):
        assert text in said
    # The folder of one resolution is still what it says.
    assert len(FrameFolderSource(str(tmp_path / 'JPEGImages' / 'Full-Resolution'))) == 2


def test_full_resolution_alone_is_taken(tmp_path):
    frames(tmp_path / 'JPEGImages' / 'Full-Resolution' / 'bear')
    frames(tmp_path / 'JPEGImages' / '1080p' / 'camel')
    assert len(find_frame_folders(tmp_path)) == 2


@pytest.mark.parametrize(
    'video, beside',
    [
        ('train/JPEGImages/a', 'train/Annotations/a'),  # YouTube-VOS
        ('VIP_Fine/Images/videos1', 'VIP_Fine/Annotations/Category_ids/videos1'),
        ('VIP_Fine/Images/videos1', 'VIP_Fine/Instance_ids/videos1'),
        ('a/rgb', 'a/masks'),
        ('a', 'a/mask'),
        ('frames/a', 'flow/a'),
        ('frames/a', 'Flows_fw/a'),
        ('frames/a', 'optical_flow/a'),
        ('frames/a', 'previews/a'),
        ('frames/a', 'thumbnails'),
        ('frames/a', 'depth_maps/a'),
        ('frames/a', 'SegmentationClass'),
    ],
)
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_folders_beside_frames_are_known_by_their_names(tmp_path, caplog, video, beside, suffix):
    frames(tmp_path / video, suffix)
    frames(tmp_path / beside, suffix)  # colours: nothing in them says what they are
    assert list(find_frame_folders(tmp_path)) == [video]
    assert 'LEFT OUT' in caplog.text and 'by their name' in caplog.text


@pytest.mark.parametrize('mode', ['P', 'L', '1'])
def test_masks_are_known_by_what_is_in_them(tmp_path, caplog, mode):
    frames(tmp_path / 'clips' / 'a', '.png')
    masks(tmp_path / 'drawn' / 'a', mode)
    assert list(find_frame_folders(tmp_path)) == ['clips/a']
    assert 'by what is in them' in caplog.text and 'drawn' in caplog.text


def test_grey_and_indexed_frames_are_frames(tmp_path):
    for name, mode in (('a', 'L'), ('b', 'P')):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f'{number}.png')
    assert list(find_frame_folders(tmp_path)) == ['a', 'b']


def test_names_leave_nothing_out_where_nothing_else_is_there(tmp_path, caplog):
    for number in range(3):
        frames(tmp_path / f'flow_{number}')
    assert len(find_frame_folders(tmp_path)) == 3 and not caplog.records


def test_a_mask_beside_the_frames_of_each_video_is_said_in_one_line(tmp_path, caplog):
    for number in range(5):
        frames(tmp_path / f'v{number}')
        Image.new('L', (16, 12)).save(tmp_path / f'v{number}' / 'mask.png')
    with caplog.at_level(logging.WARNING):
        source = FrameFolderSource(str(tmp_path))
    assert [source.num_frames(number) for number in range(5)] == [3] * 5
    assert len(source.left_out) == 5 and 'mask.png' in source.left_out[0]


def test_previews_beside_video_files_are_no_frames(tmp_path):
    av = pytest.importorskip('av')
    (tmp_path / 'films').mkdir()
    for name in ('a', 'b'):
        with av.open(str(tmp_path / 'films' / f'{name}.mp4'), 'w') as container:
            stream = container.add_stream('libx264', rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
            container.mux(stream.encode(None))
        Image.new('RGB', (8, 8)).save(tmp_path / 'films' / f'{name}.jpg')
    Image.new('RGB', (8, 8)).save(tmp_path / 'films' / 'poster.jpg')
    frames(tmp_path / 'thumbnails')
    source = AutoSource(str(tmp_path))
    assert isinstance(source, VideoFileSource) and source.names == ['films/a.mp4', 'films/b.mp4']
    found = look_for_videos(tmp_path)
    assert [name for name, _ in found.left_out] == ['films', 'thumbnails']


# -- links --------------------------------------------------------------------------------------------------


@needs_links
def test_links_that_loop_multiply_nothing(tmp_path):
    root = tmp_path / 'data'
    for name in ('a', 'b'):
        frames(root / name)
    (root / 'a' / 'loop').symlink_to(root)
    (root / 'b' / 'here').symlink_to(root / 'b')
    (root / '0_again').symlink_to(root / 'a')
    (root / 'up').symlink_to(tmp_path)
    frames(tmp_path / 'store' / 'c')
    (root / 'c').symlink_to(tmp_path / 'store' / 'c')
    assert list(find_frame_folders(root)) == ['a', 'b', 'c']
    listed = write_file_list(root, tmp_path / 'list.tsv')
    assert listed.num_videos == 3 and listed.num_frames == 9
    done = resize_frames(root, tmp_path / 'small', short_side=6)
    assert done.num_written == 9 and list(find_frame_folders(tmp_path / 'small')) == ['a', 'b', 'c']


@needs_links
def test_a_video_file_is_taken_once_and_itself_rather_than_a_link(tmp_path, caplog):
    (tmp_path / 'z').mkdir()
    (tmp_path / 'z' / 'real.mp4').write_bytes(b'x')
    (tmp_path / 'a.mp4').symlink_to(tmp_path / 'z' / 'real.mp4')
    (tmp_path / 'loop').symlink_to(tmp_path)
    (tmp_path / 'm').symlink_to(tmp_path / 'z')
    (tmp_path / '.cache').mkdir()
    (tmp_path / '.cache' / 'b.mp4').write_bytes(b'x')
    (tmp_path / '._c.mp4').write_bytes(b'x')
    assert list(find_video_files(tmp_path)) == ['z/real.mp4']
    assert 'links to files that are there already' in caplog.text


def test_masks_as_video_files_are_left_out_by_name(tmp_path):
    for name in ('rgb/a.mp4', 'masks/a.mp4', 'previews/a.webm'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b'x')
    assert list(find_video_files(tmp_path)) == ['rgb/a.mp4']


# -- copies -------------------------------------------------------------------------------------------------


def test_copies_keep_type_and_depth(tmp_path):
    import cv2

    (tmp_path / 'in').mkdir()
    grey = np.full((32, 32), 3000, np.uint16)
    for name in ('a.png', 'b.tif', 'c.pgm'):
        cv2.imwrite(str(tmp_path / 'in' / name), grey)
    for name in ('d.webp', 'e.bmp', 'f.jpeg', 'g.ppm'):
        cv2.imwrite(str(tmp_path / 'in' / name), np.full((32, 32, 3), 90, np.uint8))
    done = resize_frames(tmp_path / 'in', tmp_path / 'out', short_side=8)
    assert done.num_written == 7 and not done.broken
    for path in sorted((tmp_path / 'in').iterdir()):
        before, after = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (path, tmp_path / 'out' / path.name))
        assert after.dtype == before.dtype and after.shape[:2] == (8, 8)
        assert abs(int(after.max()) - int(before.max())) <= 3
        assert Image.open(path).format == Image.open(tmp_path / 'out' / path.name).format
