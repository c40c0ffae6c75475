"""window_topk_attend against a loop over cells, and its invariants."""

import itertools
import random
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from attend_cases import PRIORS

from mmliir.ops.window_topk_attend import MixturePrior, window_topk_attend
from mmliir.testing.reference_propagation import attend_loop


def _inputs(height, width, channels=3, references=2, classes=2, whole=False, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (channels, height, width),
        (references, channels, height, width),
        (references, classes, height, width),
    )
    if whole:  # small whole numbers: products are exact, and many of them tie
        return [torch.randint(-2, 3, shape, generator=generator).to(dtype) for shape in shapes]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def _random_settings(seed):
    draw = random.Random(seed)
    references = draw.choice([1, 2, 3])
    prior = draw.choice(PRIORS)
    # Where fewer cells carry mass than there are components, the means are a choice among ties.
    radii = [0, 1, 2, 4, None] if prior is None else [2, 3]
    radius = (
        [draw.choice(radii)] * references
        if draw.random() < 0.6
        else [draw.choice(radii) for _ in range(references)]
    )
    settings = {
        'shape': draw.choice(['square', 'circle', 'disc']),
        'temperature': draw.choice([1.0, 0.3, 2.5]),
        'topk': draw.choice([None, 1, 3, 7, 1000]) if prior is None else draw.choice([None, None, 1000]),
        'topk_scope': draw.choice(['joint', 'joint', 'per_reference']),
        'normalise': draw.choice(['softmax', 'softmax', 'softmax_then_topk']),
        'border': draw.choice(['mask', 'zero_logit']),
        'prior': prior,
    }
    size = draw.choice(
        [(1, 1), (1, 5), (3, 2), (7, 9), (9, 11), (8, 8)] if prior is None else [(5, 5), (7, 9), (9, 8)]
    )
    inputs = _inputs(
        *size, channels=draw.choice([1, 3]), references=references, classes=draw.choice([1, 3]), seed=seed,
        whole=prior is None and draw.random() < 0.3,
    )  # fmt: skip
    return inputs, radius, settings


@pytest.mark.parametrize('seed', range(120))
def test_equals_the_loop_over_cells(seed):
    inputs, radius, settings = _random_settings(seed)
    fast = window_topk_attend(*inputs, radius, **settings)
    slow = attend_loop(*inputs, radius, **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('normalise', ['softmax', 'softmax_then_topk'])
@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize('topk', [2, 3, 5, 8])
def test_ties_that_share_their_places_equal_the_loop(topk, border, normalise):
    query, keys, values = _inputs(6, 7, references=2)
    keys = keys.mul(2).round().div(2)[[0, 1, 0, 0]]  # coarse values tie in a frame, copies of it between frames
    query = query.mul(2).round().div(2)
    settings = {'topk': topk, 'border': border, 'normalise': normalise, 'topk_ties': 'share'}
    fast = window_topk_attend(query, keys, values[[0, 1, 0, 0]], [2, 3, 2, None], **settings)
    slow = attend_loop(query, keys, values[[0, 1, 0, 0]], [2, 3, 2, None], **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-9, atol=1e-11)


def test_copies_of_a_frame_that_share_their_places_count_as_in_a_selection_of_exactly_k():
    query, keys, values = _inputs(6, 7, references=2)
    times = torch.tensor([0, 0, 0, 1, 0])
    logits = torch.einsum('cq,rcn->qrn', query.flatten(1), keys[times].flatten(2)).flatten(1)
    best = logits.topk(4, dim=1)
    picked = values[times].transpose(0, 1).flatten(1)[:, best.indices]
    expected = (picked * best.values.softmax(dim=1)).sum(dim=2).view(-1, 6, 7)
    shared = window_topk_attend(query, keys[times], values[times], [None] * 5, topk=4, topk_ties='share')
    torch.testing.assert_close(shared, expected)
    kept = window_topk_attend(query, keys[times], values[times], [None] * 5, topk=4)
    assert not torch.allclose(kept, expected)


def test_the_weights_of_shared_places_sum_to_one():
    query, keys, values = _inputs(5, 4, references=3)
    ones = torch.ones_like(values[:, :1])
    out = window_topk_attend(query, keys[[0, 0, 0]], ones, [2, 2, None], topk=4, topk_ties='share')
    assert torch.allclose(out, ones[0])


@pytest.mark.parametrize('size', [(1, 1), (3, 4)])
def test_a_prior_with_a_threshold_replaces_windows_of_single_cell_tiles(size):
    inputs, prior = _inputs(*size), MixturePrior(2, 'fixed', 0.01)
    fast = window_topk_attend(*inputs, [2, 2], border='zero_logit', prior=prior, max_elements=1)
    slow = attend_loop(*inputs, [2, 2], border='zero_logit', prior=prior)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('topk', [None, 4])
@pytest.mark.parametrize('max_elements', [1, 100, 5000, 10**7])
def test_the_chunk_size_changes_nothing(topk, max_elements):
    inputs = _inputs(13, 19)
    whole = window_topk_attend(*inputs, [3, None], topk=topk)
    chunked = window_topk_attend(*inputs, [3, None], topk=topk, max_elements=max_elements)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_a_window_wider_than_the_frame_equals_no_window():
    inputs = _inputs(5, 7)
    torch.testing.assert_close(window_topk_attend(*inputs, [8, 8]), window_topk_attend(*inputs, [None, None]))


def test_a_topk_above_the_number_of_keys_equals_no_topk():
    inputs = _inputs(6, 7)
    torch.testing.assert_close(
        window_topk_attend(*inputs, [2, 2], topk=50), window_topk_attend(*inputs, [2, 2])
    )


def test_weights_of_every_cell_sum_to_one_under_mask_and_to_less_under_zero_logit():
    query, keys, values = _inputs(9, 10)
    ones = torch.ones_like(values)
    assert torch.allclose(window_topk_attend(query, keys, ones, [2, 2]), ones[0])
    padded = window_topk_attend(query, keys, ones, [2, 2], border='zero_logit')
    assert (padded[0, 0, 0] < 1) and torch.allclose(padded[:, 2:-2, 2:-2], ones[0, :, 2:-2, 2:-2])


def test_the_order_of_references_does_not_matter():
    query, keys, values = _inputs(8, 9, references=3, whole=True)
    for order in itertools.permutations(range(3)):
        order = list(order)
        same = window_topk_attend(query, keys[order], values[order], [2, 2, 2], topk=5)
        torch.testing.assert_close(same, window_topk_attend(query, keys, values, [2, 2, 2], topk=5))


def test_all_of_a_tie_is_kept():
    query, keys, values = torch.ones(1, 3, 3), torch.ones(1, 1, 3, 3), torch.arange(9.0).view(1, 1, 3, 3)
    assert torch.allclose(window_topk_attend(query, keys, values, [None], topk=1), torch.full((1, 3, 3), 4.0))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('settings', [{}, {'topk': 3}, {'prior': MixturePrior(2, 'moments', keep_mass=True)}])
def test_half_precision_is_computed_in_float32(dtype, settings):
    inputs = [x.to(dtype) for x in _inputs(9, 9, dtype=torch.float32)]
    out = window_topk_attend(*inputs, [2, 2], **settings)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(
        out, attend_loop(*[x.double() for x in inputs], [2, 2], **settings), rtol=2e-4, atol=1e-5
    )


def test_large_logits_do_not_overflow():
    inputs = [x * 100 for x in _inputs(9, 9, dtype=torch.float32)]
    assert window_topk_attend(*inputs, [2, 2]).isfinite().all()
    assert window_topk_attend(*inputs, [2, None], topk=5).isfinite().all()


def test_no_gradient_flows():
    query, keys, values = _inputs(4, 4)
    assert not window_topk_attend(query.requires_grad_(), keys, values, [1, 1]).requires_grad


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'radius': [2]}, 'one value for each of 2 references'),
        ({'radius': [2, -1]}, 'whole number'),
        ({'temperature': 0.0}, 'temperature'),
        ({'topk': 0}, 'topk'),
        ({'topk_scope': 'all'}, 'topk_scope'),
        ({'topk': 2, 'topk_ties': 'first'}, 'topk_ties'),
        ({'normalise': 'l1'}, 'normalise'),
        ({'border': 'wrap'}, 'border'),
        ({'shape': 'star'}, 'shape'),
        ({'radius': [2, None], 'prior': MixturePrior()}, 'window on every reference'),
        ({'max_elements': 0}, 'max_elements'),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    arguments = {'radius': [1, 1]} | change
    with pytest.raises(ValueError, match=message):
        window_topk_attend(*_inputs(4, 4), **arguments)


def test_wrong_shapes_are_named():
    query, keys, values = _inputs(4, 4)
    with pytest.raises(ValueError, match='keys'):
        window_topk_attend(query, keys[:, :2], values, [1, 1])
    with pytest.raises(ValueError, match='values'):
        window_topk_attend(query, keys, values[:1], [1, 1])
    with pytest.raises(ValueError, match='radius must hold one value for each of 2 references, got 1'):
        window_topk_attend(query, keys, values, 1)
    with pytest.raises(ValueError, match='must be tensors, got ndarray and Tensor'):
        window_topk_attend(query.numpy(), keys, values, [1, 1])
    with pytest.raises(ValueError, match='topk must be a whole number.* got 1.5'):
        window_topk_attend(query, keys, values, [1, 1], topk=1.5)


def test_a_wrong_prior_is_named():
    with pytest.raises(ValueError, match='estimator'):
        MixturePrior(estimator='median')
    with pytest.raises(ValueError, match='num_mixtures'):
        MixturePrior(num_mixtures=0)
    with pytest.raises(ValueError, match='threshold'):
        MixturePrior(threshold=2.0)
    with pytest.raises(ValueError, match='width'):
        MixturePrior(width=-1.0)
    with pytest.raises(ValueError, match='variance_floor'):
        MixturePrior(variance_floor=0)


def test_threads_change_nothing_and_are_left_as_they_were():
    inputs = _inputs(30, 30, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = window_topk_attend(*inputs, [3, 3], max_elements=3000)
        torch.set_num_threads(3)
        together = window_topk_attend(*inputs, [3, 3], max_elements=3000)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(together, alone)


def test_works_in_inference_mode_and_under_autocast():
    inputs = _inputs(30, 30, dtype=torch.float32)
    plain = window_topk_attend(*inputs, [3, 3], max_elements=3000)
    with torch.inference_mode():
        own = [x * 1 for x in inputs]
        torch.testing.assert_close(window_topk_attend(*own, [3, 3], max_elements=3000), plain)
    torch.testing.assert_close(window_topk_attend(*own, [3, 3], max_elements=3000), plain)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(window_topk_attend(*inputs, [3, 3], max_elements=3000), plain)


@pytest.mark.parametrize('dense', [True, False])
@pytest.mark.parametrize('radius', [[1, 1], [3, None], [4, 2], [40, 40]])
@pytest.mark.parametrize('shape', ['square', 'circle', 'disc'])
def test_whole_frames_with_a_mask_equal_windows_in_place(shape, radius, dense, monkeypatch):
    module = sys.modules[window_topk_attend.__module__]
    monkeypatch.setattr(module._TorchAttend, '_is_dense', lambda *_: dense)
    inputs = _inputs(9, 11)
    for settings in ({}, {'topk': 3}, {'topk': 3, 'normalise': 'softmax_then_topk', 'topk_ties': 'share'}):
        fast = window_topk_attend(*inputs, radius, shape=shape, **settings, backend='torch')
        slow = attend_loop(*inputs, radius, shape=shape, **settings)
        np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-6, atol=1e-7)


def test_windows_that_cover_the_frame_are_compared_as_whole_frames(monkeypatch):
    module = sys.modules[window_topk_attend.__module__]
    windowed = mock.Mock(side_effect=module._Windowed)
    monkeypatch.setattr(module, '_Windowed', windowed)
    inputs = _inputs(24, 43)
    window_topk_attend(*inputs, [35, 35], backend='torch')
    assert not windowed.called
    window_topk_attend(*inputs, [2, 35], backend='torch')
    window_topk_attend(*inputs, [35, 35], border='zero_logit', backend='torch')  # places outside take part
    assert [call.args[3] for call in windowed.call_args_list] == [2, 35]
