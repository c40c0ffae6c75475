"""The streaming session against a whole-video loop, and what must hold for any protocol."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmliir.ops import coarse_search
from mmliir.propagation import (
    PRESETS,
    LongRangeSearch,
    MixturePrior,
    PropagationSession,
    PropagationSettings,
    propagate_features,
)
from mmliir.testing.reference_propagation import propagate_loop

SHARP = PropagationSettings(topk=1, radius=4, temperature=1.0, upsample='exact', l2_normalise=True)


def _features(frames, height, width, channels=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, channels, height, width, generator=generator)


def _labels(height, width, ids=(3, 7), seed=0):
    """A few rectangles."""
    draw = np.random.default_rng(seed)
    label_map = np.zeros((height, width), dtype=np.uint8)
    for object_id in ids:
        top, left = draw.integers(0, height // 2), draw.integers(0, width // 2)
        label_map[top : top + height // 3 + 1, left : left + width // 3 + 1] = object_id
    return label_map


def _small(settings):
    """A preset at a size that a loop can handle: everything but the reach stays."""
    gaps = tuple(gap for gap in settings.gaps if gap <= 3)
    long_range = settings.long_range and replace(settings.long_range, min_distance=3, coarse_radius=2)
    return replace(settings, radius=2 if settings.shape == 'square' else 3, gaps=gaps, long_range=long_range)


@pytest.mark.parametrize('name', list(PRESETS))
@pytest.mark.parametrize('late', [0, 1])
def test_the_session_equals_a_loop_over_the_whole_video(name, late):
    settings = _small(PRESETS[name].settings)
    # frames resemble each other, as in a video
    features = _features(1, 5, 6, seed=9).double() * 2 + _features(7, 5, 6, seed=late)
    label_map = _labels(19, 23, ids=(2, 9), seed=late)
    fast = propagate_features(features, label_map, settings, stride=4)
    slow = propagate_loop(features.numpy(), label_map, settings, stride=4)
    assert np.array_equal(fast, slow)
    assert len(np.unique(fast[1])) > 1


@pytest.mark.parametrize(
    'change',
    [
        {'upsample': 'exact', 'grid': 'blocks'},
        {'grid': 'blocks'},
        {'encoding': 'nearest'},
        {'encoding': 'bilinear'},
        {'carry': 'soft', 'min_max': True},
        {'grid': 'frame'},
        {'grid': 'frame', 'encoding': 'nearest', 'carry': 'soft'},
        {'grid': 'frame', 'encoding': 'bilinear', 'upsample': 'nearest'},
        {'grid': 'corners', 'encoding': 'bilinear', 'carry': 'soft'},
        {'upsample': 'nearest'},
        {'shape': 'disc', 'border': 'mask', 'long_range': None},
        {'permanent_again': True, 'topk': 3, 'gaps': (1, 2, 3), 'long_range': None},
        {'permanent_again': True, 'topk': 3, 'gaps': (1, 2, 3), 'topk_ties': 'share', 'long_range': None},
        {'fill_with_first': True, 'topk': 4, 'gaps': (1, 2, 3), 'topk_ties': 'share', 'long_range': None},
        {'topk_scope': 'per_reference', 'topk': 2, 'normalise': 'softmax_then_topk', 'carry': 'soft'},
        {'radius': None, 'topk': 5, 'long_range': None},
        {'permanent': (), 'gaps': (1, 2), 'fill_with_first': True},
        {'prior': MixturePrior(1, 'moments', 0.1, keep_mass=True)},
        {'fg_gain': 1.3, 'temperature': 'sqrt_channels', 'border': 'zero_logit'},
        {'long_range': None},
        {'long_range': LongRangeSearch(1, 2, 1, labels_from_last=True), 'carry': 'soft'},
        {'long_range': LongRangeSearch(1, 2, 1, align_corners_mismatch=True), 'carry': 'soft'},
        {'long_range': LongRangeSearch(1, 3, 2, True, True), 'permanent': (0, 1), 'topk': 6, 'carry': 'soft'},
        {'long_range': LongRangeSearch(1, 3, 2), 'border': 'mask', 'topk': 3, 'carry': 'soft'},
        {'long_range': LongRangeSearch(1, 3, 2), 'topk_scope': 'per_reference', 'permanent': (0, 1), 'carry': 'soft'},
        {'long_range': LongRangeSearch(2, 4, 2), 'fill_with_first': True, 'gaps': (1, 2, 3)},
    ],
)
def test_single_settings_equal_the_loop(change):
    settings = replace(_small(PRESETS['mast'].settings), **change)
    features = torch.cumsum(_features(5, 4, 5, seed=3).double(), dim=0) / 2
    label_map = _labels(15, 18, seed=3)
    fast = propagate_features(features, label_map, settings, stride=4)
    assert np.array_equal(fast, propagate_loop(features.numpy(), label_map, settings, stride=4))


@pytest.mark.parametrize('stride', [1, 4])
def test_identical_frames_carry_labels_unchanged(stride):
    feature = _features(1, 9, 11, channels=32)
    label_map = np.kron(_labels(9, 11), np.ones((stride, stride), dtype=np.uint8))
    out = propagate_features(feature.expand(7, -1, -1, -1), label_map, SHARP, stride)
    for t in range(1, 7):
        assert np.array_equal(out[t][::stride, ::stride], label_map[::stride, ::stride])
    assert np.array_equal(out[1], out[6])


@pytest.mark.parametrize('name', list(PRESETS))
def test_identical_frames_carry_labels_unchanged_in_every_preset(name):
    """Orthogonal features: a cell resembles itself alone, so that soft-max leaks nothing."""
    feature = torch.eye(35).view(35, 5, 7) * 60
    label_map = _labels(5, 7)
    out = propagate_features(feature.expand(24, -1, -1, -1), label_map, PRESETS[name].settings, stride=1)
    assert all(np.array_equal(frame, label_map) for frame in out)


def _step_through(settings, features, label_map):
    session = PropagationSession(settings, 1, features.shape[2:])
    for t, feature in enumerate(features):
        out = session.step(feature, label_map if t == 0 else None)
    return out


@pytest.mark.parametrize('distance', [15, 16, 30, 47])
def test_references_more_than_15_frames_old_are_searched_in_two_steps(distance, monkeypatch):
    """Which references are searched, and how sparsely, on a video of one permanent reference."""
    calls = []

    def spy(query, key, radius, dilation, **more):
        calls.append((radius, dilation))
        return coarse_search(query, key, radius, dilation, **more)

    monkeypatch.setattr('mmliir.propagation.session.coarse_search', spy)
    settings = replace(PRESETS['mast'].settings, permanent=(0,), gaps=(1,), radius=2)
    _step_through(settings, _features(distance + 1, 3, 4), _labels(3, 4))
    dilations = [2] * 14 + [3] * 15 + [4] * 30  # of distances 16.., 30.., 45..
    assert calls == [(12, dilation) for dilation in dilations[: max(0, distance - 15)]]


@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
def test_up_to_15_frames_nothing_depends_on_the_search(border):
    features, label_map = _features(17, 6, 7), _labels(6, 7)
    settings = replace(PRESETS['mast'].settings, radius=1, border=border, carry='soft', temperature=3.0)
    with_search = propagate_features(features, label_map, settings, 1)
    without = propagate_features(features, label_map, replace(settings, long_range=None), 1)
    assert np.array_equal(with_search[:16], without[:16])


def test_what_moved_out_of_the_plain_window_is_followed_by_the_two_step_search():
    """All has moved by 8 cells, the window reaches 4; from frame 16 on frame 0 is searched in two steps."""
    picture = torch.nn.functional.normalize(_features(1, 60, 60, channels=32)[0], dim=0) * 6
    labels = _labels(60, 60, ids=(1, 2, 5), seed=4)
    views = [(slice(15, 45), slice(15 + dx, 45 + dx)) for dx in [0] + [8] * 16]
    features = torch.stack([picture[:, y, x] for y, x in views])
    settings = PropagationSettings(
        permanent=(0,), gaps=(), radius=4, temperature=1.0, upsample='exact', border='zero_logit'
    )
    inside = np.zeros((30, 30), dtype=bool)
    inside[:, :22] = True
    truth = labels[views[16]]
    two_step = propagate_features(features, labels[views[0]], replace(settings, long_range=LongRangeSearch()), 1)
    assert np.mean(two_step[16][inside] == truth[inside]) > 0.97
    assert np.mean(two_step[15][inside] == truth[inside]) < 0.9
    plain = propagate_features(features, labels[views[0]], settings, 1)
    assert np.mean(plain[16][inside] == truth[inside]) < 0.9


def test_labels_from_last_changes_results_only_where_two_references_are_far():
    features, label_map = _features(12, 6, 7).double() * 2, _labels(6, 7)
    settings = replace(
        PRESETS['mast'].settings, permanent=(0, 3), gaps=(1,), radius=1, carry='soft', temperature=2.0,
        long_range=LongRangeSearch(4, 2, 3),
    )  # fmt: skip
    fields = []
    for labels_from_last in (False, True):
        session = PropagationSession(
            replace(settings, long_range=replace(settings.long_range, labels_from_last=labels_from_last)), 1, (6, 7)
        )
        for t, feature in enumerate(features):
            session.step(feature, label_map if t == 0 else None)
        fields.append([session._kept[n].labels for n in session.kept_frames])
        assert session.kept_frames == (0, 3, 11)
    assert torch.equal(fields[0][1], fields[1][1]) and not torch.allclose(fields[0][2], fields[1][2])


def test_align_corners_mismatch_changes_far_references_alone():
    features, label_map = _features(6, 6, 7).double() * 2, _labels(6, 7)
    settings = replace(
        PRESETS['mast'].settings, permanent=(0,), gaps=(1,), radius=1, carry='soft', temperature=2.0,
        long_range=LongRangeSearch(4, 2, 3),
    )  # fmt: skip
    parity = replace(settings, long_range=replace(settings.long_range, align_corners_mismatch=True))
    fields = []
    for one in (settings, parity):
        session = PropagationSession(one, 1, (6, 7))
        fields.append([])
        for t, feature in enumerate(features):
            session.step(feature, label_map if t == 0 else None)
            fields[-1].append(session._kept[t].labels)
    # Frame 0 is searched in two steps from frame 5 on.
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(fields[0][:5], fields[1][:5], strict=True))
    assert not torch.allclose(fields[0][5], fields[1][5], atol=1e-3)


@pytest.mark.parametrize('shift', [(0, 1), (2, 0), (-1, 2)])
def test_a_shifted_video_shifts_the_labels(shift):
    """A crop moves over a large picture: what stays in view keeps its label."""
    dy, dx = shift
    picture, labels = _features(1, 40, 40, channels=32)[0], _labels(40, 40, ids=(1, 2, 5))
    views = [(slice(12 + t * dy, 26 + t * dy), slice(12 + t * dx, 26 + t * dx)) for t in range(4)]
    features = torch.stack([picture[:, y, x] for y, x in views])
    settings = replace(SHARP, permanent=(), gaps=(1,))
    out = propagate_features(features, labels[views[0]], settings, stride=1)
    for t in range(1, 4):
        seen = np.zeros_like(labels, dtype=bool)
        seen[views[0]] = True
        inside = seen[views[t]]
        assert np.array_equal(out[t][inside], labels[views[t]][inside])


def test_frame_zero_is_the_given_mask_itself_even_below_the_cell_size():
    label_map = np.zeros((16, 16), dtype=np.uint8)
    label_map[5, 5] = 200
    out = propagate_features(_features(2, 4, 4), label_map, SHARP, 4)
    assert np.array_equal(out[0], label_map) and out.dtype == np.uint8


@pytest.mark.parametrize('frames', [1, 2])
def test_very_short_videos(frames):
    out = propagate_features(_features(frames, 4, 5), _labels(16, 20), PRESETS['liir_compat'].settings, 4)
    assert out.shape == (frames, 16, 20)


def test_tensors_come_back_as_tensors():
    label_map = torch.from_numpy(_labels(16, 20))
    out = propagate_features(_features(3, 4, 5), label_map, PRESETS['mast'].settings, 4)
    assert isinstance(out, torch.Tensor) and out.dtype == torch.uint8 and torch.equal(out[0], label_map)
    out[0].zero_()
    assert label_map.any()


@pytest.mark.parametrize('name', ['liir_compat', 'crw'])
def test_three_hundred_objects(name):
    cells = np.arange(18 * 20, dtype=np.int16).reshape(18, 20)
    cells[cells > 300] = 0
    feature = torch.eye(360).view(360, 18, 20) * 60
    out = propagate_features(feature.expand(3, -1, -1, -1), cells, PRESETS[name].settings, stride=1)
    assert out.dtype == np.int16 and len(np.unique(out[2])) == 301 and np.array_equal(out[2], cells)


def test_id_255_is_an_object():
    cells = np.arange(256, dtype=np.uint8).reshape(16, 16)
    feature = torch.eye(256).view(256, 16, 16) * 60
    out = propagate_features(feature.expand(3, -1, -1, -1), cells, PRESETS['mast'].settings, stride=1)
    assert np.array_equal(out[2], cells)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', list(PRESETS))
def test_half_precision_features(dtype, name):
    features = _features(4, 5, 6, channels=16).to(dtype)
    label_map = _labels(20, 24)
    half = propagate_features(features, label_map, PRESETS[name].settings, 4)
    assert np.array_equal(half, propagate_features(features.float(), label_map, PRESETS[name].settings, 4))


@pytest.mark.parametrize('name', list(PRESETS))
def test_memory_is_bounded(name):
    settings = PRESETS[name].settings
    session = PropagationSession(settings, 4, (12, 12))
    features = _features(60, 3, 3)
    most = 0
    for t, feature in enumerate(features):
        if t:
            assert {reference.frame for reference in session.references()} <= set(session.kept_frames)
        session.step(feature, _labels(12, 12) if t == 0 else None)
        most = max(most, len(session.kept_frames))
    assert most == len({*settings.permanent} - {*range(60 - max(settings.gaps), 60)}) + max(settings.gaps)


def test_hard_labels_are_kept_as_one_number_a_cell():
    session = PropagationSession(PRESETS['mast'].settings, 4, (64, 64))
    session.step(_features(1, 16, 16)[0], _labels(64, 64))
    assert session._kept[0].labels.shape == (16, 16)
    assert session._kept[0].labels.untyped_storage().nbytes() == 256


@pytest.mark.parametrize('carry', ['hard', 'soft'])
def test_a_late_object_joins_and_overwrites(carry):
    feature = _features(1, 8, 8, channels=32)[0]
    first, late = np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8), dtype=np.uint8)
    first[2:5, 2:5], late[4:7, 4:7] = 9, 4
    both = np.where(late > 0, late, first)
    settings = replace(SHARP, carry=carry, permanent=(), gaps=(1,))
    session = PropagationSession(settings, 1, (8, 8))
    assert np.array_equal(session.step(feature, first), first)
    assert np.array_equal(session.step(feature), first)
    assert np.array_equal(session.step(feature, late), both)
    for _ in range(3):
        assert np.array_equal(session.step(feature), both)
    assert session.object_ids == (9, 4)
    assert 2 in session.kept_frames and 2 in {reference.frame for reference in session.references()}


def test_late_frames_can_be_let_go():
    feature = _features(1, 8, 8)[0]
    settings = replace(SHARP, keep_late_frames=False, gaps=(1,))
    session = PropagationSession(settings, 1, (8, 8))
    for t in range(12):
        session.step(feature, _labels(8, 8) if t in (0, 3) else None)
    assert session.kept_frames == (0, 5, 11)


def test_a_late_label_map_without_objects_changes_nothing():
    features, label_map = _features(6, 6, 6), _labels(24, 24)
    plain = propagate_features(features, label_map, PRESETS['mast'].settings, 4)
    session = PropagationSession(PRESETS['mast'].settings, 4, (24, 24))
    for t, feature in enumerate(features):
        given = label_map if t == 0 else np.zeros_like(label_map)
        assert np.array_equal(session.step(feature, given), plain[t])


def test_results_at_another_size_than_the_input():
    label_map = _labels(60, 100)
    for name in ('mast', 'dino', 'vfs'):
        session = PropagationSession(PRESETS[name].settings, 4, (24, 40), output_size=(60, 100))
        session.step(_features(1, 6, 10)[0], label_map)
        assert session.step(_features(1, 6, 10)[0]).shape == (60, 100)


def test_what_does_not_fit_is_named():
    settings, feature, label_map = PRESETS['mast'].settings, _features(1, 4, 5)[0], _labels(16, 20)
    with pytest.raises(ValueError, match='0 frames'):
        propagate_features(_features(0, 4, 5), label_map, settings, 4)
    with pytest.raises(ValueError, match='features must be'):
        propagate_features(feature, label_map, settings, 4)
    with pytest.raises(ValueError, match='at stride 8 has 2x3 cells, but the feature has 4x5'):
        propagate_features(feature[None], label_map, settings, 8)
    with pytest.raises(ValueError, match='holds no object'):
        propagate_features(feature[None], np.zeros_like(label_map), settings, 4)
    with pytest.raises(ValueError, match='needs a label map'):
        PropagationSession(settings, 4, (16, 20)).step(feature)
    with pytest.raises(ValueError, match='16x21, the frame is 16x20.*Resize it by nearest neighbour'):
        PropagationSession(settings, 4, (16, 20)).step(feature, _labels(16, 21))
    with pytest.raises(ValueError, match='whole numbers'):
        PropagationSession(settings, 4, (16, 20)).step(feature, label_map.astype(np.float32))
    session = PropagationSession(settings, 4, (16, 20))
    session.step(feature, label_map)
    with pytest.raises(ValueError, match='8 channels, this one has 3'):
        session.step(feature[:3])
    with pytest.raises(ValueError, match='does not fit in'):
        session.step(feature, np.full((16, 20), 300, dtype=np.int16))
    with pytest.raises(ValueError, match='stride'):
        PropagationSession(settings, 0, (16, 20))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.int64])
def test_label_maps_of_any_whole_type_come_back_in_it(dtype):
    session = PropagationSession(SHARP, 2, (8, 8))
    feature = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    label_map = np.zeros((8, 8), dtype)
    label_map[2:6, 2:6] = 7
    assert session.step(feature, label_map).dtype == dtype
    again = session.step(feature)
    assert again.dtype == dtype
    assert set(np.unique(again)) == {0, 7}
