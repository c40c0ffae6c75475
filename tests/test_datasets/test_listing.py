"""Which files are a sequence, and in which order."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import listing
from mmliir.datasets.listing import (
    label_map_path,
    list_label_maps,
    list_pictures,
    names_other_than_frames,
    natural_key,
    sort_naturally,
    walk_folders,
)


def write(folder, *names, mode='RGB'):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.lower().endswith(listing.IMAGE_SUFFIXES):
            Image.new(mode, (6, 4)).save(folder / name)
        else:
            (folder / name).write_bytes(b'x')
    return folder


def names_of(found):
    return [path.name for path in found.files]


# -- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'wanted',
    [
        ['2', '10', '100'],
        ['0.0', '0.25', '0.5', '0.75', '1.0', '1.25', '10.5'],  # as repr writes decimals
        ['0.050', '0.100', '0.150', '1.000', '10.000'],  # a fixed number of places
        ['1.1', '1.2', '1.9', '1.10', '1.11', '2.1'],  # counters: nobody writes the decimal 1.10 beside 1.9
        ['shot1.0001', 'shot1.0002', 'shot1.0010', 'shot2.0001'],
        ['2024.01.02', '2024.01.15', '2024.02.01'],
        ['-10', '-2', '-1', '0', '1', '2'],
        ['-1.5', '-1.25', '-0.5', '0.0', '0.25'],
        ['frame-1', 'frame-2', 'frame-10'],  # a dash
        ['t=-2', 't=-1', 't=0', 't=1'],
        ['x_-2', 'x_-1', 'x_0', 'x_1'],
        ['a/-1', 'a/0', 'b/-2'],
        ['frame', 'frame1', 'frame2', 'frame10'],
        ['Frame1', 'frame2', 'FRAME3'],
        ['a01', 'a1', 'a2'],  # equal numbers: by the name, so that the order is always the same
        ['9' * 30, '1' + '0' * 30],
        ['٠', '١', '٢', '١٠'],  # decimal digits of other scripts count
    ],
    ids=lambda names: names[0],
)
def test_names_sort_by_their_numbers(wanted):
    for shuffle in range(5):
        names = list(np.random.default_rng(shuffle).permutation(wanted))
        assert sort_naturally(names) == wanted


def test_what_isdigit_calls_a_digit_and_int_does_not_is_text():
    names = ['x²', '²', '½', '①', 'a³b', '1']
    assert sorted(sort_naturally(names)) == sorted(names)
    assert natural_key('²')[0] == ('²',)


def test_the_order_of_plain_names_is_the_one_of_old():
    # Hexadecimal names as of YouTube-VOS: runs of digits by value, text between them.
    names = ['003234408d', '0043f083b5', 'ff773b1a1e', '00f88c4f0a', '9a', '10a']
    assert sort_naturally(names) == ['00f88c4f0a', '9a', '10a', '0043f083b5', '003234408d', 'ff773b1a1e']


# -- which --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', listing.IMAGE_SUFFIXES)
@pytest.mark.parametrize('change', [str.lower, str.upper])
def test_every_type_of_picture_is_a_frame_beside_any_other(tmp_path, suffix, change):
    folder = write(tmp_path, '00000.jpg', '00001.jpg', f'00002{change(suffix)}')
    assert [path.stem for path in list_pictures(folder).files] == ['00000', '00001', '00002']


@pytest.mark.parametrize(
    'stray, why',
    [
        ('._00000.png', listing.HIDDEN),
        ('.DS_Store', listing.HIDDEN),
        ('Thumbs.db', listing.HIDDEN),
        ('notes.txt', listing.OTHER_TYPE),
        ('00001.flo', listing.OTHER_TYPE),
        ('noext', listing.OTHER_TYPE),
        ('mask.png', listing.NAMED_OTHERWISE),
        ('00000_mask.png', listing.NAMED_OTHERWISE),
        ('flow_00001.png', listing.NAMED_OTHERWISE),
        ('Preview.PNG', listing.NAMED_OTHERWISE),
        ('cover.png', listing.NO_NUMBER),
        ('first.webp', listing.NO_NUMBER),
    ],
)
def test_what_is_no_frame_is_left_out_and_named(tmp_path, stray, why):
    folder = write(tmp_path, '00000.png', '00001.png', '00002.png')
    if stray.lower().endswith(('.png', '.webp')):
        write(folder, stray)
    else:
        (folder / stray).write_bytes(b'x')
    found = list_pictures(folder)
    assert names_of(found) == ['00000.png', '00001.png', '00002.png']
    assert found.left_out == ((stray, why),)
    assert stray in found.told() and why in found.told()


@pytest.mark.parametrize(
    'names',
    [
        ['mask_0.png', 'mask_1.png', 'mask_2.png'],  # all are named so
        ['frame.png', 'frame1.png', 'frame2.png'],  # the first without a number
        ['image.png', 'image (2).png', 'image (3).png'],
        ['red.png', 'green.png', 'blue.png'],  # none has a number
        ['a1.png', 'b.png', 'c7d.png'],  # no pattern
        ['1.png', '2.png', 'x².png'],
        ['l_1.png', 'l_2.png', 'r_1.png', 'r_2.png'],
        ['flower1.png', 'flower2.png'],
    ],
    ids=lambda names: names[0],
)
def test_what_may_be_a_frame_stays(tmp_path, names):
    found = list_pictures(write(tmp_path, *names))
    assert sorted(names_of(found)) == sorted(names) and not found.left_out and found.told() == ''


@pytest.mark.parametrize('mode', ['P', 'L', '1'])
@pytest.mark.parametrize('names', [('0.png', '1.png'), ('0.png',), ('7.png',)])
def test_masks_among_frames_of_another_type_are_known_by_what_is_in_them(tmp_path, mode, names):
    folder = write(tmp_path, '0.jpg', '1.jpg')
    write(folder, *names, mode=mode)
    found = list_pictures(folder)
    assert names_of(found) == ['0.jpg', '1.jpg']
    assert found.left_out == tuple((name, listing.IDS) for name in names)
    assert names_of(list_label_maps(folder)) == list(names)


def test_of_two_pictures_of_a_frame_the_one_of_the_usual_type_counts(tmp_path):
    found = list_pictures(write(tmp_path, '0.jpg', '1.jpg', '2.jpg', '1.png', '2.bmp', '3.png'))
    assert names_of(found) == ['0.jpg', '1.jpg', '2.jpg', '3.png']
    assert found.left_out == (('1.png', listing.SECOND), ('2.bmp', listing.SECOND))
    # Where there are as many of both, a reader has to ask.
    assert len(list_pictures(write(tmp_path / 'a', '0.jpg', '1.jpg', '0.png', '1.png')).files) == 4


def test_indexed_frames_stay_where_all_are_so(tmp_path):
    assert len(list_pictures(write(tmp_path, '0.png', '1.png', mode='P')).files) == 2


def test_previews_of_video_files_are_no_frames(tmp_path):
    found = list_pictures(write(tmp_path, 'a1.mp4', 'a2.mp4', 'a1.jpg', 'a2.jpg'))
    assert not found.files and {why for name, why in found.left_out if name.endswith('.jpg')} == {listing.PREVIEW}


def test_label_maps_are_listed_by_the_same_rules_and_order(tmp_path):
    folder = write(tmp_path, *(f'{number}.png' for number in (0, 2, 9, 10)), '11.PNG', '0_preview.png', mode='P')
    (folder / '._0.png').write_bytes(b'x')
    (folder / '0.txt').write_text('1 1')
    write(folder, '3.jpg')
    found = list_label_maps(folder)
    assert names_of(found) == ['0.png', '2.png', '9.png', '10.png', '11.PNG']
    assert dict(found.left_out) == {
        '._0.png': listing.HIDDEN,
        '0.txt': listing.OTHER_TYPE,
        '3.jpg': listing.OTHER_LABEL_TYPE,
        '0_preview.png': listing.NAMED_OTHERWISE,
    }
    assert [name for name, _ in found.noteworthy] == ['0_preview.png', '3.jpg']


def test_a_label_map_is_found_under_either_case_of_its_suffix(tmp_path):
    write(tmp_path, 'a.png', 'b.PNG', mode='P')
    assert label_map_path(tmp_path, 'a').name == 'a.png' and label_map_path(tmp_path, 'c').name == 'c.png'
    assert label_map_path(tmp_path, 'b').samefile(tmp_path / 'b.PNG')


def test_folders_are_not_files(tmp_path):
    folder = write(tmp_path, '0.png')
    (folder / '1.png').mkdir()
    assert names_of(list_pictures(folder)) == ['0.png'] and not list_pictures(folder).left_out


@pytest.mark.parametrize(
    'name, other',
    [
        *((name, True) for name in ('Annotations', 'annotations_480p', 'Annotations_unsupervised', 'GT_masks')),
        *((name, True) for name in ('SegmentationClass', 'Category_ids', 'Instance_ids', 'masks', 'flow_fw')),
        *((name, True) for name in ('Flows', 'optical_flow', 'OpticalFlow', 'previews', 'thumbnails')),
        *((name, True) for name in ('depth_maps', 'ground-truth', 'masks2')),
        *((name, False) for name in ('JPEGImages', '480p', 'Full-Resolution', 'frames', 'images', 'rgb', 'video1')),
        *((name, False) for name in ('mask-dance', 'flower', 'deep_flow_river', 'Images', 'bear', '0123', 'objects')),
    ],
)
def test_names_of_folders_that_hold_no_frames(name, other):
    assert names_other_than_frames(name) is other


# -- walking ------------------------------------------------------------------------------------------------


def paths_of(root):
    return [path.relative_to(root).as_posix() for path, _, _ in walk_folders(root)]


@pytest.mark.skipif(os.name != 'posix', reason='needs links')
def test_each_real_folder_is_walked_once_and_loops_end(tmp_path):
    root = tmp_path / 'data'
    for name in ('z/inner', 'm', '.hidden'):
        (root / name).mkdir(parents=True)
    (tmp_path / 'store' / 'far').mkdir(parents=True)
    (root / 'a_link').symlink_to(root / 'z')  # there under its own name
    (root / 'b_store').symlink_to(tmp_path / 'store')  # only here
    (root / 'c_store').symlink_to(tmp_path / 'store')
    (root / 'z' / 'loop').symlink_to(root)
    (root / 'z' / 'self').symlink_to(root / 'z')
    (root / 'm' / 'up').symlink_to(tmp_path)  # around the root itself
    (root / 'nowhere').symlink_to(tmp_path / 'none')
    (tmp_path / 'store' / 'far' / 'back').symlink_to(tmp_path / 'store')
    assert sorted(paths_of(root)) == ['.', 'b_store', 'b_store/far', 'm', 'z', 'z/inner']


@pytest.mark.skipif(os.name != 'posix', reason='needs links')
def test_two_folders_that_link_to_one_another_end(tmp_path):
    for here, there in (('a', 'b'), ('b', 'a')):
        (tmp_path / here).mkdir()
        (tmp_path / here / 'other').symlink_to(tmp_path / there)
    assert paths_of(tmp_path) == ['.', 'a', 'b']


@pytest.mark.skipif(os.name != 'posix', reason='names of bytes are of POSIX')
def test_names_that_are_no_utf8_can_be_listed_and_told(tmp_path):
    for name in (b'k\xe4se0.jpg', b'k\xe4se1.jpg', b'k\xe4se_mask.jpg'):
        path = os.fsdecode(os.fsencode(tmp_path) + b'/' + name)
        with open(path, 'wb') as stream:
            stream.write(cv2.imencode('.jpg', np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    found = list_pictures(tmp_path)
    assert len(found.files) == 2
    found.told().encode('utf-8')
