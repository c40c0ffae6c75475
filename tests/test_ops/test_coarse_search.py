"""coarse_search against a loop over cells, and what the displacement must be."""

import itertools

import numpy as np
import pytest
import torch

from mmliir.ops import coarse_search
from mmliir.testing.reference_propagation import coarse_loop

SIZES = [(1, 1), (1, 6), (5, 2), (7, 9), (12, 11)]


def _features(height, width, channels=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator, dtype=dtype).unbind()


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('radius', 'dilation'), [(0, 3), (1, 1), (2, 2), (2, 4), (3, 3), (12, 4)])
def test_equals_the_loop_over_cells(size, radius, dilation, border):
    query, key = _features(*size, seed=radius + dilation)
    fast = coarse_search(query, key, radius, dilation, temperature=0.7, border=border)
    slow = coarse_loop(query, key, radius, dilation, 0.7, border)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize(('dx', 'dy'), [(6, 0), (-3, 9), (0, -6)])
def test_a_frame_moved_by_whole_steps_gives_its_motion(dx, dy, border):
    picture = torch.nn.functional.normalize(_features(60, 60, channels=32)[0], dim=0) * 30
    query = picture[:, 20:40, 20:40]
    key = picture[:, 20 - dy : 40 - dy, 20 - dx : 40 - dx]  # the query's cell (x, y) lies at (x + dx, y + dy)
    offsets = coarse_search(query, key, 3, 3, border=border)
    lines, columns = slice(max(0, -dy), 20 - max(0, dy)), slice(max(0, -dx), 20 - max(0, dx))
    expected = torch.tensor([dx, dy], dtype=torch.float64)[:, None, None].expand(2, 20, 20)
    torch.testing.assert_close(
        offsets[:, lines, columns], expected[:, lines, columns], rtol=0, atol=1e-3
    )


def test_a_constant_frame_is_not_displaced_inside_and_drawn_inwards_at_the_border():
    """Of the steps -4, -2, 0, 2, 4 the first column reaches 0, 2 and 4."""
    ones = torch.ones(1, 21, 21, dtype=torch.float64)
    masked = coarse_search(ones, ones, 2, 2)
    assert masked[:, 4:-4, 4:-4].abs().max() < 1e-12 and masked[0, 10, 0] == pytest.approx(2)
    outwards = coarse_search(ones, ones, 2, 2, border='zero_logit')
    assert 0 < outwards[0, 10, 0] < masked[0, 10, 0]  # the cells outside keep a part of the mass


def test_the_frame_never_ends_under_a_displacement_with_mask():
    query, key = _features(9, 14, seed=5)
    x, y = coarse_search(query * 5, key * 5, 12, 4) + torch.stack(
        torch.meshgrid(torch.arange(14.0), torch.arange(9.0), indexing='xy')
    )
    assert x.min() > -1e-9 and x.max() < 13 + 1e-9 and y.min() > -1e-9 and y.max() < 8 + 1e-9


@pytest.mark.parametrize('max_elements', [1, 300, 10**7])
def test_the_chunk_size_changes_nothing(max_elements):
    query, key = _features(19, 23)
    for radius, border in itertools.product([2, 5], ['mask', 'zero_logit']):
        whole = coarse_search(query, key, radius, 3, border=border)
        chunked = coarse_search(query, key, radius, 3, border=border, max_elements=max_elements)
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_computed_in_float32(dtype):
    query, key = (x.to(dtype) for x in _features(11, 12, dtype=torch.float32))
    offsets = coarse_search(query, key, 3, 2, border='zero_logit')
    assert offsets.dtype == torch.float32
    np.testing.assert_allclose(
        offsets, coarse_loop(query.double(), key.double(), 3, 2, 1.0, 'zero_logit'), rtol=0, atol=2e-5
    )


def test_no_gradient_flows():
    query, key = _features(4, 4)
    assert not coarse_search(query.requires_grad_(), key, 1, 2).requires_grad


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'radius': -1}, 'radius'),
        ({'dilation': 0}, 'dilation'),
        ({'temperature': 0.0}, 'temperature'),
        ({'border': 'wrap'}, 'border'),
        ({'key': torch.ones(4, 4, 5)}, r'\(4, 4, 4\) and \(4, 4, 5\)'),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    query, key = _features(4, 4)
    arguments = {'key': key, 'radius': 1, 'dilation': 2} | change
    with pytest.raises(ValueError, match=message):
        coarse_search(query, **arguments)
