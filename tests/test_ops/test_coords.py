"""Pixels <-> cells: the two anchors, and that one map undoes the other."""

import pytest
import torch

from mmliir.ops import cells_to_pixels, coordinate_grid, pixels_to_cells
from mmliir.testing import reference

POINTS = torch.tensor([[0.0, 0.0], [1.0, 2.0], [-0.5, 3.25], [118.0, 0.125]], dtype=torch.float64)


@pytest.mark.parametrize('anchor', ['first', 'center'])
@pytest.mark.parametrize('stride', [1, 2, 4, 7, 8])
def test_maps_equal_the_loops(stride, anchor):
    pixels, cells = cells_to_pixels(POINTS, stride, anchor), pixels_to_cells(POINTS, stride, anchor)
    for row, (x, y) in enumerate(POINTS.tolist()):
        assert pixels[row].tolist() == pytest.approx(reference.cell_to_pixel(x, y, stride, anchor), abs=1e-12)
        assert cells[row].tolist() == pytest.approx(reference.pixel_to_cell(x, y, stride, anchor), abs=1e-12)


@pytest.mark.parametrize('anchor', ['first', 'center'])
@pytest.mark.parametrize('stride', [1, 4, 7])
def test_each_map_undoes_the_other(stride, anchor):
    there = cells_to_pixels(pixels_to_cells(POINTS, stride, anchor), stride, anchor)
    back = pixels_to_cells(cells_to_pixels(POINTS, stride, anchor), stride, anchor)
    torch.testing.assert_close(there, POINTS, rtol=0, atol=1e-12)
    torch.testing.assert_close(back, POINTS, rtol=0, atol=1e-12)


def test_first_anchor_is_the_pixel_that_subsampling_takes():
    stride, pixels = 4, coordinate_grid(12, 20)
    taken = pixels[::stride, ::stride]
    torch.testing.assert_close(cells_to_pixels(coordinate_grid(3, 5), stride, 'first'), taken, rtol=0, atol=0)


@pytest.mark.parametrize('stride', [2, 3, 8])
def test_center_anchor_is_the_mean_of_the_block(stride):
    blocks = coordinate_grid(3 * stride, 2 * stride).reshape(3, stride, 2, stride, 2).mean(dim=(1, 3))
    torch.testing.assert_close(cells_to_pixels(coordinate_grid(3, 2), stride, 'center'), blocks)


def test_grid_is_x_then_y():
    grid = coordinate_grid(2, 3, dtype=torch.float64)
    assert grid.dtype == torch.float64 and grid.shape == (2, 3, 2)
    assert grid[1, 2].tolist() == [2.0, 1.0]


@pytest.mark.parametrize('convert', [cells_to_pixels, pixels_to_cells])
@pytest.mark.parametrize(
    'stride,anchor,culprit', [(0, 'first', 'stride.*0'), (4, 'corner', 'anchor.*corner')]
)
def test_errors_name_the_culprit(convert, stride, anchor, culprit):
    with pytest.raises(ValueError, match=culprit):
        convert(POINTS, stride, anchor)
