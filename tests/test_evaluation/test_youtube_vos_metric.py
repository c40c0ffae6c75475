"""YouTube-VOS's four numbers against slow loops, and what happens to predictions that are not as they should be."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmliir.datasets import write_label_map
from mmliir.evaluation.metrics import BenchmarkResult, YouTubeVosMetric
from mmliir.evaluation.tasks import build_task
from mmliir.registry import METRICS
from mmliir.testing.reference_metrics import slow_boundary_accuracy, slow_region_similarity
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_youtube_vos(tmp_path_factory.mktemp('ytvos'))


@pytest.fixture
def perfect(written, tmp_path):
    written.write_perfect_predictions(tmp_path / 'masks', 'train', written.holdout)
    return tmp_path / 'masks'


@pytest.fixture
def spoilt(written, tmp_path):
    """Predictions that are off by some pixels, more so over time; one object is lost."""
    for name in written.holdout:
        for t in range(0, 21, 5):
            label_map = np.roll(written.truth['train'][name][t], (t // 5, -t // 3), axis=(0, 1))
            if t >= 15 and name == written.holdout[0]:
                label_map = np.where(label_map == 2, 0, label_map).astype(np.uint8)
            write_label_map(tmp_path / 'spoilt' / name / f'{t:05d}.png', label_map)
    return tmp_path / 'spoilt'


def _by_slow_loops(written, pred_dir) -> dict[str, float]:
    """The definition, written a second time: objects one by one, frames one by one."""
    others = {name for name in written.truth['train'] if name not in written.holdout}
    seen = {category for name in others for category in written.categories[name].values()}
    values = {f'{measure}_{kind}': [] for measure in 'jf' for kind in ('seen', 'unseen')}
    for name in written.holdout:
        maps = written.truth['train'][name][::5]
        for number, category in written.categories[name].items():
            first = min(t for t in range(len(maps)) if (maps[t] == number).any())
            frames = range(first + 1, len(maps))
            kind = 'seen' if category in seen else 'unseen'
            for measure, function in (('j', slow_region_similarity), ('f', slow_boundary_accuracy)):
                pairs = [
                    (np.array(Image.open(pred_dir / name / f'{5 * t:05d}.png')) == number, maps[t] == number)
                    for t in frames
                ]
                values[f'{measure}_{kind}'].append(np.mean([function(*pair) for pair in pairs]))
    means = {key: float(np.mean(value)) for key, value in values.items()}
    return {'overall': float(np.mean(list(means.values()))), **means}


def test_a_perfect_tracker_scores_one(written, perfect):
    result = YouTubeVosMetric(written.root).evaluate(perfect)
    assert set(result.metrics.values()) == {1.0} and result.headline == 'overall'
    assert result.benchmark == 'youtube_vos2018' and result.num_published is None


def test_the_four_numbers_are_those_of_slow_loops(written, spoilt):
    result = YouTubeVosMetric(written.root).evaluate(spoilt)
    expected = _by_slow_loops(written, spoilt)
    assert result.metrics == pytest.approx(expected, abs=1e-12)
    assert 0.1 < result.metrics['overall'] < 0.9 and len(set(result.metrics.values())) == 5
    for sequence in result.sequences:
        four = [sequence.metrics[key] for key in ('j_seen', 'j_unseen', 'f_seen', 'f_unseen')]
        assert sequence.metrics['overall'] == pytest.approx(np.mean(four))
        assert sequence.frames == ('00005', '00010', '00015', '00020') and len(sequence.curves['j']) == 4
    again = BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again.to_dict() == result.to_dict()


def test_processes_change_no_number(written, spoilt):
    metric, calls = METRICS.build(dict(type='YouTubeVosMetric', data_root=str(written.root))), []
    assert metric.evaluate(spoilt, 2, lambda *call: calls.append(call)) == metric.evaluate(spoilt)
    assert calls == [(1, 2), (2, 2)]


def test_frames_up_to_the_one_that_gives_an_object_do_not_count_for_it(written, perfect):
    """The first file may be absent or wrong, and so may the late object before it enters."""
    name = written.holdout[0]
    maps = written.truth['train'][name]
    late = next(t for t in range(0, 21, 5) if (maps[t] == 3).any())
    (perfect / name / '00000.png').unlink()
    for t in range(5, late, 5):
        spoilt = maps[t].copy()
        spoilt[:4][spoilt[:4] == 0] = 3
        write_label_map(perfect / name / f'{t:05d}.png', spoilt)
    given = np.where(maps[late] == 3, 0, maps[late]).astype(np.uint8)
    write_label_map(perfect / name / f'{late:05d}.png', given)
    assert YouTubeVosMetric(written.root).evaluate(perfect).metrics['overall'] == 1
    write_label_map(perfect / name / '00020.png', np.where(maps[20] == 3, 0, maps[20]).astype(np.uint8))
    assert YouTubeVosMetric(written.root).evaluate(perfect).metrics['overall'] < 1


def test_without_unseen_objects_overall_is_the_mean_of_two_and_says_so(written, spoilt, tmp_path):
    shutil.copytree(written.root, tmp_path / 'data')
    meta = tmp_path / 'data' / 'train' / 'meta.json'
    meta.write_text(meta.read_text().replace('unicycle', 'zebra'))
    result = YouTubeVosMetric(tmp_path / 'data').evaluate(spoilt)
    assert math.isnan(result.metrics['j_unseen'])
    assert result.metrics['overall'] == pytest.approx((result.metrics['j_seen'] + result.metrics['f_seen']) / 2)
    assert any('no object of an unseen category' in note for note in result.notes)


def test_objects_that_are_never_annotated_are_left_out_with_a_note(written, perfect, tmp_path):
    shutil.copytree(written.root, tmp_path / 'data')
    name = written.holdout[0]
    for path in (tmp_path / 'data' / 'train' / 'Annotations' / name).iterdir():
        ids = np.array(Image.open(path))
        write_label_map(path, np.where(ids == 3, 0, ids).astype(np.uint8))
    result = YouTubeVosMetric(tmp_path / 'data').evaluate(perfect)
    assert any(note.startswith(f'{name}: objects 3 of meta.json') for note in result.notes)
    assert result.metrics['overall'] == 1 and result.sequences[0].ratios['j_seen'][1] == (1.0,)


def test_missing_says_why_without_reading(written, perfect, tmp_path):
    metric = YouTubeVosMetric(written.root)
    first, second = metric.sequences
    assert metric.missing(perfect) == {}
    (perfect / first / '00010.png').unlink()
    shutil.rmtree(perfect / second)
    found = metric.missing(perfect)
    assert list(found) == [first, second]
    assert found[first] == '1 of 4 scored frames have no prediction, e.g. 00010.png'
    assert found[second] == 'no predictions'
    with pytest.raises(FileNotFoundError, match=f'2 of the 2 videos.*the first is {first}: 1 of 4'):
        metric.evaluate(perfect)
    with pytest.raises(FileNotFoundError, match='Prediction folder not found'):
        metric.evaluate(tmp_path / 'nowhere')
    part = YouTubeVosMetric(written.root, sequences=[first])
    assert list(part.missing(perfect)) == [first] and part.num_sequences_in_split == 2


@pytest.mark.parametrize('jobs', [1, 2])
@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (Image.new('P', (32, 24)), r'is 32 x 24 pixels, its annotation 64 x 48'),
        (Image.new('LA', (64, 48)), 'is an image of mode LA'),
        (Image.new('RGB', (64, 48)), 'is a colour image'),
        (Image.new('L', (64, 48), 9), 'holds object ids 9, but meta.json lists'),
    ],
)
def test_predictions_of_another_kind_are_refused(written, perfect, image, message, jobs):
    image.save(perfect / written.holdout[1] / '00005.png')
    with pytest.raises(ValueError, match=rf'00005\.png {message}'):
        YouTubeVosMetric(written.root).evaluate(perfect, jobs)


def test_splits_without_truth_have_no_score_and_tasks_without_metric(written):
    for split in ('valid', 'test'):
        with pytest.raises(ValueError, match=f'truth of YouTube-VOS {split} is not public.*mmliir submit'):
            YouTubeVosMetric(written.root, split=split)
    task = dict(name='ytvos', dataset=dict(type='YouTubeVosDataset', data_root='x'), metric=None)
    built = build_task(task, data_root=written.root)
    assert built.metric is None and len(built.dataset) == 2


@pytest.mark.parametrize('name', ['youtube_vos2018', 'youtube_vos2019', 'youtube_vos_holdout'])
def test_the_task_configs_build(written, name):
    tasks = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'tasks'
    built = build_task(Config.fromfile(str(tasks / f'{name}.py')).task.to_dict(), data_root=written.root)
    assert built.name == name and len(built.dataset) == 2
    assert (built.metric is None) == (name != 'youtube_vos_holdout')
    if built.metric is not None:
        assert list(built.metric.sequences) == built.dataset.names
