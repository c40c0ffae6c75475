import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmliir.datasets import BrokenMediaError, check_mask_size, read_label_map, write_label_map
from mmliir.structures.palette import davis_palette


@pytest.fixture
def ids():
    ids = np.zeros((40, 60), np.uint8)
    ids[5:20, 5:25] = 1
    ids[22:35, 10:50] = 2
    ids[2:12, 40:58] = 5
    return ids


def save(tmp_path, array, mode=None, name='m.png'):
    path = tmp_path / name
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_what_is_written_is_read(tmp_path, ids):
    path = tmp_path / 'new' / 'm.png'
    write_label_map(path, ids)
    with Image.open(path) as image:
        assert image.mode == 'P'
        assert np.array_equal(np.array(image.getpalette()).reshape(-1, 3)[:6], davis_palette()[:6])
    assert np.array_equal(read_label_map(path).ids, ids)
    assert os.listdir(path.parent) == ['m.png'], 'a temporary file was left'


def test_every_id_survives_writing(tmp_path):
    ids = np.kron(np.arange(256).reshape(16, 16), np.ones((3, 3))).astype(np.uint8)
    write_label_map(tmp_path / 'm.png', ids)
    assert np.array_equal(read_label_map(tmp_path / 'm.png').ids, ids)


def test_write_refuses_other_types(tmp_path, ids):
    with pytest.raises(ValueError, match='uint8'):
        write_label_map(tmp_path / 'm.png', ids.astype(np.int64))
    assert not (tmp_path / 'm.png').exists()


def test_all_image_modes_mean_the_same(tmp_path, ids):
    opaque = np.full_like(ids, 255)
    gray = np.repeat(ids[..., None], 3, axis=2)
    color = davis_palette()[ids]
    saved = {
        'L': save(tmp_path, ids, name='l.png'),
        'LA': save(tmp_path, np.stack([ids, opaque], -1), name='la.png'),
        'I;16': save(tmp_path, ids.astype(np.uint16), name='i16.png'),
        'I': save(tmp_path, ids.astype(np.int32), name='i.tif'),
        'RGB grey': save(tmp_path, gray, name='gray.png'),
        'RGB palette': save(tmp_path, color, name='rgb.png'),
        'RGBA palette': save(tmp_path, np.dstack([color, opaque]), name='rgba.png'),
    }
    for what, path in saved.items():
        label_map = read_label_map(path)
        assert label_map.ids.dtype == np.uint8, what
        assert np.array_equal(label_map.ids, ids), what


def test_one_bit_image(tmp_path, ids):
    path = save(tmp_path, (ids > 0).astype(np.uint8) * 255, mode='1')
    with Image.open(path) as image:
        assert image.mode == '1'
    assert np.array_equal(read_label_map(path).ids, ids > 0)


def test_the_davis_copy_of_the_palette_with_191_is_known(tmp_path):
    ids = np.zeros((30, 30), np.uint8)
    ids[3:15, 3:15], ids[18:28, 5:28] = 9, 10  # (192, 0, 0) and (64, 128, 0)
    color = davis_palette()[ids].copy()
    color[color == 192] = 191
    assert np.array_equal(read_label_map(save(tmp_path, color)).ids, ids)


def test_other_colours_are_numbered_in_sorted_order_and_named(tmp_path, ids):
    color = np.zeros((*ids.shape, 3), np.uint8)
    color[ids == 1], color[ids == 2], color[ids == 5] = (255, 0, 0), (0, 0, 255), (0, 250, 0)
    label_map = read_label_map(save(tmp_path, color))
    assert [label_map.ids[ids == i][0] for i in (0, 1, 2, 5)] == [0, 3, 1, 2]
    assert '1=(0, 0, 255), 2=(0, 250, 0), 3=(255, 0, 0)' in ' '.join(label_map.notes)


def test_gaps_in_ids_are_kept_and_noted(tmp_path, ids):
    label_map = read_label_map(save(tmp_path, ids))
    assert label_map.objects == (1, 2, 5)
    assert 'not consecutive: 1, 2, 5' in label_map.notes[0]


def test_a_single_mask_of_0_and_255(tmp_path, ids):
    path = save(tmp_path, np.where(ids > 0, 255, 0).astype(np.uint8))
    assert read_label_map(path).objects == (255,)
    assert 'binary=True' in read_label_map(path).notes[0]
    assert np.array_equal(read_label_map(path, binary=True).ids, ids > 0)


def test_void_is_background_and_told_apart(tmp_path, ids):
    with_void = ids.copy()
    with_void[30:38, 20:40] = 255
    label_map = read_label_map(save(tmp_path, with_void), void=255)
    assert label_map.objects == (1, 2, 5)
    assert np.array_equal(label_map.void, with_void == 255)
    assert read_label_map(save(tmp_path, with_void)).void is None


def test_the_two_channel_mask_of_davis_2016(tmp_path, ids):
    mask = np.where(ids > 0, 255, 0).astype(np.uint8)
    path = save(tmp_path, np.stack([mask, np.full_like(mask, 255)], -1))
    assert np.array_equal(read_label_map(path, binary=True).ids, ids > 0)


def test_transparent_pixels_are_background(tmp_path, ids):
    alpha = np.where(ids == 2, 0, 255).astype(np.uint8)
    label_map = read_label_map(save(tmp_path, np.dstack([davis_palette()[ids], alpha])))
    assert label_map.objects == (1, 5)
    assert any('transparent' in note for note in label_map.notes)


def test_ids_over_255_are_refused_with_their_values(tmp_path, ids):
    wide = ids.astype(np.uint16)
    wide[ids == 5] = 1005
    with pytest.raises(ValueError, match='found 1005'):
        read_label_map(save(tmp_path, wide))


def test_too_many_objects(tmp_path):
    ids = np.kron(np.arange(64).reshape(8, 8), np.ones((4, 4))).astype(np.uint8)
    assert len(read_label_map(save(tmp_path, ids)).objects) == 63
    with pytest.raises(ValueError, match='63 distinct ids, more than max_ids=10'):
        read_label_map(save(tmp_path, ids), max_ids=10)


@pytest.mark.parametrize('kind', ['grey', 'colour', 'jpeg'])
def test_smoothed_edges_are_refused(tmp_path, kind):
    y, x = np.mgrid[:120, :160]
    mask = (((x - 80) ** 2 + (y - 60) ** 2 < 45**2) * 255).astype(np.uint8)
    image = Image.fromarray(mask).filter(ImageFilter.GaussianBlur(2))
    if kind == 'colour':
        red = np.zeros((120, 160, 3), np.uint8)
        red[..., 0] = np.array(image)
        red[..., 1] = np.array(image) // 3
        image = Image.fromarray(red)
    path = tmp_path / 'm.png'
    if kind == 'jpeg':
        path = tmp_path / 'm.jpg'
        Image.fromarray(mask).save(path, quality=80)
    else:
        image.save(path)
    with pytest.raises(ValueError, match='smoothed'):
        read_label_map(path)


def test_a_photograph_is_no_mask(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match='different colours'):
        read_label_map(save(tmp_path, noise))


def test_no_object(tmp_path):
    path = save(tmp_path, np.zeros((10, 10), np.uint8))
    assert 'no object' in read_label_map(path).notes[0]
    with pytest.raises(ValueError, match='at least one object'):
        read_label_map(path, require_object=True)


def test_missing_and_broken_files(tmp_path, ids):
    with pytest.raises(FileNotFoundError, match='nothing.png'):
        read_label_map(tmp_path / 'nothing.png')
    path = save(tmp_path, np.random.default_rng(0).integers(0, 9, (60, 60)).astype(np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BrokenMediaError, match='m.png'):
        read_label_map(path)
    path.write_text('no image')
    with pytest.raises(BrokenMediaError, match='m.png'):
        read_label_map(path)


def test_the_size_of_the_frame(tmp_path, ids):
    label_map = read_label_map(save(tmp_path, ids))
    check_mask_size(label_map, (40, 60), 'm.png')
    with pytest.raises(ValueError, match=r'the mask is 60x40, the frame is 854x480 .*nearest'):
        check_mask_size(label_map, (480, 854), 'm.png')
    with pytest.raises(ValueError, match='rotated'):
        check_mask_size(label_map, (60, 40), 'm.png')
