"""The compiled back end of window_topk_attend against the loop over cells and against PyTorch."""

import random
import sys

import numpy as np
import pytest
import torch
from attend_cases import PRIORS
from compiler import needs_compiler

from mmliir.ops import window_topk_attend
from mmliir.ops.window_topk_attend import MixturePrior
from mmliir.testing.reference_propagation import attend_loop


def _inputs(height, width, channels=3, references=2, classes=2, kind='random', seed=0):
    """query, keys, values; 'whole': small whole numbers, whose products are exact and often tie; 'labels': one-hot
    values with gain, and some cells without any."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((channels, height, width), (references, channels, height, width))
    values = torch.randn((references, classes, height, width), generator=generator)
    if kind == 'labels':
        labels = torch.randint(0, classes + 1, (references, 1, height, width), generator=generator)
        values = torch.zeros(references, classes + 1, height, width).scatter_(1, labels, 1.05)[:, :classes]
    if kind == 'whole':
        query, keys = (torch.randint(-2, 3, shape, generator=generator).float() for shape in shapes)
    else:
        query, keys = (torch.randn(shape, generator=generator) for shape in shapes)
    return query, keys, values


def _random_settings(seed, sizes):
    draw = random.Random(seed)
    references = draw.choice([1, 2, 3])
    prior = draw.choice(PRIORS)
    radii = [0, 1, 2, 4, 11, None] if prior is None else [2, 3]
    settings = {
        'shape': draw.choice(['square', 'circle', 'disc']),
        'topk_ties': draw.choice(['keep', 'share']),
        'temperature': draw.choice([1.0, 0.3, 2.5]),
        'topk': draw.choice([None, 1, 3, 7, 40, 1000]) if prior is None else None,
        'topk_scope': draw.choice(['joint', 'joint', 'per_reference']),
        'normalise': draw.choice(['softmax', 'softmax', 'softmax_then_topk']),
        'border': draw.choice(['mask', 'zero_logit']),
        'prior': prior,
    }
    size = draw.choice(sizes if prior is None else [own for own in sizes if min(own) > 4])
    inputs = _inputs(
        *size, channels=draw.choice([1, 3, 6]), references=references, classes=draw.choice([1, 3, 6]), seed=seed,
        kind=draw.choice(['random', 'labels'] + ['whole'] * (prior is None)),
    )  # fmt: skip
    return inputs, [draw.choice(radii) for _ in range(references)], settings


@needs_compiler
@pytest.mark.parametrize('seed', range(150))
def test_equals_the_loop_over_cells(seed):
    inputs, radius, settings = _random_settings(seed, [(1, 1), (1, 5), (3, 2), (5, 5), (7, 9), (4, 8)])
    if settings['topk'] == 1000 and inputs[1][:, 0].numel() > 1000:
        pytest.fail('the frames of this test have fewer than 1000 cells')
    fast = window_topk_attend(*inputs, radius, **settings, backend='native')
    slow = attend_loop(*inputs, radius, **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=3e-5)


@needs_compiler
@pytest.mark.parametrize('seed', range(150, 200))
def test_equals_pytorch_in_double_precision_on_larger_frames(seed):
    inputs, radius, settings = _random_settings(seed, [(17, 19), (30, 5), (6, 41), (33, 34), (20, 16)])
    if settings['topk'] == 1000:
        settings['topk'] = 200
    fast = window_topk_attend(*inputs, radius, **settings, backend='native')
    exact = window_topk_attend(*(one.double() for one in inputs), radius, **settings, backend='torch')
    np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=3e-5)


@needs_compiler
@pytest.mark.parametrize('topk', [None, 5])
@pytest.mark.parametrize('kind', ['random', 'labels'])
def test_a_thousand_channels_equal_a_few_at_a_time(topk, kind):
    query, keys, values = _inputs(9, 11, classes=1000, kind=kind)
    fast = window_topk_attend(query, keys, values, [3, None], topk=topk, backend='native')
    for start in (0, 333, 997):
        part = window_topk_attend(query, keys, values[:, start : start + 3], [3, None], topk=topk, backend='torch')
        torch.testing.assert_close(fast[start : start + 3], part, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize('normalise', ['softmax', 'softmax_then_topk'])
def test_all_of_a_tie_is_kept_however_many_they_are(border, normalise):
    query, keys, values = _inputs(13, 14, references=3)
    keys[:] = keys[0, :, :1, :1]  # 3 * 13 * 14 keys tie, far more than there is room for beside the k best
    keys[0, :, 6, 6] *= 1.5
    settings = {'topk': 2, 'border': border, 'normalise': normalise}
    fast = window_topk_attend(query, keys, values, [None, 5, 9], **settings, backend='native')
    slow = attend_loop(query, keys, values, [None, 5, 9], **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_repeated_reference_ties_with_itself():
    query, keys, values = _inputs(12, 13, references=1)
    once = window_topk_attend(query, keys, values, [4], topk=1, backend='native')
    often = window_topk_attend(
        query, keys.expand(21, -1, -1, -1), values.expand(21, -1, -1, -1), [4] * 21, topk=10, backend='native'
    )
    torch.testing.assert_close(often, once)


@needs_compiler
@pytest.mark.parametrize('normalise', ['softmax', 'softmax_then_topk'])
def test_copies_of_a_reference_share_their_places(normalise):
    query, keys, values = _inputs(12, 13, references=2)
    copies = [0] * 20 + [1]
    inputs, radius = (query, keys[copies], values[copies]), [None] + [4] * 20
    settings = {'topk': 10, 'topk_ties': 'share', 'normalise': normalise}
    fast = window_topk_attend(*inputs, radius, **settings, backend='native')
    exact = window_topk_attend(*(one.double() for one in inputs), radius, **settings, backend='torch')
    np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=1e-5)
    kept = window_topk_attend(*inputs, radius, topk=10, normalise=normalise, backend='native')
    assert not torch.allclose(fast, kept)


@needs_compiler
@pytest.mark.parametrize(
    'settings',
    [
        {'topk': 3}, {'topk': 3, 'normalise': 'softmax_then_topk'}, {'border': 'zero_logit'},
        {'prior': MixturePrior(2, 'moments', 0.1, keep_mass=True)},
    ],
)  # fmt: skip
def test_threads_and_bands_change_no_bit(settings, monkeypatch):
    query, keys, values = _inputs(41, 23, channels=7, references=3, classes=5)
    radius = [4, 4, 4] if 'prior' in settings else [4, None, 7]
    before, results = torch.get_num_threads(), []
    try:
        for threads, band in ((1, 16), (2, 16), (3, 4), (5, 8), (1, 64)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(sys.modules[window_topk_attend.__module__], 'NATIVE_BAND', band)
            results.append(window_topk_attend(query, keys, values, radius, **settings, backend='native'))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0], other)


@needs_compiler
def test_large_logits_do_not_overflow():
    query, keys, values = _inputs(6, 7)
    for settings in ({}, {'topk': 3}, {'topk': 3, 'normalise': 'softmax_then_topk'}):
        fast = window_topk_attend(query * 200, keys * 200, values, [2, 2], **settings, backend='native')
        exact = window_topk_attend(
            (query * 200).double(), (keys * 200).double(), values.double(), [2, 2], **settings, backend='torch'
        )
        assert bool(fast.isfinite().all())
        torch.testing.assert_close(fast.double(), exact, rtol=1e-3, atol=1e-3)


@needs_compiler
@pytest.mark.parametrize('where', ['query', 'keys'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('topk', [None, 2])
def test_features_that_are_not_finite_are_left_to_pytorch(where, value, topk):
    inputs = dict(zip(('query', 'keys', 'values'), _inputs(9, 9), strict=True))
    inputs[where][..., 4, 5] = value
    auto = window_topk_attend(**inputs, radius=[2, None], topk=topk)
    torch.testing.assert_close(
        auto, window_topk_attend(**inputs, radius=[2, None], topk=topk, backend='torch'), equal_nan=True
    )
    with pytest.raises(ValueError, match='NaN or infinity'):
        window_topk_attend(**inputs, radius=[2, None], topk=topk, backend='native')


@needs_compiler
def test_inputs_may_be_views_and_of_half_precision():
    query, keys, values = _inputs(8, 9)
    expected = window_topk_attend(query, keys, values, [2, 3], backend='native')
    views = [one.transpose(-1, -2).contiguous().transpose(-1, -2) for one in (query, keys, values)]
    assert torch.equal(window_topk_attend(*views, [2, 3], backend='native'), expected)
    half = [one.half() for one in (query, keys, values)]
    read = window_topk_attend(*half, [2, 3], backend='native')
    assert read.dtype == torch.float32
    assert torch.equal(read, window_topk_attend(*(one.float() for one in half), [2, 3], backend='native'))


@pytest.mark.parametrize('backend', ['torch', pytest.param('native', marks=needs_compiler)])
@pytest.mark.parametrize('topk_scope', ['joint', 'per_reference'])
def test_keys_may_come_one_by_one(backend, topk_scope):
    query, keys, values = _inputs(8, 9, references=3)
    settings = {'topk': 3, 'topk_scope': topk_scope, 'backend': backend}
    expected = window_topk_attend(query, keys, values, [2, 3, None], **settings)
    assert torch.equal(window_topk_attend(query, list(keys), values, [2, 3, None], **settings), expected)
    with pytest.raises(ValueError, match=r'keys \(R, C, h, w\), got \(3, 8, 9\) and \[.*\(3, 8, 8\)\]'):
        window_topk_attend(query, [*keys[:2], keys[2, :, :, 1:]], values, [2, 3, None], **settings)


def test_what_it_cannot_serve_is_named_and_auto_serves_it():
    query, keys, values = _inputs(5, 5)
    double = [one.double() for one in (query, keys, values)]
    offsets = [torch.zeros(2, 5, 5), None]
    prior = MixturePrior(2, 'moments')
    for inputs, settings, culprit in (
        (double, {}, 'float64'),
        ((query, keys, values), {'offsets': offsets, 'topk': 3}, 'topk of displaced'),
        ((query, keys, values), {'prior': prior, 'topk': 3}, 'topk'),
        ((query, keys, values), {'prior': MixturePrior(9, 'moments')}, 'num_mixtures is 9'),
    ):
        with pytest.raises(ValueError, match=f"backend='native' cannot serve.*{culprit}"):
            window_topk_attend(*inputs, [1, 1], **settings, backend='native')
        expected = window_topk_attend(*inputs, [1, 1], **settings, backend='torch')
        assert torch.equal(window_topk_attend(*inputs, [1, 1], **settings), expected)
    with pytest.raises(ValueError, match="backend must be 'auto', 'torch', 'native' or 'triton', got 'cuda'"):
        window_topk_attend(query, keys, values, [1, 1], backend='cuda')
