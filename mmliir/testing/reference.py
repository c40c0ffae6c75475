"""Slow loops, written from the formulas, that say what the operators of `mmliir.ops` must return.

The NumPy functions work in float64 on arrays (tensors are accepted through `np.asarray`). The functions whose
names end in `_torch` are the same loops on tensors, one scalar at a time, so that autograd gives the
gradients of the formula.

Shape letters: B batch, C channels, h w cells, P window cells, Q bank entries, K value channels. Windows are
flattened row-major: the cell at offset (dx, dy) has index (dy + R) * (2R + 1) + (dx + R).
"""

import math

import numpy as np
import torch
from torch import Tensor

# --- windows ---


def window_logits(query, key, radius: int, temperature: float = 1.0, border: str = 'mask') -> np.ndarray:
    """The exponent of LIIR Eq. 1: l(i, j) = I_q(i) . I_r(j) / tau for every j in the window W(i).

    Args:
        query: (B, C, h, w) features of the query frame.
        key: (B, C, h, w) features of the reference frame.
        radius: Window radius in cells.
        temperature: tau.
        border: Cells outside the frame are -inf ('mask'), 0 ('zero_logit'), or the nearest cell inside
            ('replicate').

    Returns:
        (B, P, h, w) float64.
    """
    query, key = np.asarray(query, dtype=np.float64), np.asarray(key, dtype=np.float64)
    batch, channels, height, width = query.shape
    side = 2 * radius + 1
    out = np.empty((batch, side * side, height, width))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for p in range(side * side):
                    yy, xx = y + p // side - radius, x + p % side - radius
                    inside = 0 <= yy < height and 0 <= xx < width
                    if not inside and border == 'mask':
                        out[b, p, y, x] = -math.inf
                        continue
                    if not inside and border == 'zero_logit':
                        out[b, p, y, x] = 0.0
                        continue
                    yy, xx = min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)
                    dot = 0.0
                    for c in range(channels):
                        dot += query[b, c, y, x] * key[b, c, yy, xx]
                    out[b, p, y, x] = dot / temperature
    return out


def window_readout(affinity, values, radius: int, border: str = 'zero') -> np.ndarray:
    """LIIR Eqs. 2 and 5: c(i) = sum over j in W(i) of A(i, j) c_r(j).

    Args:
        affinity: (B, P, h, w).
        values: (B, K, h, w).
        radius: Window radius in cells.
        border: The value outside the frame: 0 ('zero') or that of the nearest cell inside ('replicate').

    Returns:
        (B, K, h, w) float64.
    """
    affinity, values = np.asarray(affinity, dtype=np.float64), np.asarray(values, dtype=np.float64)
    batch, channels, height, width = values.shape
    side = 2 * radius + 1
    out = np.zeros((batch, channels, height, width))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for dy in range(-radius, radius + 1):
                    for dx in range(-radius, radius + 1):
                        yy, xx = y + dy, x + dx
                        if not (0 <= yy < height and 0 <= xx < width):
                            if border == 'zero':
                                continue
                            yy, xx = min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)
                        weight = affinity[b, (dy + radius) * side + dx + radius, y, x]
                        for k in range(channels):
                            out[b, k, y, x] += weight * values[b, k, yy, xx]
    return out


def masked_global_affinity(query, key, radius: int, temperature: float = 1.0) -> np.ndarray:
    """LIIR Eq. 1 over the whole reference frame, with every cell outside the window W(i) struck out.

    Args:
        query, key: (B, C, h, w).
        radius: Window radius in cells.
        temperature: tau.

    Returns:
        (B, h * w, h * w) float64, [b, i, j]; rows sum to 1.
    """
    query, key = np.asarray(query, dtype=np.float64), np.asarray(key, dtype=np.float64)
    batch, _, height, width = query.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    out = np.zeros((batch, len(cells), len(cells)))
    for b in range(batch):
        for i, (y, x) in enumerate(cells):
            for j, (yy, xx) in enumerate(cells):
                if max(abs(yy - y), abs(xx - x)) <= radius:
                    out[b, i, j] = math.exp(float(query[b, :, y, x] @ key[b, :, yy, xx]) / temperature)
            out[b, i] /= out[b, i].sum()
    return out


# --- soft-max with negatives ---


def negatives_logsumexp(query, negatives, allowed, temperature: float = 1.0) -> np.ndarray:
    """The logarithm of the second sum in the denominator of LIIR Eq. 4.

    Args:
        query: (B, C, h, w) features.
        negatives: (Q, C) bank entries.
        allowed: (B, Q) bool; False leaves the entry out of that sample's sum.
        temperature: tau.

    Returns:
        (B, h, w) float64, -inf where the sum is empty.
    """
    query, negatives = np.asarray(query, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    allowed = np.asarray(allowed)
    batch, _, height, width = query.shape
    out = np.empty((batch, height, width))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                logits = [
                    float(query[b, :, y, x] @ negatives[n]) / temperature
                    for n in range(len(negatives))
                    if allowed[b, n]
                ]
                out[b, y, x] = _logsumexp(logits)
    return out


def located_negatives_logsumexp(
    query, maps, allowed, temperature: float = 1.0, cells=None, radius: int | None = None, border: str = 'mask'
) -> np.ndarray:
    """The same sum where every query location has keys of its own.

    Args:
        query: (B, C, h, w) features.
        maps: (N, C, h, w) stored maps.
        allowed: (B, N) bool.
        temperature: tau.
        cells: (N, p, h * w) cells of each map that a location is compared with; or
        radius: the window around the location, with `border` 'mask' or 'zero_logit'.

    Returns:
        (B, h, w) float64, -inf where the sum is empty.
    """
    query, maps = np.asarray(query, dtype=np.float64), np.asarray(maps, dtype=np.float64)
    batch, _, height, width = query.shape
    out = np.empty((batch, height, width))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                logits = []
                for n in range(len(maps)):
                    if not allowed[b][n]:
                        continue
                    if cells is not None:
                        drawn = [divmod(int(cell), width) for cell in cells[n][:, y * width + x]]
                    else:
                        span = range(-radius, radius + 1)
                        drawn = [(y + dy, x + dx) for dy in span for dx in span]
                    for yy, xx in drawn:
                        if 0 <= yy < height and 0 <= xx < width:
                            logits.append(float(query[b, :, y, x] @ maps[n, :, yy, xx]) / temperature)
                        elif border == 'zero_logit':
                            logits.append(0.0)
                out[b, y, x] = _logsumexp(logits)
    return out


def joint_softmax(logits, extra_logsumexp=None) -> list[np.ndarray]:
    """LIIR Eq. 4: each window logit's exponential over the sum of all windows' and the negatives'
    exponentials.

    Args:
        logits: R arrays (B, P_r, h, w), -inf for cells that take no part.
        extra_logsumexp: (B, h, w) or None (Eq. 1).

    Returns:
        R arrays (B, P_r, h, w) float64.
    """
    logits = [np.asarray(part, dtype=np.float64) for part in logits]
    out = [np.zeros_like(part) for part in logits]
    batch, _, height, width = logits[0].shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                terms = [value for part in logits for value in part[b, :, y, x]]
                if extra_logsumexp is not None:
                    terms.append(float(extra_logsumexp[b, y, x]))
                total = _logsumexp(terms)
                for part, result in zip(logits, out, strict=True):
                    for p in range(part.shape[1]):
                        value = part[b, p, y, x]
                        result[b, p, y, x] = 0.0 if value == -math.inf else math.exp(value - total)
    return out


def _logsumexp(terms) -> float:
    largest = max(terms, default=-math.inf)
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def reconstruct_torch(
    query: Tensor,
    key: Tensor,
    values: Tensor,
    radius: int,
    temperature: float = 1.0,
    border: str = 'mask',
    negatives: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """LIIR Eqs. 1-2, or 4-5 with negatives, as scalar loops that autograd can follow.

    Args:
        query, key: (B, C, h, w).
        values: (B, K, h, w), the reference's colours; 0 outside the frame.
        radius: Window radius in cells.
        temperature: tau.
        border: 'mask' (cells outside take no part) or 'zero_logit' (their logit is 0).
        negatives: (Q, C) or None.
        allowed: (B, Q) bool, with `negatives`.

    Returns:
        (B, K, h, w) reconstruction.
    """
    batch, _, height, width = query.shape
    rows = []
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                numerators, colours = [], []
                denominator = query.new_zeros(())
                for yy in range(y - radius, y + radius + 1):
                    for xx in range(x - radius, x + radius + 1):
                        if 0 <= yy < height and 0 <= xx < width:
                            numerators.append(
                                torch.exp((query[b, :, y, x] * key[b, :, yy, xx]).sum() / temperature)
                            )
                            colours.append(values[b, :, yy, xx])
                            denominator = denominator + numerators[-1]
                        elif border == 'zero_logit':
                            denominator = denominator + 1.0  # exp(0), with colour 0
                if negatives is not None:
                    for n in range(len(negatives)):
                        if allowed[b, n]:
                            logit = (query[b, :, y, x] * negatives[n]).sum() / temperature
                            denominator = denominator + torch.exp(logit)
                rows.append(
                    sum(e / denominator * colour for e, colour in zip(numerators, colours, strict=True))
                )
    return torch.stack(rows).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


# --- position maps ---


def sine_position_map(channels: int, height: int, width: int, scale: float = 1.0) -> np.ndarray:
    """The 2-D sinusoid of liir.md section 3, entry by entry.

    With D channels and i, j in [0, D/4): P(x, 2i) = sin(x / 10000^(4i/D)), P(x, 2i+1) = cos(same),
    P(y, 2j + D/2) = sin(y / 10000^(4j/D)), P(y, 2j+1 + D/2) = cos(same).

    Returns:
        (D, height, width) float64, times `scale`.
    """
    out = np.empty((channels, height, width))
    for y in range(height):
        for x in range(width):
            for i in range(channels // 4):
                period = 10000.0 ** (4.0 * i / channels)
                out[2 * i, y, x] = scale * math.sin(x / period)
                out[2 * i + 1, y, x] = scale * math.cos(x / period)
                out[2 * i + channels // 2, y, x] = scale * math.sin(y / period)
                out[2 * i + 1 + channels // 2, y, x] = scale * math.cos(y / period)
    return out


# --- mixture of Gaussians ---


def fit_mixture(
    affinity,
    radius: int,
    num_mixtures: int,
    estimator: str,
    valid=None,
    width: float = 1.0,
    variance_floor: float = 0.18,
) -> np.ndarray:
    """LIIR Eq. 7: sum over k of pi_k N(x_j; mu_k, Sigma_k), mu_k the cell of the k-th largest affinity.

    'moments': each window cell goes to its nearest mean (ties: the more probable mean); pi_k is the affinity
    of its cells, Sigma_k their affinity-weighted second moment about mu_k plus `variance_floor` I; the row is
    divided by its sum.
    'fixed': pi is the soft-max of the K largest affinities, each bump is exp(-4 ln 2 d^2 / width^2) (full
    width at half maximum of `width` cells, 1 at its centre), nothing is divided.

    Args:
        affinity: (B, P, h, w).
        radius: Window radius in cells.
        num_mixtures: K. Of equal affinities the first in window order is the larger.
        estimator: 'moments' or 'fixed'.
        valid: (B, P, h, w) bool or None; the prior is 0 where False, before a row is divided by its sum.
        width: Of 'fixed', in cells.
        variance_floor: Of 'moments', in cells^2.

    Returns:
        (B, P, h, w) float64.
    """
    affinity = np.asarray(affinity, dtype=np.float64)
    batch, cells, rows, columns = affinity.shape
    out = np.zeros_like(affinity)
    for b in range(batch):
        for y in range(rows):
            for x in range(columns):
                keep = [True] * cells if valid is None else [bool(v) for v in np.asarray(valid)[b, :, y, x]]
                row = list(affinity[b, :, y, x])
                out[b, :, y, x] = _fit_one(row, radius, num_mixtures, estimator, keep, width, variance_floor)
    return out


def _fit_one(
    affinity: list[float],
    radius: int,
    num_mixtures: int,
    estimator: str,
    keep: list[bool],
    width: float,
    variance_floor: float,
) -> list[float]:
    side = 2 * radius + 1
    points = [(p % side - radius, p // side - radius) for p in range(side * side)]
    peaks = sorted(range(len(points)), key=lambda p: (-affinity[p], p))[:num_mixtures]
    if estimator == 'fixed':
        exponentials = [math.exp(affinity[p]) for p in peaks]
        row = []
        for point, inside in zip(points, keep, strict=True):
            value = 0.0
            for peak, exponential in zip(peaks, exponentials, strict=True):
                squared = math.dist(point, points[peak]) ** 2
                value += exponential / sum(exponentials) * math.exp(-4.0 * math.log(2.0) * squared / width**2)
            row.append(value if inside else 0.0)
        return row
    owners = []
    for point in points:
        squared = [(point[0] - points[m][0]) ** 2 + (point[1] - points[m][1]) ** 2 for m in peaks]
        owners.append(squared.index(min(squared)))
    row = [0.0] * len(points)
    for k, peak in enumerate(peaks):
        mass = sum(affinity[p] for p in range(len(points)) if owners[p] == k)
        if mass == 0.0:
            continue
        mean = np.array(points[peak], dtype=np.float64)
        moment = np.zeros((2, 2))
        for p, point in enumerate(points):
            if owners[p] == k:
                away = np.array(point, dtype=np.float64) - mean
                moment += affinity[p] * np.outer(away, away)
        covariance = moment / mass + variance_floor * np.eye(2)
        precision, determinant = np.linalg.inv(covariance), np.linalg.det(covariance)
        for p, point in enumerate(points):
            away = np.array(point, dtype=np.float64) - mean
            row[p] += (
                mass * math.exp(-0.5 * away @ precision @ away) / (2.0 * math.pi * math.sqrt(determinant))
            )
    row = [value if inside else 0.0 for value, inside in zip(row, keep, strict=True)]
    total = sum(row)
    return [value / total for value in row] if total > 0 else row


# --- colour ---


def rgb_to_lab(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """One sRGB colour in [0, 1] to CIE Lab under D65 (IEC 61966-2-1, CIE 15; the matrix as in OpenCV).

    Returns:
        (L, a, b), L in [0, 100].
    """

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else math.pow((value + 0.055) / 1.055, 2.4)

    def root(ratio: float) -> float:
        return math.pow(ratio, 1.0 / 3.0) if ratio > 0.008856 else 7.787 * ratio + 16.0 / 116.0

    r, g, b = linear(red), linear(green), linear(blue)
    x = (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.950456
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.088754
    luminance = 116.0 * math.pow(y, 1.0 / 3.0) - 16.0 if y > 0.008856 else 903.3 * y
    return luminance, 500.0 * (root(x) - root(y)), 200.0 * (root(y) - root(z))


# --- grids ---


def nearest_sources(size_in: int, size_out: int) -> list[tuple[int, ...]]:
    """The input pixels whose area holds each output pixel's centre, along one axis.

    Returns:
        size_out tuples: one index, or the two neighbours when the centre lies exactly on their edge.
    """
    sources = []
    for out in range(size_out):
        whole, rest = divmod((2 * out + 1) * size_in, 2 * size_out)
        sources.append((whole - 1, whole) if rest == 0 else (whole,))
    return sources


def upsample_field(field, size: tuple[int, int], stride: int, alignment: str) -> np.ndarray:
    """Bilinear interpolation of a field on cells at every pixel; constant past the outermost cells.

    Args:
        field: (K, h, w).
        size: (H, W) pixels; with 'mast' it is (stride * h, stride * w).
        stride: Pixels per cell.
        alignment: Cell i lies on pixel stride * i + (stride - 1) / 2 ('mast') or stride * i ('exact').

    Returns:
        (K, H, W) float64.
    """
    field = np.asarray(field, dtype=np.float64)
    channels, height, width = field.shape
    shift = (stride - 1) / 2 if alignment == 'mast' else 0.0
    out = np.empty((channels, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row - shift) / stride, 0.0), height - 1.0)
            x = min(max((column - shift) / stride, 0.0), width - 1.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            fy, fx = y - top, x - left
            for k in range(channels):
                upper = (1 - fx) * field[k, top, left] + fx * field[k, top, right]
                lower = (1 - fx) * field[k, bottom, left] + fx * field[k, bottom, right]
                out[k, row, column] = (1 - fy) * upper + fy * lower
    return out


def cell_to_pixel(x: float, y: float, stride: int, anchor: str) -> tuple[float, float]:
    """Pixel of a point in cells: a cell is its block's first pixel ('first') or centre ('center').

    The block of cell i holds the pixels stride * i .. stride * i + stride - 1.
    """

    def along(cell: float) -> float:
        first = stride * cell
        last = first + stride - 1
        return first if anchor == 'first' else (first + last) / 2

    return along(x), along(y)


def pixel_to_cell(x: float, y: float, stride: int, anchor: str) -> tuple[float, float]:
    """The point in cells whose `cell_to_pixel` is (x, y)."""
    origin_x, origin_y = cell_to_pixel(0.0, 0.0, stride, anchor)
    return (x - origin_x) / stride, (y - origin_y) / stride
