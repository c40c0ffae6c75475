"""How sure the propagation is of each object: the mean share of its channel over its pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.ops import resize_label_map
from mmliir.propagation import PRESETS, PropagationSession, PropagationSettings, propagate_video
from mmliir.propagation.codecs import decode_field, winner_scores

SETTINGS = PropagationSettings(permanent=(0,), gaps=(1,), radius=3, topk=4, temperature=1.0, carry='soft')


def _features(frames, height=6, width=8, channels=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(frames + 1, channels, height, width, generator=generator)
    return 1.5 * draw[0] + draw[1:]


def _labels(height=24, width=32, ids=(3, 9)):
    label_map = np.zeros((height, width), dtype=np.uint8)
    label_map[2:14, 3:15] = ids[0]
    label_map[10:22, 16:30] = ids[1]
    return label_map


@pytest.mark.parametrize('upsample', ['mast', 'exact'])
@pytest.mark.parametrize('output_resize', ['field', 'labels'])
@pytest.mark.parametrize('output_size', [(24, 32), (37, 50)])
@pytest.mark.parametrize('min_max', [False, True])
def test_scores_are_the_mean_share_over_the_pixels_of_the_label_map(upsample, output_resize, output_size, min_max):
    field = torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(0)) ** 3
    field[3] *= 0.01
    how = {'upsample': upsample, 'output_resize': output_resize, 'min_max': min_max}
    winner = decode_field(field, 4, (24, 32), output_size, **how)
    scores = winner_scores(field, winner, 4, (24, 32), output_size, **how)
    # Every channel's values at the pixels, by decoding it against nothing else.
    if upsample == 'mast' and output_resize == 'field':
        values = F.interpolate(field[None], size=output_size, mode='bilinear')[0]
    else:
        values = torch.stack([_upsampled(channel, upsample) for channel in field])
        if output_resize == 'field':
            values = F.interpolate(values[None], size=output_size, mode='bilinear')[0]
        else:
            values = resize_label_map(values, output_size)
    share = values / values.sum(dim=0)
    assert set(scores) == set(winner.unique().tolist())
    for channel, score in scores.items():
        assert score == pytest.approx(share[channel][winner == channel].double().mean().item(), abs=1e-5)


def _upsampled(channel, upsample):
    if upsample == 'mast':
        return F.interpolate(channel[None, None], size=(24, 32), mode='bilinear')[0, 0]
    padded = F.pad(channel[None, None], [0, 1, 0, 1], mode='replicate')
    return F.interpolate(padded, size=(25, 33), mode='bilinear', align_corners=True)[0, 0, :24, :32]


def test_scores_a_few_channels_at_a_time_are_the_same(monkeypatch):
    field = torch.rand(9, 6, 8, generator=torch.Generator().manual_seed(0))
    winner = decode_field(field, 4, (24, 32), (24, 32))
    whole = winner_scores(field, winner, 4, (24, 32), (24, 32))
    monkeypatch.setattr('mmliir.propagation.codecs.DECODE_ELEMENTS', 1)
    assert winner_scores(field, winner, 4, (24, 32), (24, 32)) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize('name', list(PRESETS))
def test_every_object_of_the_label_map_has_a_score_and_no_other(name):
    settings = replace(PRESETS[name].settings, radius=3)
    session = PropagationSession(settings, 4, (24, 32))
    assert session.object_scores() == {}
    for t, feature in enumerate(_features(5)):
        label_map = session.step(feature, _labels() if t == 0 else None)
        scores = session.object_scores()
        assert set(scores) == set(np.unique(label_map).tolist()) - {0}
        assert all(0 < score <= 1 for score in scores.values())
        assert (scores == {3: 1.0, 9: 1.0}) == (t == 0)


def test_a_certain_propagation_scores_one_and_a_torn_one_its_share():
    """One reference keeps the label, the other has lost it: 0.5 each."""
    feature = torch.eye(48).view(48, 6, 8) * 60
    session = PropagationSession(replace(SETTINGS, topk=1), 1, (6, 8))
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[2:4, 2:5] = 7
    session.step(feature, labels)
    session.step(feature)
    assert session.object_scores() == {7: pytest.approx(1.0)}
    kept = session._kept[1].labels  # 7 keeps the tie with the background, in favour of neither but by 0.6
    kept[1] = 0.2 * kept[1]
    kept[0] = 1 - kept[1]
    session.step(feature)
    assert session.object_scores() == {7: pytest.approx(0.6)}


@pytest.mark.parametrize('carry', ['hard', 'soft'])
def test_objects_given_late_have_one_and_the_others_that_of_the_pixels_they_keep(carry):
    features, late = _features(4), np.zeros((24, 32), dtype=np.uint8)
    late[8:16, 10:30] = 5
    session = PropagationSession(replace(SETTINGS, carry=carry), 4, (24, 32))
    plain = PropagationSession(replace(SETTINGS, carry=carry), 4, (24, 32))
    for t, feature in enumerate(features[:3]):
        label_map = session.step(feature, _labels() if t == 0 else late if t == 2 else None)
        predicted = plain.step(feature, _labels() if t == 0 else None)
    assert (predicted[late > 0] == 3).any() and (predicted[late > 0] == 9).any()
    if carry == 'soft':
        field = plain._kept[2].labels  # what is kept is the field that was decoded
        channels = torch.from_numpy(np.searchsorted([0, 3, 9], np.where(label_map == 5, 0, label_map)))
        expected = winner_scores(field, channels, 4, (24, 32), (24, 32))
        assert session.object_scores() == pytest.approx({3: expected[1], 9: expected[2], 5: 1.0})
    assert session.object_scores()[5] == 1.0 and set(session.object_scores()) == {3, 5, 9}
    session.step(features[3])
    assert 0 < session.object_scores()[5] < 1


def test_asking_for_scores_changes_nothing():
    asked, silent = (PropagationSession(SETTINGS, 4, (24, 32)) for _ in range(2))
    for t, feature in enumerate(_features(5)):
        given = _labels() if t == 0 else None
        assert np.array_equal(asked.step(feature, given), silent.step(feature, given))
        asked.object_scores()


def test_a_video_tells_the_scores_of_the_frame_taken_last():
    frames = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)

    def encode(images):
        return F.avg_pool2d(images.float() / 255, 4)

    protocol = PRESETS['quick']
    labels = propagate_video(frames, encode, {1: _labels()}, protocol, 4)
    session = PropagationSession(protocol.settings, 4, (24, 32))
    assert labels.object_scores() == {} and iter(labels) is labels
    for t, label_map in enumerate(labels):
        if t == 0:
            assert labels.object_scores() == {}
            continue
        feature = encode(torch.from_numpy(frames[t]).permute(2, 0, 1)[None])[0]
        assert np.array_equal(session.step(feature, _labels() if t == 1 else None), label_map)
        assert labels.object_scores() == session.object_scores()
    assert t == 4
