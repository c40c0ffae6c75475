"""Label maps to fields and back."""

import pytest
import torch

from mmliir.propagation.codecs import decode_field, encode_label_map, object_ids, stretch, to_channels, to_ids


def _blocks(height=12, width=20, stride=4):
    """Labels that are constant on every block of a cell, with gaps in the ids."""
    generator = torch.Generator().manual_seed(0)
    choice = torch.tensor([0, 3, 7, 255], dtype=torch.uint8)
    cells = choice[torch.randint(0, 4, (height // stride, width // stride), generator=generator)]
    return cells.repeat_interleave(stride, 0).repeat_interleave(stride, 1)


def test_ids_keep_their_gaps():
    label_map = _blocks()
    assert object_ids(label_map) == [3, 7, 255]
    assert torch.equal(to_ids(to_channels(label_map, [3, 7, 255]), [3, 7, 255]), label_map)


def test_channels_follow_the_given_order_and_unknown_ids_are_background():
    label_map = torch.tensor([[0, 3, 7, 255]], dtype=torch.uint8)
    assert to_channels(label_map, [255, 3]).tolist() == [[0, 2, 0, 1]]
    assert to_channels(label_map, []).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize('encoding', ['subsample', 'nearest', 'bilinear'])
def test_channels_sum_to_one(encoding):
    label_map = _blocks()[:11, :18]  # the last cells reach over the edge
    field = encode_label_map(label_map, [3, 7, 255], encoding, 4, (3, 5))
    assert field.shape == (4, 3, 5) and torch.allclose(field.sum(dim=0), torch.ones(3, 5))


def test_stride_one_decodes_what_was_encoded():
    label_map = _blocks()
    for encoding in ('subsample', 'nearest', 'bilinear'):
        for upsample in ('mast', 'exact'):
            field = encode_label_map(label_map, [3, 7, 255], encoding, 1, label_map.shape)
            decoded = decode_field(field, 1, tuple(label_map.shape), tuple(label_map.shape), upsample)
            assert torch.equal(to_ids(decoded, [3, 7, 255]), label_map)


@pytest.mark.parametrize(('encoding', 'upsample'), [('subsample', 'exact'), ('nearest', 'exact')])
def test_cells_survive_the_round_trip(encoding, upsample):
    label_map = _blocks()
    field = encode_label_map(label_map, [3, 7, 255], 'subsample', 4, (3, 5))
    decoded = decode_field(field, 4, (12, 20), (12, 20), upsample)
    again = encode_label_map(to_ids(decoded, [3, 7, 255]), [3, 7, 255], 'subsample', 4, (3, 5))
    assert torch.equal(again, field)


def test_subsample_takes_the_first_pixel_of_a_block():
    label_map = torch.zeros(8, 8, dtype=torch.uint8)
    label_map[4, 4] = 9
    field = encode_label_map(label_map, [9], 'subsample', 4, (2, 2))
    assert field[1].tolist() == [[0, 0], [0, 1]]
    assert encode_label_map(label_map, [9], 'nearest', 4, (2, 2))[1].sum() == 0


def test_few_channels_at_a_time_give_the_same_arg_max(monkeypatch):
    field = torch.rand(9, 5, 6)
    settings = {'upsample': 'mast', 'min_max': True}
    whole = decode_field(field, 4, (19, 23), (19, 23), **settings)
    monkeypatch.setattr('mmliir.propagation.codecs.DECODE_ELEMENTS', 1)
    assert torch.equal(decode_field(field, 4, (19, 23), (19, 23), **settings), whole)


@pytest.mark.parametrize('upsample', ['mast', 'exact'])
@pytest.mark.parametrize('output_resize', ['field', 'labels'])
def test_the_result_has_the_size_asked_for(upsample, output_resize):
    field = torch.rand(3, 5, 6)
    decoded = decode_field(field, 4, (19, 23), (41, 50), upsample, output_resize)
    assert decoded.shape == (41, 50) and decoded.max() <= 2


def test_stretch_fills_the_unit_interval_and_leaves_an_empty_channel_at_zero():
    field = torch.stack([torch.linspace(0.2, 0.4, 6).view(2, 3), torch.zeros(2, 3), torch.full((2, 3), 0.5)])
    low, high = stretch(field).amin(dim=(1, 2)), stretch(field).amax(dim=(1, 2))
    assert torch.allclose(low, torch.zeros(3)) and torch.allclose(high, torch.tensor([1.0, 0.0, 0.0]))
