"""Charts: numbers on the axes, thinning, gaps, escaped names."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from mmliir.visualization.plots import (
    bar_chart,
    difference_chart,
    interval_chart,
    legend,
    line_chart,
    nice_ticks,
    smooth,
    thin_out,
)


def path_points(svg: str) -> list[list[tuple[float, float]]]:
    """Read the (x, y) of each drawn curve, not of the grid."""
    paths = re.findall(r'<path d="([^"]*)" fill="none"', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r'[ML]([\d.]+) ([\d.]+)', path)] for path in paths]


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.01, 0.12, [0.025, 0.05, 0.075, 0.1]), (-3, 3, [-2, 0, 2])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_smooth_is_a_centred_mean_that_skips_what_is_not_finite():
    assert smooth([1, 2, 6, math.nan, 4], 3) == pytest.approx([1.5, 3, 4, 5, 4])
    assert math.isnan(smooth([math.inf], 3)[0])


def test_thinning_keeps_the_peak_and_the_ends():
    points = [(float(n), 0.0) for n in range(10_000)]
    points[5_001] = (5_001.0, 9.0)
    thin = thin_out(points, 100)
    assert len(thin) <= 102 and (5_001.0, 9.0) in thin and thin[0] == points[0] and thin[-1] == points[-1]
    assert thin_out(points[:50], 100) == points[:50]


def test_curve_goes_from_corner_to_corner():
    ((start, end),) = path_points(line_chart({'a': [(0, 0.0), (10, 1.0)]}, y_range=(0.0, 1.0)))
    assert start == (46, 194) and end == (350, 12)


def test_not_finite_values_are_gaps_and_single_points_are_dots():
    svg = line_chart({'a': [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.5)]})
    path = re.search(r'<path d="([^"]*)" fill="none"', svg).group(1)
    assert path.count('M') == 2 and path.endswith('h.1') and 'nan' not in svg


def test_constant_curve_and_single_point_have_an_axis():
    for points in ([(0, 2.0), (1, 2.0)], [(5, 0.0)]):
        assert 'nan' not in line_chart({'a': points})


def test_percent_axis_writes_scores_times_100():
    texts = re.findall(r'>([\d.]+)</text>', line_chart({'J': [(0, 0.5), (9, 0.7)]}, (0.0, 1.0), percent=True))
    assert '80' in texts and '0.8' not in texts


def test_charts_are_well_formed_and_escape_names():
    for svg in (line_chart({'<b>&"': [(0, 1.0)]}), bar_chart({'<b>': {'"&': 0.5, 'none': None}})):
        ElementTree.fromstring(svg)
        assert '<b>' not in svg
    assert '<b>' not in legend(['<b>'])


def test_bars_are_as_long_as_scores_and_missing_ones_are_dashes():
    svg = bar_chart({'goat': {'a': 0.25, 'b': math.nan}})
    assert '*0.2500)' in svg and '>25.0</text>' in svg and '>–</text>' in svg


def test_charts_say_what_came():
    with pytest.raises(ValueError, match='at least one finite value'):
        line_chart({'a': [(0, math.nan)]})
    with pytest.raises(ValueError, match='fraction from 0 to 1, got 61.2'):
        bar_chart({'goat': {'J': 61.2}})
    with pytest.raises(ValueError, match='at least one group'):
        bar_chart({})


def test_intervals_lie_where_their_values_are():
    svg = interval_chart({'a & b': {'x': (10.0, 2.0), 'y': None}, 'c': {'x': (20.0, 0.0), 'y': (15.0, 0.0)}}, 'points')
    root = ElementTree.fromstring(svg)
    space = '{http://www.w3.org/2000/svg}'
    dots = {
        dot.find(f'{space}title').text: float(dot.get('cx'))
        for dot in root.iter(f'{space}circle')
        if dot.find(f'{space}title') is not None
    }
    assert set(dots) == {'a & b, x: 10.0', 'c, x: 20.0', 'c, y: 15.0'}
    left, middle, right = (dots[name] for name in ('a & b, x: 10.0', 'c, y: 15.0', 'c, x: 20.0'))
    assert middle - left == pytest.approx(right - middle, abs=0.11)
    ((start, end),) = re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)"', svg)
    assert float(end) - float(start) == pytest.approx(4 / 10 * (right - left), abs=0.21)
    assert (float(start) + float(end)) / 2 == pytest.approx(left, abs=0.11)


@pytest.mark.parametrize('groups', [{}, {'a': {'x': None}}, {'a': {'x': (math.nan, 0.0)}}])
def test_intervals_need_finite_values(groups):
    with pytest.raises(ValueError, match='A chart of intervals needs finite values'):
        interval_chart(groups, 'points')


def test_differences_grow_from_the_middle_to_their_side():
    svg = difference_chart({'<a>': {'d': -0.2}, 'b': {'d': 0.1}, 'c': {'d': None}})
    bars = re.findall(r'x:calc\(\(100% - 52px\)\*([\d.]+)\);width:calc\(\(100% - 52px\)\*([\d.]+)\)', svg)
    assert bars == [('0.0000', '0.5000'), ('0.5000', '0.2500'), ('0.5000', '0.0000')]
    assert '<a>' not in svg and '-20.0' in svg and '+10.0' in svg and '–' in svg
    assert difference_chart({'a': {'d': 0.0}}).count('*0.5000') == 1
    with pytest.raises(ValueError, match='one group'):
        difference_chart({})
