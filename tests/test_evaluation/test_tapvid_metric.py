"""TAP-Vid scores against the official function's, a slow loop and numbers made by hand; predictions that do not fit."""

import functools
import json
import math

import numpy as np
import pytest
from tapvid_cases import CASES, GOLDEN, digest, make_case, predict_replica

from mmliir.datasets.tapvid import sample_queries
from mmliir.evaluation.functional import pts_within_over_time, tapvid_counts, tapvid_scores
from mmliir.evaluation.metrics.results import BenchmarkResult
from mmliir.evaluation.metrics.tapvid import TapVidMetric
from mmliir.evaluation.writers import WRITERS, write_files
from mmliir.propagation.points import PointTracks
from mmliir.registry import METRICS
from mmliir.testing.reference_metrics import slow_tapvid_scores
from mmliir.testing.synthetic_tapvid import VISIBLE_ONCE, SyntheticTracks, write_tapvid

SUBSETS = ['davis', 'rgb_stacking', 'kinetics', 'robotap']
MODES = ['first', 'strided']
THRESHOLDS = (1, 2, 4, 8, 16)
OFFICIAL_NAMES = {
    'average_jaccard': 'average_jaccard',
    'pts_within': 'average_pts_within_thresh',
    'occlusion_accuracy': 'occlusion_accuracy',
    **{f'pts_within_{k}px': f'pts_within_{k}' for k in THRESHOLDS},
    **{f'jaccard_{k}px': f'jaccard_{k}' for k in THRESHOLDS},
}


@functools.cache
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def official(scores: dict) -> dict[str, float]:
    """The official numbers under our names."""
    found = {ours: scores[theirs] for ours, theirs in OFFICIAL_NAMES.items()}
    return {name: math.nan if value is None else value for name, value in found.items()}


def assert_scores(ours, theirs, tolerance=1e-9):
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=0, atol=tolerance)


def arguments(name: str, mode: str) -> tuple:
    """What the formulas take, of a case."""
    case = make_case(name)
    times, track = sample_queries(~case['occluded'], mode)
    truth = 256 * case['points'][track], ~case['occluded'][track]
    return times, *truth, case['tracks'][track], case['claimed'][track], mode


# -- formulas -------------------------------------------------------------------------------------------------


def test_cases_are_those_the_official_numbers_are_of():
    assert {name: digest(name) for name in CASES} == golden()['sha256']


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', CASES)
def test_every_number_equals_the_official_functions(name, mode):
    theirs = golden()['cases'][f'{name}/{mode}']
    counts = tapvid_counts(*arguments(name, mode))
    if 'refused' in theirs:  # the official sampler cannot stack queries of no track
        assert name == 'no-track' and all(math.isnan(value) for value in tapvid_scores(counts).values())
        return
    assert_scores(tapvid_scores(counts), official(theirs['pooled']))
    assert_scores(tapvid_scores(counts, 'track'), official(theirs['track_mean']))


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', [name for name in CASES if name not in ('no-track', 'long')])
def test_queries_are_the_official_readers(name, mode):
    theirs = golden()['cases'][f'{name}/{mode}']
    case = make_case(name)
    times, track = sample_queries(~case['occluded'], mode)
    assert track.tolist() == theirs['track']
    places = 256 * case['points'][track, times]
    ours = np.stack([times, places[:, 1], places[:, 0]], axis=1)  # (t, y, x)
    np.testing.assert_allclose(ours, np.reshape(theirs['queries'], (-1, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize('aggregate', ['pooled', 'track'])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', [name for name in CASES if name not in ('no-track', 'long')])
def test_every_number_equals_the_slow_loops(name, mode, aggregate):
    values = arguments(name, mode)
    slow = slow_tapvid_scores(*(np.asarray(value).tolist() for value in values[:5]), mode, aggregate)
    ours = tapvid_scores(tapvid_counts(*values), aggregate)
    if not slow:  # no query at all
        assert all(math.isnan(value) for value in ours.values())
        return
    assert_scores(ours, {key: slow[key] for key in ours}, 1e-12)


def by_hand(distances, truth_visible, visible, mode='first', query_frame=0):
    """One query that stays at the origin; predictions are `distances` away."""
    tracks = np.zeros((1, len(distances), 2))
    tracks[0, :, 1] = distances
    return tapvid_scores(
        tapvid_counts(
            np.array([query_frame]),
            np.zeros_like(tracks),
            np.array([truth_visible], bool),
            tracks,
            np.array([visible], bool),
            mode,
        )
    )


def test_a_video_by_hand():
    """Frames 1 to 4 count. 3 visible: at 0, at 3 and unseen at 0; frame 4 is hidden and claimed."""
    scores = by_hand([99, 0, 3, 0, 0], [1, 1, 1, 1, 0], [0, 1, 1, 0, 1])
    assert scores['occlusion_accuracy'] == 2 / 4
    assert scores['pts_within_1px'] == scores['pts_within_2px'] == 2 / 3 and scores['pts_within_4px'] == 1
    assert scores['pts_within'] == pytest.approx((2 * 2 / 3 + 3) / 5)
    # below 4 px: T = 1, F = frame 2 and frame 4; from 4 px on: T = 2, F = frame 4
    assert scores['jaccard_1px'] == scores['jaccard_2px'] == 1 / 5
    assert scores['jaccard_4px'] == scores['jaccard_16px'] == 2 / 4
    assert scores['average_jaccard'] == pytest.approx((2 / 5 + 3 / 2) / 5)


def test_strided_counts_frames_before_the_query_and_first_does_not():
    seen = [0, 0, 0, 0, 1]
    assert by_hand([0, 0, 0, 0, 0], [1] * 5, seen, 'first', query_frame=3)['occlusion_accuracy'] == 1
    assert by_hand([0, 0, 0, 0, 0], [1] * 5, seen, 'strided', query_frame=3)['occlusion_accuracy'] == 1 / 4


@pytest.mark.parametrize('threshold', THRESHOLDS)
def test_a_distance_equal_to_a_threshold_is_not_within(threshold):
    below = np.nextafter(float(threshold), 0)
    assert by_hand([0, threshold], [1, 1], [1, 1])[f'pts_within_{threshold}px'] == 0
    assert by_hand([0, below], [1, 1], [1, 1])[f'pts_within_{threshold}px'] == 1


def test_tracks_of_unequal_length_weigh_as_the_aggregate_says():
    """95 of 95 frames right on one track and 0 of 5 on another: 0.95 pooled, 0.50 over tracks."""
    truth = np.zeros((2, 96, 2))
    visible = np.ones((2, 96), bool)
    visible[1, 6:] = False
    tracks = truth.copy()
    tracks[1] += 100
    counts = tapvid_counts(np.zeros(2, int), truth, visible, tracks, visible)
    assert tapvid_scores(counts)['pts_within'] == pytest.approx(0.95)
    assert tapvid_scores(counts, 'track')['pts_within'] == pytest.approx(0.5)


def test_a_prediction_that_is_no_number_is_a_miss_and_a_false_positive_if_claimed():
    claimed, admitted = (by_hand([0, np.nan, 0], [1, 1, 1], [1, seen, 1]) for seen in (1, 0))
    assert claimed['pts_within'] == admitted['pts_within'] == 0.5
    assert claimed['average_jaccard'] == 1 / 3 and admitted['average_jaccard'] == 1 / 2


def test_nothing_to_be_right_about_is_nan_and_not_zero():
    hidden = by_hand([0, 0, 0], [1, 0, 0], [1, 0, 0])
    assert hidden['occlusion_accuracy'] == 1 and math.isnan(hidden['pts_within'])
    assert math.isnan(hidden['average_jaccard'])
    claimed = by_hand([0, 0, 0], [1, 0, 0], [1, 1, 0])
    assert claimed['average_jaccard'] == 0 and math.isnan(claimed['pts_within'])
    assert all(math.isnan(value) for value in by_hand([0, 0], [0, 1], [0, 1], query_frame=1).values())


def test_the_curve_over_time_is_the_score_of_each_frame():
    times, truth, truth_visible, tracks, visible, mode = arguments('typical', 'strided')
    curve = pts_within_over_time(times, truth, truth_visible, tracks, mode)
    for t, value in enumerate(curve):
        kept = times != t
        one = (truth[kept, t], truth_visible[kept, t], tracks[kept, t], visible[kept, t])
        # a frame of its own, after a query in frame 0 of two
        frames = [np.stack([part, part], axis=1) for part in one]
        alone = tapvid_scores(tapvid_counts(np.zeros(kept.sum(), int), *frames, 'first'))
        assert value == pytest.approx(alone['pts_within'], abs=1e-12, nan_ok=True)


def test_the_curve_says_nothing_where_nothing_counts():
    truth = np.zeros((2, 4, 2))
    visible = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    curve = pts_within_over_time(np.array([0, 1]), truth, visible, truth)
    np.testing.assert_array_equal(curve, [np.nan, 1, 1, np.nan])


@pytest.mark.parametrize('number, shape', [(1, (2, 5, 3)), (2, (2, 4)), (3, (3, 5, 2)), (4, (2, 6))])
def test_shapes_that_do_not_fit_are_named(number, shape):
    values = [np.zeros(2, int), np.zeros((2, 5, 2)), np.ones((2, 5), bool), np.zeros((2, 5, 2)), np.ones((2, 5), bool)]
    values[number] = np.zeros(shape)
    name = ('', 'truth_tracks', '', 'tracks', 'visible')[number] or '.*'
    with pytest.raises(ValueError, match=f'{name} has the shape .*expected'):
        tapvid_counts(*values)


def test_unknown_modes_are_named():
    values = np.zeros(1, int), np.zeros((1, 2, 2)), np.ones((1, 2), bool), np.zeros((1, 2, 2)), np.ones((1, 2), bool)
    with pytest.raises(ValueError, match="query_mode must be 'first' or 'strided', got 'last'"):
        tapvid_counts(*values, 'last')
    with pytest.raises(ValueError, match="aggregate must be 'pooled' or 'track', got 'mean'"):
        tapvid_scores(tapvid_counts(*values), 'mean')


# -- files ----------------------------------------------------------------------------------------------------


def write_tracks(folder, metric: TapVidMetric, videos: list[SyntheticTracks], predict=None):
    """Write `<video>/tracks.npz`; `predict(number, video)` gives (tracks, visible) of every track, in pixels."""
    for number, video in enumerate(videos):
        truth = metric.dataset.truth(video.name)
        tracks, visible = predict(number, video) if predict else (video.tracks, video.visible)
        save(folder / video.name, truth.queries, tracks[truth.track], visible[truth.track])
    return folder


def save(folder, queries, tracks, visible):
    folder.mkdir(parents=True, exist_ok=True)
    confidence = visible.astype(np.float32)
    np.savez(
        folder / 'tracks.npz', queries=queries, tracks=tracks.astype(np.float32), confidence=confidence, visible=visible
    )


@pytest.mark.parametrize('mode', MODES)
def test_what_the_writer_of_points_writes_is_what_is_scored(tmp_path, monkeypatch, mode):
    """From the samples to the score, with the truth in place of a tracker."""
    videos = {video.name: video for video in write_tapvid(tmp_path, 'robotap')}
    metric = TapVidMetric(tmp_path, 'robotap', mode)

    def follow(frames, encode, queries, protocol, stride, device, both_ways, advance, max_memory=None):
        assert both_ways == (mode == 'strided') and len(frames) == 8
        video = videos[frames.name]
        times, places = queries[:, 0].astype(int), queries[:, 1:]
        near = np.abs(video.tracks[:, times] - places[None]).max(axis=2) < 1e-4
        rows = np.argmax(near & video.visible[:, times], axis=0)
        return PointTracks(video.tracks[rows], video.visible[rows].astype(float), video.visible[rows])

    monkeypatch.setattr('mmliir.evaluation.writers.propagate_points', follow)
    writer = WRITERS[metric.dataset.kind]
    for sample in metric.dataset:
        folder = tmp_path / 'pred' / sample.name
        write_files(folder, writer.produce(sample, None, None, 4, 'cpu', lambda: None))
        assert sorted(path.name for path in folder.iterdir()) == sorted(writer.files(sample))
    assert set(metric.evaluate(tmp_path / 'pred').metrics.values()) == {1.0}


@pytest.fixture
def davis(tmp_path):
    videos = write_tapvid(tmp_path, 'davis')
    metric = TapVidMetric(tmp_path)
    return metric, write_tracks(tmp_path / 'pred', metric, videos), videos


@pytest.mark.parametrize('aggregate', ['pooled', 'track'])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('subset', SUBSETS)
def test_perfect_tracks_on_disk_score_one(tmp_path, subset, mode, aggregate):
    videos = write_tapvid(tmp_path, subset)
    metric = TapVidMetric(tmp_path, subset, mode, aggregate)
    result = metric.evaluate(write_tracks(tmp_path / 'pred', metric, videos))
    assert set(result.metrics.values()) == {1.0} and result.headline == 'average_jaccard'
    assert list(result.metrics)[:3] == ['average_jaccard', 'pts_within', 'occlusion_accuracy']
    assert [row.name for row in result.sequences] == [video.name for video in videos]
    assert all(set(row.metrics.values()) == {1.0} for row in result.sequences)
    assert BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))).metrics == result.metrics


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('subset', SUBSETS)
def test_scores_of_files_equal_the_official_function_on_the_same_container(tmp_path, subset, mode):
    """Officially: stored points times 256; predictions in pixels of 48x64 frames to 256x256, centres at + 0.5."""
    videos = write_tapvid(tmp_path, subset, num_videos=4, num_frames=12, size=(48, 64), seed=5)
    metric = TapVidMetric(tmp_path, subset, mode)
    predict = lambda number, video: predict_replica(video.tracks, video.visible, number)  # noqa: E731
    result = metric.evaluate(write_tracks(tmp_path / 'pred', metric, videos, predict))
    theirs = golden()['replica'][f'{subset}/{mode}']
    for row, scores in zip(result.sequences, theirs['videos'], strict=True):
        assert_scores(row.metrics, official(scores))
    assert_scores(result.metrics, official(theirs['mean']))
    assert 0.1 < result.metrics['average_jaccard'] < 0.9


def test_an_error_in_x_and_in_y_is_measured_on_a_frame_of_256_by_256(tmp_path):
    """1.6 pixels of 64 are 6.4 of 256, of 48 they are 8.5: a threshold of 8 tells the axes apart."""
    videos = write_tapvid(tmp_path, 'davis', num_videos=1, size=(48, 64))
    metric = TapVidMetric(tmp_path)
    for axis, expected in ((0, (0, 1)), (1, (0, 0))):
        offset = 1.6 * np.eye(2)[axis]
        moved = lambda _, video, offset=offset: (video.tracks + offset, video.visible)  # noqa: E731
        scores = metric.evaluate(write_tracks(tmp_path / 'pred', metric, videos, moved)).metrics
        assert (scores['pts_within_4px'], scores['pts_within_8px']) == expected and scores['pts_within_16px'] == 1


def test_frames_resized_by_the_data_set_need_the_same_resize_in_the_metric(tmp_path):
    videos = write_tapvid(tmp_path, 'davis', size=(48, 64))
    metric = TapVidMetric(tmp_path, resize=(96, 32))
    scaled = lambda _, video: ((video.tracks + 0.5) * (0.5, 2) - 0.5, video.visible)  # noqa: E731
    pred = write_tracks(tmp_path / 'pred', metric, videos, scaled)
    assert set(metric.evaluate(pred).metrics.values()) == {1.0}
    with pytest.raises(ValueError, match=r'tracks.npz: query 0 is .* the truth .* another `resize`'):
        TapVidMetric(tmp_path).evaluate(pred)


def test_the_mean_is_over_videos_and_leaves_out_those_that_say_nothing(tmp_path):
    videos = write_tapvid(tmp_path, 'davis')
    metric = TapVidMetric(tmp_path)
    late = lambda number, video: (video.tracks + 50 * (number == 1), video.visible)  # noqa: E731
    pred = write_tracks(tmp_path / 'pred', metric, videos, late)
    assert metric.evaluate(pred).metrics['pts_within'] == pytest.approx(2 / 3)
    # the second video, with one query that is seen in its own frame alone
    dataset = metric.dataset
    truth, whole = dataset.truth, dataset.truth(videos[1].name)
    keep = np.nonzero(whole.track == 10 + VISIBLE_ONCE)[0]
    part = type(whole)(
        whole.queries[keep], whole.points[keep], whole.visible[keep], whole.track[keep], 1, whole.frame_size
    )
    dataset.truth = lambda name: part if name == videos[1].name else truth(name)
    hidden = np.zeros((1, 8), bool)
    save(pred / videos[1].name, part.queries, videos[1].tracks[[VISIBLE_ONCE]], hidden)
    result = metric.evaluate(pred)
    assert math.isnan(result.sequences[1].metrics['pts_within']) and result.metrics['pts_within'] == 1
    assert result.sequences[1].metrics['occlusion_accuracy'] == result.metrics['occlusion_accuracy'] == 1
    assert any('1 video without a visible point after the queries' in note for note in result.notes)


def test_the_result_says_what_was_scored(davis):
    metric, pred, videos = davis
    result = metric.evaluate(pred)
    assert (result.benchmark, result.split, result.metric_version) == ('tapvid_davis', 'first', 'tapvid-1')
    assert (result.num_sequences_in_split, result.num_published) == (3, 30)
    assert '3 videos; published scores on tapvid_davis are over 30: not comparable.' in result.notes
    assert '3 of 30 tracks are visible in no frame that gives a query; left out.' in result.notes
    row = result.sequences[0]
    assert len(row.frames) == len(row.curves['pts_within']) == 8 and math.isnan(row.curves['pts_within'][0])
    assert set(row.curves['pts_within'][1:]) == {1.0}
    assert row.ratios['average_jaccard'] == ((1.0,), (1.0,))


@pytest.mark.parametrize(
    'subset, published', [('davis', 30), ('kinetics', 1189), ('rgb_stacking', 50), ('robotap', 265)]
)
def test_names_and_published_counts(tmp_path, subset, published):
    write_tapvid(tmp_path, subset, num_videos=1)
    metric = METRICS.build(dict(type='TapVidMetric', data_root=str(tmp_path), subset=subset, aggregate='track'))
    assert metric.num_published == published and metric.version == 'tapvid-1-track'
    assert metric.benchmark == {'robotap': 'robotap'}.get(subset, f'tapvid_{subset}')


def test_some_videos_alone_and_progress(davis, tmp_path):
    _, pred, videos = davis
    metric = TapVidMetric(tmp_path, sequences=[videos[2].name])
    calls = []
    result = metric.evaluate(pred, jobs=3, progress=lambda *call: calls.append(call))
    assert calls == [(1, 1)] and metric.sequences == (videos[2].name,)
    assert '1 of the 3 videos in the files scored.' in result.notes


def test_missing_predictions_are_named(davis):
    metric, pred, videos = davis
    assert metric.missing(pred) == {}
    (pred / videos[1].name / 'tracks.npz').unlink()
    assert list(metric.missing(pred)) == [videos[1].name]
    with pytest.raises(FileNotFoundError, match=r'video 1/tracks.npz not found: 1 of the 3 videos of tapvid_davis'):
        metric.evaluate(pred)
    assert len(metric.missing(pred / 'nowhere')) == 3


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda q, t, v: (q[1:], t[1:], v[1:]), r'holds 8 queries in 8 frames, the truth 9 in 8'),
        (lambda q, t, v: (q, t[:, :7], v[:, :7]), r'holds 9 queries in 7 frames, the truth 9 in 8'),
        (lambda q, t, v: (q[::-1], t[::-1], v[::-1]), r'query 0 is .* the truth'),
        (lambda q, t, v: (q + [0, 0.5, 0.5], t, v), r'query 0 is .*\(9 such\)'),
        (lambda q, t, v: (q * np.nan, t, v), r'query 0 is \(t, x, y\) = \[nan'),
        (lambda q, t, v: (q, t, v.astype(np.float32)), r'visible has the dtype float32'),
        (lambda q, t, v: (q, t[..., :1], v), r'tracks has the shape'),
    ],
)
def test_predictions_that_do_not_fit_are_named(davis, spoil, message):
    metric, pred, videos = davis
    truth = metric.dataset.truth('video 1')
    save(pred / 'video 1', *spoil(truth.queries, videos[1].tracks[truth.track], videos[1].visible[truth.track]))
    with pytest.raises(ValueError, match=f'video 1/tracks.npz.*{message}'):
        metric.evaluate(pred)


def test_predictions_of_the_other_query_mode_are_refused(davis, tmp_path):
    _, pred, _ = davis
    with pytest.raises(ValueError, match='made with another query_mode or from other data'):
        TapVidMetric(tmp_path, query_mode='strided').evaluate(pred)


def test_predictions_that_hold_objects_are_not_unpickled(davis):
    metric, pred, _ = davis
    np.savez(pred / 'video 0' / 'tracks.npz', queries=np.array([None]), tracks=0, confidence=0, visible=0)
    with pytest.raises(ValueError, match='video 0/tracks.npz does not hold the arrays'):
        metric.evaluate(pred)


def test_frames_before_the_query_may_be_left_out_of_first(davis):
    """A tracker that does not go back leaves NaN there."""
    metric, pred, videos = davis
    truth = metric.dataset.truth('video 0')
    tracks, visible = videos[0].tracks[truth.track], videos[0].visible[truth.track]
    before = np.arange(8)[None] < truth.queries[:, :1]
    assert before.any()
    tracks[before] = np.nan
    save(pred / 'video 0', truth.queries, tracks, visible & ~before)
    assert set(metric.evaluate(pred).metrics.values()) == {1.0}


def test_a_wrong_argument_is_named(davis, tmp_path):
    metric, pred, _ = davis
    with pytest.raises(ValueError, match="aggregate must be 'pooled' or 'track', got 'mean'"):
        TapVidMetric(tmp_path, aggregate='mean')
    with pytest.raises(ValueError, match='jobs must be at least 1, got 0'):
        metric.evaluate(pred, jobs=0)
