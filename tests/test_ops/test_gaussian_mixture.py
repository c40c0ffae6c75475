"""The compactness prior (LIIR Eq. 7) against its formula, cell by cell."""

import math

import numpy as np
import pytest
import torch

from mmliir.ops import fit_mixture, fit_mixture_rows, window_offsets, window_validity
from mmliir.testing import reference

ESTIMATORS = ['moments', 'fixed']


def soft_windows(batch, radius, height, width, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        batch, (2 * radius + 1) ** 2, height, width, generator=generator, dtype=torch.float64
    )
    return torch.softmax(sharpness * logits, dim=1)


def one_window(weights: dict[tuple[int, int], float], radius: int) -> torch.Tensor:
    """(1, P, 1, 1) affinity with the given mass at the given (dx, dy)."""
    affinity = torch.zeros(1, (2 * radius + 1) ** 2, 1, 1, dtype=torch.float64)
    for (dx, dy), weight in weights.items():
        affinity[0, (dy + radius) * (2 * radius + 1) + dx + radius] = weight
    return affinity


def at(prior: torch.Tensor, radius: int, dx: int, dy: int) -> float:
    return float(prior[0, (dy + radius) * (2 * radius + 1) + dx + radius, 0, 0])


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 2, 3, 4])
@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (2, 2, 3, 2), (1, 3, 1, 5)])
def test_prior_equals_the_loops(shape, num_mixtures, estimator):
    batch, radius, height, width = shape
    affinity = soft_windows(batch, radius, height, width)
    prior = fit_mixture(affinity, radius, num_mixtures, estimator)
    expected = reference.fit_mixture(affinity, radius, num_mixtures, estimator)
    np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_prior_equals_the_loops_at_the_training_radius(estimator):
    affinity = soft_windows(1, 6, 2, 2, sharpness=4.0)
    np.testing.assert_allclose(
        fit_mixture(affinity, 6, 2, estimator).numpy(),
        reference.fit_mixture(affinity, 6, 2, estimator),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize('num_mixtures', [1, 2, 3])
@pytest.mark.parametrize(
    'settings', [dict(width=0.6), dict(width=2.5), dict(variance_floor=0.01), dict(variance_floor=2)]
)
def test_prior_of_another_width_or_floor_equals_the_loops(settings, num_mixtures):
    estimator, other = ('fixed', 'moments') if 'width' in settings else ('moments', 'fixed')
    affinity, inside = soft_windows(1, 2, 4, 5), window_validity(4, 5, 2).expand(1, 25, 4, 5)
    prior = fit_mixture(affinity, 2, num_mixtures, estimator, inside, **settings)
    expected = reference.fit_mixture(affinity, 2, num_mixtures, estimator, inside, **settings)
    np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-10, atol=1e-10)
    assert (prior - fit_mixture(affinity, 2, num_mixtures, estimator, inside)).abs().max() > 1e-2
    unused = fit_mixture(affinity, 2, num_mixtures, other, inside, **settings)
    assert torch.equal(unused, fit_mixture(affinity, 2, num_mixtures, other, inside))


@pytest.mark.parametrize('width', [1.0, 2.0, 4.0])
def test_fixed_bump_is_half_its_peak_at_half_its_width(width):
    prior = fit_mixture(one_window({(0, 0): 1.0}, 4), 4, 1, 'fixed', width=width)
    assert at(prior, 4, 0, 0) == pytest.approx(1.0)
    assert at(prior, 4, 1, 0) == pytest.approx(0.5 ** ((2 / width) ** 2))
    if width >= 2:
        assert at(prior, 4, 0, int(width / 2)) == pytest.approx(0.5)


@pytest.mark.parametrize('floor', [0.05, 0.18, 1.0])
def test_moments_of_one_peaked_cell_have_the_given_floor_as_variance(floor):
    prior = fit_mixture(one_window({(0, 0): 1.0}, 3), 3, 1, 'moments', variance_floor=floor)
    for dx, dy in ((1, 0), (0, -1), (1, 1)):
        expected = math.exp(-(dx * dx + dy * dy) / (2 * floor))
        assert at(prior, 3, dx, dy) / at(prior, 3, 0, 0) == pytest.approx(expected)


def test_the_default_floor_is_the_variance_of_the_default_width():
    affinity = one_window({(0, 0): 1.0}, 3)
    moments, fixed = (fit_mixture(affinity, 3, 1, estimator) for estimator in ('moments', 'fixed'))
    torch.testing.assert_close(moments, fixed / fixed.sum(), rtol=0, atol=1e-3)


def test_float32_is_close_to_float64_for_long_thin_bumps_at_the_smallest_floor():
    offsets = window_offsets(14).double()
    angles = torch.linspace(0, math.pi, 20, dtype=torch.float64)[:, None]
    along = offsets[:, 0] * angles.cos() + offsets[:, 1] * angles.sin()
    across = offsets[:, 1] * angles.cos() - offsets[:, 0] * angles.sin()
    rows = torch.softmax(-0.5 * (along**2 / 100 + across**2 / 0.05), dim=1)
    exact = fit_mixture_rows(rows, 14, 2, 'moments', variance_floor=0.01)
    single = fit_mixture_rows(rows.float(), 14, 2, 'moments', variance_floor=0.01)
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_radius_zero_has_one_cell(estimator):
    affinity = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)
    torch.testing.assert_close(fit_mixture(affinity, 0, 1, estimator), torch.ones_like(affinity))


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 3])
def test_valid_mask_zeroes_the_cells_outside_the_frame_and_broadcasts(estimator, num_mixtures):
    affinity, inside = soft_windows(2, 2, 3, 4), window_validity(3, 4, 2)
    prior = fit_mixture(affinity, 2, num_mixtures, estimator, valid=inside)
    full = inside.expand(affinity.shape)
    assert (prior[~full] == 0).all()
    expected = reference.fit_mixture(affinity, 2, num_mixtures, estimator, valid=full)
    np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        fit_mixture(affinity, 2, num_mixtures, estimator, valid=full), prior, rtol=0, atol=0
    )
    if estimator == 'moments':
        torch.testing.assert_close(prior.sum(dim=1), torch.ones(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize('num_mixtures', [1, 2, 3, 4])
def test_moments_columns_sum_to_one(num_mixtures):
    total = fit_mixture(soft_windows(2, 3, 3, 2), 3, num_mixtures, 'moments').sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize('num_mixtures', [1, 2])
def test_fixed_interior_bumps_sum_to_the_plane_sum(num_mixtures):
    weights = {(0, 0): 0.6, (1, -1): 0.4} if num_mixtures == 2 else {(0, 0): 1.0}
    prior = fit_mixture(one_window(weights, 6), 6, num_mixtures, 'fixed')
    plane = sum(16.0 ** -(d * d) for d in range(-6, 7)) ** 2
    assert plane == pytest.approx(1.266, abs=5e-4)
    assert float(prior.sum()) == pytest.approx(plane, abs=1e-6)  # what a rim cuts off is far below this


def test_fixed_bump_is_one_at_its_peak_and_half_at_half_a_cell():
    prior = fit_mixture(one_window({(1, 0): 0.9}, 2), 2, 1, 'fixed')
    assert at(prior, 2, 1, 0) == pytest.approx(1.0)
    assert at(prior, 2, 0, 0) == pytest.approx(1 / 16)  # distance 1: half, four times over
    assert at(prior, 2, 2, 1) == pytest.approx(1 / 256)


def test_fixed_weights_are_the_softmax_of_the_peaks():
    prior = fit_mixture(one_window({(-3, 0): 0.7, (3, 0): 0.3}, 3), 3, 2, 'fixed')
    expected = 1 / (1 + math.exp(0.3 - 0.7))
    assert at(prior, 3, -3, 0) == pytest.approx(expected, abs=1e-9)
    assert at(prior, 3, 3, 0) == pytest.approx(1 - expected, abs=1e-9)


def test_moments_of_one_peaked_cell_have_the_floor_as_variance():
    prior = fit_mixture(one_window({(0, 0): 1.0}, 3), 3, 1, 'moments')
    for dx, dy in ((1, 0), (0, 2), (1, 1), (-2, 1)):
        assert at(prior, 3, dx, dy) / at(prior, 3, 0, 0) == pytest.approx(math.exp(-(dx**2 + dy**2) / 0.36))


def test_moments_follow_the_orientation_of_the_affinity():
    prior = fit_mixture(one_window({(0, 0): 0.6, (1, 1): 0.2, (-1, -1): 0.2}, 2), 2, 1, 'moments')
    # Sigma = 0.4 [[1, 1], [1, 1]] + 0.18 I: variance 0.98 along the diagonal, 0.18 across it
    assert at(prior, 2, 1, 1) / at(prior, 2, 0, 0) == pytest.approx(math.exp(-1 / 0.98))
    assert at(prior, 2, 1, -1) / at(prior, 2, 0, 0) == pytest.approx(math.exp(-1 / 0.18))


def test_moments_weigh_a_component_by_the_mass_of_its_cells_not_by_its_peak():
    affinity = one_window({(-4, 0): 0.4, (4, 0): 0.3, (4, 1): 0.15, (4, -1): 0.15}, 5)
    prior = fit_mixture(affinity, 5, 2, 'moments').reshape(11, 11)
    # by the peaks the left one would win; a density summed over cells is 1 only nearly, hence the tolerance
    assert float(prior[:, :5].sum()) == pytest.approx(0.4, abs=0.02)
    assert float(prior[:, 6:].sum()) == pytest.approx(0.6, abs=0.02)


def test_cell_between_two_means_belongs_to_the_more_probable_one():
    affinity = one_window({(-1, 0): 0.5, (1, 0): 0.3, (0, 0): 0.2}, 2)
    prior = fit_mixture(affinity, 2, 2, 'moments')
    mirrored = fit_mixture(one_window({(1, 0): 0.5, (-1, 0): 0.3, (0, 0): 0.2}, 2), 2, 2, 'moments')
    torch.testing.assert_close(prior.reshape(5, 5), mirrored.reshape(5, 5).flip(1))
    np.testing.assert_allclose(prior.numpy(), reference.fit_mixture(affinity, 2, 2, 'moments'), atol=1e-12)
    assert at(prior, 2, -1, 1) > at(prior, 2, 1, 1)  # the wider, heavier component is the left one


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 2, 3, 4])
@pytest.mark.parametrize('radius', [1, 6])
def test_equal_peaks_are_taken_in_window_order(radius, num_mixtures, estimator):
    cells = (2 * radius + 1) ** 2
    uniform = torch.full((1, cells, 1, 1), 1 / cells, dtype=torch.float64)
    expected = reference.fit_mixture(uniform, radius, num_mixtures, estimator)
    np.testing.assert_allclose(
        fit_mixture(uniform, radius, num_mixtures, estimator).numpy(), expected, atol=1e-12
    )


def test_equal_peaks_below_the_largest_are_taken_in_window_order():
    affinity = one_window({(2, 2): 0.4, (1, -2): 0.2, (-2, 0): 0.2, (0, 2): 0.2}, 3)
    prior = fit_mixture(affinity, 3, 3, 'fixed')
    assert at(prior, 3, 1, -2) > 0.2 and at(prior, 3, -2, 0) > 0.2 and at(prior, 3, 0, 2) < 0.01


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 3])
def test_shifted_affinity_shifts_the_peak_of_the_prior(estimator, num_mixtures):
    for peak in window_offsets(3).tolist():
        prior = fit_mixture(one_window({tuple(peak): 1.0}, 3), 3, num_mixtures, estimator)
        assert window_offsets(3)[prior[0, :, 0, 0].argmax()].tolist() == peak


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 2, 4])
def test_empty_row_stays_finite(estimator, num_mixtures):
    prior = fit_mixture(torch.zeros(1, 9, 1, 2, dtype=torch.float64), 1, num_mixtures, estimator)
    assert torch.isfinite(prior).all()
    if estimator == 'moments':
        assert (prior == 0).all()


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_hot_rows_stay_finite(estimator, dtype):
    prior = fit_mixture_rows(torch.eye(841, dtype=dtype), 14, 4, estimator)
    assert torch.isfinite(prior).all()


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_target_carries_no_gradient(estimator):
    affinity = soft_windows(1, 1, 2, 2).requires_grad_()
    prior = fit_mixture(affinity, 1, 2, estimator)
    assert not prior.requires_grad
    (affinity - prior).square().sum().backward()
    torch.testing.assert_close(affinity.grad, 2 * (affinity.detach() - prior))


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('num_mixtures', [1, 3])
def test_input_is_left_as_it_was(estimator, num_mixtures):
    affinity = soft_windows(1, 2, 2, 2)
    before = affinity.clone()
    fit_mixture(affinity, 2, num_mixtures, estimator)
    rows = affinity[0].flatten(1).t().contiguous()
    rows_before = rows.clone()
    fit_mixture_rows(rows, 2, num_mixtures, estimator)
    assert torch.equal(affinity, before) and torch.equal(rows, rows_before)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_prior_of_a_batch_is_that_of_its_samples(estimator):
    affinity = soft_windows(2, 2, 3, 4)
    alone = [fit_mixture(affinity[b : b + 1], 2, 2, estimator) for b in range(2)]
    torch.testing.assert_close(fit_mixture(affinity, 2, 2, estimator), torch.cat(alone), rtol=0, atol=1e-13)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_rows_and_maps_agree(estimator):
    affinity, inside = soft_windows(2, 1, 3, 2), window_validity(3, 2, 1).expand(2, 9, 3, 2)
    rows = [part.permute(0, 2, 3, 1).reshape(12, 9) for part in (affinity, inside)]
    from_rows = (
        fit_mixture_rows(rows[0], 1, 2, estimator, valid=rows[1]).reshape(2, 3, 2, 9).permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(
        fit_mixture(affinity, 1, 2, estimator, valid=inside), from_rows, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('radius', [1, 6, 14])
@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 1e-3), (torch.bfloat16, 6e-3)])
def test_half_precision_is_close_to_float64(dtype, tolerance, radius, estimator):
    affinity = soft_windows(1, radius, 3, 3, sharpness=3.0).to(dtype)
    prior = fit_mixture(affinity, radius, 2, estimator)
    assert prior.dtype == dtype
    exact = fit_mixture(affinity.double(), radius, 2, estimator)
    torch.testing.assert_close(prior.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_float32_is_close_to_float64_at_the_test_radius(estimator):
    affinity = soft_windows(1, 14, 3, 3, sharpness=4.0).float()
    exact = fit_mixture(affinity.double(), 14, 2, estimator)
    torch.testing.assert_close(fit_mixture(affinity, 14, 2, estimator).double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    'change,culprit',
    [
        (dict(affinity=torch.zeros(9, 2, 2)), r'affinity must be \(B, P, h, w\), got \(9, 2, 2\)'),
        (dict(affinity=torch.zeros(1, 8, 2, 2)), r'9 cells for radius 1.*\(4, 8\)'),
        (dict(radius=2), '25 cells for radius 2'),
        (dict(num_mixtures=0), 'num_mixtures must be 1..9.*got 0'),
        (dict(num_mixtures=10), 'num_mixtures must be 1..9.*got 10'),
        (dict(estimator='em'), "estimator.*'em'"),
        (dict(width=0.0), 'width must be a number of cells above 0.*got 0.0'),
        (dict(width=float('nan')), 'width must be.*got nan'),
        (dict(variance_floor=0.0), 'variance_floor must be 0.01 or more.*got 0.0'),
        (dict(variance_floor=float('inf')), 'variance_floor must be.*got inf'),
    ],
)
def test_errors_name_the_culprit(change, culprit):
    arguments = dict(affinity=torch.zeros(1, 9, 2, 2), radius=1, num_mixtures=2) | change
    with pytest.raises(ValueError, match=culprit):
        fit_mixture(**arguments)
