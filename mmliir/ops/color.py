"""RGB <-> CIE Lab on tensors, with the constants of OpenCV's float conversion (sRGB, D65 white)."""

from collections.abc import Sequence

import torch
from torch import Tensor

_RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.950456, 1.0, 1.088754)  # D65
# Plain numbers: a tensor made of them on a GPU, as for a product of matrices, is a copy that the host waits for.
_TO_WHITE = tuple(tuple(entry / white for entry in row) for row, white in zip(_RGB_TO_XYZ, _WHITE, strict=True))
_FROM_WHITE = torch.linalg.inv(torch.tensor(_TO_WHITE, dtype=torch.float64)).tolist()
_EPSILON = 0.008856
_KAPPA = 903.3


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab.

    Args:
        rgb: (..., 3, H, W) float in [0, 1].

    Returns:
        (..., 3, H, W): L in [0, 100], a and b in about [-127, 127]. OpenCV's float table differs from this exact
        formula by up to 0.38 units.
    """
    if rgb.shape[-3] != 3 or not rgb.is_floating_point():
        raise ValueError(f'rgb must be float (..., 3, H, W) in [0, 1], got {rgb.dtype} {tuple(rgb.shape)}')
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _per_pixel(_TO_WHITE, linear)
    root = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(dim=-3)
    luminance = torch.where(xyz[..., 1, :, :] > _EPSILON, 116 * y - 16, _KAPPA * xyz[..., 1, :, :])
    return torch.stack([luminance, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab to sRGB, clipped to [0, 1]; the inverse of `rgb_to_lab`.

    Args:
        lab: (..., 3, H, W) float, L in [0, 100].

    Returns:
        (..., 3, H, W) float in [0, 1].
    """
    luminance, a, b = lab.unbind(dim=-3)
    dark = luminance <= _KAPPA * _EPSILON
    y = torch.where(dark, luminance / _KAPPA, ((luminance + 16) / 116) ** 3)
    root_y = torch.where(dark, 7.787 * y + 16 / 116, (luminance + 16) / 116)
    x = _inverse_root(root_y + a / 500)
    z = _inverse_root(root_y - b / 200)
    xyz = torch.stack([x, y, z], dim=-3)
    linear = _per_pixel(_FROM_WHITE, xyz).clamp(0, 1)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-12) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def _per_pixel(matrix: Sequence[Sequence[float]], image: Tensor) -> Tensor:
    """A 3 x 3 matrix times every pixel of (..., 3, H, W), in the image's precision, autocast or not."""
    first, second, third = image.unbind(dim=-3)
    return torch.stack([row[0] * first + row[1] * second + row[2] * third for row in matrix], dim=-3)


def _inverse_root(root: Tensor) -> Tensor:
    return torch.where(root > _EPSILON ** (1 / 3), root**3, (root - 16 / 116) / 7.787)
