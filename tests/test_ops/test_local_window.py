"""Window logits and read-out against slow loops, on every kind of grid."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.ops import joint_softmax, window_logits, window_offsets, window_readout, window_validity
from mmliir.testing import reference

# batch, channels, height, width, radius: 1x1, one channel, odd sizes, a frame smaller than its window,
# radius 0, batch above 1, a grid of several tiles with a remainder.
GRIDS = [
    (1, 1, 1, 1, 0),
    (2, 3, 1, 1, 2),
    (1, 1, 5, 7, 1),
    (2, 3, 3, 2, 4),
    (2, 2, 4, 5, 0),
    (1, 2, 9, 17, 2),
    (3, 1, 8, 8, 1),
    (1, 2, 1, 9, 1),
]


def features(batch, channels, height, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10, atol=1e-10)


# --- offsets ---


def test_offsets_are_row_major_with_dx_first():
    offsets = window_offsets(1)
    assert offsets.dtype == torch.long
    assert offsets.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1]]


@pytest.mark.parametrize('radius', [0, 1, 2, 5])
def test_circle_keeps_the_offsets_closer_than_the_radius_and_the_centre(radius):
    expected = [
        [dx, dy]
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if (dx * dx + dy * dy) ** 0.5 < radius or (dx, dy) == (0, 0)
    ]
    assert window_offsets(radius, shape='circle').tolist() == expected


@pytest.mark.parametrize(('radius', 'cells'), [(0, 1), (1, 5), (2, 13), (5, 81), (12, 441)])
def test_a_disc_keeps_the_offsets_up_to_the_radius(radius, cells):
    offsets = window_offsets(radius, shape='disc')  # the numbers are those of Gauss's circle problem
    assert len(offsets) == cells and [radius, 0] in offsets.tolist()
    assert offsets.square().sum(dim=1).max() == radius * radius


def test_validity_marks_the_window_cells_inside_the_grid():
    valid = window_validity(3, 5, 2)
    for p, (dx, dy) in enumerate(window_offsets(2).tolist()):
        for y in range(3):
            for x in range(5):
                assert bool(valid[p, y, x]) == (0 <= x + dx < 5 and 0 <= y + dy < 3)


# --- logits ---


@pytest.mark.parametrize('border', ['mask', 'zero_logit', 'replicate'])
@pytest.mark.parametrize('grid', GRIDS)
def test_logits_equal_the_loops(grid, border):
    *shape, radius = grid
    query, key = features(*shape, seed=1), features(*shape, seed=2)
    close(
        window_logits(query, key, radius, temperature=0.7, border=border),
        reference.window_logits(query, key, radius, temperature=0.7, border=border),
    )


@pytest.mark.parametrize('border', ['mask', 'zero_logit', 'replicate'])
def test_logits_of_a_batch_are_those_of_its_samples(border):
    query, key = features(2, 3, 9, 10, seed=1), features(2, 3, 9, 10, seed=2)
    alone = [window_logits(query[b : b + 1], key[b : b + 1], 2, border=border) for b in range(2)]
    torch.testing.assert_close(
        window_logits(query, key, 2, border=border), torch.cat(alone), rtol=0, atol=1e-12
    )


def test_logits_do_not_depend_on_the_memory_layout():
    query, key = features(2, 3, 6, 9, seed=1), features(2, 3, 6, 9, seed=2)
    strided = query.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    sliced = torch.cat([key, key], dim=3)[..., 9:]
    torch.testing.assert_close(
        window_logits(strided, sliced, 2), window_logits(query, key, 2), rtol=0, atol=1e-12
    )


def test_shifted_key_moves_the_peak_by_the_shift():
    key = F.normalize(features(1, 16, 9, 9, seed=3), dim=1)
    query = torch.roll(key, shifts=(1, -2), dims=(2, 3))  # query(y, x) = key(y - 1, x + 2)
    best = window_logits(query, key, 2)[0, :, 4, 4].argmax()
    assert window_offsets(2)[best].tolist() == [2, -1]


@pytest.mark.parametrize('grid', [(2, 3, 5, 4, 1), (1, 2, 3, 9, 2), (1, 1, 2, 2, 3)])
def test_windowed_affinity_is_the_masked_global_affinity(grid):
    *shape, radius = grid
    _, _, height, width = shape
    query, key = features(*shape, seed=4), features(*shape, seed=5)
    whole = reference.masked_global_affinity(query, key, radius, temperature=0.9)
    window = joint_softmax([window_logits(query, key, radius, temperature=0.9)])[0]
    scattered = np.zeros_like(whole)
    for p, (dx, dy) in enumerate(window_offsets(radius).tolist()):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    scattered[:, y * width + x, (y + dy) * width + x + dx] = window[:, p, y, x].numpy()
                else:
                    assert (window[:, p, y, x] == 0).all()
    np.testing.assert_allclose(scattered, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('border', ['zero_logit', 'replicate'])
def test_logits_pass_gradcheck(border):
    query, key = features(2, 2, 3, 9, seed=1).requires_grad_(), features(2, 2, 3, 9, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, k: window_logits(q, k, 1, temperature=0.6, border=border), (query, key), fast_mode=True
    )


def test_masked_logits_pass_gradcheck_inside_the_frame():
    query, key = features(1, 2, 3, 4, seed=1).requires_grad_(), features(1, 2, 3, 4, seed=2).requires_grad_()
    inside = window_validity(3, 4, 1)[None]
    assert torch.autograd.gradcheck(
        lambda q, k: window_logits(q, k, 1, temperature=0.6)[inside], (query, key)
    )


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize('border', ['mask', 'zero_logit', 'replicate'])
def test_logits_in_half_precision_are_close_to_float32(dtype, tolerance, border):
    query, key = features(1, 4, 5, 9, seed=1, dtype=dtype), features(1, 4, 5, 9, seed=2, dtype=dtype)
    half = window_logits(query, key, 2, temperature=2.0, border=border)
    assert half.dtype == dtype
    single = window_logits(query.float(), key.float(), 2, temperature=2.0, border=border)
    torch.testing.assert_close(half.float(), single, rtol=tolerance, atol=tolerance)


# --- read-out ---


@pytest.mark.parametrize('border', ['zero', 'replicate'])
@pytest.mark.parametrize('grid', GRIDS)
def test_readout_equals_the_loops(grid, border):
    batch, channels, height, width, radius = grid
    affinity = features(batch, (2 * radius + 1) ** 2, height, width, seed=6)
    values = features(batch, channels, height, width, seed=7)
    close(
        window_readout(affinity, values, radius, border=border),
        reference.window_readout(affinity, values, radius, border=border),
    )


@pytest.mark.parametrize('max_elements', [1, 60, 1000])
def test_chunk_size_changes_nothing_in_the_readout(max_elements):
    affinity, values = features(2, 25, 7, 5, seed=6), features(2, 3, 7, 5, seed=7)
    chunked = window_readout(affinity, values, 2, max_elements=max_elements)
    torch.testing.assert_close(chunked, window_readout(affinity, values, 2), rtol=0, atol=1e-13)


def test_readout_of_a_batch_is_that_of_its_samples():
    affinity, values = features(2, 9, 4, 6, seed=6), features(2, 3, 4, 6, seed=7)
    alone = [window_readout(affinity[b : b + 1], values[b : b + 1], 1) for b in range(2)]
    torch.testing.assert_close(window_readout(affinity, values, 1), torch.cat(alone), rtol=0, atol=1e-14)


def test_masked_affinity_reproduces_constant_values():
    query, key = features(1, 3, 4, 5, seed=1), features(1, 3, 4, 5, seed=2)
    affinity = joint_softmax([window_logits(query, key, 2)])[0]
    ones = torch.ones(1, 2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(window_readout(affinity, ones, 2), ones)


def test_zero_logit_border_leaks_the_mass_outside_the_frame():
    zeros = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    affinity = joint_softmax([window_logits(zeros, zeros, 1, border='zero_logit')])[0]
    carried = window_readout(affinity, torch.ones(1, 1, 3, 3, dtype=torch.float64), 1)
    expected = torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]], dtype=torch.float64) / 9
    torch.testing.assert_close(carried[0, 0], expected)


@pytest.mark.parametrize('border', ['zero', 'replicate'])
def test_readout_passes_gradcheck(border):
    affinity, values = (
        features(1, 9, 3, 4, seed=6).requires_grad_(),
        features(1, 2, 3, 4, seed=7).requires_grad_(),
    )
    assert torch.autograd.gradcheck(
        lambda a, v: window_readout(a, v, 1, border=border, max_elements=100),
        (affinity, values),
        fast_mode=True,
    )


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize('border', ['zero', 'replicate'])
def test_readout_in_half_precision_is_close_to_float32(dtype, tolerance, border):
    affinity = torch.softmax(features(1, 25, 4, 5, seed=6), dim=1).to(dtype)
    values = features(1, 2, 4, 5, seed=7, dtype=dtype)
    half = window_readout(affinity, values, 2, border=border)
    assert half.dtype == dtype
    single = window_readout(affinity.float(), values.float(), 2, border=border)
    torch.testing.assert_close(half.float(), single, rtol=tolerance, atol=tolerance)


# --- Equations 1 and 2, gradients ---


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize('grid', [(2, 2, 3, 4, 1), (1, 1, 1, 1, 2), (1, 3, 2, 3, 3)])
def test_reconstruction_and_its_gradients_equal_the_loops(grid, border):
    batch, channels, height, width, radius = grid
    inputs = [features(batch, channels, height, width, seed=s).requires_grad_() for s in (1, 2)]
    inputs.append(features(batch, 2, height, width, seed=3).requires_grad_())
    query, key, values = inputs
    affinity = joint_softmax([window_logits(query, key, radius, temperature=0.8, border=border)])[0]
    fast = window_readout(affinity, values, radius)
    slow = reference.reconstruct_torch(query, key, values, radius, temperature=0.8, border=border)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    weight = features(*fast.shape, seed=9)
    for ours, theirs in zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((slow * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# --- errors ---


@pytest.mark.parametrize(
    'change,culprit',
    [
        (dict(key=torch.zeros(1, 2, 3, 5)), r'query and key.*\(1, 2, 3, 4\) and \(1, 2, 3, 5\)'),
        (dict(radius=-1), 'radius.*-1'),
        (dict(radius=1.5), 'radius.*1.5'),
        (dict(temperature=0.0), 'temperature.*0.0'),
        (dict(temperature=float('nan')), 'temperature.*nan'),
        (dict(border='wrap'), 'border.*wrap'),
    ],
)
def test_logits_errors_name_the_culprit(change, culprit):
    arguments = dict(query=torch.zeros(1, 2, 3, 4), key=torch.zeros(1, 2, 3, 4), radius=1) | change
    with pytest.raises(ValueError, match=culprit):
        window_logits(**arguments)


@pytest.mark.parametrize(
    'change,culprit',
    [
        (dict(affinity=torch.zeros(1, 25, 3, 4)), r'\(B, 9, h, w\) for radius 1.*\(1, 25, 3, 4\)'),
        (dict(values=torch.zeros(1, 2, 4, 3)), r'values.*\(1, 2, 4, 3\)'),
        (dict(values=torch.zeros(2, 2, 3, 4)), r'values.*\(2, 2, 3, 4\)'),
        (dict(radius=-2), 'radius.*-2'),
        (dict(border='mask'), 'border.*mask'),
    ],
)
def test_readout_errors_name_the_culprit(change, culprit):
    arguments = dict(affinity=torch.zeros(1, 9, 3, 4), values=torch.zeros(1, 2, 3, 4), radius=1) | change
    with pytest.raises(ValueError, match=culprit):
        window_readout(**arguments)


def test_unknown_window_shape_is_named():
    with pytest.raises(ValueError, match='shape.*hexagon'):
        window_offsets(2, shape='hexagon')
