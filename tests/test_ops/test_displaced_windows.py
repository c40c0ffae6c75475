"""window_topk_attend with windows around displaced centres, against a loop over cells, and its invariants."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.ops import MixturePrior, coarse_search, window_topk_attend
from mmliir.testing.reference_propagation import attend_loop


def _inputs(height, width, channels=3, references=2, classes=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (channels, height, width),
        (references, channels, height, width),
        (references, classes, height, width),
    )
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def _offsets(height, width, reach, seed, inside=False):
    """(2, h, w) at random, `reach` cells to each side; a few of them whole numbers."""
    generator = torch.Generator().manual_seed(seed + 1000)
    offsets = (torch.rand(2, height, width, generator=generator, dtype=torch.float64) * 2 - 1) * reach
    offsets = torch.where(torch.rand(1, height, width, generator=generator) < 0.2, offsets.round(), offsets)
    if not inside:
        return offsets
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing='xy')
    x, y = (x + offsets[0]).clamp(0, width - 1) - x, (y + offsets[1]).clamp(0, height - 1) - y
    return torch.stack([x, y])


def _random_settings(seed):
    draw = random.Random(seed)
    references = draw.choice([1, 2, 3])
    prior = draw.choice(
        [
            None, None, None, MixturePrior(2, 'fixed', 0.1), MixturePrior(2, 'moments'),
            MixturePrior(2, 'moments', keep_mass=True), MixturePrior(1, 'fixed'),
        ]
    )  # fmt: skip
    border = draw.choice(['mask', 'zero_logit'])
    size = draw.choice([(1, 1), (1, 5), (3, 2), (7, 9), (9, 11)] if prior is None else [(5, 5), (7, 9), (9, 8)])
    radius = [draw.choice([0, 1, 2, 4] if prior is None else [2, 3]) for _ in range(references)]
    # Under 'mask' a prior needs cells to put its means on: few lie inside where the centre is at the border.
    reach = draw.choice([0.4, 2.5, 30.0 if border == 'zero_logit' and prior is None else 2.5])
    offsets = [_offsets(*size, reach, seed + 7 * r, inside=border == 'mask') for r in range(references)]
    if draw.random() < 0.6:
        offsets[draw.randrange(references)] = None
    if prior is None and references > 1 and draw.random() < 0.3:
        radius[0], offsets[0] = None, None
    value_offsets = None
    if draw.random() < 0.3:
        value_offsets = [None if own is None else _offsets(*size, reach, seed + 99) for own in offsets]
    mismatch = border == 'zero_logit' and draw.random() < 0.5
    settings = {
        'align_corners_mismatch': mismatch,
        'shape': draw.choice(['square', 'square', 'circle']),
        'temperature': draw.choice([1.0, 0.3, 2.5]),
        'topk': draw.choice([None, 1, 3, 7, 1000]) if prior is None else draw.choice([None, None, 1000]),
        'topk_scope': draw.choice(['joint', 'joint', 'per_reference']),
        'normalise': draw.choice(['softmax', 'softmax', 'softmax_then_topk']),
        'border': border,
        'prior': prior,
        'offsets': offsets,
        'value_offsets': value_offsets,
    }
    inputs = _inputs(
        *size, channels=draw.choice([1, 3]), references=references, classes=draw.choice([1, 3]), seed=seed
    )
    return inputs, radius, settings


@pytest.mark.parametrize('seed', range(130))
def test_equals_the_loop_over_cells(seed):
    inputs, radius, settings = _random_settings(seed)
    fast = window_topk_attend(*inputs, radius, **settings)
    slow = attend_loop(*inputs, radius, **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-9, atol=1e-10)


VARIANTS = [
    {},
    {'border': 'zero_logit'},
    {'topk': 4, 'border': 'zero_logit'},
    {'shape': 'circle'},
    {'prior': MixturePrior(2, 'moments', keep_mass=True), 'border': 'zero_logit'},
    {'prior': MixturePrior(2, 'fixed', 0.1)},
]
MISMATCHED = {'border': 'zero_logit', 'align_corners_mismatch': True}


@pytest.mark.parametrize('settings', VARIANTS)
def test_no_displacement_equals_the_plain_window(settings):
    inputs = _inputs(13, 10)
    zero = torch.zeros(2, 13, 10, dtype=torch.float64)
    plain = window_topk_attend(*inputs, [3, 3], **settings)
    for offsets in ([zero, zero], [zero, None], [None, zero]):
        displaced = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets)
        torch.testing.assert_close(displaced, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('dx', 'dy'), [(1, 0), (-4, 3), (40, 0)])
@pytest.mark.parametrize('topk', [None, 4])
def test_a_displacement_by_whole_cells_equals_a_plain_window_on_the_moved_reference(dx, dy, topk):
    query, keys, values = _inputs(9, 12)
    offsets = torch.tensor([dx, dy], dtype=torch.float64)[:, None, None].expand(2, 9, 12)
    moved = [F.pad(x, [50] * 4)[..., 50 + dy : 59 + dy, 50 + dx : 62 + dx] for x in (keys, values)]
    # The moved frame may hold cells that its own borders cut off: compare where the windows do not reach them.
    inner = (slice(None), slice(2, -2), slice(2, -2))
    displaced = window_topk_attend(
        query, keys, values, [2, 2], topk=topk, border='zero_logit', offsets=[offsets, offsets]
    )
    plain = window_topk_attend(query, *moved, [2, 2], topk=topk, border='zero_logit')
    torch.testing.assert_close(displaced[inner], plain[inner], rtol=1e-12, atol=1e-12)


def test_a_feature_that_is_linear_in_the_place_is_sampled_exactly():
    """One cell in the window, values = coordinates: the read-out is the place itself."""
    x, y = torch.meshgrid(torch.arange(12.0).double(), torch.arange(9.0).double(), indexing='xy')
    offsets = _offsets(9, 12, 4.0, seed=3, inside=True)
    values = torch.stack([x, y])[None]
    query, keys, _ = _inputs(9, 12, references=1)
    for border in ('mask', 'zero_logit'):
        read = window_topk_attend(query, keys, values, [0], border=border, offsets=[offsets])
        torch.testing.assert_close(read, torch.stack([x, y]) + offsets, rtol=0, atol=1e-12)


def test_weights_sum_to_one_under_mask_and_to_less_under_zero_logit():
    query, keys, values = _inputs(9, 10)
    ones, offsets = torch.ones_like(values), [_offsets(9, 10, 5.0, seed, inside=True) for seed in (0, 1)]
    assert torch.allclose(window_topk_attend(query, keys, ones, [2, 2], offsets=offsets), ones[0])
    padded = window_topk_attend(query, keys, ones, [2, 2], border='zero_logit', offsets=offsets)
    assert padded.max() < 1 + 1e-12 and padded.min() < 0.9


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
def test_labels_are_read_at_their_own_offset(border):
    """Values at the offset of the keys and at another one differ, and each is what the other call reads."""
    query, keys, values = _inputs(9, 10, references=1)
    one, two = (_offsets(9, 10, 3.0, seed, inside=True) for seed in (0, 1))

    def read(keys_at, values_at=None):
        return window_topk_attend(
            query, keys, values, [2], border=border, offsets=[keys_at],
            value_offsets=None if values_at is None else [values_at],
        )  # fmt: skip

    torch.testing.assert_close(read(one, one.clone()), read(one))
    assert not torch.allclose(read(one), read(one, two))
    assert not torch.allclose(read(two), read(one, two))


def _attend_by_grid_sample(query, keys, values, radius, offsets):
    """The released MAST's second step as it stands: whole windows by one `grid_sample` each, then one soft-max."""
    height, width = query.shape[1:]
    x, y = torch.meshgrid(torch.arange(width).double(), torch.arange(height).double(), indexing='xy')
    logits, read = [], []
    for key, value, (dx, dy) in zip(keys, values, offsets, strict=True):
        for vy in range(-radius, radius + 1):
            for vx in range(-radius, radius + 1):
                grid = torch.stack([(x + dx + vx) / (width - 1) * 2 - 1, (y + dy + vy) / (height - 1) * 2 - 1], dim=-1)
                both = F.grid_sample(torch.cat([key, value])[None], grid[None], align_corners=False)[0]
                logits.append((query * both[: len(key)]).sum(dim=0))
                read.append(both[len(key) :])
    return (torch.stack(logits).softmax(dim=0)[:, None] * torch.stack(read)).sum(dim=0)


@pytest.mark.parametrize('size', [(2, 2), (2, 9), (6, 7), (17, 23)])
@pytest.mark.parametrize('radius', [0, 1, 5])
@pytest.mark.parametrize('reach', [0.0, 3.0, 30.0])
def test_the_mismatch_is_that_of_grid_sample(size, radius, reach):
    inputs = _inputs(*size)
    offsets = [_offsets(*size, reach, seed) for seed in (0, 1)]
    settings = {'border': 'zero_logit', 'offsets': offsets}
    fast = window_topk_attend(*inputs, [radius] * 2, **settings, align_corners_mismatch=True)
    slow = _attend_by_grid_sample(*inputs, radius, offsets)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    if reach < 30:
        assert not torch.allclose(fast, window_topk_attend(*inputs, [radius] * 2, **settings), atol=1e-3)


def test_the_mismatch_reads_a_linear_feature_where_its_formula_says():
    """One cell in the window, values = coordinates: p * w / (w - 1) - 0.5, where that lies in the frame."""
    x, y = torch.meshgrid(torch.arange(12.0).double(), torch.arange(9.0).double(), indexing='xy')
    offsets = _offsets(9, 12, 4.0, seed=3, inside=True)
    query, keys, _ = _inputs(9, 12, references=1)
    read = window_topk_attend(query, keys, torch.stack([x, y])[None], [0], **MISMATCHED, offsets=[offsets])
    expected = torch.stack([(x + offsets[0]) * 12 / 11, (y + offsets[1]) * 9 / 8]) - 0.5
    inside = ((expected >= 0) & (expected <= torch.tensor([11.0, 8.0])[:, None, None])).all(dim=0)
    assert inside.double().mean() > 0.5
    torch.testing.assert_close(read[:, inside], expected[:, inside], rtol=0, atol=1e-12)


def test_an_axis_of_one_cell_has_no_mismatch():
    inputs = _inputs(1, 1)
    settings = {'border': 'zero_logit', 'offsets': [_offsets(1, 1, 0.8, seed) for seed in (0, 1)]}
    plain = window_topk_attend(*inputs, [2, 2], **settings)
    torch.testing.assert_close(window_topk_attend(*inputs, [2, 2], **settings, align_corners_mismatch=True), plain)


def test_the_mismatch_leaves_references_in_place_alone():
    inputs = _inputs(6, 7)
    plain = window_topk_attend(*inputs, [2, None], border='zero_logit')
    assert torch.equal(window_topk_attend(*inputs, [2, None], **MISMATCHED, offsets=[None, None]), plain)


@pytest.mark.parametrize('settings', [*VARIANTS, MISMATCHED, {**MISMATCHED, 'topk': 4}])
@pytest.mark.parametrize('max_elements', [1, 100, 5000, 200000, 10**8])
def test_the_chunk_size_changes_nothing(settings, max_elements):
    inputs = _inputs(13, 19)
    offsets = [None, _offsets(13, 19, 9.0, seed=1, inside=True)]
    whole = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets)
    chunked = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets, max_elements=max_elements)
    torch.testing.assert_close(chunked, whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('settings', [{}, MISMATCHED])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, settings):
    inputs = [x.to(dtype) for x in _inputs(9, 9, dtype=torch.float32)]
    offsets = [_offsets(9, 9, 6.0, seed, inside=True).float() for seed in (0, 1)]
    out = window_topk_attend(*inputs, [2, 2], **settings, offsets=offsets)
    assert out.dtype == torch.float32
    slow = attend_loop(*[x.double() for x in inputs], [2, 2], **settings, offsets=[x.double() for x in offsets])
    np.testing.assert_allclose(out, slow, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('settings', [{}, MISMATCHED])
def test_threads_change_nothing(settings):
    inputs = _inputs(30, 30, dtype=torch.float32)
    offsets = [None, _offsets(30, 30, 9.0, seed=1, inside=True)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets, max_elements=30000)
        torch.set_num_threads(3)
        together = window_topk_attend(*inputs, [3, 3], **settings, offsets=offsets, max_elements=30000)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(together, alone)


def test_coarse_to_fine_finds_what_the_plain_window_cannot_reach():
    """The reference has moved 8 cells; the fine window reaches 2."""
    picture = F.normalize(_inputs(60, 60, channels=32)[0], dim=0) * 30
    labels = (torch.rand(1, 60, 60, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    query, truth = picture[:, 20:40, 20:40], labels[:, 20:40, 20:40]
    key, value = picture[None, :, 20:40, 12:32], labels[None, :, 20:40, 12:32]
    offsets = coarse_search(query, key[0], 6, 2)
    found = window_topk_attend(query, key, value, [2], offsets=[offsets])
    torch.testing.assert_close(found[..., :-8], truth[..., :-8], rtol=0, atol=1e-2)
    plain = window_topk_attend(query, key, value, [2])
    assert ((plain > 0.5) == (truth > 0.5))[..., :-8].float().mean() < 0.7


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'offsets': [None]}, 'one entry for each of 2 references'),
        ({'offsets': [None, torch.zeros(2, 4, 5)]}, r'\(2, h, w\) = \(2, 4, 4\), got \(2, 4, 5\)'),
        ({'offsets': [None, torch.full((2, 4, 4), torch.nan)]}, 'finite'),
        ({'offsets': [None, torch.full((2, 4, 4), 4.0)]}, 'must lie in the frame'),
        ({'offsets': [None, torch.zeros(2, 4, 4)], 'radius': [1, None]}, 'give a radius'),
        ({'value_offsets': [None, torch.zeros(2, 4, 4)]}, 'give offsets too'),
        (MISMATCHED, "give offsets and border='zero_logit'"),
        ({**MISMATCHED, 'offsets': [None, torch.zeros(2, 4, 4)], 'border': 'mask'}, "got border='mask'"),
        ({'offsets': [None, torch.zeros(2, 4, 4)], 'value_offsets': [None, None]}, 'the same references'),
    ],
)
def test_a_wrong_offset_is_named(change, message):
    arguments = {'radius': [1, 1]} | change
    with pytest.raises(ValueError, match=message):
        window_topk_attend(*_inputs(4, 4), **arguments)
