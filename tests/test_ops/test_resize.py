"""Resizing of ids and upsampling of fields."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmliir.ops import resize_label_map, upsample_field
from mmliir.testing import reference


def label_map(height, width, seed=0, dtype=torch.uint8):
    return torch.randint(0, 255, (height, width), generator=torch.Generator().manual_seed(seed)).to(dtype)


def field(channels, height, width, seed=0):
    return torch.randn(
        channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# --- ids ---


def test_every_output_pixel_takes_the_input_pixel_that_holds_its_centre():
    for size_in in range(1, 24):
        row = torch.arange(size_in)[None]
        for size_out in range(1, 32):
            got = resize_label_map(row, (1, size_out))[0].tolist()
            allowed = reference.nearest_sources(size_in, size_out)
            assert all(index in indices for index, indices in zip(got, allowed, strict=True)), (
                size_in,
                size_out,
            )


def test_pixels_are_those_of_pil_for_every_pair_of_sizes():
    for size_in in range(1, 41):
        row = np.arange(size_in, dtype=np.uint8)[None]
        for size_out in range(1, 61):
            theirs = np.asarray(Image.fromarray(row).resize((size_out, 1), Image.Resampling.NEAREST))
            ours = resize_label_map(torch.from_numpy(row), (1, size_out)).numpy()
            assert (ours == theirs).all(), (size_in, size_out)


@pytest.mark.parametrize('size', [(480, 854), (480, 910), (120, 214), (1080, 1920), (1, 1), (333, 77)])
def test_frames_are_resized_as_by_pil(size):
    original = label_map(480, 854)
    theirs = Image.fromarray(original.numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST)
    assert (resize_label_map(original, size).numpy() == np.asarray(theirs)).all()


@pytest.mark.parametrize('size', [(3, 9), (14, 5), (1, 1), (7, 6)])
def test_ids_are_a_subset_of_the_input_ids(size):
    original = label_map(7, 6)
    assert set(resize_label_map(original, size).unique().tolist()) <= set(original.unique().tolist())


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int64, torch.bool])
def test_type_and_leading_dimensions_are_kept(dtype):
    stack = torch.stack([label_map(5, 7, seed, dtype) for seed in range(2)])
    resized = resize_label_map(stack, (9, 4))
    assert resized.dtype == dtype and resized.shape == (2, 9, 4)
    for one, of_stack in zip(stack, resized, strict=True):
        assert torch.equal(resize_label_map(one, (9, 4)), of_stack)


def test_same_size_changes_nothing_and_whole_factors_repeat():
    original = label_map(5, 7)
    assert torch.equal(resize_label_map(original, (5, 7)), original)
    repeated = original.repeat_interleave(3, dim=0).repeat_interleave(2, dim=1)
    assert torch.equal(resize_label_map(original, (15, 14)), repeated)
    assert torch.equal(resize_label_map(repeated, (5, 7)), original)


@pytest.mark.parametrize('size', [(0, 4), (4, -1)])
def test_impossible_size_is_named(size):
    with pytest.raises(ValueError, match=f'5x7 to {size[0]}x{size[1]}'):
        resize_label_map(label_map(5, 7), size)


# --- fields ---


@pytest.mark.parametrize('alignment', ['mast', 'exact'])
@pytest.mark.parametrize(
    'shape,stride', [((1, 1, 1), 4), ((2, 3, 5), 4), ((3, 1, 4), 3), ((1, 4, 2), 8), ((1, 2, 3), 1)]
)
def test_upsampling_equals_the_loops(shape, stride, alignment):
    cells = field(*shape)
    size = (shape[1] * stride, shape[2] * stride)
    expected = reference.upsample_field(cells, size, stride, alignment)
    np.testing.assert_allclose(
        upsample_field(cells, size, stride, alignment).numpy(), expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize('size', [(9, 17), (12, 20), (13, 23)])
def test_exact_upsampling_covers_any_frame_size(size):
    cells = field(2, 3, 5)
    expected = reference.upsample_field(cells, size, 4, 'exact')
    np.testing.assert_allclose(upsample_field(cells, size, 4, 'exact').numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('stride', [1, 2, 4, 7])
def test_exact_upsampling_is_the_identity_at_the_pixels_of_the_cells(stride):
    cells = field(2, 5, 6)
    pixels = upsample_field(cells, (5 * stride, 6 * stride), stride, 'exact')
    torch.testing.assert_close(pixels[:, ::stride, ::stride], cells, rtol=0, atol=1e-14)


def test_mast_upsampling_shifts_a_ramp_by_the_known_pixel_and_a_half():
    ramp = torch.arange(8, dtype=torch.float64).expand(1, 8, 8)
    exact = upsample_field(ramp, (32, 32), 4, 'exact')[0, 0]
    mast = upsample_field(ramp, (32, 32), 4, 'mast')[0, 0]
    torch.testing.assert_close((exact - mast)[4:24], torch.full((20,), 1.5 / 4, dtype=torch.float64))


@pytest.mark.parametrize('alignment', ['mast', 'exact'])
def test_upsampling_keeps_the_sum_over_the_channels(alignment):
    cells = torch.softmax(field(4, 3, 5), dim=0)
    total = upsample_field(cells, (12, 20), 4, alignment).sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize('alignment', ['mast', 'exact'])
@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_close_to_float32_on_a_wide_frame(dtype, tolerance, alignment):
    cells = field(1, 2, 140).to(dtype)
    pixels = upsample_field(cells, (16, 1120), 8, alignment)
    assert pixels.dtype == dtype
    single = upsample_field(cells.float(), (16, 1120), 8, alignment)
    torch.testing.assert_close(pixels.float(), single, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('alignment', ['mast', 'exact'])
def test_upsampling_passes_gradcheck(alignment):
    assert torch.autograd.gradcheck(
        lambda cells: upsample_field(cells, (8, 12), 4, alignment), (field(1, 2, 3).requires_grad_(),)
    )


def test_unknown_alignment_is_named():
    with pytest.raises(ValueError, match='alignment must be.*cubic'):
        upsample_field(field(1, 2, 2), (8, 8), 4, 'cubic')


def test_corners_lie_on_corners_and_cells_between_them_on_a_line():
    cells = torch.tensor([[[0.0, 6.0], [12.0, 18.0]]], dtype=torch.float64)
    expected = [[y * 6.0 + x * 2.0 for x in range(4)] for y in range(3)]
    torch.testing.assert_close(upsample_field(cells, (3, 4), 1, 'corners')[0], torch.tensor(expected).double())


def test_the_nearest_cell_of_a_pixel_is_the_one_whose_share_of_the_frame_begins_before_it():
    cells = field(2, 3, 4)
    pixels = upsample_field(cells, (8, 11), 1, 'nearest')
    for y in range(8):
        for x in range(11):
            assert torch.equal(pixels[:, y, x], cells[:, y * 3 // 8, x * 4 // 11])
