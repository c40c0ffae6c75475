"""What data sets say is true, against what the replicas were made from: pictures of reports show it."""

import numpy as np
import pytest

from mmliir.datasets import BadjaDataset, JhmdbDataset, TapVidDataset, VipDataset, YouTubeVosDataset
from mmliir.datasets.vip import VIP_VOID
from mmliir.testing.synthetic_badja import ANNOTATED, HIDDEN_AT_FIRST, write_badja
from mmliir.testing.synthetic_jhmdb import write_jhmdb
from mmliir.testing.synthetic_tapvid import write_tapvid
from mmliir.testing.synthetic_vip import generate_vip_videos, write_vip
from mmliir.testing.synthetic_youtube_vos_eval import ANNOTATED_STEP, write_youtube_vos


@pytest.mark.parametrize('annotation', ['semantic', 'instance'])
def test_vip_shows_classes_without_the_void(tmp_path, annotation):
    video = write_vip(tmp_path, generate_vip_videos(num_frames=2))[0]
    read = VipDataset(str(tmp_path), annotation=annotation).truth_labels(video.name)
    assert list(read) == [0, 1]
    class_of = np.zeros(256, np.uint8)
    class_of[list(video.classes)] = list(video.classes.values())
    for number, labels in read.items():
        shown = video.categories[number].copy()
        shown[shown == VIP_VOID] = 0
        assert np.array_equal(labels(), shown if annotation == 'semantic' else class_of[video.instances[number]])


def test_youtube_vos_shows_each_annotated_frame_at_its_number_among_all_frames(tmp_path):
    written = write_youtube_vos(tmp_path / '2018', num_valid=1, num_train=1, num_holdout=1, num_frames=16)
    name = written.holdout[0]
    for frames, step in (('all', ANNOTATED_STEP), ('sampled', 1)):
        read = YouTubeVosDataset(str(tmp_path / '2018'), split='train_holdout', frames=frames).truth_labels(name)
        assert list(read) == list(range(0, 4 * step, step))
        for row, labels in enumerate(read.values()):
            assert np.array_equal(labels(), written.truth['train'][name][row * ANNOTATED_STEP])


def test_jhmdb_shows_the_joints_and_which_are_outside(tmp_path):
    pytest.importorskip('scipy')
    videos = write_jhmdb(tmp_path)
    dataset = JhmdbDataset(tmp_path)
    for name, video in videos.items():
        tracks, visible = dataset.truth_points(name)
        np.testing.assert_allclose(tracks, video.joints.swapaxes(0, 1), atol=1e-9)
        assert np.array_equal(tracks[:, 0], dataset.sample(name).queries[:, 1:])
        assert visible.shape == tracks.shape[:2] and visible[:-1].all()
        assert visible[-1].all() == (name != 'wave__an_arm_wave_u_cm')  # its last joint is right of the picture


@pytest.mark.parametrize('keep', [True, False])
def test_badja_shows_annotated_frames_alone(tmp_path, keep):
    video = write_badja(tmp_path)['bear']
    dataset = BadjaDataset(tmp_path, keep_unwinnable=keep)
    tracks, visible = dataset.truth_points('bear')
    assert len(tracks) == len(dataset.sample('bear').queries) == 19 + keep
    assert np.array_equal(np.flatnonzero(visible[0]), ANNOTATED)
    assert np.array_equal(np.isfinite(tracks).all(axis=2), visible)
    rows = np.arange(20) if keep else np.delete(np.arange(20), HIDDEN_AT_FIRST)
    exact = video.joints[list(ANNOTATED)][:, rows].swapaxes(0, 1)
    seen = visible[:, ANNOTATED]
    assert np.abs(tracks[:, ANNOTATED] - exact)[seen].max() <= 0.5  # whole pixels, as in the original
    assert seen.sum() == 3 * len(rows) - keep


@pytest.mark.parametrize('mode', ['first', 'strided'])
@pytest.mark.parametrize('resize', [None, (96, 192)])
def test_tapvid_shows_visible_points_in_pixels_of_the_frames_that_are_given(tmp_path, mode, resize):
    video = write_tapvid(tmp_path, 'davis', num_videos=1, num_frames=7)[0]
    dataset = TapVidDataset(str(tmp_path), 'davis', mode, resize)
    tracks, visible = dataset.truth_points(video.name)
    queries, rows = dataset.sample(video.name).queries, dataset.truth(video.name).track
    assert np.array_equal(visible, video.visible[rows]) and np.isnan(tracks[~visible]).all()
    scale = np.array([1, 1]) if resize is None else np.array([192 / 64, 96 / 48])
    np.testing.assert_allclose(tracks[visible], ((video.tracks[rows] + 0.5) * scale - 0.5)[visible], atol=1e-4)
    at_query = tracks[np.arange(len(queries)), queries[:, 0].astype(int)]
    np.testing.assert_allclose(at_query, queries[:, 1:])
