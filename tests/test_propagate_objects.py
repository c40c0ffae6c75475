"""`mmliir propagate` and its objects: their ids over several masks, and where they are lost."""

import cv2
import numpy as np
import pytest
from command_cases import RAW_LAB, SIZE, Outcome, make_frames, make_ids, run, write_frames
from PIL import Image

from mmliir.apis.propagate import propagate, write_propagation
from mmliir.datasets import write_label_map
from mmliir.propagation import Absence, find_absences, present_ids

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def in_colors(square: tuple | None, bar: tuple | None) -> Image.Image:
    """The objects of `make_ids`, each in a colour of its own."""
    ids, picture = make_ids(), np.zeros((*SIZE, 3), np.uint8)
    for number, color in enumerate((square, bar), start=1):
        picture[ids == number] = color or (0, 0, 0)
    return Image.fromarray(picture)


@pytest.fixture
def clip(tmp_path):
    return write_frames(tmp_path / 'clip', 6)


def follow(video, out, *masks: object) -> Outcome:
    given = [word for mask in masks for word in ('--mask', mask)]
    return run('mmliir', 'propagate', video, *given, '--out', out, '--config', RAW_LAB, '--protocol', 'quick')


def ids_at(out, number: int) -> np.ndarray:
    with Image.open(out / f'{number:05d}.png') as image:
        return np.array(image)


@pytest.mark.parametrize('late', ['red', 'blue', 'smooth red', 'red with opacity'])
def test_a_colour_is_one_object_in_every_mask_of_a_run(clip, tmp_path, late):
    in_colors(RED, GREEN).save(tmp_path / 'first.png')
    picture = in_colors(BLUE if late == 'blue' else RED, None)
    if late == 'smooth red':
        picture = picture.resize((4 * SIZE[1], 4 * SIZE[0]), 0).rotate(3).resize(SIZE[::-1], Image.Resampling.BOX)
    if late == 'red with opacity':
        picture = picture.convert('RGBA')
    picture.save(tmp_path / 'late.png')
    done = follow(clip, tmp_path / 'out', tmp_path / 'first.png', f'4:{tmp_path / "late.png"}')
    assert done.code == 0, done.err
    square, bar = make_ids() == 1, make_ids() == 2
    (red,), (green,) = (set(np.unique(ids_at(tmp_path / 'out', 0)[part])) for part in (square, bar))
    middle = ids_at(tmp_path / 'out', 4)[14:18, 14:18]
    (again,) = set(np.unique(middle))
    assert 'numbered together with those of the other masks' in done.err
    if late == 'blue':
        assert len({red, green, again}) == 3 and 'again' not in done.err
    else:
        assert again == red != green
        assert f'the mask of frame 4 gives object {red} again, taken as the same as in frame 0' in done.err


def test_masks_of_ids_and_of_colours_are_refused_together(clip, tmp_path):
    in_colors(RED, GREEN).save(tmp_path / 'colors.png')
    write_label_map(tmp_path / 'ids.png', make_ids())
    said = follow(clip, tmp_path / 'out', tmp_path / 'ids.png', f'4:{tmp_path / "colors.png"}').error()
    assert 'ids.png holds ids' in said and 'colors.png colours' in said and not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='another mask is an array of ids'):
        propagate(clip, {0: make_ids(), 4: tmp_path / 'colors.png'}, RAW_LAB, protocol='quick')


def test_frames_before_the_first_mask_are_counted_and_said(clip, tmp_path):
    write_label_map(tmp_path / 'mask.png', make_ids())
    done = follow(clip, tmp_path / 'out', f'3:{tmp_path / "mask.png"}')
    assert done.code == 0 and '3 frames before the first mask (frame 3) will be written empty' in done.err
    assert not ids_at(tmp_path / 'out', 2).any() and ids_at(tmp_path / 'out', 3).any()
    first = follow(clip, tmp_path / 'whole', tmp_path / 'mask.png')
    assert first.code == 0 and 'before the first mask' not in first.err and 'note' not in first.err
    found = write_propagation(propagate(clip, {3: make_ids()}, RAW_LAB, protocol='quick'), tmp_path / 'api')
    assert found.num_before == 3 and found.absences == ()


def test_an_object_that_is_lost_is_named_once_with_its_frame(tmp_path):
    """The bar leaves the picture in frame 3; the square stays."""
    video = tmp_path / 'clip'
    video.mkdir()
    for number, frame in enumerate(make_frames(6)):
        frame[26:36, 30:50] = (40, 200, 90) if number < 3 else frame[0, 0]
        assert cv2.imwrite(str(video / f'{number:05d}.png'), frame[..., ::-1])
    write_label_map(tmp_path / 'mask.png', make_ids())
    done = follow(video, tmp_path / 'out', tmp_path / 'mask.png')
    shown = [set(np.unique(ids_at(tmp_path / 'out', number))) for number in range(6)]
    gone = next(number for number in range(6) if 2 not in shown[number])
    assert all(2 not in ids for ids in shown[gone:]) and all(1 in ids for ids in shown)
    assert done.code == 0 and done.err.count('object 2 is in no mask from frame') == 1
    assert f'object 2 is in no mask from frame {gone:05d} on. If it is still in sight' in done.err
    found = write_propagation(propagate(video, make_ids(), RAW_LAB, protocol='quick'), tmp_path / 'api')
    assert found.lost == (Absence(2, f'{gone:05d}', '00005', 6 - gone, True),) and found.empty_from is None


def test_absences_begin_where_the_object_is_given_and_end_where_it_is_found():
    names = tuple('abcdefgh')
    present = [frozenset(ids) for ids in ([], [1], [1, 2], [2], [1, 3], [3], [3], [])]
    given = {1: frozenset([1]), 2: frozenset([2]), 4: frozenset([3])}
    assert find_absences(present, given, names) == (
        Absence(1, 'd', 'd', 1, False),
        Absence(2, 'e', 'h', 4, True),
        Absence(1, 'f', 'h', 3, True),
        Absence(3, 'h', 'h', 1, True),
    )
    assert find_absences(present[:3], {1: frozenset([1])}, names[:3]) == ()
    assert present_ids(np.array([[0, 7], [255, 7]], np.uint8)) == {7, 255}
    assert present_ids(np.zeros((2, 2), int)) == set()
