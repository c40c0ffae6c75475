"""The largest of many channels, each upsampled only where it can win, against all channels upsampled whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.propagation import codecs
from mmliir.propagation.winners import Rectangle, candidate_rectangles, pack

HOW = {
    'blocks': {'size': (47, 61), 'output_size': (47, 61)},
    'resized field': {'size': (48, 64), 'output_size': (71, 90)},
    'resized labels': {'size': (48, 64), 'output_size': (71, 90), 'output_resize': 'labels'},
    'frame': {'size': (48, 64), 'output_size': (67, 91), 'grid': 'frame'},
    'corners': {'size': (48, 64), 'output_size': (67, 91), 'grid': 'corners'},
    'nearest': {'size': (48, 64), 'output_size': (90, 70), 'upsample': 'nearest'},
    'exact': {'size': (48, 64), 'output_size': (90, 70), 'upsample': 'exact'},
}


def _field(kind, seed=0, channels=40, cells=(12, 16)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, channels, (cells[0] // 2, cells[1] // 2), generator=generator)
    hard = codecs.one_hot(labels.repeat_interleave(2, 0).repeat_interleave(2, 1), channels)
    if kind == 'hard':
        return hard
    if kind == 'soft':  # tails everywhere
        noise = torch.rand(hard.shape, generator=generator)
        return F.avg_pool2d(hard[None], 3, 1, 1)[0] + 0.02 * noise
    if kind == 'empty places':
        return hard * (torch.rand(cells, generator=generator) > 0.5)
    if kind == 'noise':
        return torch.rand(hard.shape, generator=generator)
    return torch.randint(0, 3, hard.shape, generator=generator).float()  # 'ties'


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('kind', ['hard', 'soft', 'empty places', 'noise', 'ties'])
@pytest.mark.parametrize('seed', range(3))
def test_label_maps_are_those_of_whole_channels(how, kind, seed, monkeypatch):
    field = _field(kind, seed)
    found = codecs.decode_field(field, 4, **HOW[how])
    monkeypatch.setattr(codecs, 'DECODE_ELEMENTS', 1)  # plane after plane
    one_by_one = codecs.decode_field(field, 4, **HOW[how])
    monkeypatch.setattr(codecs, '_MANY_CHANNELS', 10**6)
    whole = codecs.decode_field(field, 4, **HOW[how])
    assert torch.equal(found, whole) and torch.equal(one_by_one, whole)


def test_fields_below_zero_or_not_finite_are_compared_whole():
    for value in (-1.0, float('nan'), float('inf')):
        field = _field('soft')
        field[3, 4, 5] = value
        assert codecs._largest_of_many(field, 4, (48, 64), (48, 64), 'mast', 'field', 'blocks') is None


def test_objects_apart_share_planes():
    """300 objects cost a few planes of the frame, not 300."""
    labels = torch.arange(300).view(15, 20).repeat_interleave(6, 0).repeat_interleave(6, 1)
    field = F.avg_pool2d(codecs.one_hot(labels, 300)[None], 3, 1, 1)[0]
    rectangles = candidate_rectangles(field)
    planes = pack(rectangles, (90, 120))
    assert sorted(own.channel for plane in planes for own in plane) == list(range(1, 300))
    assert len(planes) <= 12


def test_rectangles_of_a_plane_stay_apart_when_they_grow():
    draw = np.random.default_rng(0)
    rectangles = []
    for channel in range(1, 80):
        top, left = (int(draw.integers(0, n - 1)) for n in (30, 40))
        rectangles.append(Rectangle(channel, top, min(30, top + 4), left, min(40, left + 7)))
    for plane in pack(rectangles, (30, 40)):
        cells = np.zeros((30, 40), dtype=int)
        for own in plane:
            grown = own.grown((30, 40))
            cells[grown.top : grown.bottom, grown.left : grown.right] += 1
        assert cells.max() == 1
