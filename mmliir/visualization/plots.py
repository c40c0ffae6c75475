"""Curves and bars as inline SVG: text, so that pages stay small, sharp and readable in light and dark.

Colours come from the CSS variables `--series-1` ... of the page, with fallbacks; text takes the colour and
the font of the page. The functions return one `<svg>` element for an HTML page and need no plotting library.
"""

import html
import math
from collections.abc import Mapping, Sequence

SERIES_COLORS = ('#2f6fde', '#e0762b', '#16967a', '#a94fc4', '#c23b55', '#7c8593')
_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26
_MAX_POINTS = 400


def series_color(index: int) -> str:
    """Return the CSS colour of series `index`, 0-based; the colours repeat after the last."""
    index %= len(SERIES_COLORS)
    return f'var(--series-{index + 1}, {SERIES_COLORS[index]})'


def format_number(value: float) -> str:
    """Write a number in about three digits, for axes and captions."""
    if not math.isfinite(value):
        return '–'
    if value == 0:
        return '0'
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f'{value:.2g}'
    if abs(value) >= 100:
        return f'{value:,.0f}'
    return f'{value:.3g}'


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers (steps of 1, 2, 2.5, 5 times a power of ten) inside of [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        raise ValueError(f'Ticks need finite low < high; got {low}, {high}.')
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Average each value with its neighbours, `window` values in all, fewer at the ends.

    Returns:
        As many values as came. Non-finite ones are left out; NaN where no finite one lies in the window.
    """
    if window < 1:
        raise ValueError(f'A window holds at least one value; got {window}.')
    half = window // 2
    smoothed = []
    for index in range(len(values)):
        near = [v for v in values[max(0, index - half) : index + half + 1] if math.isfinite(v)]
        smoothed.append(sum(near) / len(near) if near else math.nan)
    return smoothed


def thin_out(points: Sequence[tuple[float, float]], limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """Keep at most about `limit` points of a long curve: the lowest and the highest of each stretch.

    Peaks stay visible, which taking each n-th point would not give. First and last point are kept.
    """
    if len(points) <= limit:
        return list(points)
    stretch = math.ceil(len(points) / (limit // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        numbers = [n for n in range(start, min(start + stretch, len(points))) if math.isfinite(points[n][1])]
        if numbers:
            kept |= {min(numbers, key=lambda n: points[n][1]), max(numbers, key=lambda n: points[n][1])}
    return [points[n] for n in sorted(kept)]


def _path(points: Sequence[tuple[float, float]], to_x, to_y) -> str:
    """Build the `d` of a path; a non-finite value is a gap, and a point between two gaps a dot."""
    parts, pen_down = [], False
    for position, (x, y) in enumerate(points):
        if not math.isfinite(y):
            pen_down = False
            continue
        parts.append(f'{"L" if pen_down else "M"}{to_x(x):.1f} {to_y(y):.1f}')
        last = position + 1 == len(points) or not math.isfinite(points[position + 1][1])
        if not pen_down and last:
            parts.append('h.1')
        pen_down = True
    return ''.join(parts)


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    y_range: tuple[float, float] | None = None,
    smoothing: int = 1,
    x_label: str = 'iteration',
    percent: bool = False,
) -> str:
    """Draw curves over one axis as an inline SVG of 360 x 220 units.

    Args:
        series: Name -> points (x, y). A non-finite y is a gap.
        y_range: Lowest and highest y of the axis; None fits the finite values.
        smoothing: Points of the moving average drawn over the thin raw curve; 1 draws the raw curve only.
        x_label: What x counts.
        percent: Write y as 100 * y, for scores that are fractions.

    Returns:
        One `<svg>` element; names are escaped.
    """
    every = [point for points in series.values() for point in points]
    finite = [(x, y) for x, y in every if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        names = ', '.join(series) or 'no series'
        raise ValueError(f'A curve needs at least one finite value; got none in {names}.')
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    x_low, x_high = min(xs), max(xs)
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    low, high = y_range or (min(ys), max(ys))
    if y_range is None:
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin

    def to_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def to_y(y: float) -> float:
        return _TOP + (1 - (min(max(y, low), high) - low) / (high - low)) * (_HEIGHT - _TOP - _BOTTOM)

    title = html.escape(', '.join(series))
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}" '
        'font-size="11" fill="currentColor">'
    ]
    for tick in nice_ticks(low, high):
        y, text = to_y(tick), format_number(tick * 100 if percent else tick)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="currentColor" stroke-opacity=".13"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" opacity=".7">{text}</text>'
        )
    ticks = [tick for tick in nice_ticks(x_low, x_high) if x_high - x_low < 2 or tick == round(tick)]
    end = _WIDTH - _RIGHT
    free = end - 6 * len(x_label) - 20  # right of it stands what x counts
    for tick in ticks:
        if to_x(tick) <= free:
            parts.append(
                f'<text x="{to_x(tick):.1f}" y="{_HEIGHT - 8}" text-anchor="middle" opacity=".7">'
                f'{format_number(tick)}</text>'
            )
    parts.append(
        f'<text x="{end}" y="{_HEIGHT - 8}" text-anchor="end" opacity=".55">{html.escape(x_label)}</text>'
    )
    for index, points in enumerate(series.values()):
        color = series_color(index)
        style = f'fill="none" stroke-linejoin="round" stroke-linecap="round" style="stroke:{color}"'
        raw = _path(thin_out(points), to_x, to_y)
        if smoothing > 1:
            parts.append(f'<path d="{raw}" {style} stroke-width="1" stroke-opacity=".3"/>')
            averaged = smooth([y for _, y in points], smoothing)
            raw = _path(thin_out([(x, y) for (x, _), y in zip(points, averaged, strict=True)]), to_x, to_y)
        parts.append(f'<path d="{raw}" {style} stroke-width="2"/>')
    parts.append('</svg>')
    return ''.join(parts)


def bar_chart(groups: Mapping[str, Mapping[str, float | None]], percent: bool = True) -> str:
    """Draw horizontal bars from 0 to 1, one group a sequence, as an inline SVG that is as wide as its place.

    Args:
        groups: Group name -> bar name -> score, a fraction from 0 to 1. None or a non-finite score draws a
            dash. Bar number n has the colour of series n.
        percent: Write 100 * score.

    Returns:
        One `<svg>` element without a `viewBox`: bars grow with the page, text keeps its size. Names are
        escaped.
    """
    if not groups:
        raise ValueError('A bar chart needs at least one group; got none.')
    parts, y = [], 0
    for name, bars in groups.items():
        parts.append(f'<text x="0" y="{y + 13}" font-weight="600">{html.escape(name)}</text>')
        y += 19
        for index, (bar, score) in enumerate(bars.items()):
            missing = score is None or not math.isfinite(score)
            if not missing and not 0 <= score <= 1:
                raise ValueError(f'Bar {bar!r} of {name!r}: expected a fraction from 0 to 1, got {score}.')
            share = 0 if missing else score
            text = '–' if missing else (f'{score * 100:.1f}' if percent else f'{score:.3f}')
            parts.append(
                f'<rect y="{y}" height="11" rx="3" opacity=".07" style="width:calc(100% - 44px)"/>'
                f'<rect y="{y}" height="11" rx="3" '
                f'style="width:calc((100% - 44px)*{share:.4f});fill:{series_color(index)}">'
                f'<title>{html.escape(f"{name}, {bar}: {text}")}</title></rect>'
                f'<text x="100%" y="{y + 10}" text-anchor="end">{text}</text>'
            )
            y += 15
        y += 9
    return (
        f'<svg class="bars" width="100%" height="{y}" role="img" font-size="12" fill="currentColor">'
        + ''.join(parts)
        + '</svg>'
    )


def difference_chart(groups: Mapping[str, Mapping[str, float | None]]) -> str:
    """Draw differences of fractions as horizontal bars from the middle, one group a sequence.

    Args:
        groups: Group name -> bar name -> difference, -1 to 1; the longest one fills its half. None or a non-finite one
            draws a dash. Bar number n has the colour of series n, and that of series n + 1 where it is negative.

    Returns:
        One `<svg>` element as wide as its place, differences in per cent points; names are escaped.
    """
    if not groups:
        raise ValueError('A bar chart needs at least one group; got none.')
    known = [v for bars in groups.values() for v in bars.values() if v is not None and math.isfinite(v)]
    longest = max((abs(value) for value in known), default=0) or 1
    parts, y = [], 0
    for name, bars in groups.items():
        parts.append(f'<text x="0" y="{y + 13}" font-weight="600">{html.escape(name)}</text>')
        y += 19
        for index, (bar, value) in enumerate(bars.items()):
            missing = value is None or not math.isfinite(value)
            share = 0 if missing else value / longest
            text = '–' if missing else f'{value * 100:+.1f}'
            # Half of the place that is left of the numbers is 100 %.
            left = f'calc((100% - 52px)*{0.5 + min(share, 0) / 2:.4f})'
            parts.append(
                f'<rect y="{y}" height="11" rx="3" opacity=".07" style="width:calc(100% - 52px)"/>'
                f'<rect y="{y}" height="11" style="x:{left};width:calc((100% - 52px)*{abs(share) / 2:.4f});'
                f'fill:{series_color(index + (share < 0))}">'
                f'<title>{html.escape(f"{name}, {bar}: {text}")}</title></rect>'
                f'<text x="100%" y="{y + 10}" text-anchor="end">{text}</text>'
            )
            y += 15
        y += 9
    return (
        f'<svg class="bars" width="100%" height="{y}" role="img" font-size="12" fill="currentColor">'
        + ''.join(parts)
        + '</svg>'
    )


def interval_chart(
    groups: Mapping[str, Mapping[str, tuple[float, float] | None]], x_label: str, title: str = ''
) -> str:
    """Draw values with their spread as dots on one axis, a line a group: a whole SVG file, for a page or by itself.

    Args:
        groups: Group name -> series name -> (value, half length of its bar), in the unit of the axis, or None for
            nothing. All groups have the same series.
        x_label: What the axis counts.
        title: Above the chart.

    Returns:
        One `<svg>` element on a white ground with a legend; names are escaped. Series n has the colour of series n.

    Raises:
        ValueError: There is no finite value.
    """
    points = [entry for series in groups.values() for entry in series.values() if entry is not None]
    if not points or not all(math.isfinite(value) and math.isfinite(half) for value, half in points):
        raise ValueError(f'A chart of intervals needs finite values; got {points or "none"} in {", ".join(groups)}.')
    low, high = min(value - half for value, half in points), max(value + half for value, half in points)
    margin = (high - low) * 0.06 or 1.0
    low, high = low - margin, high + margin
    names = list(dict.fromkeys(name for series in groups.values() for name in series))
    left, top, line = 24 + 7 * max(len(name) for name in groups), 62, 30
    width, height = left + 460, top + line * len(groups) + 40

    def to_x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 24)

    bottom = top + line * len(groups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(title or x_label)}" font-family="system-ui, sans-serif" font-size="12" '
        f'fill="#1d2330"><rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="16" y="22" font-size="13" font-weight="600">{html.escape(title)}</text>'
    ]
    for number, name in enumerate(names):
        color, x = SERIES_COLORS[number % len(SERIES_COLORS)], 20 + 180 * number
        parts.append(f'<circle cx="{x}" cy="42" r="4.5" fill="{color}"/>')
        parts.append(f'<text x="{x + 10}" y="46">{html.escape(name)}</text>')
    for tick in nice_ticks(low, high):
        x = to_x(tick)
        parts.append(
            f'<path d="M{x:.1f} {top - 6}V{bottom}" stroke="#1d2330" stroke-opacity=".13"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" opacity=".7">{format_number(tick)}</text>'
        )
    label = html.escape(x_label)
    parts.append(f'<text x="{width - 16}" y="{bottom + 32}" text-anchor="end" opacity=".6">{label}</text>')
    for number, (group, series) in enumerate(groups.items()):
        middle = top + line * number + line / 2
        parts.append(f'<text x="16" y="{middle + 4:.1f}">{html.escape(group)}</text>')
        for index, name in enumerate(names):
            if series.get(name) is None:
                continue
            (value, half), color = series[name], SERIES_COLORS[index % len(SERIES_COLORS)]
            y = middle + 8 * (index - (len(names) - 1) / 2)
            if half > 0:
                parts.append(f'<path d="M{to_x(value - half):.1f} {y:.1f}H{to_x(value + half):.1f}" stroke="{color}"/>')
            parts.append(
                f'<circle cx="{to_x(value):.1f}" cy="{y:.1f}" r="4.5" fill="{color}">'
                f'<title>{html.escape(f"{group}, {name}: {value:.1f}")}</title></circle>'
            )
    return ''.join(parts) + '</svg>'


def legend(names: Sequence[str]) -> str:
    """Write the names of series with their colours, as one `<p class="legend">`."""
    items = ''.join(
        f'<span><i style="background:{series_color(index)}"></i>{html.escape(name)}</span>'
        for index, name in enumerate(names)
    )
    return f'<p class="legend">{items}</p>'
