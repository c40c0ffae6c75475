"""The algorithms that ours is timed against are right: each equals the loop over cells."""

import numpy as np
import pytest
import torch

from mmliir.ops import MixturePrior
from mmliir.testing import reference_evaluators as evaluators
from mmliir.testing.reference_propagation import attend_loop


def _inputs(height, width, references):
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, height, width), (references, 4, height, width), (references, 3, height, width))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_crw_has_no_window_on_the_first_reference_and_a_circle_on_the_others():
    inputs = _inputs(11, 12, 3)  # more than one chunk of queries
    mask = evaluators.crw_mask(11, 12, 3)
    expected = attend_loop(*inputs, [None, 3, 3], shape='circle', temperature=0.2, topk=4)
    step = evaluators.crw_step(*inputs, mask, temperature=0.2, topk=4)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('unfold_keys', [True, False])
@pytest.mark.parametrize('rows', [2, 7])
@pytest.mark.parametrize('prior', [None, MixturePrior(2, 'moments', keep_mass=True), MixturePrior(2, 'fixed', 0.1)])
def test_mast_lets_zeros_outside_the_frame_take_part(rows, prior, unfold_keys):
    query, keys, values = _inputs(7, 6, 2)
    query *= 0.3  # peaks inside the frame: several cells outside would tie
    keys += query
    expected = attend_loop(query, keys, values, [2, 2], temperature=0.5, border='zero_logit', prior=prior)
    step = evaluators.mast_step(query, keys, values, 2, 0.5, rows, prior, unfold_keys)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('rows', [2, 7])
@pytest.mark.parametrize('prior', [None, MixturePrior(2, 'moments', keep_mass=True)])
def test_mast_samples_far_references_between_their_cells(rows, prior):
    query, keys, values = _inputs(7, 6, 3)
    query *= 0.3
    keys += query
    generator = torch.Generator().manual_seed(4)
    offsets = [None, *(torch.rand(2, 2, 7, 6, generator=generator) * 6 - 3)]
    settings = {'temperature': 0.5, 'border': 'zero_logit', 'prior': prior, 'offsets': offsets}
    expected = attend_loop(query, keys, values, [2] * 3, **settings)
    step = evaluators.mast_step(query, keys, values, 2, 0.5, rows, prior, offsets=offsets)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_dino_multiplies_exponentials_with_a_square_mask():
    inputs = _inputs(6, 7, 3)
    mask = evaluators.dino_mask(6, 7, 2, references=3)
    expected = attend_loop(*inputs, [2, 2, 2], temperature=0.5, topk=5)
    step = evaluators.dino_step(*inputs, mask, temperature=0.5, topk=5)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_vfs_masks_every_reference_by_a_square_and_keeps_exactly_k():
    inputs = _inputs(6, 7, 3)  # more than one chunk of queries
    mask = evaluators.vfs_mask(6, 7, 3)
    expected = attend_loop(*inputs, [3, 3, 3], temperature=0.5, topk=5, topk_ties='share')
    step = evaluators.vfs_step(*inputs, mask, temperature=0.5, topk=5)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)
