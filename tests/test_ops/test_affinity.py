"""The joint soft-max and the streamed negatives: LIIR Equations 1, 4 and 5."""

import math

import numpy as np
import pytest
import torch
from largest_tensor import LargestTensor

from mmliir.ops import (
    drawn_negatives_logsumexp,
    joint_softmax,
    negatives_logsumexp,
    window_logits,
    window_negatives_logsumexp,
    window_readout,
)
from mmliir.testing import reference

INF = float('inf')


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_allowed(batch, entries, seed=0):
    return torch.rand(batch, entries, generator=torch.Generator().manual_seed(seed)) < 0.6


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10, atol=1e-10)


# --- joint soft-max ---


@pytest.mark.parametrize('windows', [(1,), (9,), (9, 25), (1, 9, 4)])
@pytest.mark.parametrize('with_negatives', [False, True])
def test_joint_softmax_equals_the_loops(windows, with_negatives):
    logits = [randn(2, cells, 3, 2, seed=r) * 3 for r, cells in enumerate(windows)]
    logits[0][0, 0, 1, 1] = -INF
    extra = randn(2, 3, 2, seed=8) if with_negatives else None
    if with_negatives:
        extra[0, 2, 1] = -INF
    for ours, theirs in zip(
        joint_softmax(logits, extra), reference.joint_softmax(logits, extra), strict=True
    ):
        close(ours, theirs)


def test_columns_sum_to_one_over_all_references():
    logits = [randn(2, 9, 4, 5, seed=1), randn(2, 25, 4, 5, seed=2)]
    total = sum(part.sum(dim=1) for part in joint_softmax(logits))
    torch.testing.assert_close(total, torch.ones_like(total))


def test_columns_sum_to_one_minus_the_mass_of_the_negatives():
    query, bank = randn(2, 3, 4, 5, seed=1), randn(7, 3, seed=2)
    allowed = some_allowed(2, 7)
    logits = window_logits(query, randn(2, 3, 4, 5, seed=3), 1, border='zero_logit')
    affinity = joint_softmax([logits], negatives_logsumexp(query, bank, allowed))[0]
    bank_terms = torch.exp(torch.einsum('bchw,qc->bqhw', query, bank)) * allowed[:, :, None, None]
    mass = bank_terms.sum(dim=1) / (bank_terms.sum(dim=1) + torch.exp(logits).sum(dim=1))
    assert (mass > 0.01).all()
    torch.testing.assert_close(affinity.sum(dim=1), 1 - mass, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('border', ['zero_logit', 'mask'])
@pytest.mark.parametrize('strength', [0.1, 1.0, 3.0])
def test_renormalising_equation_4_over_the_window_is_equation_1(strength, border):
    """liir.md A18: the negatives stand in a row's common denominator, which cancels, in values and gradients."""
    query = (strength * randn(2, 3, 4, 5, seed=1)).requires_grad_()
    key, bank, weights = randn(2, 3, 4, 5, seed=2), strength * randn(7, 3, seed=3), randn(2, 9, 4, 5, seed=4)
    logits = window_logits(query, key, 1, border=border)
    extra = negatives_logsumexp(query, bank, some_allowed(2, 7))
    mixed, plain = joint_softmax([logits], extra)[0], joint_softmax([logits])[0]
    assert mixed.sum(dim=1).mean() < 0.7  # there is something to renormalise
    renormalised = mixed / mixed.sum(dim=1, keepdim=True)
    torch.testing.assert_close(renormalised, plain, rtol=0, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad((rows * weights).sum(), query, retain_graph=True)[0] for rows in (renormalised, plain)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize('entries', [0, 5])
def test_empty_bank_gives_the_affinity_without_negatives(entries):
    query, key = randn(2, 3, 4, 5, seed=1), randn(2, 3, 4, 5, seed=2)
    logits = window_logits(query, key, 1)
    nobody = torch.zeros(2, entries, dtype=torch.bool)
    extra = negatives_logsumexp(query, randn(entries, 3), nobody)
    assert torch.isneginf(extra).all()
    torch.testing.assert_close(joint_softmax([logits], extra)[0], joint_softmax([logits])[0], rtol=0, atol=0)


@pytest.mark.parametrize('offset', [-1e4, 1e4])
def test_large_logits_neither_overflow_nor_vanish(offset):
    logits, extra = randn(1, 9, 2, 2, seed=1), randn(1, 2, 2, seed=2)
    shifted = joint_softmax([logits + offset], extra + offset)[0]
    torch.testing.assert_close(shifted, joint_softmax([logits], extra)[0], rtol=1e-9, atol=1e-9)


def test_overwhelming_negatives_leave_no_mass_and_no_nan():
    logits = randn(1, 9, 2, 2, seed=1).requires_grad_()
    extra = torch.full((1, 2, 2), 1e5, dtype=torch.float64, requires_grad=True)
    affinity = joint_softmax([logits], extra)[0]
    assert (affinity == 0).all()
    for gradient in torch.autograd.grad(affinity.sum(), (logits, extra)):
        assert (gradient == 0).all()


def test_window_without_a_finite_logit_gets_no_mass_and_a_zero_gradient():
    lost = randn(1, 4, 1, 2, seed=1)
    lost[..., 0] = -INF
    lost.requires_grad_()
    kept = randn(1, 9, 1, 2, seed=2).requires_grad_()
    weights = randn(1, 4, 1, 2, seed=3), randn(1, 9, 1, 2, seed=4)

    alone = joint_softmax([lost])[0]
    assert (alone[..., 0] == 0).all()
    (gradient,) = torch.autograd.grad((alone * weights[0]).sum(), lost)
    assert torch.isfinite(gradient).all() and (gradient[..., 0] == 0).all() and (gradient[..., 1] != 0).all()

    first, second = joint_softmax([lost, kept])
    gradients = torch.autograd.grad((first * weights[0]).sum() + (second * weights[1]).sum(), (lost, kept))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    torch.testing.assert_close(second[..., 0], torch.softmax(kept[..., 0], dim=1))


def test_joint_softmax_passes_gradcheck():
    logits = [randn(2, 4, 2, 1, seed=1).requires_grad_(), randn(2, 3, 2, 1, seed=2).requires_grad_()]
    extra = randn(2, 2, 1, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, e: tuple(joint_softmax([a, b], e)), (*logits, extra))
    assert torch.autograd.gradcheck(lambda a, b: tuple(joint_softmax([a, b])), tuple(logits))


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_joint_softmax_in_half_precision_is_close_to_float32(dtype, tolerance):
    logits, extra = (
        [randn(1, 25, 3, 3, seed=r, dtype=dtype) for r in range(2)],
        randn(1, 3, 3, seed=5, dtype=dtype),
    )
    half = joint_softmax(logits, extra)
    single = joint_softmax([part.float() for part in logits], extra.float())
    for ours, theirs in zip(half, single, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), theirs, rtol=5 * tolerance, atol=tolerance)


# --- negatives ---


@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (2, 3, 3, 5), (3, 1, 1, 4)])
@pytest.mark.parametrize('entries', [0, 1, 11])
def test_negatives_logsumexp_equals_the_loops(shape, entries):
    query, bank = randn(*shape, seed=1), randn(entries, shape[1], seed=2)
    allowed = some_allowed(shape[0], entries)
    close(
        negatives_logsumexp(query, bank, allowed, temperature=0.7),
        reference.negatives_logsumexp(query, bank, allowed, temperature=0.7),
    )


@pytest.mark.parametrize('max_elements', [1, 40, 100, 1 << 22])
def test_chunk_size_changes_neither_the_value_nor_the_gradient(max_elements):
    query, bank, allowed = randn(2, 3, 2, 5, seed=1), randn(11, 3, seed=2), some_allowed(2, 11)
    results = []
    for limit in (max_elements, 1 << 30):
        leaf = query.clone().requires_grad_()
        value = negatives_logsumexp(leaf, bank, allowed, temperature=0.7, max_elements=limit)
        results.append((value.detach(), torch.autograd.grad((value * randn(2, 2, 5, seed=3)).sum(), leaf)[0]))
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_negatives_of_a_batch_are_those_of_its_samples():
    query, bank, allowed = randn(2, 3, 2, 5, seed=1), randn(11, 3, seed=2), some_allowed(2, 11)
    alone = [negatives_logsumexp(query[b : b + 1], bank, allowed[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(
        negatives_logsumexp(query, bank, allowed), torch.cat(alone), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize('max_elements', [1, 1 << 22])
def test_negatives_logsumexp_passes_gradcheck(max_elements):
    query, bank = randn(2, 2, 2, 3, seed=1).requires_grad_(), randn(6, 2, seed=2)
    allowed = torch.tensor([[True, False, True, True, False, True], [False, True, True, False, False, True]])
    assert torch.autograd.gradcheck(
        lambda q: negatives_logsumexp(q, bank, allowed, temperature=0.6, max_elements=max_elements), (query,)
    )


def test_own_video_negatives_get_no_mass_and_no_gradient():
    bank = randn(6, 3, seed=2)
    allowed = torch.tensor([[True, True, False, True, False, True]])
    poisoned = bank.clone()
    poisoned[~allowed[0]] = 50.0  # would swallow all the mass
    results = []
    for entries, mask in ((bank[allowed[0]], torch.ones(1, 4, dtype=torch.bool)), (poisoned, allowed)):
        query = randn(1, 3, 2, 2, seed=1).requires_grad_()
        value = negatives_logsumexp(query, entries, mask)
        results.append((value.detach(), torch.autograd.grad(value.sum(), query)[0]))
    for without, masked in zip(*results, strict=True):
        torch.testing.assert_close(masked, without, rtol=1e-12, atol=1e-12)


def test_no_gradient_flows_into_the_bank():
    query, bank = randn(1, 3, 2, 2, seed=1).requires_grad_(), randn(6, 3, seed=2).requires_grad_()
    negatives_logsumexp(query, bank, torch.ones(1, 6, dtype=torch.bool)).sum().backward()
    assert bank.grad is None and query.grad.abs().sum() > 0


@pytest.mark.parametrize('max_elements', [1, 1 << 22])
def test_sample_without_allowed_negatives_is_minus_infinity_with_zero_gradient(max_elements):
    query, bank = randn(2, 3, 2, 2, seed=1).requires_grad_(), randn(6, 3, seed=2)
    allowed = torch.tensor([[False] * 6, [True] * 6])
    extra = negatives_logsumexp(query, bank, allowed, max_elements=max_elements)
    assert torch.isneginf(extra[0]).all() and torch.isfinite(extra[1]).all()
    (gradient,) = torch.autograd.grad(extra.sum(), query, retain_graph=True)
    assert (gradient[0] == 0).all() and torch.isfinite(gradient).all() and (gradient[1] != 0).any()
    affinity = joint_softmax([randn(2, 9, 2, 2, seed=3)], extra)[0]
    (gradient,) = torch.autograd.grad(affinity.square().sum(), query)
    assert (gradient[0] == 0).all() and torch.isfinite(gradient).all() and (gradient[1] != 0).any()


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
def test_negatives_in_half_precision_are_close_to_float32(dtype, tolerance):
    query, bank = randn(1, 4, 3, 3, seed=1, dtype=dtype), randn(20, 4, seed=2)
    allowed = some_allowed(1, 20)
    half = negatives_logsumexp(query, bank, allowed, max_elements=30)
    assert half.dtype == dtype
    single = negatives_logsumexp(query.float(), bank.to(dtype).float(), allowed)
    torch.testing.assert_close(half.float(), single, rtol=tolerance, atol=tolerance)


def test_neither_pass_ever_holds_all_similarities():
    batch, channels, side, entries, limit = 2, 4, 8, 3000, 6000
    query = randn(batch, channels, side, side, seed=1).requires_grad_()
    bank, allowed = randn(entries, channels, seed=2), some_allowed(batch, entries)
    all_similarities = batch * side * side * entries

    with LargestTensor() as naive:  # the recorder itself must see the tensor that is to be avoided
        logits = torch.einsum('bchw,qc->bhwq', query, bank).masked_fill(~allowed[:, None, None], -INF)
        torch.autograd.grad(torch.logsumexp(logits, dim=3).sum(), query)
    assert naive.elements >= all_similarities

    with LargestTensor() as forward:
        value = negatives_logsumexp(query, bank, allowed, max_elements=limit)
    with LargestTensor() as backward:
        torch.autograd.grad(value.sum(), query)
    largest_input = max(query.numel(), bank.numel())
    for recorded in (forward, backward):
        assert 0 < recorded.elements <= max(limit, largest_input) < all_similarities // 10

    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t
    ):
        negatives_logsumexp(query, bank, allowed, max_elements=limit)
    assert 0 < sum(saved) <= query.numel() + bank.numel() + allowed.numel() + batch * side * side


# --- negatives of a location's own: drawn for it, or in the window around it ---


def rows(cells):
    """(N, p, h * w) -> the draws of the maps start..stop."""
    return lambda start, stop: cells[start:stop]


def located(kind, query, maps, allowed, **settings):
    """(value of ours, value of the loops) for 'drawn' cells, or windows under a border rule."""
    if kind == 'drawn':
        locations = query.shape[2] * query.shape[3]
        generator = torch.Generator().manual_seed(4)
        cells = torch.randint(0, locations, (len(maps), 3, locations), generator=generator)
        ours = drawn_negatives_logsumexp(query, maps, rows(cells), 3, allowed, 0.7, **settings)
        return ours, lambda: reference.located_negatives_logsumexp(query.detach(), maps, allowed, 0.7, cells=cells)
    ours = window_negatives_logsumexp(query, maps, allowed, 1, 0.7, kind, **settings)
    return ours, lambda: reference.located_negatives_logsumexp(
        query.detach(), maps, allowed, 0.7, radius=1, border=kind
    )


LOCATED = pytest.mark.parametrize('kind', ['drawn', 'mask', 'zero_logit'])


@LOCATED
@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (2, 3, 3, 5), (3, 1, 1, 4)])
@pytest.mark.parametrize('frames', [0, 1, 5])
def test_located_negatives_equal_the_loops(kind, shape, frames):
    query, maps = randn(*shape, seed=1), randn(frames, *shape[1:], seed=2)
    ours, loops = located(kind, query, maps, some_allowed(shape[0], frames))
    close(ours, loops())


@LOCATED
@pytest.mark.parametrize('max_elements', [1, 100, 1 << 22])
def test_located_negatives_pass_gradcheck_whatever_the_chunks(kind, max_elements):
    query, maps = randn(2, 2, 2, 3, seed=1).requires_grad_(), randn(4, 2, 2, 3, seed=2)
    allowed = torch.tensor([[True, False, True, True], [False, True, False, False]])
    assert torch.autograd.gradcheck(
        lambda q: located(kind, q, maps, allowed, max_elements=max_elements)[0], (query,)
    )


@LOCATED
def test_located_negatives_of_nobody_are_minus_infinity_with_zero_gradient(kind):
    query, maps = randn(2, 3, 2, 2, seed=1).requires_grad_(), randn(6, 3, 2, 2, seed=2)
    extra, _ = located(kind, query, maps, torch.tensor([[False] * 6, [True] * 6]))
    assert torch.isneginf(extra[0]).all() and torch.isfinite(extra[1]).all()
    (gradient,) = torch.autograd.grad(joint_softmax([randn(2, 9, 2, 2)], extra)[0].square().sum(), query)
    assert (gradient[0] == 0).all() and (gradient[1] != 0).any() and torch.isfinite(gradient).all()


def test_drawing_every_cell_for_every_location_is_the_shared_bank():
    query, maps, allowed = randn(2, 3, 2, 3, seed=1), randn(4, 3, 2, 3, seed=2), some_allowed(2, 4)
    cells = torch.arange(6)[None, :, None].expand(4, 6, 6)
    shared = maps.flatten(2).transpose(1, 2).reshape(-1, 3)
    torch.testing.assert_close(
        drawn_negatives_logsumexp(query, maps, rows(cells), 6, allowed, 0.7),
        negatives_logsumexp(query, shared, allowed.repeat_interleave(6, dim=1), 0.7),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize('max_elements, frames', [(1, 1), (1000, 2), (8 * 3 * 64 * 2, 8), (None, 20)])
def test_draws_are_asked_for_chunk_by_chunk_and_once(max_elements, frames):
    query, maps = randn(2, 2, 8, 8, seed=1).requires_grad_(), randn(20, 2, 8, 8, seed=2)
    asked = []

    def draw(start, stop):
        asked.append((start, stop))
        return torch.zeros(stop - start, 3, 64, dtype=torch.long)

    value = drawn_negatives_logsumexp(query, maps, draw, 3, some_allowed(2, 20), max_elements=max_elements)
    chunks = [(start, min(start + frames, 20)) for start in range(0, 20, frames)]
    assert asked == chunks
    torch.autograd.grad(value.sum(), query)
    assert asked == chunks  # the gradient was summed up on the way


def test_window_negatives_are_the_windows_of_the_intra_video_affinity():
    query, maps = randn(1, 3, 4, 5, seed=1), randn(2, 3, 4, 5, seed=2)
    for border in ('mask', 'zero_logit'):
        logits = [window_logits(query, frame[None], 2, 0.7, border) for frame in maps]
        torch.testing.assert_close(
            window_negatives_logsumexp(query, maps, torch.ones(1, 2, dtype=torch.bool), 2, 0.7, border),
            torch.logsumexp(torch.cat(logits, dim=1), dim=1),
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.parametrize('kind', ['drawn', 'mask'])
def test_located_negatives_never_hold_all_similarities(kind):
    query, maps = randn(2, 4, 8, 8, seed=1).requires_grad_(), randn(200, 4, 8, 8, seed=2)
    per_location = {'drawn': 3, 'mask': 9}[kind]
    all_similarities = query.shape[0] * 64 * 200 * per_location
    with LargestTensor() as recorded:
        value, _ = located(kind, query, maps, some_allowed(2, 200), max_elements=6000)
        torch.autograd.grad(value.sum(), query)
    cells = 200 * 3 * 64 if kind == 'drawn' else 0  # the test's own; a bank draws them chunk by chunk
    assert 0 < recorded.elements <= max(maps.numel(), cells, 2 * 6000) < all_similarities


@pytest.mark.parametrize(
    'call, culprit',
    [
        (lambda q, m, a: window_negatives_logsumexp(q, m[:, :2], a, 1), r'maps.*\(5, 2, 4, 4\) and \(2, 3, 4, 4\)'),
        (lambda q, m, a: window_negatives_logsumexp(q, m, a[:, :4], 1), r'allowed must be \(B, 5\)'),
        (lambda q, m, a: window_negatives_logsumexp(q, m, a, 1, border='replicate'), "border must be 'mask'"),
        (lambda q, m, a: window_negatives_logsumexp(q, m, a, 1, temperature=0.0), 'temperature'),
        (
            lambda q, m, a: drawn_negatives_logsumexp(q, m, rows(torch.zeros(5, 2, 9, dtype=torch.long)), 2, a),
            r'draw\(0, 5\) must give .* \(5, 2, 16\), got \(5, 2, 9\)',
        ),
        (
            lambda q, m, a: drawn_negatives_logsumexp(q, m, rows(torch.zeros(5, 1, 16, dtype=torch.long)), 2, a),
            r'draw\(0, 5\) must give .* \(5, 2, 16\), got \(5, 1, 16\)',
        ),
    ],
)
def test_located_negatives_errors_name_the_culprit(call, culprit):
    with pytest.raises(ValueError, match=culprit):
        call(torch.zeros(2, 3, 4, 4), torch.zeros(5, 3, 4, 4), torch.ones(2, 5, dtype=torch.bool))


# --- Equations 4 and 5, gradients ---


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
@pytest.mark.parametrize('max_elements', [1, 1 << 22])
def test_reconstruction_with_negatives_and_its_gradients_equal_the_loops(border, max_elements):
    query, key = randn(2, 2, 3, 4, seed=1).requires_grad_(), randn(2, 2, 3, 4, seed=2).requires_grad_()
    values, bank = randn(2, 2, 3, 4, seed=3).requires_grad_(), randn(5, 2, seed=4)
    allowed = torch.tensor([[True, False, True, True, False], [False] * 5])
    extra = negatives_logsumexp(query, bank, allowed, temperature=0.8, max_elements=max_elements)
    affinity = joint_softmax([window_logits(query, key, 1, temperature=0.8, border=border)], extra)[0]
    fast = window_readout(affinity, values, 1)
    slow = reference.reconstruct_torch(
        query, key, values, 1, temperature=0.8, border=border, negatives=bank, allowed=allowed
    )
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    weight = randn(*fast.shape, seed=9)
    for ours, theirs in zip(
        torch.autograd.grad((fast * weight).sum(), (query, key, values)),
        torch.autograd.grad((slow * weight).sum(), (query, key, values)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_negatives_pull_the_reconstruction_towards_zero():
    zeros = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    extra = negatives_logsumexp(zeros, randn(27, 2), torch.ones(1, 27, dtype=torch.bool))
    torch.testing.assert_close(extra, torch.full_like(extra, math.log(27)))
    affinity = joint_softmax([window_logits(zeros, zeros, 1, border='zero_logit')], extra)[0]
    carried = window_readout(affinity, torch.ones(1, 1, 3, 3, dtype=torch.float64), 1)
    torch.testing.assert_close(carried[0, 0, 1, 1], torch.tensor(9 / 36, dtype=torch.float64))


# --- errors ---


def test_joint_softmax_errors_name_the_culprit():
    with pytest.raises(ValueError, match='at least one reference'):
        joint_softmax([])
    with pytest.raises(ValueError, match=r'extra_logsumexp must be \(2, 3, 4\), got \(2, 4, 3\)'):
        joint_softmax([torch.zeros(2, 9, 3, 4)], torch.zeros(2, 4, 3))


@pytest.mark.parametrize(
    'change,culprit',
    [
        (dict(negatives=torch.zeros(5, 4)), r'negatives must be \(Q, 3\), got \(5, 4\)'),
        (dict(negatives=torch.zeros(5, 3, 1)), r'negatives.*\(5, 3, 1\)'),
        (dict(allowed=torch.ones(5, 2, dtype=torch.bool)), r'allowed.*\(2, 5\), got \(5, 2\)'),
        (dict(temperature=-1.0), 'temperature.*-1.0'),
    ],
)
def test_negatives_errors_name_the_culprit(change, culprit):
    arguments = dict(
        query=torch.zeros(2, 3, 4, 4), negatives=torch.zeros(5, 3), allowed=torch.ones(2, 5, dtype=torch.bool)
    )
    with pytest.raises(ValueError, match=culprit):
        negatives_logsumexp(**(arguments | change))
