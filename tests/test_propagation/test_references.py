"""Which frames are references."""

import pytest

from mmliir.propagation import PRESETS, reference_frames


def _numbers(frame, permanent=(0, 5), gaps=(1, 3, 5), **more):
    return [reference.frame for reference in reference_frames(frame, permanent, gaps, **more)]


@pytest.mark.parametrize(
    ('frame', 'expected'),
    [
        (1, {0}),
        (2, {0, 1}),
        (3, {0, 2}),
        (4, {0, 1, 3}),
        (5, {0, 2, 4}),
        (6, {0, 5, 1, 3}),
        (7, {0, 5, 2, 4, 6}),
        (8, {0, 5, 3, 7}),
        (10, {0, 5, 7, 9}),
        (20, {0, 5, 15, 17, 19}),
    ],
)
def test_the_rule_of_mast_and_liir(frame, expected):
    numbers = _numbers(frame)
    assert set(numbers) == expected and len(numbers) == len(expected)


def test_permanent_frames_come_first_and_are_marked():
    references = reference_frames(8, (5, 0), (1, 3, 5))
    assert [(r.frame, r.permanent) for r in references] == [(0, True), (5, True), (3, False), (7, False)]


def test_crw_fills_the_start_with_the_first_frame():
    assert _numbers(2, (0,), (1, 2, 3, 4), fill_with_first=True) == [0, 0, 0, 0, 1]
    assert _numbers(9, (0,), (1, 2, 3, 4), fill_with_first=True) == [0, 5, 6, 7, 8]


def test_vfs_uses_the_first_frame_twice_as_long_as_it_is_recent():
    numbers = [_numbers(frame, (0,), (1, 2, 3), permanent_again=True) for frame in (1, 2, 3, 4)]
    assert numbers == [[0, 0], [0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]]
    references = reference_frames(2, (0,), (1, 2, 3), permanent_again=True)
    assert [reference.permanent for reference in references] == [True, False, False]


def test_dino_uses_the_first_and_the_seven_last_frames():
    settings = PRESETS['dino'].settings
    assert _numbers(3, settings.permanent, settings.gaps) == [0, 1, 2]
    assert _numbers(30, settings.permanent, settings.gaps) == [0, 23, 24, 25, 26, 27, 28, 29]
