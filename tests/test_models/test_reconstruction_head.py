"""LIIR Eqs. 1 to 5 in the head, against loops in float64: values and gradients."""

import math

import pytest
import torch
from model_cases import slow_affinity, slow_photometric, slow_reconstruction

from mmliir.models.heads import ReconstructionHead, resolve_temperature


def head(radius=1, temperature='sqrt_channels', **changes):
    loss = dict(type='ReconstructionLoss', scale=20.0)
    return ReconstructionHead(loss=loss, radius=radius, temperature=temperature, **changes)


def features(size=(3, 4), channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 2, channels, *size, generator=generator, dtype=torch.float64)
    return query.requires_grad_(), key.requires_grad_()


def colors(size=(12, 16), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 2, 1, *size, generator=generator, dtype=torch.float64).unbind(0)


NEGATIVES = torch.randn(4, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
ALLOWED = torch.tensor([[True, False, True, True], [False, False, True, False]])


@pytest.mark.parametrize('border', ['zero_logit', 'mask'])
@pytest.mark.parametrize('with_negatives', [False, True])
@pytest.mark.parametrize('radius', [1, 2])
def test_loss_and_gradients_equal_the_loops(radius, with_negatives, border):
    from mmliir.ops import negatives_logsumexp

    a_head = head(radius, border=border)
    reference_color, query_color = colors()
    query, key = features()
    logits = a_head.logits(query, key)
    extra = None
    if with_negatives:
        extra = negatives_logsumexp(a_head.similarity_features(query)[0], NEGATIVES, ALLOWED, math.sqrt(5))
    loss = a_head.reconstruction_loss(a_head.affinity(logits, extra), reference_color, query_color, 4)
    loss.backward()

    slow_query, slow_key = features()
    affinity = slow_affinity(
        slow_query, slow_key, radius, math.sqrt(5), border, NEGATIVES if with_negatives else None, ALLOWED
    )
    expected = slow_photometric(slow_reconstruction(affinity, reference_color, radius, 4), query_color)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(query.grad, slow_query.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(key.grad, slow_key.grad, rtol=1e-10, atol=1e-10)


def test_cosine_compares_unit_vectors():
    query, key = features()
    logits = head(temperature=0.07, normalize=True).logits(query, key)
    units = [x / x.norm(dim=1, keepdim=True) for x in (query, key)]
    torch.testing.assert_close(logits, head(temperature=0.07).logits(*units), rtol=1e-10, atol=1e-10)
    assert logits[:, 4].abs().max() <= 1 / 0.07


def test_zero_logit_cells_outside_keep_their_mass_and_read_zero():
    query, key = features()
    a_head = head(border='zero_logit')
    affinity = a_head.affinity(a_head.logits(query, key))
    torch.testing.assert_close(affinity.sum(dim=1), torch.ones(2, 3, 4, dtype=torch.float64))
    ones = torch.ones(2, 1, 12, 16, dtype=torch.float64)
    read = a_head.reconstruct(affinity, ones, 4)
    inside = 1 - affinity[:, [0, 1, 2, 3, 6], 0, 0].sum(dim=1)  # the top left cell has five outside
    torch.testing.assert_close(read[:, 0, 0, 0], inside)


def test_masked_borders_read_constants_unchanged_and_say_what_is_valid():
    query, key = features()
    a_head = head(border='mask')
    logits = a_head.logits(query, key)
    read = a_head.reconstruct(a_head.affinity(logits), torch.full((2, 1, 12, 16), 0.7).double(), 4)
    torch.testing.assert_close(read, torch.full_like(read, 0.7))
    assert torch.equal(a_head.valid(logits).expand_as(logits), torch.isfinite(logits))
    assert head(border='zero_logit').valid(logits) is None


def test_replicated_borders_repeat_the_nearest_cell():
    query, key = features()
    a_head = head(border='replicate')
    affinity = a_head.affinity(a_head.logits(query, key))
    constant = torch.full((2, 1, 12, 16), 0.7, dtype=torch.float64)
    torch.testing.assert_close(a_head.reconstruct(affinity, constant, 4), constant)


def test_a_cell_takes_the_first_pixel_of_its_block():
    picture = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    picture[0, 0, ::4, ::4] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    affinity = torch.zeros(1, 9, 2, 2, dtype=torch.float64)
    affinity[:, 4] = 1.0  # each cell reads itself
    read = head().reconstruct(affinity, picture, 4)
    assert read[0, 0, 0, 0] == 1 and read[0, 0, -1, -1] == 4 and read[0, 0, 0, -1] == 2
    assert read[0, 0, 0].tolist() == pytest.approx([1, 1, 1.125, 1.375, 1.625, 1.875, 2, 2])


def test_odd_sizes_are_reconstructed_at_full_size():
    query, key = features(size=(3, 4))
    a_head = head()
    read = a_head.reconstruct(a_head.affinity(a_head.logits(query, key)), torch.rand(2, 1, 9, 13).double(), 4)
    assert read.shape == (2, 1, 9, 13)


def test_half_precision_features_give_float32_logits():
    query, key = (f.detach().bfloat16() for f in features())
    logits = head().logits(query, key)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head().logits(query.float(), key.float()), rtol=0, atol=0)


def test_temperature_is_a_number_or_the_root_of_the_channels():
    assert resolve_temperature('sqrt_channels', 64) == 8.0
    assert resolve_temperature(1, 64) == 1.0
    for wrong in (0, -1.0, 'sqrt', None):
        with pytest.raises(ValueError, match='temperature'):
            resolve_temperature(wrong, 64)
