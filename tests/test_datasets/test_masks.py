import os

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mmliir.datasets import (
    BrokenMediaError,
    DavisDataset,
    check_mask_size,
    number_colors,
    read_label_map,
    write_label_map,
)
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


# -- anti-aliasing ----------------------------------------------------------------------------------------------------

RESIZES = {
    'box 2': (2, Image.Resampling.BOX),
    'box 4': (4, Image.Resampling.BOX),
    'box 8': (8, Image.Resampling.BOX),
    'bilinear': (3, Image.Resampling.BILINEAR),
    'bicubic': (3, Image.Resampling.BICUBIC),
}
DISC, TOUCHING, APART = (40, 20, 110, 90), (90, 30, 150, 100), (115, 95, 150, 118)


def draw(colors, shapes=(DISC,), scale=1, mode='L'):
    """Discs of some colours at `scale` times 160 x 120."""
    image = Image.new(mode, (160 * scale, 120 * scale))
    for shape, color in zip(shapes, colors, strict=True):
        ImageDraw.Draw(image).ellipse([scale * side for side in shape], fill=color)
    return image


def smooth(colors, shapes=(DISC,), resize='box 8', mode='L'):
    """The same, drawn larger and made smaller: with anti-aliased edges."""
    scale, method = RESIZES[resize]
    return draw(colors, shapes, scale, mode).resize((160, 120), method)


def covered(shape=DISC, scale=8):
    """(H, W), which share of a pixel a disc covers."""
    return np.array(draw([255], [shape], scale).resize((160, 120), Image.Resampling.BOX)) / 255


def saved(tmp_path, image, name='m.png', **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize('top', [255, 200, 64])
@pytest.mark.parametrize('resize', RESIZES)
def test_a_grey_anti_aliased_object_is_one_object_of_the_pixels_that_it_covers_by_half(tmp_path, resize, top):
    image = smooth([top], resize=resize)
    path, pixels = saved(tmp_path, image), np.array(image)
    assert len(np.unique(pixels)) >= 4
    if pixels.max() > top:  # bicubic overshoots: which of the bright values is the object's is no certain thing
        with pytest.raises(ValueError, match='smoothed'):
            read_label_map(path)
        return
    label_map = read_label_map(path)
    assert label_map.objects == (top,) and 'smooth edges' in label_map.notes[0]
    assert np.array_equal(label_map.ids > 0, 2 * pixels.astype(int) >= top)


@pytest.mark.parametrize('colors', [((255, 0, 0), (0, 255, 0)), ((128, 0, 0), (0, 128, 0))])
@pytest.mark.parametrize('shapes', [(DISC, TOUCHING), (DISC, APART)])
def test_several_anti_aliased_colours_are_as_many_objects(tmp_path, colors, shapes):
    hard = read_label_map(saved(tmp_path, draw(colors, shapes, mode='RGB')))
    label_map = read_label_map(saved(tmp_path, smooth(colors, shapes, mode='RGB')))
    assert label_map.objects == hard.objects == (1, 2)
    assert (label_map.ids != hard.ids).mean() < 0.02


@pytest.mark.parametrize(
    ('mode', 'colors'), [('L', (128, 255)), ('L', (100, 255)), ('RGB', ((128, 0, 0), (255, 0, 0)))]
)
def test_smooth_edges_that_could_be_another_object_are_refused(tmp_path, mode, colors):
    shapes = DISC, APART
    with pytest.raises(ValueError, match='smoothed .* several objects'):
        read_label_map(saved(tmp_path, smooth(colors, shapes, mode=mode)))
    assert len(read_label_map(saved(tmp_path, draw(colors, shapes, mode=mode))).objects) == 2


def test_0_128_255_is_two_objects_where_128_is_an_area_and_one_where_it_is_a_thin_border(tmp_path):
    area = read_label_map(saved(tmp_path, draw([128, 255], [DISC, TOUCHING])))
    assert area.objects == (128, 255)
    ring = np.zeros((80, 80), np.uint8)
    ring[20:60, 20:60], ring[21:59, 21:59] = 128, 255
    label_map = read_label_map(save(tmp_path, ring))
    assert label_map.objects == (255,) and np.array_equal(label_map.ids > 0, ring > 0)


@pytest.mark.parametrize('numbers', [(1, 2), (2, 1), (3, 9), (1, 20)])
def test_ids_stay_ids_however_thin_an_object_is(tmp_path, numbers):
    ids = np.zeros((80, 80), np.uint8)
    ids[20:60, 20:60], ids[60:61, 20:60], ids[5, 5] = numbers[1], numbers[0], 7
    label_map = read_label_map(save(tmp_path, ids))
    assert np.array_equal(label_map.ids, ids)
    assert any('border of others alone' in note for note in label_map.notes) == (numbers[0] < numbers[1])


def test_a_small_object_of_its_own_is_kept_beside_a_bright_one(tmp_path):
    ids = np.zeros((80, 80), np.uint8)
    ids[20:60, 20:60], ids[70:72, 70:72] = 255, 100
    assert read_label_map(save(tmp_path, ids)).objects == (100, 255)


def test_numbers_of_indexed_files_and_of_benchmarks_are_never_changed(tmp_path):
    ring = np.zeros((80, 80), np.uint8)
    ring[20:60, 20:60], ring[21:59, 21:59] = 128, 255
    write_label_map(tmp_path / 'p.png', ring)
    assert np.array_equal(read_label_map(tmp_path / 'p.png').ids, ring)
    path = save(tmp_path, ring)
    assert read_label_map(path, void=255).objects == (128,)
    assert np.array_equal(read_label_map(path, binary=True).ids, ring > 0)


@pytest.mark.parametrize('quality', [60, 90, 100])
def test_a_jpeg_is_refused_unless_it_kept_two_values(tmp_path, quality):
    with pytest.raises(ValueError, match='is a JPEG.*smoothed.*Save it as PNG'):
        read_label_map(saved(tmp_path, draw([255]), 'm.jpg', quality=quality))
    with pytest.raises(ValueError, match='is a JPEG'):
        read_label_map(saved(tmp_path, draw([1, 9], [DISC, APART]), 'm.jpg', quality=quality))
    blocks = Image.fromarray(np.kron(np.array([[0, 0], [0, 255]], np.uint8), np.ones((16, 16), np.uint8)))
    assert read_label_map(saved(tmp_path, blocks, 'm.jpg', quality=quality)).objects == (255,)


# -- opacity, bits ----------------------------------------------------------------------------------------------------


def layers(*channels):
    return Image.fromarray(np.dstack(channels), {2: 'LA', 4: 'RGBA'}[len(channels)])


@pytest.mark.parametrize('kind', ['RGBA', 'RGBA premultiplied', 'LA', 'LA premultiplied', 'black', 'two colours'])
def test_soft_opacity_ends_the_object_at_one_half(tmp_path, kind):
    alpha = np.round(255 * covered()).astype(np.uint8)
    full, none = np.full_like(alpha, 255), np.zeros_like(alpha)
    left = np.arange(160)[None] < 75
    image = {
        'RGBA': lambda: layers(full, none, none, alpha),
        'RGBA premultiplied': lambda: layers(alpha, none, none, alpha),
        'LA': lambda: layers(full, alpha),
        'LA premultiplied': lambda: layers(alpha, alpha),
        'black': lambda: layers(none, none, none, alpha),
        'two colours': lambda: layers(np.where(left, full, none), np.where(left, none, full), none, alpha),
    }[kind]()
    label_map = read_label_map(saved(tmp_path, image))
    assert np.array_equal(label_map.ids > 0, alpha >= 128)
    assert len(label_map.objects) == (2 if kind == 'two colours' else 1)
    assert any('transparent' in note for note in label_map.notes)


def indexed(ids, colors):
    image = Image.fromarray(ids)
    image.putpalette([channel for color in colors for channel in color] + [0] * (768 - 3 * len(colors)))
    return image


def test_transparent_entries_of_a_palette_are_background(tmp_path, ids):
    ids = np.where(ids == 5, 3, ids).astype(np.uint8)
    colors = [(0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for clear in (0, bytes([0]), bytes([0, 255, 255, 200])):
        assert np.array_equal(read_label_map(saved(tmp_path, indexed(ids, colors), transparency=clear)).ids, ids)
    soft = read_label_map(saved(tmp_path, indexed(ids, colors), transparency=bytes([0, 255, 90, 200])))
    assert np.array_equal(soft.ids, np.where(ids == 2, 0, ids))
    # An editor may number the background last: then its colours say what is an object.
    last = np.array([3, 0, 1, 2], np.uint8)[ids]
    label_map = read_label_map(saved(tmp_path, indexed(last, [*colors[1:], colors[0]]), transparency=3))
    assert label_map.objects == (1, 2, 3) and np.array_equal(label_map.ids == 0, ids == 0)


def test_a_transparent_grey_or_colour_is_background(tmp_path, ids):
    grey = np.where(ids == 0, 200, ids).astype(np.uint8)
    assert np.array_equal(read_label_map(saved(tmp_path, Image.fromarray(grey), transparency=200)).ids, ids)
    color = davis_palette()[np.where(ids == 0, 9, ids)]
    path = saved(tmp_path, Image.fromarray(color), transparency=tuple(int(c) for c in davis_palette()[9]))
    assert np.array_equal(read_label_map(path).ids, ids)


def test_eight_bits_widened_to_sixteen_are_narrowed(tmp_path, ids):
    label_map = read_label_map(save(tmp_path, ids.astype(np.uint16) * 257))
    assert np.array_equal(label_map.ids, ids) and '257' in label_map.notes[0]
    white = np.array(smooth([255])).astype(np.uint16) * 257
    label_map = read_label_map(save(tmp_path, white))
    assert label_map.objects == (255,) and np.array_equal(label_map.ids > 0, white >= 128 * 257)


# -- colours of several masks -----------------------------------------------------------------------------------------


def test_colours_of_several_masks_are_numbered_together(tmp_path):
    both = saved(tmp_path, draw([(250, 0, 0), (0, 250, 0)], [DISC, APART], mode='RGB'), 'both.png')
    red = saved(tmp_path, smooth([(250, 0, 0)], mode='RGB'), 'red.png')
    blue = saved(tmp_path, draw([(0, 0, 250)], [APART], mode='RGB').convert('RGBA'), 'blue.png')
    colors = number_colors([both, red, blue])
    assert [read_label_map(path, colors=colors).objects for path in (both, red, blue)] == [(2, 3), (3,), (1,)]
    assert any('together with those of the other masks' in n for n in read_label_map(red, colors=colors).notes)
    with pytest.raises(ValueError, match='4 different colours|3 different colours in 3 masks.*max_ids=2'):
        number_colors([both, red, blue], max_ids=2)


def test_ids_and_colours_together_are_refused_unless_the_palette_says_the_ids(tmp_path):
    grey, indices = saved(tmp_path, draw([255]), 'grey.png'), tmp_path / 'indices.png'
    write_label_map(indices, np.array(draw([1])))
    palette = saved(tmp_path, Image.fromarray(davis_palette()[np.array(draw([1]))]), 'palette.png')
    free = saved(tmp_path, draw([(250, 0, 0)], mode='RGB'), 'free.png')
    assert number_colors([grey, indices]) is None and number_colors([saved(tmp_path, draw([9]).convert('RGB'))]) is None
    colors = number_colors([indices, palette])
    assert read_label_map(indices, colors=colors).objects == read_label_map(palette, colors=colors).objects == (1,)
    for other in (grey, indices):
        with pytest.raises(ValueError, match=f'{other.name} holds ids, .*free.png colours'):
            number_colors([other, free])
    # Black and white saved in colours is a colour beside others.
    white = saved(tmp_path, draw([(255, 255, 255)], mode='RGB'), 'white.png')
    colors = number_colors([white, free])
    assert read_label_map(white, colors=colors).objects == (2,) and read_label_map(free, colors=colors).objects == (1,)


@pytest.mark.parametrize('given', ['first_frame', 'first_appearance'])
def test_annotations_in_colours_number_an_object_alike_in_every_frame(tmp_path, given):
    from mmliir.testing.synthetic import generate_video, write_davis_layout

    write_davis_layout(tmp_path, [generate_video(0, 4, (120, 160), name='v')])
    shown = [((250, 0, 0), (0, 250, 0)), ((250, 0, 0),), ((0, 250, 0),), ((0, 250, 0), (0, 0, 250))]
    for number, colors in enumerate(shown):
        image = draw(colors, (DISC, APART)[: len(colors)], mode='RGB')
        image.save(tmp_path / 'Annotations' / '480p' / 'v' / f'{number:05d}.png')
    dataset = DavisDataset(tmp_path, given=given)
    found = {number: set(np.unique(read())) - {0} for number, read in dataset.truth_labels('v').items()}
    assert found == {0: {2, 3}, 1: {3}, 2: {2}, 3: {1, 2}}
    late = {number: set(np.unique(read())) - {0} for number, read in dataset.sample('v').given_labels.items()}
    assert late == ({0: {2, 3}} if given == 'first_frame' else {0: {2, 3}, 3: {1}})
    assert dataset.allowed_ids('v') == {2, 3}
