"""Slow, plain loops for the propagation operator and for a whole video: what the fast code is tested against.

NumPy in float64, one cell at a time, written from the definitions and sharing no code with `ops` or
`propagation`. PyTorch serves for the one definition that names a function of it, `grid_sample`.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def attend_loop(
    query,
    keys,
    values,
    radius,
    *,
    shape='square',
    temperature=1.0,
    topk=None,
    topk_ties='keep',
    topk_scope='joint',
    normalise='softmax',
    border='mask',
    prior=None,
    offsets=None,
    value_offsets=None,
    align_corners_mismatch=False,
):
    """`mmliir.ops.window_topk_attend`, one query cell at a time.

    Args:
        query: (C, h, w) array.
        keys: (R, C, h, w) array.
        values: (R, K, h, w) array.
        radius, shape, temperature, topk, topk_ties, topk_scope, normalise, border, prior, offsets, value_offsets,
            align_corners_mismatch: As in the operator.

    Returns:
        (K, h, w) float64.
    """
    query, keys, values = (np.asarray(array, dtype=np.float64) for array in (query, keys, values))
    offsets = [None] * len(radius) if offsets is None else offsets
    value_offsets = offsets if value_offsets is None else value_offsets
    if topk_scope == 'per_reference':
        parts = [
            attend_loop(
                query, keys[r : r + 1], values[r : r + 1], [radius[r]], shape=shape, temperature=temperature,
                topk=topk, topk_ties=topk_ties, normalise=normalise, border=border, prior=prior,
                offsets=offsets[r : r + 1], value_offsets=value_offsets[r : r + 1],
                align_corners_mismatch=align_corners_mismatch,
            )
            for r in range(len(radius))
        ]  # fmt: skip
        return np.mean(parts, axis=0)
    height, width = query.shape[1:]
    sample = _sample_mismatched if align_corners_mismatch else _sample
    out = np.zeros((values.shape[1], height, width))
    for y in range(height):
        for x in range(width):
            centres = [
                None if of_key is None else [(float(o[1, y, x]), float(o[0, y, x])) for o in (of_key, of_value)]
                for of_key, of_value in zip(offsets, value_offsets, strict=True)
            ]
            out[:, y, x] = _attend_cell(
                query[:, y, x], keys, values, radius, y, x, shape, temperature, topk, topk_ties, normalise, border,
                prior, centres, sample,
            )  # fmt: skip
    return out


def _attend_cell(
    query, keys, values, radius, y, x, shape, temperature, topk, topk_ties, normalise, border, prior, centres, sample
):
    height, width = keys.shape[2:]
    entries = []  # (reference, window position, logit, value)
    no_value = np.zeros(values.shape[1])
    for r, reach in enumerate(radius):
        if reach is None:
            cells = [(ry, rx, None) for ry in range(height) for rx in range(width)]
        else:
            span = range(-reach, reach + 1)
            cells = [
                (y + dy, x + dx, (dy + reach) * (2 * reach + 1) + dx + reach)
                for dy in span
                for dx in span
                if shape == 'square'
                or dx * dx + dy * dy < reach * reach
                or dx == dy == 0
                or (shape == 'disc' and dx * dx + dy * dy == reach * reach)
            ]
        if centres[r] is not None:
            (key_y, key_x), (value_y, value_x) = centres[r]
            for ry, rx, position in cells:
                outside = not (-0.5 <= ry + key_y <= height - 0.5 and -0.5 <= rx + key_x <= width - 0.5)
                if border == 'mask' and outside:
                    continue
                key = sample(keys[r], ry + key_y, rx + key_x, border)
                value = sample(values[r], ry + value_y, rx + value_x, border)
                entries.append((r, position, query @ key / temperature, value))
            continue
        for ry, rx, position in cells:
            if 0 <= ry < height and 0 <= rx < width:
                entries.append((r, position, query @ keys[r, :, ry, rx] / temperature, values[r, :, ry, rx]))
            elif border == 'zero_logit':
                entries.append((r, position, 0.0, no_value))
    logits = np.array([entry[2] for entry in entries])
    kept = np.ones(len(logits))
    if topk is not None and topk < len(logits):
        smallest = np.sort(logits)[::-1][topk - 1]
        kept = (logits >= smallest).astype(float)
        if topk_ties == 'share':
            tied = logits == smallest
            kept[tied] = (topk - (logits > smallest).sum()) / tied.sum()
    scope = np.ones_like(kept) if normalise == 'softmax_then_topk' else kept
    exponentials = np.exp(logits - logits.max())
    weights = kept * exponentials / (scope * exponentials).sum()
    if prior is not None:
        weights = _replace(weights, entries, radius, y, x, height, width, shape, border, prior)
    return sum(weight * entry[3] for weight, entry in zip(weights, entries, strict=True))


def _sample(maps, y, x, border):
    """(C,) bilinear sample of (C, h, w) between the cells: zeros outside the frame, or under 'mask' its border
    cells again."""
    if border == 'mask':
        return np.array([_bilinear(channel, y, x) for channel in maps])
    sample = np.zeros(maps.shape[0])
    for cy in range(max(0, math.floor(y)), min(maps.shape[1], math.floor(y) + 2)):
        for cx in range(max(0, math.floor(x)), min(maps.shape[2], math.floor(x) + 2)):
            sample += max(0.0, 1 - abs(y - cy)) * max(0.0, 1 - abs(x - cx)) * maps[:, cy, cx]
    return sample


def _sample_mismatched(maps, y, x, border):
    """(C,) what PyTorch reads from (C, h, w) at a place that was normalised for the other `align_corners`; an axis of
    one cell is normalised for the right one."""
    assert border == 'zero_logit', border
    xy = [2 * p / (n - 1) - 1 if n > 1 else 2 * p for p, n in ((x, maps.shape[2]), (y, maps.shape[1]))]
    grid = torch.tensor(xy, dtype=torch.float64).view(1, 1, 1, 2)
    read = F.grid_sample(torch.as_tensor(maps)[None], grid, 'bilinear', 'zeros', align_corners=False)
    return read[0, :, 0, 0].numpy()


def coarse_loop(query, key, radius, dilation, temperature, border):
    """`mmliir.ops.coarse_search`, one query cell at a time.

    Args:
        query, key: (C, h, w) arrays.
        radius, dilation, temperature, border: As in the operator.

    Returns:
        (2, h, w) float64, (dx, dy).
    """
    query, key = np.asarray(query, dtype=np.float64), np.asarray(key, dtype=np.float64)
    height, width = query.shape[1:]
    offsets = np.zeros((2, height, width))
    for y in range(height):
        for x in range(width):
            logits, steps = [], []
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    ky, kx = y + dilation * dy, x + dilation * dx
                    inside = 0 <= ky < height and 0 <= kx < width
                    if inside or border == 'zero_logit':
                        logits.append(query[:, y, x] @ key[:, ky, kx] / temperature if inside else 0.0)
                        steps.append((dilation * dx, dilation * dy))
            weights = np.exp(np.array(logits) - max(logits))
            offsets[:, y, x] = weights @ np.array(steps, dtype=np.float64) / weights.sum()
    return offsets


def _replace(weights, entries, radius, y, x, height, width, shape, border, prior):
    weights = weights.copy()
    for r, reach in enumerate(radius):
        own = [n for n, entry in enumerate(entries) if entry[0] == r]
        if prior.threshold is not None and not weights[own].max() > prior.threshold:
            continue
        window = np.zeros((2 * reach + 1) ** 2)
        takes_part = np.zeros(len(window), dtype=bool)
        for n in own:
            window[entries[n][1]] = weights[n]
            takes_part[entries[n][1]] = True
        fitted = mixture_loop(window, reach, prior, takes_part)
        scale = sum(weights[n] for n in own) if prior.keep_mass else 1.0
        for n in own:
            weights[n] = fitted[entries[n][1]] * scale
    return weights


def mixture_loop(window, radius, prior_settings, takes_part):
    """The Gaussian mixture of one window, as `mmliir.ops.fit_mixture` defines it.

    Args:
        window: (P,) probabilities, row-major over the square window.
        radius: Window radius in cells.
        prior_settings: A `MixturePrior`.
        takes_part: (P,) bool, cells that may carry mass.

    Returns:
        (P,) prior.
    """
    num_mixtures, floor = prior_settings.num_mixtures, prior_settings.variance_floor
    side = 2 * radius + 1
    points = [(n % side - radius, n // side - radius) for n in range(side * side)]
    order = sorted(range(len(window)), key=lambda n: -window[n])[:num_mixtures]
    means = [points[n] for n in order]
    prior = np.zeros(len(window))
    if prior_settings.estimator == 'fixed':
        peaks = np.exp([window[n] for n in order])
        for weight, (mx, my) in zip(peaks / peaks.sum(), means, strict=True):
            for n, (x, y) in enumerate(points):
                prior[n] += weight * math.exp(
                    -4 * math.log(2) * ((x - mx) ** 2 + (y - my) ** 2) / prior_settings.width**2
                )
        return np.where(takes_part, prior, 0)
    owner = [
        min(range(num_mixtures), key=lambda k: (x - means[k][0]) ** 2 + (y - means[k][1]) ** 2)
        for x, y in points
    ]
    for k, (mx, my) in enumerate(means):
        own = [n for n in range(len(points)) if owner[n] == k]
        mass = sum(window[n] for n in own)
        if mass <= 0:
            continue
        away = [(points[n][0] - mx, points[n][1] - my, window[n] / mass) for n in own]
        covariance = np.array(
            [
                [sum(w * dx * dx for dx, _, w in away) + floor, sum(w * dx * dy for dx, dy, w in away)],
                [sum(w * dx * dy for dx, dy, w in away), sum(w * dy * dy for _, dy, w in away) + floor],
            ]
        )
        inverse = np.linalg.inv(covariance)
        scale = mass / (2 * math.pi * math.sqrt(np.linalg.det(covariance)))
        for n, (x, y) in enumerate(points):
            away = np.array([x - mx, y - my])
            prior[n] += scale * math.exp(-0.5 * away @ inverse @ away)
    prior = np.where(takes_part, prior, 0)
    return prior / prior.sum()


def propagate_loop(features, label_map, settings, stride):
    """`mmliir.propagation.propagate_features` for one labelled first frame, keeping every frame in memory.

    Args:
        features: (T, C, h, w) array.
        label_map: (H, W) array of ids.
        settings: `PropagationSettings`.
        stride: Pixels per cell.

    Returns:
        (T, H, W) array of ids.
    """
    features = np.asarray(features, dtype=np.float64)
    label_map = np.asarray(label_map)
    frames, channels, h, w = features.shape
    ids = [0, *sorted(set(label_map.flatten().tolist()) - {0})]
    if settings.l2_normalise:
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    temperature = math.sqrt(channels) if settings.temperature == 'sqrt_channels' else settings.temperature
    fields = [_encode_loop(label_map, ids, settings, stride, h, w)]
    out = [label_map]
    for t in range(1, frames):
        references = sorted({n for n in settings.permanent if n < t})
        recent = [t - gap for gap in settings.gaps]
        if settings.fill_with_first:
            references += [max(n, 0) for n in recent]
        elif settings.permanent_again:
            references += sorted(n for n in recent if n >= 0)
        else:
            references = sorted({*references, *(n for n in recent if n >= 0)})
        radius = []
        for n, reference in enumerate(references):
            is_permanent = reference in settings.permanent and n < len(
                {p for p in settings.permanent if p < t}
            )
            radius.append(None if is_permanent and not settings.window_on_permanent else settings.radius)
        values = np.stack([fields[n] for n in references])
        values[:, 1:] *= settings.fg_gain
        offsets, value_offsets = [None] * len(references), [None] * len(references)
        search = settings.long_range
        for n, reference in enumerate(references):
            if search is not None and t - reference > search.min_distance:
                dilation = min(search.max_dilation, (t - reference) // search.min_distance + 1)
                offsets[n] = coarse_loop(
                    features[t], features[reference], search.coarse_radius, dilation, temperature, settings.border
                )
                value_offsets[n] = offsets[n]
        if search is not None and search.labels_from_last:
            far = [n for n, own in enumerate(offsets) if own is not None]
            latest = max(far, key=lambda n: references[n], default=None)
            value_offsets = [None if own is None else offsets[latest] for own in offsets]
        field = attend_loop(
            features[t],
            features[references],
            values,
            radius,
            shape=settings.shape,
            temperature=temperature,
            topk=settings.topk,
            topk_ties=settings.topk_ties,
            topk_scope=settings.topk_scope,
            normalise=settings.normalise,
            border=settings.border,
            prior=settings.prior,
            offsets=offsets,
            value_offsets=value_offsets,
            align_corners_mismatch=search is not None and search.align_corners_mismatch,
        )
        pixels = _upsample_loop(field, stride, settings, label_map.shape)
        if settings.min_max:
            low, high = pixels.min(axis=(1, 2), keepdims=True), pixels.max(axis=(1, 2), keepdims=True)
            pixels = np.where(high > 0, (pixels - low) / np.maximum(high - low, 1e-12), 0)
        ids_of_frame = np.array(ids)[pixels.argmax(axis=0)]
        out.append(ids_of_frame)
        if settings.carry == 'hard':
            field = _encode_loop(ids_of_frame, ids, settings, stride, h, w)
        fields.append(field)
    return np.stack(out)


def _encode_loop(label_map, ids, settings, stride, h, w):
    """Ids at pixels -> (K, h, w) field: pixel (4i, 4j), nearest of the resized map, or bilinear of the
    one-hot map."""
    height, width = label_map.shape
    encoding = settings.encoding
    if settings.grid != 'blocks' and encoding != 'subsample':
        return _encode_spread(label_map, ids, settings, h, w)
    field = np.zeros((len(ids), h, w))
    for k, object_id in enumerate(ids):
        one_hot = np.zeros((h * stride, w * stride))
        one_hot[:height, :width] = label_map == object_id
        if object_id == 0:
            one_hot[height:] = 1
            one_hot[:, width:] = 1
        for y in range(h):
            for x in range(w):
                if encoding == 'subsample':
                    field[k, y, x] = one_hot[y * stride, x * stride]
                elif encoding == 'nearest':
                    field[k, y, x] = one_hot[int((y + 0.5) * stride), int((x + 0.5) * stride)]
                else:
                    field[k, y, x] = _bilinear(one_hot, (y + 0.5) * stride - 0.5, (x + 0.5) * stride - 0.5)
    return field


def _encode_spread(label_map, ids, settings, h, w):
    """`_encode_loop` for cells that are spread over the frame."""
    field = np.zeros((len(ids), h, w))
    height, width = label_map.shape
    for k, object_id in enumerate(ids):
        one_hot = (label_map == object_id).astype(float)
        for y in range(h):
            for x in range(w):
                if settings.encoding == 'nearest':
                    field[k, y, x] = one_hot[int((y + 0.5) * height / h), int((x + 0.5) * width / w)]
                else:
                    at_y, at_x = _spread(y, h, height, settings.grid), _spread(x, w, width, settings.grid)
                    field[k, y, x] = _bilinear(one_hot, at_y, at_x)
    return field


def _spread(position, size_in, size_out, grid):
    """Where the n-th of `size_in` things in a row lies in a row of `size_out`."""
    if grid == 'corners':
        return position * (size_out - 1) / max(1, size_in - 1)
    return (position + 0.5) * size_out / size_in - 0.5


def _upsample_loop(field, stride, settings, size):
    pixels = np.zeros((field.shape[0], *size))
    cells = field.shape[1:]
    covered = size if settings.grid != 'blocks' else (cells[0] * stride, cells[1] * stride)
    shift = (stride - 1) / 2 if settings.upsample == 'mast' else 0
    for y in range(size[0]):
        for x in range(size[1]):
            if settings.upsample == 'nearest':
                pixels[:, y, x] = field[:, y * cells[0] // covered[0], x * cells[1] // covered[1]]
                continue
            at = (y - shift) / stride, (x - shift) / stride
            if settings.grid != 'blocks':
                at = [_spread(p, size[n], cells[n], settings.grid) for n, p in enumerate((y, x))]
            for k in range(field.shape[0]):
                pixels[k, y, x] = _bilinear(field[k], *at)
    return pixels


def _bilinear(array, y, x):
    """Value at fractional indices, constant past the ends."""
    y, x = min(max(y, 0), array.shape[0] - 1), min(max(x, 0), array.shape[1] - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, array.shape[0] - 1), min(left + 1, array.shape[1] - 1)
    fy, fx = y - top, x - left
    upper = array[top, left] * (1 - fx) + array[top, right] * fx
    lower = array[bottom, left] * (1 - fx) + array[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def draw_points_loop(points, settings, stride, size, output_size, cells):
    """`mmliir.propagation.codecs.PointCodec.encode`, one pixel and one cell at a time, without the background.

    Args:
        points: (N, 2) array, (x, y) in pixels of the frame.
        settings: `PointSettings`.
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, without padding.
        output_size: (H, W) of the frame.
        cells: (h, w).

    Returns:
        (N, h, w) float64.
    """
    field = np.zeros((len(points), *cells))
    for n, (x, y) in enumerate(points):
        if settings.drawn_at == 'cells':
            own = (y * size[0] / output_size[0] / stride, x * size[1] / output_size[1] / stride)
            drawn = _paint(own, cells, settings)
            for cy in range(cells[0]):
                for cx in range(cells[1]):
                    inside = cy * stride < size[0] and cx * stride < size[1]
                    field[n, cy, cx] = drawn[cy, cx] if inside else 0
            continue
        pixels, own = output_size, (y, x)
        if settings.drawn_at == 'input':
            pixels = size
            own = [(v + 0.5) * i / o - 0.5 for v, i, o in zip((y, x), size, output_size, strict=True)]
        drawn = _paint(own, pixels, settings)
        shift = 0 if settings.reduce == 'subsample' else (stride - 1) / 2
        for cy in range(cells[0]):
            for cx in range(cells[1]):
                at = [
                    (c * stride + shift + 0.5) * p / i - 0.5 for c, p, i in zip((cy, cx), pixels, size, strict=True)
                ]
                if at[0] < pixels[0] - 0.5 and at[1] < pixels[1] - 0.5:
                    field[n, cy, cx] = _bilinear(drawn, *at)
    return field


def _paint(centre, size, settings):
    """A Gaussian of height 1 around (y, x), (H, W): exact, or the stamp of whole pixels that VFS, UVC and CRW draw."""
    sigma = settings.sigma
    image = np.zeros(size)
    if settings.draw == 'exact':
        if all(-3 * sigma <= c <= n - 1 + 3 * sigma for c, n in zip(centre, size, strict=True)):
            for y in range(size[0]):
                for x in range(size[1]):
                    image[y, x] = math.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))
        return image
    top, left = (int(c - 3 * sigma) for c in centre)
    bottom, right = (int(c + 3 * sigma + 1) for c in centre)
    peak = (6 * sigma + 1) // 2
    for y in range(max(0, top), min(bottom, size[0])):
        for x in range(max(0, left), min(right, size[1])):
            image[y, x] = math.exp(-((y - top - peak) ** 2 + (x - left - peak) ** 2) / (2 * sigma**2))
    return image


def read_points_loop(field, settings, stride, size, output_size):
    """`mmliir.propagation.codecs.PointCodec.decode`, one pixel at a time, without `unbias`.

    Args:
        field: (N, h, w) array.
        settings, stride, size, output_size: As in `draw_points_loop`.

    Returns:
        (N, 2) float64, (x, y) in pixels of the frame; NaN where there is nothing.
    """
    places = np.full((len(field), 2), np.nan)
    for n, channel in enumerate(np.asarray(field, dtype=np.float64)):
        entries = []  # (value, x, y)
        if settings.decoded_at == 'cells':
            for cy in range(channel.shape[0]):
                for cx in range(channel.shape[1]):
                    if cy * stride < size[0] and cx * stride < size[1]:
                        x, y = cx * stride * output_size[1] / size[1], cy * stride * output_size[0] / size[0]
                        entries.append((channel[cy, cx], x, y))
        else:
            pixels = output_size if settings.decoded_at == 'frame' else size
            ratio = [p / i for p, i in zip(pixels, size, strict=True)]
            scale = [o / p for o, p in zip(output_size, pixels, strict=True)]
            for py in range(pixels[0]):
                for px in range(pixels[1]):
                    at = [((p + 0.5) / r - stride / 2) / stride for p, r in zip((py, px), ratio, strict=True)]
                    x, y = (px + 0.5) * scale[1] - 0.5, (py + 0.5) * scale[0] - 0.5
                    entries.append((_bilinear(channel, *at), x, y))
        values = np.array([entry[0] for entry in entries])
        if settings.min_max and values.max() > 0:
            values = (values - values.min()) / max(values.max() - values.min(), 1e-12)
        best = values >= np.sort(values)[::-1][: settings.decode_topk][-1] * (1 - 1e-5)
        if values[best].sum() > 0:
            xy = np.array([entry[1:] for entry in entries])
            places[n] = np.average(xy[best], axis=0, weights=values[best])
    return places
