"""The learnt position map and its shifting (LIIR section 3.2)."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmliir.models.position_encoders import LearnedPositionEncoder1d, PositionShift, roll_position_map


def test_map_starts_at_zero_with_one_vector_for_each_position():
    encoder = LearnedPositionEncoder1d(channels=64)
    assert encoder.position_map.shape == (1, 64, 128, 128)
    assert sum(p.numel() for p in encoder.parameters()) == 64 * 128 * 128
    assert not encoder.position_map.any()


def test_training_size_returns_the_parameter_itself():
    encoder = LearnedPositionEncoder1d(3, size=(4, 6))
    assert encoder((4, 6)) is encoder.position_map


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
def test_other_sizes_are_interpolated_and_carry_a_gradient(mode):
    torch.manual_seed(0)
    encoder = LearnedPositionEncoder1d(3, size=(4, 6), resize_mode=mode)
    torch.nn.init.normal_(encoder.position_map)
    resized = encoder((7, 5))
    expected = F.interpolate(encoder.position_map, (7, 5), mode=mode, align_corners=False)
    assert torch.equal(resized, expected)
    resized.square().sum().backward()
    assert (encoder.position_map.grad != 0).all()


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def test_the_default_is_cubic_convolution_with_cells_centred_on_blocks():
    encoder = LearnedPositionEncoder1d(1, size=(8, 8))
    row = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0])
    with torch.no_grad():
        encoder.position_map.copy_(row.expand(1, 1, 8, 8))
    resized = encoder((8, 13))[0, 0, 4]
    for x in range(13):
        at = (x + 0.5) * 8 / 13 - 0.5
        near = range(math.floor(at) - 1, math.floor(at) + 3)
        expected = sum(cubic(at - n) * row[min(max(n, 0), 7)].item() for n in near)
        assert resized[x].item() == pytest.approx(expected, abs=1e-4)


def test_unknown_resize_mode_is_named():
    with pytest.raises(ValueError, match="'nearest'"):
        LearnedPositionEncoder1d(1, resize_mode='nearest')


def test_rolled_maps_equal_the_index_formula():
    position_map = torch.randn(1, 2, 4, 5)
    shifts = torch.tensor([[0, 0], [1, 0], [0, 3], [3, 4]])
    rolled = roll_position_map(position_map, shifts)
    assert rolled.shape == (4, 2, 4, 5)
    for b, (dy, dx) in enumerate(shifts.tolist()):
        for y in range(4):
            for x in range(5):
                assert torch.equal(rolled[b, :, y, x], position_map[0, :, (y - dy) % 4, (x - dx) % 5])


def test_roll_then_inverse_roll_restores_the_map():
    position_map = torch.randn(1, 3, 6, 7)
    for shift in torch.tensor([[2, 3], [5, 6], [0, 1]]):
        there = roll_position_map(position_map, shift[None])
        assert torch.equal(roll_position_map(there, -shift[None]), position_map)


def test_shift_differs_by_sample_depends_on_the_generator_and_has_no_gradient():
    position_map = torch.randn(1, 2, 16, 16, requires_grad=True)
    shift = PositionShift()
    first = shift(position_map, 8, torch.Generator().manual_seed(3))
    again = shift(position_map, 8, torch.Generator().manual_seed(3))
    other = shift(position_map, 8, torch.Generator().manual_seed(4))
    assert first.shape == (8, 2, 16, 16) and not first.requires_grad
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(sample.flatten().tolist()) for sample in first}) >= 7
    for sample in first:  # a shift keeps every vector
        torch.testing.assert_close(
            sample.flatten().sort().values, position_map[0].detach().flatten().sort().values
        )


def test_shifts_cover_the_whole_map_in_both_axes():
    position_map = torch.zeros(1, 1, 3, 5)
    position_map[0, 0, 0, 0] = 1.0
    shifted = PositionShift()(position_map, 400, torch.Generator().manual_seed(0))
    assert (shifted[:, 0].sum(dim=0) > 0).all()
    torch.testing.assert_close(shifted[:, 0].mean(dim=0), torch.full((3, 5), 1 / 15), rtol=0, atol=0.04)
