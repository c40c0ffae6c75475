from dataclasses import replace

import numpy as np
import pytest

from mmliir.testing.synthetic import SceneSettings, generate_video, write_davis_layout

STILL = SceneSettings(
    num_distractors=0,
    max_speed=0.0,
    background_speed=0.0,
    max_rotation=0.0,
    scale_change=0.0,
    deformation=0.0,
    brightness_drift=0.0,
    chroma_drift=0.0,
    light_gradient=0.0,
    noise=0.0,
)


def test_the_seed_decides_everything():
    np.random.seed(0)  # noqa: NPY002
    first = generate_video(7, 5, (48, 64))
    np.random.seed(1)  # noqa: NPY002
    again, other = generate_video(7, 5, (48, 64)), generate_video(8, 5, (48, 64))
    assert np.array_equal(first.frames, again.frames) and np.array_equal(first.label_maps, again.label_maps)
    assert not np.array_equal(first.frames, other.frames)


def test_shapes_and_ids():
    video = generate_video(0, 6, (48, 64), num_objects=3)
    assert video.frames.shape == (6, 48, 64, 3) and video.frames.dtype == np.uint8
    assert video.label_maps.shape == (6, 48, 64) and video.label_maps.dtype == np.uint8
    assert set(np.unique(video.label_maps[0])) == {0, 1, 2, 3}


@pytest.mark.parametrize('seed', range(12))
def test_every_object_is_seen_in_the_first_frame(seed):
    first = generate_video(seed, 1, (96, 160)).label_maps[0]
    assert (np.bincount(first.ravel(), minlength=3)[1:] > 100).all()


def test_a_still_scene_stands_still():
    video = generate_video(1, 4, (48, 64), STILL)
    assert (video.frames == video.frames[:1]).all() and (video.label_maps == video.label_maps[:1]).all()


def test_labels_follow_the_pixels_exactly():
    moving = replace(STILL, num_objects=1, max_speed=3.0, max_rotation=5.0, deformation=0.2)
    with_object = generate_video(3, 10, (64, 64), moving)
    assert (with_object.label_maps != with_object.label_maps[:1]).any()
    # The background does not move: where a pixel is never covered it never changes.
    never = ~with_object.label_maps.astype(bool).any(0)
    grown = np.zeros_like(never)
    grown[2:-2, 2:-2] = np.lib.stride_tricks.sliding_window_view(never, (5, 5)).all((2, 3))
    assert (with_object.frames[:, grown] == with_object.frames[:1, grown]).all()
    # A pixel that is covered in one frame and free in another differs between the two.
    for t in range(1, 10):
        changed = np.abs(with_object.frames[t].astype(int) - with_object.frames[0]).sum(-1) > 20
        entered = (with_object.label_maps[t] == 1) & (with_object.label_maps[0] == 0)
        if entered.sum() > 30:
            assert changed[entered].mean() > 0.6


def test_mean_colours_tell_little_and_the_light_drifts():
    video = generate_video(11, 25, (96, 160))
    inside = video.frames[0][video.label_maps[0] == 1].mean(0)
    outside = video.frames[0][video.label_maps[0] == 0].mean(0)
    assert np.abs(inside - outside).max() < 40
    drift = np.abs(video.frames.astype(float).mean((1, 2)) - video.frames[0].mean((0, 1))).max()
    assert drift > 8


def test_motion_is_slow():
    video = generate_video(5, 25, (96, 160), SceneSettings(max_speed=2.0, num_distractors=0, num_objects=1))
    y, x = np.mgrid[:96, :160]
    centers = []
    for label_map in video.label_maps:
        mask = label_map == 1
        if mask[1:-1, 1:-1].sum() == mask.sum() > 0:
            centers.append((x[mask].mean(), y[mask].mean()))
        else:
            centers.append((np.nan, np.nan))
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert np.nanmax(steps) < 2.5


def test_late_objects_come_late_and_are_not_scored_by_davis():
    video = generate_video(2, 20, (96, 160), SceneSettings(late_object=True, num_objects=2))
    ((late_id, frame),) = video.late_objects.items()
    assert late_id == 3 and frame > 3 and 3 not in video.label_maps[0]
    assert 3 not in video.annotations()
    late = video.annotations(late_objects=True)
    assert 3 not in late[:frame] and 3 in late[frame]
    assert np.array_equal(late[frame:], video.label_maps[frame:])
    assert list(video.sample().given_labels) == [0]
    given = video.sample(late_objects=True).given_labels
    assert set(np.unique(given[frame]())) == {0, 3}


def test_png_layout_is_exact(tmp_path):
    from mmliir.datasets import DavisDataset

    video = generate_video(0, 3, (48, 64))
    write_davis_layout(tmp_path, [video], suffix='.png')
    sample = DavisDataset(tmp_path)[0]
    assert all(np.array_equal(sample.frames[t], video.frames[t]) for t in range(3))


def test_bad_requests():
    with pytest.raises(ValueError, match='32x32'):
        generate_video(0, 5, (16, 64))
    with pytest.raises(ValueError, match='num_objects'):
        generate_video(0, 5, (48, 64), num_objects=300)
