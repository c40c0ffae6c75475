"""Pictures of 16 bits, of all types, turned and mirrored; frames and masks alike."""

import io
import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import BrokenMediaError, FrameFolder, open_frames, read_image, read_label_map
from mmliir.datasets.doctor.findings import Notebook
from mmliir.datasets.doctor.images import read_header
from mmliir.datasets.pictures import decode_picture, find_bit_depth, to_8_bits, warn_once
from mmliir.datasets.png import read_ids


@pytest.fixture(autouse=True)
def forget_what_was_said():
    warn_once.cache_clear()


def picture(seed=0, size=(12, 16)):
    """(H, W, 3) uint8, from 0 to 250."""
    frame = np.random.default_rng(seed).integers(0, 251, (*size, 3), dtype=np.uint8)
    frame[0, 0], frame[0, 1] = 0, 250
    return frame


def write_16(path, frame, bits):
    """Store 8 bits as the upper ones of `bits` in 16, with noise below."""
    noise = np.random.default_rng(1).integers(0, 1 << (bits - 8), frame.shape, dtype=np.uint16)
    values = (frame.astype(np.uint16) << (bits - 8)) + noise
    cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values)


def with_sbit(path, bits):
    data = path.read_bytes()
    body = b'sBIT' + bytes([bits] * 3)
    chunk = struct.pack('>I', 3) + body + struct.pack('>I', zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])  # behind IHDR


# -- 16 bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.ppm'])
@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_fewer_bits_than_stored_give_the_picture_of_8_bits(tmp_path, caplog, suffix, bits):
    for number in range(3):
        write_16(tmp_path / f'{number}{suffix}', picture(number), bits)
    frames = open_frames(tmp_path)
    assert all(np.array_equal(frame, picture(number)) for number, frame in enumerate(frames))
    assert np.array_equal(read_image(tmp_path / f'1{suffix}'), picture(1))
    said = [record.message for record in caplog.records if str(tmp_path) in record.message]
    if bits == 16:
        assert not said
    else:
        assert f'16 bits are stored, {bits} are used' in said[0] and '--bit-depth 16' in said[0]
        assert len(said) == 2, 'once for the folder, once for the single picture'


def test_grey_pictures_of_12_bits(tmp_path):
    write_16(tmp_path / '0.png', picture()[..., 0], 12)
    assert np.array_equal(open_frames(tmp_path)[0], np.repeat(picture()[..., :1], 3, axis=2))


def test_one_scale_for_a_folder_so_that_brightness_does_not_flicker(tmp_path):
    dark, bright = np.full((4, 4), 100, np.uint16), np.full((4, 4), 4000, np.uint16)
    for number, value in enumerate([dark, bright, dark]):
        cv2.imwrite(str(tmp_path / f'{number}.png'), value)
    frames = FrameFolder(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in frames] == [100 >> 4, 4000 >> 4, 100 >> 4]
    assert read_image(tmp_path / '0.png')[0, 0, 0] == 100  # alone it says 8 bits


def test_pictures_of_8_bits_among_those_of_16(tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), np.full((4, 4), 200, np.uint8))
    cv2.imwrite(str(tmp_path / '1.png'), np.full((4, 4), 3200, np.uint16))
    assert [int(frame[0, 0, 0]) for frame in FrameFolder(tmp_path)] == [200, 200]


def test_the_bits_can_be_given(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / '0.png'), np.full((4, 4), 3840, np.uint16))
    for bits, wanted in ((16, 15), (14, 60), (12, 240), (10, 255)):
        assert open_frames(tmp_path, bit_depth=bits)[0][0, 0, 0] == wanted
        assert read_image(tmp_path / '0.png', bits)[0, 0, 0] == wanted
    assert not caplog.records
    for wrong in (7, 17, 12.0, True, '12'):
        with pytest.raises(ValueError, match='bit_depth: expected 8 to 16'):
            open_frames(tmp_path, bit_depth=wrong)


@pytest.mark.parametrize('declared, largest, used', [(12, 1000, 12), (9, 300, 9), (12, 50000, 16), (16, 900, 16)])
def test_what_a_png_declares_is_taken_where_its_values_fit(tmp_path, declared, largest, used):
    cv2.imwrite(str(tmp_path / '0.png'), np.full((4, 4, 3), largest, np.uint16))
    with_sbit(tmp_path / '0.png', declared)
    assert find_bit_depth([tmp_path / '0.png']) == used


def test_the_largest_value_of_a_pgm_is_a_declaration(tmp_path):
    (tmp_path / '0.pgm').write_bytes(b'P5\n# a camera\n2 1\n4095\n' + np.array([0, 900], '>u2').tobytes())
    assert open_frames(tmp_path)[0][0, 1, 0] == 900 >> 4


def test_black_and_broken_pictures_decide_nothing(tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((4, 4), np.uint16))
    assert find_bit_depth([tmp_path / '0.png', tmp_path / 'none.png']) == 16


def test_16_bits_are_cut_as_they_were():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = cv2.imencode('.png', values)[1]
    by_opencv = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(to_8_bits(values, 16), by_opencv)


# -- types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tif', '.tiff', '.ppm', '.webp', '.jpg', '.jpeg', '.JPG', '.PNG'])
def test_every_type_that_is_listed_is_read_whole_or_refused(tmp_path, suffix):
    frame = cv2.GaussianBlur(picture(size=(64, 48)), (0, 0), 9)
    path = tmp_path / f'0{suffix}'
    quality = {'.webp': [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(suffix, [])
    cv2.imwrite(str(path), frame[..., ::-1], quality)
    read = open_frames(tmp_path)[0]
    assert np.abs(read.astype(int) - frame).max() <= (8 if 'j' in suffix.lower() else 0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BrokenMediaError, match=path.name):
        open_frames(tmp_path)[0]


@pytest.mark.parametrize('form', ['WEBP', 'TIFF'])
def test_a_file_of_several_pictures_is_no_frame(tmp_path, form):
    pictures = [Image.new('RGB', (8, 8), (40 * number, 0, 0)) for number in range(3)]
    path = tmp_path / f'0.{form.lower()}'
    pictures[0].save(path, form, save_all=True, append_images=pictures[1:])
    with pytest.raises(BrokenMediaError, match='holds 3 pictures'):
        read_image(path)


def test_numbers_that_are_no_picture_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / '0.tif'), np.ones((4, 4, 3), np.float32))
    with pytest.raises(BrokenMediaError, match='float32'):
        read_image(tmp_path / '0.tif')


def test_two_pictures_of_one_frame_are_refused(tmp_path):
    for name in ('1.jpg', '1.bmp'):
        cv2.imwrite(str(tmp_path / name), picture())
    with pytest.raises(BrokenMediaError, match=r'1.bmp and 1.jpg are two pictures of one frame'):
        FrameFolder(tmp_path)


def test_what_a_folder_leaves_out_is_logged_once_and_known(tmp_path, caplog):
    for name in ('0.jpg', '1.jpg', 'mask.png', '2.png'):
        cv2.imwrite(str(tmp_path / name), picture())
    (tmp_path / '3.heic').write_bytes(b'x')
    (tmp_path / '.DS_Store').write_bytes(b'x')
    (tmp_path / 'meta.json').write_text('{}')
    with caplog.at_level(logging.WARNING):
        frames = [FrameFolder(tmp_path) for _ in range(2)][0]
    assert frames.frame_names == ('0', '1', '2')
    assert '3.heic' in frames.left_out and 'mask.png' in frames.left_out
    assert 'DS_Store' not in frames.left_out and 'meta.json' not in frames.left_out
    assert [frames.left_out in record.message for record in caplog.records] == [True]


# -- EXIF ---------------------------------------------------------------------------------------------------

_SHOWN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


def turned_file(image, form, orientation):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {'JPEG': {'quality': 100, 'subsampling': 0}, 'WEBP': {'lossless': True}}.get(form, {})
    image.save(stream, form, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize('orientation', _SHOWN)
@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_all_eight_orientations_of_a_picture_are_applied(tmp_path, form, orientation):
    frame = np.zeros((16, 24, 3), np.uint8)
    frame[:8, :8] = 250
    frame[:4, 8:12] = 120
    path = tmp_path / {'JPEG': '0.jpg', 'PNG': '0.png', 'WEBP': '0.webp', 'TIFF': '0.tif'}[form]
    path.write_bytes(turned_file(Image.fromarray(frame), form, orientation))
    wanted = _SHOWN[orientation](frame)
    assert np.abs(decode_picture(path).astype(int) - wanted).max() <= 6
    assert read_header(Notebook(tmp_path), path).size == wanted.shape[:2]


@pytest.mark.parametrize('orientation', _SHOWN)
@pytest.mark.parametrize('mode', ['P', 'L'])
def test_a_mask_is_turned_as_its_frame_is(tmp_path, mode, orientation):
    ids = np.zeros((6, 10), np.uint8)
    ids[:2, :3], ids[4:, 5:] = 1, 2
    image = Image.fromarray(ids)
    if mode == 'P':
        image.putpalette(bytes(range(256)) * 3)
    path = tmp_path / '0.png'
    path.write_bytes(turned_file(image, 'PNG', orientation))
    assert np.array_equal(read_label_map(path).ids, _SHOWN[orientation](ids))
    if orientation == 1:
        assert np.array_equal(read_ids(path), ids)
    else:
        with pytest.raises(ValueError, match='EXIF orientation'):
            read_ids(path)
