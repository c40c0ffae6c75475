"""BADJA scores against the public evaluators and slow loops, and what happens to predictions that do not fit."""

import json

import numpy as np
import pytest
from pck_cases import GOLDEN, spread, write_badja_case, write_tracks
from PIL import Image

from mmliir.datasets import BadjaDataset
from mmliir.evaluation.metrics import BenchmarkResult, combine
from mmliir.evaluation.metrics.badja import BadjaMetric
from mmliir.registry import METRICS
from mmliir.testing.reference_pck import slow_badja_pck
from mmliir.testing.synthetic_badja import ANNOTATED, HIDDEN_AT_FIRST, write_badja

# PIPs and DINO-Tracker average in 32 bits; one joint more or less is at least 1 / 331.
FLOAT32 = 1e-7


def write_golden_tracks(root, pred_dir, videos):
    dataset = BadjaDataset(root)
    for video in videos:
        tracks = spread(video['annotated'], video['prediction'])
        write_tracks(pred_dir, video['animal'], dataset.sample(video['animal']).queries, tracks)


def check_against(scores, root, pred_dir):
    result = BadjaMetric(root).evaluate(pred_dir, jobs=2)
    assert result.headline == 'pck@0.2'
    assert result.metrics['pck@0.2'] == pytest.approx(scores['pips']['mean'], abs=FLOAT32)
    for sequence in result.sequences:
        assert sequence.metrics['pck@0.2'] == pytest.approx(scores['pips']['videos'][sequence.name], abs=FLOAT32)
        expected = scores['dino_tracker']['videos'][sequence.name]
        assert sequence.metrics['pck@0.2_dino_tracker'] == pytest.approx(expected['seg'], abs=FLOAT32)
        assert sequence.metrics['pts_within_3px'] == pytest.approx(expected['near'], abs=FLOAT32)
    assert result.metrics['pck@0.2_fgvc'] == pytest.approx(scores['fgvc']['0.2'], abs=1e-9)
    dino = BadjaMetric(root, 'dino_tracker').evaluate(pred_dir).metrics
    assert dino['pck@0.2'] == pytest.approx(scores['dino_tracker']['seg'], abs=FLOAT32)
    assert dino['pts_within_3px'] == pytest.approx(scores['dino_tracker']['near'], abs=FLOAT32)
    fgvc = BadjaMetric(root, 'fgvc').evaluate(pred_dir).metrics
    assert set(scores['fgvc']) == {'0.1', '0.2', '0.3', '0.4'}
    for alpha, value in scores['fgvc'].items():
        assert fgvc[f'pck@{alpha}'] == pytest.approx(value, abs=1e-9)
    return result


@pytest.fixture(scope='module')
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def replica(tmp_path):
    """The replica, its truth, and the tracks of a perfect tracker."""
    videos = write_badja(tmp_path / 'badja')
    dataset = BadjaDataset(tmp_path / 'badja')
    for name, video in videos.items():
        write_tracks(tmp_path / 'pred', name, dataset.sample(name).queries, video.joints.transpose(1, 0, 2))
    return tmp_path, dataset, videos


def test_scores_equal_those_of_the_public_evaluators(golden, tmp_path):
    videos = golden['badja']['videos']
    write_badja_case(tmp_path / 'badja', videos)
    write_golden_tracks(tmp_path / 'badja', tmp_path / 'pred', videos)
    result = check_against(golden['badja']['scores'], tmp_path / 'badja', tmp_path / 'pred')
    assert 'ids whose colour has some red' in ' '.join(result.notes)  # the rider is not in the area of PIPs


@pytest.mark.real
def test_scores_of_real_annotations_equal_those_of_the_public_evaluators(golden, data_root, tmp_path):
    if not (data_root / 'badja').is_dir():
        pytest.skip('no badja/ in the folder of real clips')
    write_golden_tracks(data_root / 'badja', tmp_path, golden['real']['videos'])
    check_against(golden['real']['scores'], data_root / 'badja', tmp_path)


@pytest.mark.parametrize('evaluator', ['pips', 'fgvc', 'dino_tracker'])
@pytest.mark.parametrize('alpha', [0.1, 0.25])
def test_scores_equal_slow_loops(replica, evaluator, alpha):
    root, dataset, videos = replica
    rng = np.random.default_rng(6)
    predictions, truths, visible, masks = [], [], [], []
    for name, video in videos.items():
        tracks = (video.joints + rng.normal(0, 7, video.joints.shape)).astype(np.float32)
        write_tracks(root / 'pred', name, dataset.sample(name).queries, tracks.transpose(1, 0, 2))
        truth = dataset.truth(name)
        predictions.append(tracks[list(ANNOTATED)].tolist())
        truths.append(truth.joints.tolist())
        visible.append(truth.visible.tolist())
        shown = video.masks[list(ANNOTATED)].copy()
        if name == 'dog' and evaluator == 'pips':
            shown[:, :40] = False  # id 2, without red
        masks.append(shown.tolist())
    result = BadjaMetric(root / 'badja', evaluator, alphas=(alpha,)).evaluate(root / 'pred')
    expected = slow_badja_pck(predictions, truths, visible, masks, evaluator, alpha)
    assert 0.02 < expected < 0.98
    assert result.metrics[f'pck@{alpha}'] == pytest.approx(expected, abs=1e-12)


def test_a_perfect_tracker_scores_one_and_a_far_one_zero(replica):
    root, dataset, videos = replica
    metric = METRICS.build(dict(type='BadjaMetric', data_root=str(root / 'badja')))
    assert set(metric.evaluate(root / 'pred').metrics.values()) == {1.0}
    for name, video in videos.items():
        write_tracks(root / 'pred', name, dataset.sample(name).queries, video.joints.transpose(1, 0, 2) + 500)
    assert set(metric.evaluate(root / 'pred').metrics.values()) == {0.0}


def test_joints_that_the_first_frame_hides_are_named_and_can_be_left_out(replica):
    root, dataset, videos = replica
    tracks = videos['bear'].joints.transpose(1, 0, 2).copy()
    tracks[HIDDEN_AT_FIRST] = 500
    write_tracks(root / 'pred', 'bear', dataset.sample('bear').queries, tracks)
    result = BadjaMetric(root / 'badja').evaluate(root / 'pred')
    assert result.metrics['pck@0.2'] == pytest.approx((38 / 40 + 1) / 2)
    assert result.metrics['pck@0.2_given'] == 1
    assert '2 of 80 evaluations are of joints that are not visible in the first frame' in ' '.join(result.notes)

    with pytest.raises(ValueError, match='20 points through 11 frames, .* has 19 points'):
        BadjaMetric(root / 'badja', keep_unwinnable=False).evaluate(root / 'pred')
    without = BadjaDataset(root / 'badja', keep_unwinnable=False).sample('bear')
    write_tracks(root / 'pred', 'bear', without.queries, np.delete(tracks, HIDDEN_AT_FIRST, axis=0))
    result = BadjaMetric(root / 'badja', keep_unwinnable=False).evaluate(root / 'pred')
    assert result.metrics['pck@0.2'] == result.metrics['pck@0.2_given'] == 1


def test_frames_of_another_resolution_score_nearly_the_same(replica):
    """Half the size: distances in 320 x 512 stay, up to the mask's and the annotation's pixels."""
    root, dataset, videos = replica
    for kind, resample in (('JPEGImages', Image.BILINEAR), ('Annotations', Image.NEAREST)):
        source = root / 'badja' / 'DAVIS' / kind / 'Full-Resolution'
        for path in source.rglob('*.*'):
            target = root / 'half' / kind / '480p' / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.resize((64, 48), resample).save(target)
    half_root = root / 'half'
    for animal in ('bear', 'dog'):  # one mask in full size tells what the joints are given in
        first = dataset.mask_paths(animal)[0]
        target = half_root / 'Annotations' / 'Full-Resolution' / animal / first.name
        target.parent.mkdir(parents=True)
        target.write_bytes(first.read_bytes())
    halved = BadjaDataset(root / 'badja', frames_root=half_root)
    rng = np.random.default_rng(7)
    for name, video in videos.items():
        tracks = (video.joints + rng.normal(0, 4, video.joints.shape)).transpose(1, 0, 2)
        write_tracks(root / 'pred', name, dataset.sample(name).queries, tracks)
        write_tracks(root / 'pred_half', name, halved.sample(name).queries, (tracks + 0.5) / 2 - 0.5)
    full = BadjaMetric(root / 'badja').evaluate(root / 'pred').metrics
    half = BadjaMetric(root / 'badja', frames_root=half_root).evaluate(root / 'pred_half').metrics
    same = [name for name in full if name != 'pts_within_3px']
    assert [half[name] for name in same] == pytest.approx([full[name] for name in same], abs=0.02)
    assert 0.1 < full['pck@0.2'] < 0.9
    assert half['pts_within_3px'] > full['pts_within_3px']  # in pixels of the frames at hand


def test_videos_weigh_the_same_for_pips_and_joints_for_fgvc(replica):
    """'bear' has one joint less in its first frame; all of 'dog' is wrong."""
    root, dataset, videos = replica
    write_tracks(root / 'pred', 'dog', dataset.sample('dog').queries, videos['dog'].joints.transpose(1, 0, 2) + 500)
    assert BadjaMetric(root / 'badja').evaluate(root / 'pred').metrics['pck@0.2'] == 0.5
    assert BadjaMetric(root / 'badja', 'fgvc').evaluate(root / 'pred').metrics['pck@0.2'] == pytest.approx(59 / 119)


def test_the_data_sets_value_comes_from_the_sequences_ratios_and_survives_a_file(replica):
    root, _, _ = replica
    for evaluator in ('pips', 'fgvc', 'dino_tracker'):
        result = BadjaMetric(root / 'badja', evaluator).evaluate(root / 'pred')
        assert all(combine(result.sequences, name) == value for name, value in result.metrics.items())
        assert BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))).to_dict() == result.to_dict()
        frames = result.sequences[0].frames
        assert frames == (('00002',) if evaluator == 'fgvc' else ()) + ('00007', '00012')
        assert len(result.sequences[0].curves['pck@0.2']) == len(frames)
    assert result.num_published == 7
    assert 'published scores on BADJA are over 7: not comparable' in ' '.join(result.notes)


def test_a_lost_joint_is_wrong_and_counted(replica):
    root, dataset, videos = replica
    tracks = videos['dog'].joints.transpose(1, 0, 2).copy()
    tracks[3, 5] = np.nan
    write_tracks(root / 'pred', 'dog', dataset.sample('dog').queries, tracks)
    result = BadjaMetric(root / 'badja', sequences=['dog']).evaluate(root / 'pred')
    assert result.metrics['pck@0.2'] == pytest.approx(39 / 40)
    assert '1 predictions are NaN' in ' '.join(result.notes)


def test_predictions_that_do_not_fit_are_refused(replica):
    root, dataset, videos = replica
    metric = BadjaMetric(root / 'badja')
    queries, tracks = dataset.sample('bear').queries, videos['bear'].joints.transpose(1, 0, 2)
    write_tracks(root / 'pred', 'bear', queries, tracks[:, :-1])
    with pytest.raises(ValueError, match='20 points through 10 frames, .* has 20 points and 11 frames'):
        metric.evaluate(root / 'pred')
    write_tracks(root / 'pred', 'bear', queries / [1, 2, 2], tracks)
    with pytest.raises(ValueError, match='made from frames of another size'):
        metric.evaluate(root / 'pred')
    (root / 'pred' / 'bear' / 'tracks.npz').unlink()
    assert list(metric.missing(root / 'pred')) == ['bear']
    with pytest.raises(FileNotFoundError, match='1 of the 2 sequences have no predictions'):
        metric.evaluate(root / 'pred')


def test_masks_that_cannot_be_used_are_refused(replica):
    root, dataset, _ = replica
    path = dataset.mask_paths('bear')[1]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=f'{path.name} is damaged'):
        BadjaMetric(root / 'badja').evaluate(root / 'pred')
    path.unlink()
    metric = BadjaMetric(root / 'badja')
    assert list(metric.broken) == list(metric.missing(root / 'pred')) == ['bear']
    with pytest.raises(ValueError, match='bear cannot be scored: bear: mask not found at .*1 missing of 3'):
        metric.evaluate(root / 'pred')
    with pytest.raises(ValueError, match="one of 'pips', 'fgvc', 'dino_tracker'"):
        BadjaMetric(root / 'badja', evaluator='cotracker')
