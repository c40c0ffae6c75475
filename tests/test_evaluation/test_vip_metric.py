import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from vip_cases import cases, compact

from mmliir.datasets import VIP_CLASSES, VipDataset, write_label_map
from mmliir.evaluation.export import export_predictions
from mmliir.evaluation.metrics import VipInstanceMetric, VipSemanticMetric, combine
from mmliir.evaluation.metrics.results import BenchmarkResult
from mmliir.evaluation.tasks import build_task
from mmliir.evaluation.writers import WRITERS, InstanceWriter
from mmliir.propagation import get_protocol
from mmliir.testing.synthetic_vip import generate_vip_videos, write_vip

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / 'tests' / 'golden' / 'vip_official.json').read_text())['cases']
VIDEOS = generate_vip_videos()
FIRST = 'videos1/000000000001'


def write_instances(folder, stem, ids, predicted):
    write_label_map(folder / f'{stem}.png', ids)
    (folder / f'{stem}.txt').write_text(''.join(f'{c} {s!r}\n' for c, s in predicted))


def write_predictions(root, videos=VIDEOS, lag=0):
    """A tracker that is right but for `lag` pixels a frame."""
    for video in videos:
        for t, stem in enumerate(video.frame_names):
            moved = np.roll(video.instances[t], lag * t, axis=1)
            listed = [(c, 0.5 + 0.01 * c) for c in video.classes.values()]
            write_instances(root / 'instance' / video.name, stem, *compact(moved, listed))
            categories = np.roll(np.where(video.categories[t] == 255, 0, video.categories[t]), lag * t, axis=1)
            write_label_map(root / 'semantic' / video.name / f'{stem}.png', categories.astype(np.uint8))


@pytest.fixture(scope='module')
def replica(tmp_path_factory):
    root = tmp_path_factory.mktemp('vip')
    write_vip(root, VIDEOS)
    write_predictions(root / 'perfect')
    write_predictions(root / 'lagging', lag=1)
    return root


@pytest.fixture
def predictions(replica, tmp_path):
    return Path(shutil.copytree(replica / 'perfect', tmp_path / 'predictions'))


def test_a_perfect_tracker_scores_one(replica):
    semantic = VipSemanticMetric(replica).evaluate(replica / 'perfect' / 'semantic')
    assert semantic.headline == 'miou' and set(semantic.metrics.values()) == {1.0} and len(semantic.metrics) == 21
    instance = VipInstanceMetric(replica).evaluate(replica / 'perfect' / 'instance')
    assert instance.headline == 'ap' and set(instance.metrics.values()) == {1.0}
    assert (semantic.num_published, instance.num_published, instance.num_sequences_in_split) == (50, 50, 2)
    assert '2 sequences; published scores on VIP val are over 50' in semantic.notes[0]


@pytest.mark.parametrize('name', ['random', 'vanished', 'twice', 'lagging', 'predicted-without-truth'])
def test_scores_of_files_equal_the_official_evaluators(tmp_path, name):
    frames = cases()[name]
    base = tmp_path / 'VIP_Fine'
    for f in frames:
        images, truth = base / 'Images' / f.video, base / 'Annotations' / 'Instance_ids' / f.video
        write_label_map(images / f'{f.stem}.png', np.zeros((2, 2), np.uint8))
        write_label_map(base / 'Annotations' / 'Category_ids' / f.video / f'{f.stem}.png', f.true_categories)
        write_label_map(truth / f'{f.stem}.png', f.true_instances)
        (truth / f'{f.stem}.txt').write_text(''.join(f'{i} {c} 1\n' for i, c in f.true_classes.items()))
        write_instances(tmp_path / 'instance' / f.video, f.stem, f.instances, f.predicted)
        write_label_map(tmp_path / 'semantic' / f.video / f'{f.stem}.png', f.categories)
    (base / 'lists').mkdir()
    (base / 'lists' / 'val_videos.txt').write_text(''.join(f'{v}\n' for v in dict.fromkeys(f.video for f in frames)))
    semantic = VipSemanticMetric(tmp_path).evaluate(tmp_path / 'semantic')
    assert semantic.metrics['miou'] == pytest.approx(GOLDEN[name]['miou'], abs=1e-9)
    assert semantic.metrics['iou_face'] == pytest.approx(GOLDEN[name]['iou'][13], abs=1e-9)
    result = VipInstanceMetric(tmp_path).evaluate(tmp_path / 'instance')
    official = GOLDEN[name]['ap']
    assert result.metrics['ap'] == pytest.approx(math.nan if official is None else official, abs=1e-9, nan_ok=True)
    column = np.array([row[4] for row in GOLDEN[name]['ap_table']], float)
    assert result.metrics['ap@0.5'] == pytest.approx(column.mean(), abs=1e-9, nan_ok=True)
    assert any('no pixel' in note for note in result.notes) == (name == 'vanished')
    if name == 'predicted-without-truth':
        present = np.array(GOLDEN[name]['ap_table'], float)[:5]
        assert result.metrics['ap_present'] == pytest.approx(present.mean(), abs=1e-9)
        assert any('no true instance of dress' in note for note in result.notes)


def test_the_sequences_ratios_make_the_score(replica):
    """What a bootstrap over sequences draws from: all sequences once give the score itself."""
    result = VipSemanticMetric(replica).evaluate(replica / 'lagging' / 'semantic')
    assert 0.2 < result.metrics['miou'] < 0.9
    for metric, value in result.metrics.items():
        assert combine(result.sequences, metric) == value
    for sequence in result.sequences:
        assert combine([sequence], 'miou') == pytest.approx(sequence.metrics['miou'], abs=1e-12)
        assert len(sequence.ratios['miou'][0]) == len(VIP_CLASSES)
        assert sequence.curves['miou'][0] == 1.0 and sequence.curves['miou'][-1] < 1.0
        assert len(sequence.frames) == len(sequence.curves['miou']) == 5
    instance = VipInstanceMetric(replica).evaluate(replica / 'lagging' / 'instance')
    assert all(sequence.ratios == {} for sequence in instance.sequences)
    assert BenchmarkResult.from_dict(json.loads(json.dumps(instance.to_dict()))).metrics == instance.metrics


@pytest.mark.parametrize('metric, kind', [(VipSemanticMetric, 'semantic'), (VipInstanceMetric, 'instance')])
def test_threads_change_no_number_and_progress_counts_frames(replica, metric, kind):
    seen = []
    alone = metric(replica).evaluate(replica / 'lagging' / kind, progress=lambda *count: seen.append(count))
    assert seen == [(n, 10) for n in range(1, 11)]
    several = metric(replica).evaluate(replica / 'lagging' / kind, jobs=3)
    assert json.dumps(several.to_dict()) == json.dumps(alone.to_dict())


def test_the_given_first_frame_is_scored(replica, predictions):
    path = predictions / 'semantic' / f'{FIRST}.png'
    write_label_map(path, np.zeros((64, 96), np.uint8))
    assert VipSemanticMetric(replica).evaluate(predictions / 'semantic').metrics['miou'] < 1


def test_a_part_of_the_split_is_said_to_be_one(replica):
    metric = VipInstanceMetric(replica, sequences=['videos1'])
    result = metric.evaluate(replica / 'perfect' / 'instance')
    assert (metric.sequences, len(result.sequences)) == (('videos1',), 1)
    notes = ' '.join(result.notes)
    assert '1 of the 2 sequences' in notes and '1 folder of predictions is of no sequence that is scored' in notes
    # the official mean counts the classes without truth as 0
    count = len(set(VIDEOS[0].classes.values()))
    assert result.metrics['ap'] == pytest.approx(count / 19) and result.metrics['ap_present'] == 1.0


def test_constant_scores_ignore_those_of_the_file(replica, predictions):
    (path,) = (predictions / 'instance').glob('videos2/*51.png')
    ids = np.array(Image.open(path))
    write_label_map(path, np.roll(ids, 30, axis=1))
    by_file = VipInstanceMetric(replica).evaluate(predictions / 'instance')
    constant = VipInstanceMetric(replica, scores='constant').evaluate(predictions / 'instance')
    for text in (predictions / 'instance').glob('*/*.txt'):
        text.write_text(''.join(f'{line.split()[0]} 1\n' for line in text.read_text().splitlines()))
    ones = VipInstanceMetric(replica).evaluate(predictions / 'instance')
    assert constant.metrics == ones.metrics and 'replaced by 1' in constant.notes[-1]
    assert by_file.metrics['ap'] < 1
    with pytest.raises(ValueError, match="'file' or 'constant'"):
        VipInstanceMetric(replica, scores='mean')


def test_grey_and_palette_pngs_are_the_same(replica, predictions):
    for path in (predictions / 'semantic').glob('*/*.png'):
        Image.fromarray(np.array(Image.open(path))).save(path)
        assert Image.open(path).mode == 'L'
    assert VipSemanticMetric(replica).evaluate(predictions / 'semantic').metrics['miou'] == 1.0


# ------------------------------------------------------------------------------------------------- bad input
def test_missing_files_are_named_before_anything_is_scored(replica, predictions):
    semantic, instance = predictions / 'semantic', predictions / 'instance'
    assert VipSemanticMetric(replica).missing(semantic) == VipInstanceMetric(replica).missing(instance) == {}
    (semantic / f'{FIRST}.png').unlink()
    (instance / 'videos1/000000000026.txt').unlink()
    shutil.rmtree(instance / 'videos2')
    missing = VipSemanticMetric(replica).missing(semantic)
    assert list(missing) == ['videos1'] and '1 of 5 files' in missing['videos1']
    missing = VipInstanceMetric(replica).missing(instance)
    assert '1 of 10 files are missing, e.g. 000000000026.txt' in missing['videos1']
    assert missing['videos2'] == 'no predictions'
    with pytest.raises(FileNotFoundError, match=f'1 of the 2 sequences of vip val .*: .*{Path(FIRST).name}'):
        VipSemanticMetric(replica).evaluate(semantic)
    with pytest.raises(FileNotFoundError, match='2 of the 2 sequences of vip_instance'):
        VipInstanceMetric(replica).evaluate(instance)
    with pytest.raises(FileNotFoundError, match='prediction folder not found'):
        VipSemanticMetric(replica).evaluate(predictions / 'nowhere')
    assert VipSemanticMetric(replica, sequences=['videos2']).evaluate(semantic).metrics['miou'] == 1.0


@pytest.mark.parametrize('jobs', [1, 2])
@pytest.mark.parametrize('metric, kind', [(VipSemanticMetric, 'semantic'), (VipInstanceMetric, 'instance')])
def test_a_prediction_of_another_size_or_kind_is_refused(replica, predictions, metric, kind, jobs):
    path = predictions / kind / f'{FIRST}.png'
    for image, error in (
        (Image.new('P', (48, 32)), '48 ?x ?32'),
        (Image.new('LA', (96, 64)), 'mode LA'),
        (Image.new('RGB', (96, 64)), 'RGB|colour'),
        (Image.new('I;16', (96, 64)), 'I;16|16-bit'),
    ):
        image.save(path)
        with pytest.raises(ValueError, match=f'{FIRST}.png.*({error})'):
            metric(replica).evaluate(predictions / kind, jobs=jobs)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match=f'{FIRST}.png'):
        metric(replica).evaluate(predictions / kind, jobs=jobs)


def test_a_predicted_class_that_does_not_exist_is_refused(replica, predictions):
    path = predictions / 'semantic' / f'{FIRST}.png'
    for class_id in (20, 255):
        write_label_map(path, np.full((64, 96), class_id, np.uint8))
        with pytest.raises(ValueError, match=f'{FIRST}.png: the prediction holds class {class_id}'):
            VipSemanticMetric(replica).evaluate(predictions / 'semantic')


@pytest.mark.parametrize(
    'text, error',
    [
        ('1 0.5\n', 'holds id 21, but 000000000001.txt has 1 lines'),
        ('', 'holds id 21, but 000000000001.txt has 0 lines'),
        ('1 0.5\nhat 0.5\n', "line 2: expected `class score`.*came 'hat 0.5'"),
        ('1 high\n', 'line 1: expected'),
        ('1 nan\n', 'line 1: expected'),
        ('1\n', 'line 1: expected'),
        ('1 0.5\n\n', "line 2: expected .*came ''"),
        ('20 0.5\n', 'from 1 to 19'),
        ('0 0.5\n', 'from 1 to 19'),
        ('1.0 0.5\n', 'line 1: expected'),
        ('1 1\n' * 256, 'has 256 lines'),
    ],
)
def test_a_broken_text_file_is_refused(replica, predictions, text, error):
    (predictions / 'instance' / f'{FIRST}.txt').write_text(text)
    with pytest.raises(ValueError, match=error):
        VipInstanceMetric(replica).evaluate(predictions / 'instance')


def test_a_frame_without_predictions_is_a_score_and_no_error(replica, predictions):
    """A tracker that lost everything writes background and an empty text file."""
    for video in VIDEOS:
        for stem in video.frame_names:
            write_label_map(predictions / 'semantic' / video.name / f'{stem}.png', np.zeros((64, 96), np.uint8))
            write_instances(predictions / 'instance' / video.name, stem, np.zeros((64, 96), np.uint8), ())
    semantic = VipSemanticMetric(replica).evaluate(predictions / 'semantic').metrics
    assert semantic['miou'] == pytest.approx(semantic['iou_background'] / 20) and semantic['iou_hat'] == 0
    assert VipInstanceMetric(replica).evaluate(predictions / 'instance').metrics['ap'] == 0


# ---------------------------------------------------------------------------------- from data set to score
class KnownMaps:
    """What `propagate_video` returns, with a known answer: the truth, and each id's score."""

    def __init__(self, video, scores):
        self.maps, self.scores = iter(video.instances), scores

    def __iter__(self):
        return self

    def __next__(self):
        self.seen = next(self.maps)
        return self.seen

    def object_scores(self):
        return {int(i): self.scores[int(i)] for i in np.unique(self.seen) if i}


@pytest.fixture
def known_tracker(monkeypatch):
    videos = {video.name: video for video in VIDEOS}
    scores = {i: 1 / (1 + i) for i in range(1, 60)}
    monkeypatch.setattr(
        'mmliir.evaluation.writers.propagate_video', lambda frames, *rest: KnownMaps(videos[frames.name], scores)
    )
    return scores


def test_instances_are_written_as_the_official_tools_read_them(replica, tmp_path, known_tracker):
    task = Config.fromfile(ROOT / 'configs/_base_/tasks/vip_instance.py').task
    task = build_task(task, data_root=replica)
    report = export_predictions(
        task.dataset, None, get_protocol('quick'), 4, tmp_path / 'out', card=None, writer=WRITERS[task.dataset.kind]
    )
    assert report.failed == () and len(report.written) == 2
    video = VIDEOS[1]
    for t, stem in enumerate(video.frame_names):
        ids = np.array(Image.open(tmp_path / 'out' / video.name / f'{stem}.png'))
        lines = [line.split() for line in (tmp_path / 'out' / video.name / f'{stem}.txt').read_text().splitlines()]
        seen = [int(i) for i in np.unique(video.instances[t]) if i]
        assert [int(i) for i in np.unique(ids)] == list(range(len(seen) + 1))
        for number, (i, (class_id, score)) in enumerate(zip(seen, lines, strict=True), start=1):
            assert np.array_equal(ids == number, video.instances[t] == i)
            assert int(class_id) == video.classes[i] and float(score) == pytest.approx(known_tracker[i], abs=1e-8)
    assert task.metric.evaluate(tmp_path / 'out').metrics['ap'] == 1.0


def test_constant_scores_need_no_probabilities(replica, tmp_path, known_tracker, monkeypatch):
    monkeypatch.delattr(KnownMaps, 'object_scores')
    data = VipDataset(str(replica), annotation='instance')
    writer = InstanceWriter(scores='constant')
    export_predictions(data, None, get_protocol('quick'), 4, tmp_path, card=None, writer=writer)
    assert {line.split()[1] for path in tmp_path.glob('*/*.txt') for line in path.read_text().splitlines()} == {'1'}
    assert VipInstanceMetric(replica).evaluate(tmp_path).metrics['ap'] == 1.0


def test_instances_without_classes_are_refused(replica, tmp_path):
    samples = VipDataset(str(replica))
    report = export_predictions(
        samples, None, get_protocol('quick'), 4, tmp_path, card=None, writer=WRITERS['instances']
    )
    assert 'has no classes of its ids' in report.failed[0][1]


def test_classes_are_propagated_and_scored(replica, tmp_path):
    """Colours in patches of 2 x 2 find the parts better than the first frame's labels left where they are."""
    task = build_task(Config.fromfile(ROOT / 'configs/_base_/tasks/vip.py').task, data_root=replica)
    protocol = get_protocol('quick').for_task(task.dataset.family).at_short_side(64)

    def encode(frames):
        return torch.nn.functional.pixel_unshuffle(frames.float() / 255, 2)

    report = export_predictions(
        task.dataset, encode, protocol, 2, tmp_path / 'out', card=None, writer=WRITERS[task.dataset.kind]
    )
    assert report.failed == ()
    found = task.metric.evaluate(tmp_path / 'out').metrics['miou']
    for video in VIDEOS:
        for stem in video.frame_names:
            write_label_map(tmp_path / 'still' / video.name / f'{stem}.png', video.categories[0])
    still = task.metric.evaluate(tmp_path / 'still').metrics['miou']
    assert found > still + 0.1
