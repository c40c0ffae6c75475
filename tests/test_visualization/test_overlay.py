"""Overlays: colours by hand, contours against a slow loop, sheets by their geometry."""

import numpy as np
import pytest

from mmliir.structures.palette import davis_palette
from mmliir.visualization import (
    contact_sheet,
    label_contours,
    overlay_labels,
    overlay_points,
    point_color,
    resize_to_width,
)


def square_map() -> np.ndarray:
    label_map = np.zeros((12, 16), dtype=np.uint8)
    label_map[3:9, 4:12] = 1
    label_map[3:9, 8:12] = 4
    return label_map


def slow_contours(label_map: np.ndarray) -> np.ndarray:
    height, width = label_map.shape
    found = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                if label_map[y, x] and inside and label_map[y + dy, x + dx] != label_map[y, x]:
                    found[y, x] = True
    return found


def test_palette_is_the_published_one_and_tells_all_ids_apart():
    palette = davis_palette()
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert palette[:6].tolist() == [list(color) for color in published]
    assert palette[8].tolist() == [64, 0, 0] and palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256
    with pytest.raises(ValueError, match='read-only'):
        palette[0] = 1


def test_contours_match_the_slow_loop():
    label_map = np.random.default_rng(0).integers(0, 3, (11, 9), dtype=np.uint8)
    np.testing.assert_array_equal(label_contours(label_map), slow_contours(label_map))
    np.testing.assert_array_equal(label_contours(square_map()), slow_contours(square_map()))


def test_an_object_over_the_whole_picture_has_no_contour():
    assert not label_contours(np.full((5, 6), 7, dtype=np.uint8)).any()


def test_overlay_mixes_inside_outlines_bright_and_leaves_the_background():
    frame = np.full((12, 16, 3), (100, 60, 20), dtype=np.uint8)
    label_map = square_map()
    drawn = overlay_labels(frame, label_map, alpha=0.25, contour_width=1)
    np.testing.assert_array_equal(drawn[label_map == 0], frame[label_map == 0])
    assert drawn[5, 5].tolist() == [107, 45, 15]  # .75 * (100, 60, 20) + .25 * (128, 0, 0)
    assert drawn[3, 4].tolist() == [255, 0, 0] and drawn[5, 8].tolist() == [0, 0, 255]
    assert (frame == (100, 60, 20)).all(), 'the input frame was changed'


def test_contour_width_counts_inwards_and_zero_draws_none():
    frame, label_map = np.zeros((12, 16, 3), dtype=np.uint8), np.zeros((12, 16), dtype=np.uint8)
    label_map[2:10, 2:14] = 2
    for width in (0, 1, 2, 3):
        outline = (overlay_labels(frame, label_map, contour_width=width) == (0, 255, 0)).all(axis=2)
        inner = np.zeros_like(outline)
        inner[2 + width : 10 - width, 2 + width : 14 - width] = True
        expected = (label_map > 0) & ~inner if width else np.zeros_like(outline)
        np.testing.assert_array_equal(outline, expected)


@pytest.mark.parametrize(
    ('frame', 'label_map', 'message'),
    [
        (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), 'uint8 RGB'),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), r'got \(4, 5\)'),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), 'int64'),
    ],
)
def test_overlay_says_what_came(frame, label_map, message):
    with pytest.raises(ValueError, match=message):
        overlay_labels(frame, label_map)


def test_sheet_puts_each_frame_in_its_cell():
    colors = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250)]]
    rows = [[np.full((30, 60, 3), color, dtype=np.uint8) for color in row] for row in colors]
    sheet = contact_sheet(rows, cell_width=60, gap=4)
    assert sheet.shape == (4 + 2 * 34, 2 * 64 + 4, 3)
    assert sheet[19, 34].tolist() == [250, 0, 0] and sheet[19, 98].tolist() == [0, 250, 0]
    assert sheet[53, 34].tolist() == [0, 0, 250] and sheet[53, 98].tolist() == sheet[0, 0].tolist()


def test_sheet_writes_captions_and_keeps_tall_frames_whole():
    wide, tall = np.full((30, 60, 3), 200, dtype=np.uint8), np.full((90, 30, 3), 200, dtype=np.uint8)
    plain = contact_sheet([[wide, tall]], cell_width=120)
    captions = ['one', 'a caption that is much too long for its cell']
    written = contact_sheet([[wide, tall]], ['a row'], captions, 120)
    assert written.shape[0] > plain.shape[0] and written.shape[1] == plain.shape[1]
    assert (written[:15] > 150).any(), 'no caption was drawn'
    # 90 x 30 in a cell 60 high is 20 wide
    assert (plain[36, 132:] == 200).all(axis=1).sum() == 20


def test_sheet_refuses_empty_rows_and_missing_captions():
    frame = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match='rows of'):
        contact_sheet([[frame], []])
    with pytest.raises(ValueError, match='Expected 1 row captions'):
        contact_sheet([[frame]], row_captions=['a', 'b'])


def test_resize_keeps_the_aspect_ratio():
    assert resize_to_width(np.zeros((480, 854, 3), np.uint8), 427).shape == (240, 427, 3)


def test_points_are_centred_where_they_are_and_hidden_ones_are_rings():
    frame = np.full((41, 61, 3), 40, dtype=np.uint8)
    points = np.array([[20.0, 10.0], [40.0, 30.0], [np.nan, 5.0]])
    drawn = overlay_points(frame, points, np.array([True, False, True]), radius=5).astype(int)
    changed = np.abs(drawn - 40).max(axis=2) > 20
    for (x, y), half in zip(points[:2].astype(int), (slice(0, 22), slice(22, 41)), strict=True):
        ys, xs = np.nonzero(changed[half])
        assert xs.mean() == pytest.approx(x, abs=0.3) and ys.mean() + half.start == pytest.approx(y, abs=0.3)
    assert np.abs(drawn[10, 20] - point_color(0)).max() < 30
    assert not changed[30, 40], 'a ring is empty'
    assert (frame == 40).all()


def test_lines_end_at_the_true_place_where_it_is_known():
    frame = np.zeros((20, 60, 3), dtype=np.uint8)
    points, truth = np.array([[10.0, 5.0], [10.0, 15.0]]), np.array([[50.0, 5.0], [50.0, 15.0]])
    drawn = overlay_points(frame, points, np.ones(2, bool), truth, np.array([True, False]), radius=5).astype(int)
    assert np.abs(drawn[5, 30] - point_color(0)).max() < 60 and drawn[5, 56:].max() < 20
    assert drawn[15, 20:].max() < 20, 'a hidden true place has no line'
    with pytest.raises(ValueError, match='true places'):
        overlay_points(frame, points, np.ones(2, bool), truth[:1])
    with pytest.raises(ValueError, match=r'\(N, 2\) points'):
        overlay_points(frame, points.T[:, :1], np.ones(2, bool))


def test_colours_of_points_differ_from_their_neighbours():
    colors = np.array([point_color(n) for n in range(12)])
    distances = np.abs(colors[:, None] - colors[None]).max(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 30
