"""Photometric and compactness losses against their formulas."""

import math

import numpy as np
import pytest
import torch

from mmliir.models.losses import CompactnessPriorLoss, ReconstructionLoss
from mmliir.models.losses.compactness_prior_loss import prior_divergence
from mmliir.testing import reference


def soft_windows(batch=2, radius=1, height=3, width=4, seed=0, sharpness=2.5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        batch, (2 * radius + 1) ** 2, height, width, generator=generator, dtype=torch.float64
    )
    return torch.softmax(sharpness * logits, dim=1)


@pytest.mark.parametrize(
    'difference, expected',
    [
        (0.0, 0.0),
        (0.01, 0.5 * 0.2**2),
        (-0.04, 0.5 * 0.8**2),
        (0.05, 0.5),  # the switch: both branches agree
        (0.1, 1.5),
        (-1.0, 19.5),
    ],
)
def test_photometric_loss_is_piecewise_with_its_switch_at_a_twentieth(difference, expected):
    target = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)
    assert ReconstructionLoss()(target + difference, target).item() == pytest.approx(expected, abs=1e-12)


def test_photometric_loss_is_the_mean_over_all_elements_times_its_weight():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 1, 4, 5, generator=generator, dtype=torch.float64) * 0.1
    total = 0.0
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        d = abs(7.0 * (p - t))
        total += 0.5 * d * d if d < 1 else d - 0.5
    loss = ReconstructionLoss(scale=7.0, weight=0.25)(prediction, target)
    assert loss.item() == pytest.approx(0.25 * total / prediction.numel(), rel=1e-12)


def test_photometric_loss_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r'\(1, 1, 2, 2\).*\(1, 3, 2, 2\)'):
        ReconstructionLoss()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2))


def slow_compactness(
    affinity, radius, threshold=None, mixtures=2, estimator='moments', scale=20.0, valid=None, norm='smooth_l1',
    **spread,
):  # fmt: skip
    """Eq. 8 entry by entry; entries of rows left out count as 0 in the mean."""
    prior = reference.fit_mixture(affinity, radius, mixtures, estimator, valid, **spread)
    affinity = affinity.numpy()
    if norm == 'kl':
        return slow_divergence(affinity, prior, threshold)
    total = 0.0
    for b, p, y, x in np.ndindex(affinity.shape):
        if threshold is not None and not affinity[b, :, y, x].max() > threshold:
            continue
        d = scale * abs(affinity[b, p, y, x] - prior[b, p, y, x])
        if norm == 'l1':
            total += d
        else:
            total += 0.5 * d * d if d < 1 else d - 0.5
    return total / affinity.size


def slow_divergence(affinity, prior, threshold=None):
    """Mean over cells of sum over j of P_j log(P_j / A_j), the prior's rows summing to one."""
    batch, cells, height, width = affinity.shape
    total = 0.0
    for b, y, x in np.ndindex(batch, height, width):
        row, target = affinity[b, :, y, x], prior[b, :, y, x]
        if threshold is not None and not row.max() > threshold:
            continue
        for a, p in zip(row, target / target.sum(), strict=True):
            total += p * math.log(p / a) if p > 0 else 0.0
    return total / (batch * height * width)


@pytest.mark.parametrize('threshold', [None, 0.4])
@pytest.mark.parametrize(
    'settings', [dict(estimator='moments'), dict(estimator='fixed'), dict(estimator='fixed', width=2.0),
                 dict(estimator='moments', variance_floor=0.5)],
)  # fmt: skip
@pytest.mark.parametrize('norm', ['l1', 'kl', 'smooth_l1'])
def test_compactness_in_each_norm_equals_the_loops(norm, settings, threshold):
    affinity = soft_windows()
    loss = CompactnessPriorLoss(threshold=threshold, norm=norm, scale=3.0, weight=0.5, **settings)(affinity, 1)
    spread = {name: value for name, value in settings.items() if name != 'estimator'}
    expected = slow_compactness(affinity, 1, threshold, 2, settings['estimator'], 3.0, norm=norm, **spread)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-10)


def test_the_scale_is_of_the_two_l1_norms_alone():
    affinity = soft_windows()

    def loss(norm, scale):
        return CompactnessPriorLoss(norm=norm, scale=scale)(affinity, 1).item()

    assert loss('l1', 40.0) == pytest.approx(2 * loss('l1', 20.0), rel=1e-12)
    assert loss('smooth_l1', 40.0) != pytest.approx(loss('smooth_l1', 20.0), rel=1e-2)
    assert loss('kl', 40.0) == loss('kl', 20.0)


@pytest.mark.parametrize('estimator', ['moments', 'fixed'])
def test_the_gradient_of_the_divergence_at_the_logits_is_affinity_minus_normalised_prior(estimator):
    logits = 2 * torch.randn(2, 9, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    affinity = torch.softmax(logits.requires_grad_(), dim=1)
    CompactnessPriorLoss(norm='kl', estimator=estimator)(affinity, 1).backward()
    prior = torch.from_numpy(reference.fit_mixture(affinity.detach(), 1, 2, estimator))
    expected = (affinity.detach() - prior / prior.sum(dim=1, keepdim=True)) / (2 * 3 * 4)
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-10)


def test_divergence_is_zero_at_its_prior_alone_and_passes_gradcheck():
    prior, other = soft_windows(seed=1), soft_windows(seed=2)
    for factor in (1.0, 1.27):  # a prior that does not sum to one is the target that its shape is
        torch.testing.assert_close(prior_divergence(factor * prior, prior), torch.zeros(2, 3, 4).double())
    assert (prior_divergence(prior, other) > 1e-2).all()
    small = other[:1, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda affinity: prior_divergence(prior[:1, :, :2, :2], affinity), small)


@pytest.mark.parametrize('dtype, nats', [(torch.float32, 87.34), (torch.float64, 708.40)])
def test_divergence_at_zeros(dtype, nats):
    """No prior: nothing. No affinity where the prior is: finite, and no gradient. No prior at all: nothing."""
    prior = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    affinity = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.2, 0.8, 0.0]], dtype=dtype)
    prior, affinity = (rows.t()[None, :, :, None].contiguous() for rows in (prior, affinity))
    affinity.requires_grad_()
    divergence = prior_divergence(prior, affinity)
    torch.testing.assert_close(
        divergence[0, :, 0], torch.tensor([0.0, nats, 0.5 * nats + 0.5 * math.log(0.5), 0.0], dtype=dtype),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    divergence.sum().backward()
    gradient = affinity.grad[0, :, :, 0].t()
    expected = torch.tensor([[0, -1, 0], [0, 0, 0], [-1, 0, 0], [0, 0, 0]], dtype=dtype)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize('norm', ['l1', 'kl'])
def test_masked_cells_and_vanished_affinities_leave_values_and_gradients_finite(norm):
    generator = torch.Generator().manual_seed(0)
    logits = (60 * torch.randn(1, 9, 2, 2, generator=generator)).requires_grad_()  # float32: many are exactly 0
    valid = torch.ones(9, 2, 2, dtype=torch.bool)
    valid[:3, 0] = False
    affinity = torch.softmax(logits.masked_fill(~valid, -torch.inf), dim=1)
    assert (affinity == 0).sum() > (~valid).sum()
    loss = CompactnessPriorLoss(norm=norm)(affinity, 1, valid)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert not logits.grad[0][~valid].any()


@pytest.mark.parametrize(
    'settings, culprit',
    [
        (dict(norm='l2'), "norm must be 'smooth_l1', 'l1' or 'kl', got 'l2'"),
        (dict(estimator='em'), "estimator.*'em'"),
        (dict(num_mixtures=0), 'num_mixtures.*got 0'),
        (dict(width=0), 'width.*got 0'),
        (dict(variance_floor=0.001), 'variance_floor.*got 0.001'),
    ],
)
def test_wrong_compactness_settings_are_refused_at_build(settings, culprit):
    with pytest.raises(ValueError, match=culprit):
        CompactnessPriorLoss(**settings)


@pytest.mark.parametrize('estimator', ['moments', 'fixed'])
@pytest.mark.parametrize('mixtures', [1, 2, 3])
@pytest.mark.parametrize('radius', [1, 2])
def test_compactness_equals_the_loops(radius, mixtures, estimator):
    affinity = soft_windows(radius=radius)
    loss = CompactnessPriorLoss(mixtures, estimator, weight=3.0)(affinity, radius)
    expected = 3.0 * slow_compactness(affinity, radius, None, mixtures, estimator)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_rows_at_or_below_the_threshold_count_as_zero_in_the_mean_over_all():
    affinity = soft_windows()
    peaks = affinity.amax(dim=1).flatten().sort().values
    threshold = peaks[len(peaks) // 2].item()  # half of the rows, and one exactly at the threshold
    loss = CompactnessPriorLoss(threshold=threshold)(affinity, 1)
    assert loss.item() == pytest.approx(slow_compactness(affinity, 1, threshold), rel=1e-10)
    assert 0 < loss.item() < slow_compactness(affinity, 1)
    assert CompactnessPriorLoss(threshold=1.0)(affinity, 1).item() == 0.0


def test_rows_left_out_get_no_gradient():
    affinity = soft_windows().requires_grad_()
    threshold = affinity.detach().amax(dim=1).median().item()
    CompactnessPriorLoss(threshold=threshold)(affinity, 1).backward()
    kept = affinity.detach().amax(dim=1) > threshold
    has_gradient = affinity.grad.abs().amax(dim=1) > 0
    assert torch.equal(kept, has_gradient)


@pytest.mark.parametrize('threshold', [None, 0.4])
def test_the_target_carries_no_gradient(threshold):
    affinity = soft_windows().requires_grad_()
    CompactnessPriorLoss(threshold=threshold, scale=20.0)(affinity, 1).backward()
    # With the prior held fixed: d/dA of smooth L1 is the clipped difference, times the scale, over the count.
    prior = torch.from_numpy(reference.fit_mixture(affinity.detach(), 1, 2, 'moments'))
    expected = 20.0 * (20.0 * (affinity.detach() - prior)).clamp(-1, 1) / affinity.numel()
    if threshold is not None:
        expected = expected * (affinity.detach().amax(dim=1, keepdim=True) > threshold)
    torch.testing.assert_close(affinity.grad, expected, rtol=0, atol=1e-10)


def test_cells_outside_the_frame_are_no_target_where_they_are_masked():
    affinity = soft_windows(batch=1, height=2, width=2)
    valid = torch.zeros(1, 9, 2, 2, dtype=torch.bool)
    valid[:, [4, 5, 7, 8], 0, 0] = valid[:, [3, 4, 6, 7], 0, 1] = True
    valid[:, [1, 2, 4, 5], 1, 0] = valid[:, [0, 1, 3, 4], 1, 1] = True
    affinity = affinity * valid
    affinity = affinity / affinity.sum(dim=1, keepdim=True)
    loss = CompactnessPriorLoss()(affinity, 1, valid[0])
    assert loss.item() == pytest.approx(slow_compactness(affinity, 1, valid=valid), rel=1e-10)
    assert loss.item() != pytest.approx(slow_compactness(affinity, 1), rel=1e-3)


@pytest.mark.parametrize('wrong', [dict(threshold=5), dict(threshold=-0.1), dict(scale=0.0), dict(weight=-1.0)])
def test_settings_that_would_silence_the_compactness_loss_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CompactnessPriorLoss(**wrong)
