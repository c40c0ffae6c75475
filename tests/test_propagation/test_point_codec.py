"""Points to Gaussian labels and back, against slow loops and the numbers of the sources."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from mmliir.propagation.codecs import PointCodec, local_mass, weighted_place
from mmliir.propagation.settings import PointSettings
from mmliir.testing.reference_propagation import draw_points_loop, read_points_loop

VFS = PointSettings(sigma=4.0, drawn_at='frame', draw='stamp', reduce='resize', decoded_at='frame')
FGVC = PointSettings(sigma=6.0, drawn_at='input', reduce='subsample', decoded_at='input')
UVC = PointSettings(
    sigma=0.5, drawn_at='cells', draw='stamp', background=True, min_max=True, decoded_at='cells', decode_topk=5
)


def _codec(settings, stride=4, size=(24, 32), output_size=None, cells=None):
    cells = cells or tuple(-(-n // stride) for n in size)
    return PointCodec(settings, stride, size, output_size or size, cells)


def _round_trip(settings, points, stride, size, output_size=None):
    codec = _codec(settings, stride, size, output_size)
    kept = codec.begin(points, torch.device('cpu')).kept
    return codec.decode(kept).places.numpy()


SIZES = {
    'same': {'size': (24, 32)},
    'resized': {'size': (24, 32), 'output_size': (33, 51)},
    'shrunk frame': {'size': (24, 32), 'output_size': (15, 17)},
    'padded': {'size': (22, 29), 'output_size': (30, 40), 'cells': (7, 9)},
}


@pytest.mark.parametrize('sizes', list(SIZES))
@pytest.mark.parametrize(
    'changes',
    [
        {'drawn_at': at, 'draw': draw, 'reduce': reduce, 'sigma': sigma}
        for at, draw, reduce in product(('frame', 'input'), ('exact', 'stamp'), ('resize', 'subsample'))
        for sigma in (1.3, 4.0)
    ]
    + [{'drawn_at': 'cells', 'draw': draw, 'sigma': sigma} for draw in ('exact', 'stamp') for sigma in (0.5, 1.2)],
)
def test_drawn_points_equal_the_loop(sizes, changes):
    codec = _codec(PointSettings(**changes), **SIZES[sizes])
    height, width = codec.output_size
    inside = np.random.default_rng(0).uniform((0, 0), (width - 1, height - 1), (6, 2))
    points = np.concatenate([inside, [[0, 0], [-1.5, 4], [width + 2.2, height], [3, -40], [5, 6]]])
    slow = draw_points_loop(points, codec.settings, codec.stride, codec.size, codec.output_size, codec.cells)
    assert np.abs(codec.encode(points).numpy() - slow).max() < 1e-12
    assert slow[:6].max(axis=(1, 2)).min() > 0 and slow[9].max() == 0


@pytest.mark.parametrize('sizes', list(SIZES))
@pytest.mark.parametrize('decoded_at', ['frame', 'input', 'cells'])
@pytest.mark.parametrize('changes', [{}, {'min_max': True, 'decode_topk': 3}, {'decode_topk': 1000, 'sigma': 2.0}])
def test_places_equal_the_loop(sizes, decoded_at, changes):
    settings = PointSettings(decoded_at=decoded_at, **changes)
    codec = _codec(settings, **SIZES[sizes])
    codec.begin(np.full((3, 2), 5.0), torch.device('cpu'))
    field = torch.rand(3, *codec.cells, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 4
    field[2] = 0
    slow = read_points_loop(field.numpy(), settings, codec.stride, codec.size, codec.output_size)
    found = codec.decode(field)
    assert np.allclose(found.places.numpy(), slow, atol=1e-6, equal_nan=True)
    assert np.isnan(slow[2]).all() and found.confidence[2] == 0


@pytest.mark.parametrize(('stride', 'bias'), [(2, 0.49), (4, 1.49), (8, 3.5)])
def test_subsampling_read_at_pixels_is_off_by_what_the_dossier_says(stride, bias):
    """fgvc.md section 3.1, items 3 and 6: sigma 6 at 256 x 256, [::stride], bilinear, best 5."""
    phases = 128 + stride * (np.arange(16) + 0.5) / 16
    points = np.stack(np.meshgrid(phases, phases), axis=-1).reshape(-1, 2)
    off = _round_trip(FGVC, points, stride, (256, 256)) - points
    assert np.abs(off.mean(axis=0) - bias).max() < 0.02
    assert off.std(axis=0).max() < {2: 0.15, 4: 0.5, 8: 1.7}[stride]
    unbiased = PointSettings(sigma=6.0, drawn_at='input', reduce='subsample', decoded_at='input', unbias=True)
    assert np.abs((_round_trip(unbiased, points, stride, (256, 256)) - points).mean(axis=0)).max() < 0.1


@pytest.mark.parametrize('output_size', [(64, 64), (60, 107), (30, 40)])
@pytest.mark.parametrize('reduce', ['resize', 'subsample'])
@pytest.mark.parametrize('drawn_at', ['frame', 'input', 'cells'])
@pytest.mark.parametrize('decoded_at', ['frame', 'input', 'cells'])
def test_unbias_takes_back_the_shift_of_every_pair(output_size, reduce, drawn_at, decoded_at):
    ratio = np.array([output_size[1], output_size[0]]) / 64
    sigma = {'frame': 6.0 * ratio.max(), 'input': 6.0, 'cells': 1.5}[drawn_at]
    settings = PointSettings(sigma=sigma, drawn_at=drawn_at, reduce=reduce, decoded_at=decoded_at, unbias=True)
    phases = 32 + (np.arange(8) + 0.5) / 2
    points = np.stack(np.meshgrid(phases, phases), axis=-1).reshape(-1, 2) * ratio
    off = (_round_trip(settings, points, 4, (64, 64), output_size) - points) / ratio
    assert np.abs(off.mean(axis=0)).max() < 0.2  # pixels of the input; without it up to 1.5


def test_cells_are_scaled_without_half_a_cell():
    """UVC and CRW: (W / w) * cell, so that a point on (8 k, 8 l) comes back as it was, by its one best cell."""
    points = np.array([[80.0, 40.0], [160.0, 232.0], [312.0, 312.0]])
    settings = PointSettings(sigma=0.5, drawn_at='cells', draw='stamp', decoded_at='cells', decode_topk=1)
    assert np.array_equal(_round_trip(settings, points, 8, (320, 320)), points)
    frame = points * [320 / 320, 240 / 320]
    assert np.allclose(_round_trip(settings, frame, 8, (320, 320), (240, 320)), frame)


@pytest.mark.parametrize(('x', 'peak'), [(10.0, 10), (10.4, 10), (10.6, 11), (10.5, 11)])
def test_the_stamp_of_half_a_cell_lies_on_the_nearest_cell(x, peak):
    """liir.md section 6.6: the painter with sigma 0.5 is off-centre by up to half a cell. int(x - 1.5) + 2."""
    channel = _codec(UVC, 8, (320, 320)).encode(np.array([[8 * x, 80.0]]))[0]
    assert channel.argmax() == 10 * 40 + peak and channel.max() == 1
    assert (channel[10] > 0).nonzero().flatten().tolist() == [peak - 2, peak - 1, peak, peak + 1]
    assert np.allclose(channel[10, peak - 1 : peak + 2], np.exp([-2, 0, -2]))


def test_the_stamp_of_vfs_begins_at_the_pixel_before():
    channel = _codec(VFS, 1, (64, 64)).encode(np.array([[30.9, 20.0]]))[0]
    assert channel.argmax() == 20 * 64 + 30 and channel[20].count_nonzero() == 25


def test_the_background_is_where_no_point_is():
    codec = _codec(UVC, 8, (320, 320))
    points = np.array([[80.0, 80.0], [88.0, 80.0]])
    field = codec.encode(points)
    assert field.shape == (3, 40, 40) and torch.equal(field[2], (field[:2].sum(dim=0) == 0).double())
    kept = codec.begin(points, torch.device('cpu')).kept
    assert codec.decode(kept).places.shape == (2, 2)
    exact = _codec(PointSettings(sigma=1.0, drawn_at='cells', background=True), 8, (320, 320)).encode(points)
    assert exact[2, 10, 13] == 0 and exact[2, 10, 15] == 1 and exact[2, 10, 6] == 1


def test_points_outside_leave_what_falls_inside():
    codec = _codec(FGVC, 4, (64, 64))
    points = np.array([[-10.0, 30.0], [-19.0, 30.0], [30.0, 63.0 + 17], [1e6, 0]])
    places = codec.begin(points, torch.device('cpu')).output
    assert places.confidence.tolist() == [1, 0, 1, 0]
    assert torch.equal(places.places[[0, 2]], torch.tensor(points)[[0, 2]]) and places.places[[1, 3]].isnan().all()
    found = codec.decode(codec.begin(points, torch.device('cpu')).kept)
    assert found.places[0, 0] < 4 and found.places[[1, 3]].isnan().all() and found.confidence.tolist() == [1, 0, 1, 0]


def test_confidence_is_the_share_of_the_first_mass():
    codec = _codec(PointSettings(sigma=1.0, drawn_at='cells', decoded_at='cells'), 1, (20, 20))
    kept = codec.begin(np.array([[10.0, 10.0]]), torch.device('cpu')).kept
    assert codec.decode(0.3 * kept).confidence.item() == pytest.approx(0.3)
    assert codec.decode(kept.roll(3, dims=2)).confidence.item() == pytest.approx(1)
    assert codec.decode(2 * kept).confidence.item() == 1
    spread = (kept + kept.roll(9, dims=2)) / 2
    assert codec.decode(spread).confidence.item() == pytest.approx(0.5, abs=1e-3)


def test_local_mass_is_the_best_sum_of_nine_cells():
    field = torch.rand(40, 5, 6, generator=torch.Generator().manual_seed(0))
    padded = np.pad(field.numpy(), ((0, 0), (1, 1), (1, 1)))
    slow = [
        max(channel[y : y + 3, x : x + 3].sum() for y in range(5) for x in range(6)) for channel in padded
    ]
    assert np.allclose(local_mass(field), slow, rtol=1e-5)


def test_decoding_a_few_at_a_time_changes_nothing(monkeypatch):
    codec = _codec(VFS, 4, (24, 32), (33, 51))
    kept = codec.begin(np.random.default_rng(0).uniform(2, 30, (20, 2)), torch.device('cpu')).kept
    whole = codec.decode(kept)
    monkeypatch.setattr('mmliir.propagation.codecs.DECODE_ELEMENTS', 1)
    assert torch.equal(codec.decode(kept).places, whole.places)


def test_weighted_place_of_fewer_cells_than_asked_for():
    values = torch.tensor([[[0.0, 1.0], [3.0, 0.0]]])
    assert weighted_place(values, 9).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize(
    ('points', 'text'),
    [(np.zeros((0, 2)), 'one or more'), (np.zeros((3, 3)), r'\(N, 2\)'), ([[np.nan, 1.0]], 'finite')],
)
def test_points_that_are_none_are_named(points, text):
    with pytest.raises(ValueError, match=text):
        _codec(VFS).encode(torch.as_tensor(points))


@pytest.mark.parametrize(
    ('changes', 'text'),
    [({'draw': 'soft'}, 'exact, stamp'), ({'visible_above': 1.5}, '0 to 1'), ({'sigma': 0}, 'above 0')],
)
def test_settings_that_cannot_be_are_named(changes, text):
    with pytest.raises(ValueError, match=text):
        PointSettings(**changes)


def test_points_are_drawn_and_read_as_by_vfs_and_crw():
    """Numbers of their own functions, see the file; in their rule a point that is nowhere is read as -1."""
    official = json.loads((Path(__file__).parents[1] / 'golden' / 'vfs_points.json').read_text())
    points = np.array(official['points'])
    vfs = _codec(VFS, 8, (320, 320), (240, 320))
    cells = _codec(UVC, 8, (320, 320), (240, 320))
    for codec, expected in ((vfs, official['frame']), (cells, official['cells'])):
        field = codec.encode(points)[: len(points)].flatten(1)
        assert np.allclose(field.sum(dim=1), expected['sum'], atol=1e-5)
        assert np.allclose(field.gather(1, torch.tensor(expected['best_cells'])), expected['best_values'], atol=1e-6)
    found = vfs.decode(vfs.begin(points, torch.device('cpu')).kept)
    places = np.nan_to_num(found.places.numpy(), nan=-1)
    assert found.places[-1].isnan().all() and len(official['places']) == 15
    # Points 11 to 13 lie in the border, where upsampled values tie: theirs is the mean of any five of these pixels,
    # ours of all.
    apart = np.abs(places - official['places']).max(axis=1)
    assert np.delete(apart, [11, 12, 13]).max() < 1e-4 and apart[11:14].max() < 0.5
