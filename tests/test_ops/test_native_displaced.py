"""Displaced windows in compiled code against the loop over cells, against PyTorch, and their invariants."""

import random
import sys

import numpy as np
import pytest
import torch
from compiler import needs_compiler

from mmliir.ops import HardLabels, MixturePrior, window_topk_attend
from mmliir.propagation import resolve_protocol
from mmliir.testing.reference_propagation import attend_loop

pytestmark = needs_compiler

MOMENTS = MixturePrior(2, 'moments', keep_mass=True)
SETTINGS = [
    {'border': 'zero_logit'},
    {'border': 'zero_logit', 'prior': MOMENTS},
    {'border': 'zero_logit', 'align_corners_mismatch': True},
    {'border': 'zero_logit', 'align_corners_mismatch': True, 'prior': MOMENTS},
    {'border': 'mask'},
    {'border': 'mask', 'prior': MixturePrior(2, 'fixed', 0.1)},
    {'border': 'zero_logit', 'shape': 'circle'},
    {'border': 'zero_logit', 'topk_scope': 'per_reference'},
]


def _inputs(height, width, channels=3, references=2, classes=3, seed=0, labels=False):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn((channels, height, width), generator=generator)
    keys = torch.randn((references, channels, height, width), generator=generator)
    if not labels:
        return query, keys, torch.randn((references, classes, height, width), generator=generator)
    numbers = torch.randint(-1, classes, (references, height, width), generator=generator)
    return query, keys, HardLabels(numbers, classes, gain=1.05)


def _one_hot(labels):
    values = (labels.labels[:, None] == torch.arange(labels.num_channels)[:, None, None]).float()
    values[:, 1:] *= labels.gain
    return values


def _offsets(height, width, reach, seed, inside=False, common=0.0):
    """(2, h, w): `common` and at random up to `reach` cells to each side; a fifth of them whole numbers."""
    generator = torch.Generator().manual_seed(seed + 1000)
    offsets = common + (torch.rand(2, height, width, generator=generator) * 2 - 1) * reach
    offsets = torch.where(torch.rand(1, height, width, generator=generator) < 0.2, offsets.round(), offsets)
    if not inside:
        return offsets
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing='xy')
    return torch.stack([(x + offsets[0]).clamp(0, width - 1) - x, (y + offsets[1]).clamp(0, height - 1) - y])


def _random_case(seed, sizes):
    """Inputs, radii and settings; values are fields, one-hot or hard labels."""
    draw = random.Random(seed)
    references = draw.choice([1, 2, 3])
    prior = draw.choice(
        [
            None, None, None, MixturePrior(2, 'fixed', 0.1), MOMENTS, MixturePrior(3, 'moments', 0.05),
            MixturePrior(1, 'fixed', width=1.7), MixturePrior(2, 'moments', variance_floor=0.05),
        ]
    )  # fmt: skip
    border = draw.choice(['mask', 'zero_logit', 'zero_logit'])
    size = draw.choice(sizes if prior is None else [own for own in sizes if min(own) > 4])
    radius = [draw.choice([0, 1, 2, 4] if prior is None else [2, 3]) for _ in range(references)]
    # Under 'mask' a mixture needs places to put its means on: few lie inside where the centre is at the border.
    far = 40.0 if border == 'zero_logit' and prior is None else 2.5
    reach, common = draw.choice([0.0, 0.4, 2.5, far]), draw.choice([0.0, 1.3, -far])
    offsets = [_offsets(*size, reach, seed + 7 * r, border == 'mask', common) for r in range(references)]
    if draw.random() < 0.6:
        offsets[draw.randrange(references)] = None
    if prior is None and references > 1 and draw.random() < 0.3:
        radius[0], offsets[0] = None, None
    value_offsets = None
    if draw.random() < 0.3:  # where the values are read may lie anywhere, also under 'mask'
        value_offsets = [None if own is None else _offsets(*size, 2 * reach, seed + 99) for own in offsets]
    settings = {
        'align_corners_mismatch': border == 'zero_logit' and draw.random() < 0.4,
        'shape': draw.choice(['square', 'square', 'circle', 'disc']),
        'temperature': draw.choice([1.0, 0.3, 2.5]),
        'topk_scope': draw.choice(['joint', 'joint', 'per_reference']),
        'border': border,
        'prior': prior,
        'offsets': offsets,
        'value_offsets': value_offsets,
    }
    inputs = _inputs(
        *size, channels=draw.choice([1, 3, 6]), references=references, classes=draw.choice([1, 3, 6]), seed=seed,
        labels=draw.random() < 0.4,
    )  # fmt: skip
    return inputs, radius, settings


@pytest.mark.parametrize('seed', range(150))
def test_equals_the_loop_over_cells(seed):
    (query, keys, values), radius, settings = _random_case(seed, [(1, 1), (1, 5), (3, 2), (5, 5), (7, 9), (4, 8)])
    fast = window_topk_attend(query, keys, values, radius, **settings, backend='native')
    slow = attend_loop(
        query, keys, _one_hot(values) if isinstance(values, HardLabels) else values, radius, **settings
    )
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize('seed', range(150, 200))
def test_equals_pytorch_in_double_precision_on_larger_frames(seed):
    (query, keys, values), radius, settings = _random_case(seed, [(17, 19), (30, 5), (6, 41), (33, 34), (20, 16)])
    fast = window_topk_attend(query, keys, values, radius, **settings, backend='native')
    values = values if isinstance(values, HardLabels) else values.double()
    exact = window_topk_attend(query.double(), keys.double(), values, radius, **settings, backend='torch')
    np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('reach', [0.0, 1.0, 6.0, 30.0])
def test_every_spread_of_the_windows_equals_pytorch(settings, reach):
    """From one place a tile, over boxes and copied windows, to groups of lanes."""
    query, keys, values = _inputs(29, 38, channels=5)
    offsets = [_offsets(29, 38, reach, seed, settings['border'] == 'mask', common=-1.4) for seed in (0, 1)]
    settings = {**settings, 'offsets': [offsets[0], None], 'value_offsets': [offsets[1], None]}
    for changed in (settings, {**settings, 'value_offsets': None}):
        fast = window_topk_attend(query, keys, values, [4, 4], **changed, backend='native')
        exact = window_topk_attend(
            query.double(), keys.double(), values.double(), [4, 4], **changed, backend='torch'
        )
        np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize('name', ['liir_paper', 'mast'])
@pytest.mark.parametrize('search', [{}, {'labels_from_last': True, 'align_corners_mismatch': True}])
def test_serves_the_protocols_that_search_in_two_steps(name, search):
    settings = resolve_protocol(name).settings
    query, keys, labels = _inputs(21, 26, channels=8, references=5, labels=True)
    offsets = [_offsets(21, 26, 3.0, seed) for seed in (0, 1)] + [None] * 3
    arguments = {
        'radius': [settings.radius] * 5,
        'shape': settings.shape,
        'temperature': settings.resolve_temperature(8),
        'topk': settings.topk,
        'normalise': settings.normalise,
        'border': settings.border,
        'prior': settings.prior,
        'offsets': offsets,
        'value_offsets': [offsets[1]] * 2 + [None] * 3 if 'labels_from_last' in search else None,
        'align_corners_mismatch': search.get('align_corners_mismatch', False),
    }
    fast = window_topk_attend(query, keys, labels, **arguments, backend='native')
    assert torch.equal(window_topk_attend(query, keys, labels, **arguments), fast)
    exact = window_topk_attend(query.double(), keys.double(), labels, **arguments, backend='torch')
    np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize('settings', SETTINGS[:2] + SETTINGS[4:])
def test_no_displacement_equals_the_plain_window(settings):
    inputs, zero = _inputs(13, 10), torch.zeros(2, 13, 10)
    plain = window_topk_attend(*inputs, [3, 3], **settings, backend='native')
    for offsets in ([zero, zero], [zero, None], [None, zero]):
        displaced = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets, backend='native')
        torch.testing.assert_close(displaced, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('far', [1e3, 2.0**31, 3e38])
@pytest.mark.parametrize('settings', [SETTINGS[0], SETTINGS[2], {**SETTINGS[0], 'offsets_of': 'values'}])
def test_windows_far_outside_hold_zeros(far, settings):
    settings = dict(settings)
    of_values = settings.pop('offsets_of', None) == 'values'
    query, keys, values = _inputs(9, 10, references=1)
    near, away = torch.zeros(2, 9, 10), torch.full((2, 9, 10), far)
    away[0, :, :5] = -far
    fast = window_topk_attend(
        query, keys, values, [3], **settings, offsets=[near if of_values else away], backend='native',
        value_offsets=[away],
    )  # fmt: skip
    assert torch.equal(fast, torch.zeros_like(fast))


def test_under_mask_values_far_outside_are_those_of_the_border():
    query, keys, values = _inputs(9, 10, references=1)
    offsets, away = torch.zeros(2, 9, 10), torch.full((2, 9, 10), 1e6)
    read = window_topk_attend(query, keys, values, [3], offsets=[offsets], value_offsets=[away], backend='native')
    torch.testing.assert_close(read, values[0, :, -1:, -1:].expand_as(read), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('reach', [0.5, 9.0])
def test_threads_and_bands_change_no_bit(settings, reach, monkeypatch):
    query, keys, values = _inputs(41, 23, channels=7, references=3, classes=5)
    offsets = [_offsets(41, 23, reach, seed, settings['border'] == 'mask') for seed in (0, 1)] + [None]
    before, results = torch.get_num_threads(), []
    try:
        for threads, band in ((1, 16), (2, 16), (3, 4), (5, 8), (1, 64)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(sys.modules[window_topk_attend.__module__], 'NATIVE_BAND', band)
            results.append(
                window_topk_attend(query, keys, values, [4] * 3, **settings, offsets=offsets, backend='native')
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0], other)


@pytest.mark.parametrize('classes', [1, 3, 300])
def test_hard_labels_give_the_bits_of_one_hot_values(classes):
    query, keys, labels = _inputs(14, 15, classes=classes, labels=True)
    offsets = [_offsets(14, 15, 4.0, 0), None]
    settings = {'border': 'zero_logit', 'offsets': offsets, 'backend': 'native'}
    hard = window_topk_attend(query, keys, labels, [3, 3], **settings)
    assert torch.equal(hard, window_topk_attend(query, keys, _one_hot(labels), [3, 3], **settings))


@pytest.mark.parametrize('band', [4, 64])
def test_features_that_are_not_finite_are_left_to_pytorch_wherever_windows_lie(band, monkeypatch):
    """The NaN lies where no window reaches: whether it is noticed must not depend on the threads."""
    monkeypatch.setattr(sys.modules[window_topk_attend.__module__], 'NATIVE_BAND', band)
    query, keys, values = _inputs(16, 12, references=1)
    keys[0, 1, 15, 11] = float('nan')
    offsets = torch.zeros(2, 16, 12)
    offsets[1] = -torch.arange(16.0)[:, None]  # all windows lie around row 0
    settings = {'border': 'zero_logit', 'offsets': [offsets]}
    with pytest.raises(ValueError, match='NaN or infinity'):
        window_topk_attend(query, keys, values, [2], **settings, backend='native')
    expected = window_topk_attend(query, keys, values, [2], **settings, backend='torch')
    torch.testing.assert_close(window_topk_attend(query, keys, values, [2], **settings), expected, equal_nan=True)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_offsets_that_are_not_finite_are_refused(value):
    query, keys, values = _inputs(5, 5, references=1)
    with pytest.raises(ValueError, match='finite'):
        window_topk_attend(query, keys, values, [1], offsets=[torch.full((2, 5, 5), value)], backend='native')
