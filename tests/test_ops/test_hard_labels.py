"""`HardLabels` against the one-hot values that they stand for."""

import random

import pytest
import torch
from largest_tensor import LargestTensor

from mmliir.ops import HardLabels, MixturePrior, native, window_topk_attend


@pytest.fixture(params=['torch', 'native'])
def backend(request):
    if request.param == 'native':
        try:
            native.library()
        except native.Unavailable as reason:
            pytest.skip(str(reason))
    return request.param


def _case(seed, channels, references=3, size=(11, 14)):
    """query, keys, labels with -1 here and there, the values that they stand for."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn((4, *size), generator=generator)
    keys = torch.randn((references, 4, *size), generator=generator)
    labels = torch.randint(-1, channels, (references, *size), generator=generator)
    values = torch.zeros(references, channels + 1, *size).scatter_(1, labels[:, None] + 1, 1.05)[:, 1:]
    values[:, 0] /= 1.05
    return query, keys, labels, torch.where(values > 0, torch.where(values > 1.01, 1.05, 1.0), values)


@pytest.mark.parametrize('seed', range(30))
def test_labels_read_what_one_hot_values_read_to_the_bit(seed, backend):
    draw = random.Random(seed)
    query, keys, labels, values = _case(seed, draw.choice([2, 5, 60]))
    prior = draw.choice([None, None, MixturePrior(2, 'moments')])
    settings = {
        'topk': draw.choice([None, 1, 5, 100]) if prior is None else None,
        'topk_ties': draw.choice(['keep', 'share']),
        'topk_scope': draw.choice(['joint', 'per_reference']),
        'border': draw.choice(['mask', 'zero_logit']),
        'shape': draw.choice(['square', 'circle']),
        'normalise': draw.choice(['softmax', 'softmax_then_topk']),
        'prior': prior,
        'backend': backend,
    }
    radius = [3, 4, 3] if prior else draw.choice([[3, 4, 3], [None, 3, 3], [2, 2, 2]])
    expected = window_topk_attend(query, keys, values, radius, **settings)
    found = window_topk_attend(query, keys, HardLabels(labels, values.shape[1], 1.05), radius, **settings)
    assert torch.equal(found, expected)
    apart = window_topk_attend(query, list(keys), list(values), radius, **settings)
    assert torch.equal(apart, expected)


@pytest.mark.parametrize('topk', [None, 5])
@pytest.mark.parametrize('mismatch', [False, True])
def test_displaced_references_read_labels_too(topk, mismatch):
    query, keys, labels, values = _case(0, 7)
    offsets = [None, torch.rand(2, 11, 14) * 3 - 1.5, None]
    settings = {'topk': topk, 'offsets': offsets, 'border': 'zero_logit', 'align_corners_mismatch': mismatch}
    expected = window_topk_attend(query, keys, values, [2, 2, None], **settings)
    found = window_topk_attend(query, keys, HardLabels(labels, 7, 1.05), [2, 2, None], **settings)
    assert torch.equal(found, expected)


def test_more_channels_than_are_read_at_once(backend):
    query, keys, labels, values = _case(0, 200)
    for topk in (None, 4):
        expected = window_topk_attend(query, keys, values, [3, 3, 3], topk=topk, backend=backend)
        found = window_topk_attend(query, keys, HardLabels(labels, 200, 1.05), [3, 3, 3], topk=topk, backend=backend)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures('one_thread')
def test_one_hot_values_never_exist(backend):
    query, keys, labels, _ = _case(0, 300, references=9, size=(32, 32))
    with LargestTensor() as largest:
        out = window_topk_attend(query, keys, HardLabels(labels, 300), [2] * 9, backend=backend, max_elements=1 << 16)
    assert largest.elements <= out.numel() < 9 * 300 * 32 * 32


def test_labels_that_do_not_fit_are_named():
    labels = torch.zeros((2, 3, 4), dtype=torch.int64)
    with pytest.raises(ValueError, match='-1 .. 4 for 5 channels, got 0 .. 5'):
        HardLabels(labels.index_fill(0, torch.tensor([1]), 5), 5)
    with pytest.raises(ValueError, match=r'\(R, h, w\) channel numbers, got torch.float32'):
        HardLabels(labels.float(), 5)
    with pytest.raises(ValueError, match=r'values must be \(R, K, h, w\)'):
        window_topk_attend(torch.rand(2, 3, 4), torch.rand(3, 2, 3, 4), HardLabels(labels, 5), [1, 1, 1])
