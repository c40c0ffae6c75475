"""The position maps of LIIR and their modulation (LIIR section 3.2, Tables 5b and 5c)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.models.position_encoders import (
    LearnedPositionEncoder1d,
    LearnedPositionEncoder2d,
    PositionShift,
    PositionShuffle,
    SinePositionEncoder2d,
    permute_position_map,
    roll_position_map,
)
from mmliir.testing import reference


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


@pytest.mark.parametrize('encoder', [LearnedPositionEncoder1d, LearnedPositionEncoder2d])
def test_unknown_resize_mode_is_named(encoder):
    with pytest.raises(ValueError, match="'nearest'"):
        encoder(2, resize_mode='nearest')


# --- two tables ---


def random_tables(channels=6, size=(4, 5), **settings):
    torch.manual_seed(0)
    encoder = LearnedPositionEncoder2d(channels, size, **settings).double()
    for table in encoder.parameters():
        torch.nn.init.normal_(table)
    return encoder


def test_two_tables_start_at_zero_with_half_the_channels_each():
    encoder = LearnedPositionEncoder2d(channels=64)
    assert sum(p.numel() for p in encoder.parameters()) == 2 * 128 * 32
    assert encoder((128, 128)).shape == (1, 64, 128, 128)
    assert not encoder((128, 128)).any()


def test_first_half_of_the_channels_tells_the_column_and_second_half_the_row():
    encoder = random_tables()
    position_map = encoder((4, 5))
    for y in range(4):
        for x in range(5):
            expected = torch.cat([encoder.column_table[0, :, 0, x], encoder.row_table[0, :, y, 0]])
            assert torch.equal(position_map[0, :, y, x], expected)


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('size', [(4, 9), (7, 5), (7, 9), (2, 3), (1, 1)])
def test_interpolating_the_tables_equals_interpolating_the_map(size, mode):
    encoder = random_tables(resize_mode=mode)
    whole = LearnedPositionEncoder1d(6, (4, 5), mode).double()
    with torch.no_grad():
        whole.position_map.copy_(encoder((4, 5)))
    torch.testing.assert_close(encoder(size), whole(size), rtol=0, atol=1e-12)


def test_tables_pass_gradcheck_and_every_entry_gets_a_gradient():
    encoder = random_tables()
    encoder((7, 9)).square().sum().backward()
    assert all((table.grad != 0).all() for table in encoder.parameters())

    def resized(columns, rows):
        tables = dict(column_table=columns, row_table=rows)
        return torch.func.functional_call(encoder, tables, ((6, 4),))

    assert torch.autograd.gradcheck(resized, (encoder.column_table, encoder.row_table))


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(ValueError, match='even, got 5'):
        LearnedPositionEncoder2d(5)


# --- sinusoids ---


@pytest.mark.parametrize('channels, size', [(4, (1, 1)), (8, (5, 7)), (64, (3, 240)), (12, (130, 2))])
@pytest.mark.parametrize('scale', [1.0, 0.1])
def test_sinusoids_equal_the_loops(channels, size, scale):
    encoder = SinePositionEncoder2d(channels, scale).double()
    expected = reference.sine_position_map(channels, *size, scale)
    np.testing.assert_allclose(encoder(size)[0].numpy(), expected, rtol=0, atol=1e-10)
    single = SinePositionEncoder2d(channels, scale)(size)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single[0].numpy(), expected, rtol=0, atol=1e-7)


def test_sinusoids_of_a_larger_grid_continue_those_of_a_smaller_one():
    encoder = SinePositionEncoder2d(16)
    assert torch.equal(encoder((240, 427))[:, :, :128, :128], encoder((128, 128)))


def test_a_shift_in_space_rotates_each_sine_and_cosine():
    """Closed form: P(x + d) is a rotation of P(x) whose angle does not depend on x."""
    position_map = SinePositionEncoder2d(8).double()((9, 9))[0]
    for first, axis in ((0, 2), (4, 1)):  # columns, then rows
        for i in range(2):
            sine, cosine = position_map[first + 2 * i], position_map[first + 2 * i + 1]
            angle = torch.tensor(3.0 / 10000 ** (i / 2), dtype=torch.float64)
            moved = sine.roll(-3, dims=axis - 1).narrow(axis - 1, 0, 6)
            here = (sine * angle.cos() + cosine * angle.sin()).narrow(axis - 1, 0, 6)
            torch.testing.assert_close(moved, here, rtol=0, atol=1e-12)


def test_sinusoids_have_no_parameters_and_no_saved_state():
    encoder = SinePositionEncoder2d(8)
    assert not list(encoder.parameters()) and not encoder.state_dict()


@pytest.mark.parametrize('settings', [dict(channels=6), dict(channels=0), dict(channels=8, scale=0.0)])
def test_wrong_sinusoids_are_refused(settings):
    with pytest.raises(ValueError, match='multiple of four|scale must be'):
        SinePositionEncoder2d(**settings)


# --- modulation ---


MODULATIONS = [PositionShift, PositionShuffle]


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


def sorted_vectors(position_map):
    return sorted(map(tuple, position_map.detach().flatten(1).t().tolist()))


@pytest.mark.parametrize('modulation', MODULATIONS)
def test_modulation_differs_by_sample_depends_on_the_generator_alone_and_has_no_gradient(modulation):
    position_map = torch.randn(1, 2, 16, 16, requires_grad=True)
    modulate = modulation()
    state = torch.get_rng_state()
    first = modulate(position_map, 8, torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    again = modulate(position_map, 8, torch.Generator().manual_seed(3))
    torch.set_rng_state(state)
    other = modulate(position_map, 8, torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (8, 2, 16, 16) and not first.requires_grad
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(sample.flatten().tolist()) for sample in first}) >= 7
    for sample in first:  # every vector stays whole, and is there once
        assert sorted_vectors(sample) == sorted_vectors(position_map[0])


@pytest.mark.parametrize('modulation', MODULATIONS)
def test_one_draw_a_batch_is_the_draw_of_a_batch_of_one(modulation):
    position_map = torch.randn(1, 2, 8, 9)
    shared = modulation(per='batch')(position_map, 5, torch.Generator().manual_seed(3))
    alone = modulation()(position_map, 1, torch.Generator().manual_seed(3))
    assert shared.shape == (5, 2, 8, 9)
    assert torch.equal(shared, alone.expand(5, -1, -1, -1))
    assert not torch.equal(shared[:1], position_map)


@pytest.mark.parametrize('modulation', MODULATIONS)
def test_an_unknown_scope_of_the_draw_is_named(modulation):
    with pytest.raises(ValueError, match="'frame'"):
        modulation(per='frame')


def test_shifts_of_a_generator_are_rows_then_columns():
    """The order of the draws is part of what a resumed run relies on."""
    position_map = torch.randn(1, 2, 6, 7)
    generator = torch.Generator().manual_seed(5)
    dy, dx = (torch.randint(0, side, (3,), generator=generator) for side in (6, 7))
    shifted = PositionShift()(position_map, 3, torch.Generator().manual_seed(5))
    assert torch.equal(shifted, roll_position_map(position_map, torch.stack([dy, dx], dim=1)))


def test_permuted_maps_equal_the_index_formula_and_are_undone_by_the_inverse():
    position_map = torch.randn(1, 2, 3, 4)
    orders = torch.stack([torch.arange(12), torch.arange(12).flip(0), torch.randperm(12)])
    permuted = permute_position_map(position_map, orders)
    assert permuted.shape == (3, 2, 3, 4)
    for b in range(3):
        for n, source in enumerate(orders[b].tolist()):
            assert torch.equal(permuted[b, :, n // 4, n % 4], position_map[0, :, source // 4, source % 4])
    back = permute_position_map(permuted[2:], orders[2].argsort()[None])
    assert torch.equal(back, position_map)


def test_shuffles_take_neighbours_apart_and_bring_every_vector_to_every_place():
    position_map = torch.arange(6.0).reshape(1, 1, 2, 3)
    shuffled = PositionShuffle()(position_map, 900, torch.Generator().manual_seed(0)).flatten(1)
    for value in range(6):
        share = (shuffled == value).double().mean(dim=0)
        torch.testing.assert_close(share, torch.full((6,), 1 / 6).double(), rtol=0, atol=0.05)
    assert len({tuple(row.tolist()) for row in shuffled}) > 400  # of 720; shifts would give 6


def test_shifts_cover_the_whole_map_in_both_axes():
    position_map = torch.zeros(1, 1, 3, 5)
    position_map[0, 0, 0, 0] = 1.0
    shifted = PositionShift()(position_map, 400, torch.Generator().manual_seed(0))
    assert (shifted[:, 0].sum(dim=0) > 0).all()
    torch.testing.assert_close(shifted[:, 0].mean(dim=0), torch.full((3, 5), 1 / 15), rtol=0, atol=0.04)
