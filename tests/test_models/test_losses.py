"""Photometric and compactness losses against their formulas."""

import numpy as np
import pytest
import torch

from mmliir.models.losses import CompactnessPriorLoss, ReconstructionLoss
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
    affinity, radius, threshold=None, mixtures=2, estimator='moments', scale=20.0, valid=None
):
    """Eq. 8 entry by entry; entries of rows left out count as 0 in the mean."""
    prior = reference.fit_mixture(affinity, radius, mixtures, estimator, valid)
    affinity = affinity.numpy()
    total = 0.0
    for b, p, y, x in np.ndindex(affinity.shape):
        if threshold is not None and not affinity[b, :, y, x].max() > threshold:
            continue
        d = scale * abs(affinity[b, p, y, x] - prior[b, p, y, x])
        total += 0.5 * d * d if d < 1 else d - 0.5
    return total / affinity.size


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
