"""RGB <-> Lab against the scalar formula, OpenCV and colours whose Lab is known."""

import cv2
import numpy as np
import pytest
import torch

from mmliir.ops import lab_to_rgb, rgb_to_lab
from mmliir.testing import reference


def lattice(steps=9, dtype=torch.float64):
    """(3, steps^2, steps) colours that cover the RGB cube, black and white included."""
    axis = torch.linspace(0, 1, steps, dtype=dtype)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing='ij')).reshape(3, steps * steps, steps)


def dark(dtype=torch.float64):
    """(3, 36, 6) colours on the linear pieces of both curves."""
    return lattice(6, dtype) * 0.09


@pytest.mark.parametrize('colours', [lattice(), dark()], ids=['cube', 'dark'])
def test_lab_equals_the_scalar_formula(colours):
    lab = rgb_to_lab(colours)
    for row in range(colours.shape[1]):
        for column in range(colours.shape[2]):
            expected = reference.rgb_to_lab(*colours[:, row, column].tolist())
            np.testing.assert_allclose(lab[:, row, column].numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    'rgb,lab',
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    pixel = torch.tensor(rgb, dtype=torch.float64)[:, None, None]
    np.testing.assert_allclose(rgb_to_lab(pixel)[:, 0, 0].numpy(), lab, rtol=0, atol=0.02)


@pytest.mark.parametrize('colours', [lattice(17, torch.float32), dark(torch.float32)], ids=['cube', 'dark'])
def test_lab_is_within_half_a_unit_of_opencv(colours):
    theirs = cv2.cvtColor(np.ascontiguousarray(colours.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2Lab)
    ours = rgb_to_lab(colours).permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 0.5
    assert np.abs(ours - theirs).mean() < 0.1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_round_trip_returns_the_colour(dtype):
    for colours in (lattice(17, dtype), dark(dtype)):
        torch.testing.assert_close(lab_to_rgb(rgb_to_lab(colours)), colours, rtol=0, atol=1e-4)


def test_round_trip_from_lab_returns_lab_inside_the_gamut():
    lab = torch.tensor([[50.0, 10.0, -20.0], [5.0, 1.0, 0.5], [90.0, -5.0, 8.0]], dtype=torch.float64).t()[
        :, :, None
    ]
    torch.testing.assert_close(rgb_to_lab(lab_to_rgb(lab)), lab, rtol=0, atol=0.02)


def test_colours_outside_the_gamut_are_clipped():
    lab = torch.tensor([50.0, 127.0, -127.0])[:, None, None]
    rgb = lab_to_rgb(lab)
    assert rgb.min() >= 0 and rgb.max() <= 1 and torch.isfinite(rgb).all()


def test_leading_dimensions_are_independent():
    colours = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    lab = rgb_to_lab(colours)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(lab[i, j], rgb_to_lab(colours[i, j]), rtol=0, atol=1e-3)
    torch.testing.assert_close(lab_to_rgb(lab), colours, rtol=0, atol=1e-4)


def test_lab_has_the_gradient_of_the_formula_also_at_black():
    colours = torch.rand(
        3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, (colours,))
    black = torch.zeros(3, 1, 1, requires_grad=True)
    rgb_to_lab(black).sum().backward()
    assert torch.isfinite(black.grad).all()


@pytest.mark.parametrize('dtype,tolerance', [(torch.float16, 0.6), (torch.bfloat16, 5.0)])
def test_half_precision_is_close_to_float32(dtype, tolerance):
    colours = lattice(9).to(dtype)
    lab = rgb_to_lab(colours)
    assert lab.dtype == dtype and lab_to_rgb(lab).dtype == dtype
    torch.testing.assert_close(lab.float(), rgb_to_lab(colours.float()), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    'rgb,culprit',
    [(torch.zeros(2, 4, 4), r'\(2, 4, 4\)'), (torch.zeros(3, 4, 4, dtype=torch.uint8), 'torch.uint8')],
)
def test_errors_name_the_culprit(rgb, culprit):
    with pytest.raises(ValueError, match=culprit):
        rgb_to_lab(rgb)
