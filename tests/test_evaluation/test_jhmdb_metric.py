"""JHMDB scores against the public evaluators and slow loops, and what happens to predictions that do not fit."""

import json

import numpy as np
import pytest
from pck_cases import GOLDEN, write_jhmdb_case, write_tracks

from mmliir.datasets import JhmdbDataset
from mmliir.evaluation.metrics import BenchmarkResult, combine
from mmliir.evaluation.metrics.jhmdb import JhmdbMetric
from mmliir.registry import METRICS
from mmliir.testing.reference_pck import slow_jhmdb_pck
from mmliir.testing.synthetic_jhmdb import write_jhmdb

pytest.importorskip('scipy')
EVALUATORS = ('crw', 'vfs', 'tapnet')


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The golden clips and predictions as files, and the scores of the public evaluators."""
    golden = json.loads(GOLDEN.read_text())['jhmdb']
    root = tmp_path_factory.mktemp('jhmdb')
    write_jhmdb_case(root / 'data', golden['clips'])
    dataset = JhmdbDataset(root / 'data')
    for clip in golden['clips']:
        name = '__'.join(clip['name'])
        write_tracks(root / 'pred', name, dataset.sample(name).queries, np.array(clip['prediction']).transpose(1, 0, 2))
    return root, golden


@pytest.fixture
def replica(tmp_path):
    """The replica, its truth, and the tracks of a perfect tracker."""
    videos = write_jhmdb(tmp_path / 'data')
    dataset = JhmdbDataset(tmp_path / 'data')
    for name, video in videos.items():
        write_tracks(tmp_path / 'pred', name, dataset.sample(name).queries, video.joints.transpose(1, 0, 2))
    return tmp_path, dataset, videos


@pytest.mark.parametrize('evaluator', EVALUATORS)
def test_scores_equal_those_of_the_public_evaluator(official, evaluator):
    root, golden = official
    result = JhmdbMetric(root / 'data', evaluator=evaluator).evaluate(root / 'pred', jobs=2)
    expected = golden['scores'][evaluator]
    assert set(expected) == {'0.1', '0.2', '0.3', '0.4', '0.5'}
    for alpha, value in expected.items():
        assert result.metrics[f'pck@{alpha}'] == pytest.approx(value, abs=1e-9)
    assert result.headline == 'pck@0.1'


def test_the_other_evaluations_stand_beside_under_their_names(official):
    root, golden = official
    for evaluator in EVALUATORS:
        metrics = JhmdbMetric(root / 'data', evaluator=evaluator).evaluate(root / 'pred').metrics
        others = [other for other in EVALUATORS if other != evaluator]
        named = {name for name in metrics if '_' in name}
        assert named == {f'pck@{alpha}_{other}' for other in others for alpha in ('0.1', '0.2')}
        for other in others:
            assert metrics[f'pck@0.1_{other}'] == pytest.approx(golden['scores'][other]['0.1'], abs=1e-9)
    assert len({round(scores['0.1'], 3) for scores in golden['scores'].values()}) == 3  # they are not the same


@pytest.mark.parametrize('evaluator', EVALUATORS)
@pytest.mark.parametrize('alpha', [0.05, 0.1, 0.3])
def test_scores_equal_slow_loops(replica, evaluator, alpha):
    root, dataset, videos = replica
    rng = np.random.default_rng(5)
    predictions = []
    for name, video in videos.items():
        shift = rng.normal(0, 3, video.joints.shape)
        shift[2, :4, 0] -= 60  # left of the image
        predictions.append((video.joints + shift).astype(np.float32))
        write_tracks(root / 'pred', name, dataset.sample(name).queries, predictions[-1].transpose(1, 0, 2))
    result = JhmdbMetric(root / 'data', evaluator=evaluator, alphas=(alpha,)).evaluate(root / 'pred')
    truths = [video.joints.tolist() for video in videos.values()]
    expected = slow_jhmdb_pck([p.tolist() for p in predictions], truths, [(60, 80)] * 2, evaluator, alpha)
    assert 0.02 < expected < 0.98
    assert result.metrics[f'pck@{alpha}'] == pytest.approx(expected, abs=1e-12)


def test_a_perfect_tracker_scores_one_and_a_far_one_zero(replica):
    root, dataset, videos = replica
    metric = METRICS.build(dict(type='JhmdbMetric', data_root=str(root / 'data')))
    result = metric.evaluate(root / 'pred')
    assert set(result.metrics.values()) == {1.0}
    for name, video in videos.items():
        write_tracks(root / 'pred', name, dataset.sample(name).queries, video.joints.transpose(1, 0, 2) + 500)
    result = metric.evaluate(root / 'pred')
    assert set(result.metrics.values()) == {0.0}


def test_only_the_evaluations_that_score_the_first_frame_reward_it(replica):
    root, dataset, videos = replica
    for name, video in videos.items():
        tracks = video.joints.transpose(1, 0, 2) + 500
        tracks[:, 0] = video.joints[0]
        write_tracks(root / 'pred', name, dataset.sample(name).queries, tracks)
    metrics = JhmdbMetric(root / 'data').evaluate(root / 'pred').metrics
    assert metrics['pck@0.1'] == 0
    assert metrics['pck@0.1_vfs'] == metrics['pck@0.1_tapnet'] == pytest.approx(1 / 6)


def test_a_prediction_left_of_the_image_leaves_the_score_but_a_lost_one_is_wrong(replica):
    root, dataset, videos = replica
    name, video = next(iter(videos.items()))
    shares = {}
    notes = {'left': '1 of 75 evaluations are left out', 'lost': '1 predictions are NaN'}
    for kind, value in (('left', -1.0), ('lost', np.nan)):
        tracks = video.joints.transpose(1, 0, 2).copy()
        tracks[4, 3] = value
        write_tracks(root / 'pred', name, dataset.sample(name).queries, tracks)
        result = JhmdbMetric(root / 'data', sequences=[name]).evaluate(root / 'pred')
        shares[kind] = [result.metrics[f'pck@0.1{end}'] for end in ('', '_vfs', '_tapnet')]
        assert notes[kind] in ' '.join(result.notes)
    assert shares['left'] == [1.0, 1.0, pytest.approx(1 - 1 / (6 * 15))]
    assert shares['lost'] == pytest.approx([1 - 1 / (5 * 15), 1 - 1 / (6 * 15), 1 - 1 / (6 * 15)])


def test_the_data_sets_value_comes_from_the_sequences_ratios_and_survives_a_file(official):
    root, _ = official
    result = JhmdbMetric(root / 'data').evaluate(root / 'pred')
    assert all(combine(result.sequences, name) == value for name, value in result.metrics.items())
    assert all(len(part) == 15 for ratio in result.sequences[0].ratios.values() for part in ratio)
    assert BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))).to_dict() == result.to_dict()
    sequence = result.sequences[0]
    assert len(sequence.frames) == len(sequence.curves['pck@0.1']) == 6  # of 7, the first is given
    assert result.num_published == 268 and result.num_sequences_in_split == 3
    assert 'not comparable' in ' '.join(result.notes)


def test_progress_and_jobs_change_no_number(official):
    root, _ = official
    calls = []
    one = JhmdbMetric(root / 'data').evaluate(root / 'pred', progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert JhmdbMetric(root / 'data').evaluate(root / 'pred', jobs=3) == one
    with pytest.raises(ValueError, match='jobs must be at least 1'):
        JhmdbMetric(root / 'data').evaluate(root / 'pred', jobs=0)


def test_clips_cut_to_their_annotation_are_counted(replica):
    root, _, _ = replica
    notes = ' '.join(JhmdbMetric(root / 'data').evaluate(root / 'pred').notes)
    assert 'Longer than annotated: 1 clip, cut' in notes and 'Shorter than' not in notes


def test_predictions_that_do_not_fit_are_refused(replica):
    root, dataset, videos = replica
    (name, video), (other, _) = videos.items()
    metric = JhmdbMetric(root / 'data')
    queries, tracks = dataset.sample(name).queries, video.joints.transpose(1, 0, 2)
    write_tracks(root / 'pred', name, queries, tracks[:, :-1])
    with pytest.raises(ValueError, match='15 points through 5 frames, .* has 15 points and 6 frames'):
        metric.evaluate(root / 'pred')
    write_tracks(root / 'pred', name, queries[:-1], tracks[:-1])
    with pytest.raises(ValueError, match='14 points through 6 frames'):
        metric.evaluate(root / 'pred')
    write_tracks(root / 'pred', name, queries * [1, 2, 2], tracks)
    with pytest.raises(ValueError, match=r'point 0 was given at \(t, x, y\) = .* frames of another size'):
        metric.evaluate(root / 'pred')
    write_tracks(root / 'pred', name, queries * np.nan, tracks)
    with pytest.raises(ValueError, match='point 0 was given at'):
        metric.evaluate(root / 'pred')
    (root / 'pred' / name / 'tracks.npz').write_bytes(b'PK\x03\x04 cut off')
    with pytest.raises(ValueError, match='does not hold the arrays'):
        metric.evaluate(root / 'pred')
    (root / 'pred' / name / 'tracks.npz').unlink()
    assert list(metric.missing(root / 'pred')) == [name]
    with pytest.raises(FileNotFoundError, match='1 of the 2 sequences have no predictions'):
        metric.evaluate(root / 'pred')
    assert JhmdbMetric(root / 'data', sequences=[other]).evaluate(root / 'pred').metrics['pck@0.1'] == 1
    with pytest.raises(FileNotFoundError, match='Prediction folder not found'):
        metric.evaluate(root / 'nowhere')


def test_settings_that_make_no_sense_are_refused(replica):
    root, _, _ = replica
    with pytest.raises(ValueError, match="one of 'crw', 'vfs', 'tapnet'"):
        JhmdbMetric(root / 'data', evaluator='CRW')
    for alphas in ((), (0.1, 0.1), (0.0,), (float('nan'),)):
        with pytest.raises(ValueError, match='different shares above 0'):
            JhmdbMetric(root / 'data', alphas=alphas)
