"""The page of an evaluation: what is worst is shown, what is missing is said, and the same run is the same page."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from result_cases import EVIL, card, result, sequence

from mmliir.datasets import DavisDataset, read_label_map
from mmliir.datasets.masks import write_label_map
from mmliir.evaluation import evaluation_report
from mmliir.evaluation.evaluation_report import EvaluatedRun, worst_frames, write_evaluation_report
from mmliir.evaluation.metrics import DavisMetric
from mmliir.structures import PointSample
from mmliir.structures.palette import davis_palette
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.visualization import point_color

TAG = '<b>&"bold'
NAMES = ('good', TAG, 'größe,"q"')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Three short videos; the predictions are the truth moved by 0, 12 and 4 pixels."""
    root = tmp_path_factory.mktemp('davis')
    write_davis_layout(root, (generate_video(n, 8, (64, 96), name=name) for n, name in enumerate(NAMES)))
    dataset, pred = DavisDataset(str(root)), root / 'pred'
    for name, shift in zip(NAMES, (0, 12, 4), strict=True):
        (pred / name).mkdir(parents=True)
        for path in dataset.annotation_paths(name):
            write_label_map(pred / name / path.name, np.roll(read_label_map(path).ids, shift, axis=1))
    return EvaluatedRun(DavisMetric(root).evaluate(pred), card(), dataset, pred)


@pytest.fixture
def no_video(monkeypatch):
    def refuse():
        raise ImportError("Writing a video needs PyAV: `pip install 'mmliir[video]'`.")

    monkeypatch.setattr(evaluation_report, 'require_video_writer', refuse)


def source(path, runs, **options) -> str:
    return write_evaluation_report(path / 'report.html', runs, **options).path.read_text(encoding='utf-8')


def words(text: str) -> str:
    return re.sub(r'base64,[\w+/=]+', '', text)


def pictures(text: str, width: int) -> list[np.ndarray]:
    found = re.findall(r'<img src="data:image/jpeg;base64,([\w+/=]+)"', text)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data in found]
    factors = [picture.shape[1] // width for picture in shown]  # small frames are shown enlarged
    return [picture[n // 2 :: n, n // 2 :: n] for picture, n in zip(shown, factors, strict=True)]


def test_two_builds_are_equal_to_the_byte(tmp_path, run):
    pytest.importorskip('av')
    first = write_evaluation_report(tmp_path / 'a.html', [run])
    second = write_evaluation_report(tmp_path / 'b.html', [run])
    assert first.path.read_bytes() == second.path.read_bytes()
    assert not first.left_out and first.path.read_text().count('<video ') == 2


def test_it_says_what_was_scored_and_where_it_fails(tmp_path, run, no_video):
    text = words(source(tmp_path, [run], commands=['tools/test.py'], environment={'torch': '2'}))
    for word in ('raw_lab: davis2017 val, liir_davis', '3 of 3 sequences', '95 % interval', 'Worst frames', 'radius'):
        assert word in text
    value = 100 * run.result.metrics['jf_mean']
    assert f'<b>{value:.1f}</b>' in text
    order = [text.index(f'<th scope="row">{name}') for name in ('&lt;b&gt;', 'größe', 'good')]
    assert order == sorted(order), 'the lowest sequence comes first'
    assert 'No video in this report' in text


def test_names_are_text_and_the_page_asks_for_nothing(tmp_path, run):
    text = words(source(tmp_path, [replace(run, card=card(model=EVIL, protocol=TAG))], title=TAG, notes=[EVIL]))
    assert TAG not in text and text.count('&lt;b&gt;&amp;&quot;bold') >= 6
    assert 'alert("x")' not in text and text.count('<script>') == 1
    assert not re.search(r'(?i)https?:|//[a-z]|@import|url\(', text)


def test_the_worst_frames_are_those_with_the_lowest_scores_two_of_a_sequence():
    rows = [
        sequence('a', 0.20, num_frames=40),
        sequence('b', 0.30, num_frames=40),
        sequence('c', 0.25, curves=False),
        sequence('d', 0.9, num_frames=3),
    ]
    found = worst_frames(result(rows), 4)
    assert [(name, frame) for name, frame, _ in found] == [
        ('a', '00040'), ('a', '00036'), ('b', '00040'), ('b', '00036'),
    ]  # fmt: skip
    assert found[0][2] == {'j': rows[0].curves['j'][-1], 'f': rows[0].curves['f'][-1]}
    assert [row[0] for row in worst_frames(result(rows), 9)] == ['a', 'a', 'b', 'b', 'd', 'd']
    assert worst_frames(result([rows[2]]), 4) == []


@pytest.mark.parametrize(
    ('frames', 'gap'), [('00003 00004', 3), ('00000 00001', 0), ('00000 00005', 0), ('a b', 0), ('99999 100000', 0)]
)
def test_curves_stand_over_the_numbers_of_their_frames(frames, gap):
    row = replace(sequence('a', 0.5, num_frames=2), frames=tuple(frames.split()))
    charts, _ = evaluation_report._charts(result([row]))
    assert len(charts['a']['J']) == gap + 2 and np.isnan(charts['a']['J'][:gap]).all()
    assert charts['a']['J'][gap:] == list(row.curves['j'])


def test_frames_without_a_score_are_never_the_worst():
    row = sequence('a', 0.5, num_frames=4)
    row = replace(row, curves={'j': (np.nan, 0.2, 0.1, 0.9), 'f': (np.nan, np.nan, 0.5, 0.9)})
    assert [frame for _, frame, _ in worst_frames(result([row]), 9, per_sequence=9)] == ['00002', '00003', '00004']


def test_pictures_show_prediction_beside_truth(tmp_path, run, no_video):
    """In the red of id 1: the truth where it is, the prediction 12 pixels beside it."""
    text = source(tmp_path, [run])
    (name, frame, _), *_ = worst_frames(run.result, 1)
    assert name == TAG
    labels = read_label_map(run.pred_dir / name / f'{frame}.png').ids
    truth = run.dataset.truth_labels(name)[int(frame)]()
    first = run.dataset.sample(name).frames[int(frame)].astype(int)
    color = davis_palette()[1].astype(int)
    shown = pictures(text, 96)
    for picture, mine, other in ((shown[0], labels, truth), (shown[1], truth, labels)):
        inside = (mine == 1) & (other == 0)
        plain = (mine == 0) & (other == 1)
        assert np.abs(picture[inside] - (first + color)[inside] / 2).mean() < np.abs((picture - first)[inside]).mean()
        assert np.abs((picture - first)[plain]).mean() < 25  # JPEG


def test_a_sequence_that_is_missing_is_in_a_banner_and_a_table_with_its_reason(tmp_path, run, no_video):
    part = replace(run.result, missing=((EVIL, 'no file 00003.png'),), num_sequences_in_split=4, num_published=30)
    text = words(source(tmp_path, [replace(run, result=part)]))
    assert 'role="alert"' in text and 'Incomplete: 1 of the 4 sequences' in text
    assert '3 of 4 sequences (published scores: 30)' in text
    assert 'Missing sequences: 1' in text and 'no file 00003.png' in text
    whole = words(source(tmp_path, [replace(run, result=replace(run.result, num_published=None))]))
    assert 'role="alert"' not in whole and 'Missing' not in whole


def test_predicted_frames_that_are_gone_leave_the_frame_and_gone_folders_a_note(tmp_path, run, no_video):
    pred = tmp_path / 'pred'
    pred.mkdir()
    (pred / 'good').write_text('a file where a folder should be')
    text = words(source(tmp_path, [replace(run, pred_dir=pred)]))
    assert 'Worst frames' in text and 'None' not in text
    with pytest.raises(FileNotFoundError, match='folder of predictions not found'):
        source(tmp_path, [replace(run, pred_dir=tmp_path / 'gone')])


def test_a_damaged_prediction_costs_its_picture_and_is_said(tmp_path, run):
    pytest.importorskip('av')
    pred = tmp_path / 'pred'
    for name in NAMES:
        (pred / name).mkdir(parents=True)
        for frame in run.dataset.sample(name).frame_names:
            (pred / name / f'{frame}.png').write_bytes(b'no picture')
    text = words(source(tmp_path, [replace(run, pred_dir=pred)]))
    assert '<video' not in text and 'No video of' in text and 'No picture of' in text and 'Scores over time' in text


def test_without_curves_without_data_without_card_and_without_sequences(tmp_path, run, no_video):
    rows = [replace(row, frames=(), curves={}) for row in run.result.sequences]
    text = words(source(tmp_path, [replace(run, result=replace(run.result, sequences=tuple(rows)))]))
    assert 'Scores over time' not in text and 'J&amp;F of the sequence' in text
    bare = words(source(tmp_path, [EvaluatedRun(run.result)]))
    assert 'Worst frames' not in bare and 'Protocol card' not in bare and 'Sequences' in bare
    empty = replace(run.result, sequences=(), metrics={'jf_mean': float('nan')}, missing=(('goat', 'gone'),))
    assert 'Incomplete' in words(source(tmp_path, [replace(run, result=empty)]))


def test_values_that_are_no_fractions_are_told_and_not_drawn(tmp_path):
    rows = [sequence('a', 1.5, -0.5), sequence('b', 0.5, 0.5)]
    text = words(source(tmp_path, [EvaluatedRun(result(rows))]))
    assert '150.0' in text and '-50.0' in text and '<div class="bar-chart">' not in text


def test_several_runs_are_one_page_with_a_part_each(tmp_path, run, no_video):
    runs = [
        replace(run, card=card(protocol='crw')),
        replace(run, card=card(protocol='dino')),
        EvaluatedRun(result([sequence('x', 0.25)], 9, benchmark='vip'), card(protocol='crw')),
    ]
    text = words(source(tmp_path, runs))
    assert text.count('<details class="part"') == 3 and text.count('href="#part-') == 3
    head = text[: text.index('<details')]
    assert 'vip val' in head and '25.0' in head and '±' in head and '1 of 9' in head
    assert text.count('Worst frames') == 2 and 'Evaluation of raw_lab' in text


def test_the_size_is_kept_and_what_is_left_out_is_named(tmp_path, run):
    pytest.importorskip('av')
    big = write_evaluation_report(tmp_path / 'big.html', [run, run])
    limit = int(big.num_bytes * 0.5)
    small = write_evaluation_report(tmp_path / 'small.html', [run, run], max_bytes=limit)
    assert small.num_bytes <= limit and small.left_out
    assert 'Left out because the file would get too big' in small.path.read_text()


def test_many_sequences_stay_small_and_say_what_is_shown(tmp_path):
    rows = [sequence(f's{n:04d}', 0.2 + n / 2000, num_frames=70) for n in range(1000)]
    done = write_evaluation_report(tmp_path / 'r.html', [EvaluatedRun(result(rows))])
    text = done.path.read_text()
    assert done.num_bytes < 2**20
    assert 'Bars of the 40 lowest of 1000' in text and 'the 30 worst of 1000' in text and 's0999' in text


class Points:
    """Two points of four frames; the second one is hidden at the end."""

    kind = 'points'
    tracks = np.array([[[10.0, 20.0]] * 4, [[40.0, 30.0]] * 4])
    visible = np.array([[True] * 4, [True, True, True, False]])

    def sample(self, name):
        frames = np.zeros((4, 48, 64, 3), dtype=np.uint8)
        return PointSample(name, frames, tuple('0123'), np.array([[0, 10.0, 20.0], [0, 40.0, 30.0]]))

    def truth_points(self, name):
        return self.tracks, self.visible


@pytest.mark.parametrize('with_truth', [True, False])
def test_points_are_drawn_where_they_are_with_lines_to_the_truth(tmp_path, no_video, with_truth):
    found = Points.tracks + [20, 0]
    (tmp_path / 'p').mkdir()
    arrays = dict(queries=Points().sample('p').queries, confidence=np.ones((2, 4)), visible=Points.visible)
    np.savez(tmp_path / 'p' / 'tracks.npz', tracks=found, **arrays)
    dataset = Points()
    if not with_truth:
        dataset.truth_points = None
    row = replace(sequence('p', 0.5, num_frames=4), frames=tuple('0123'))
    text = source(tmp_path, [EvaluatedRun(result([row]), card(), dataset, tmp_path)])
    shown = pictures(text, 64)
    assert len(shown) == (4 if with_truth else 2)
    color = np.array(point_color(0))
    assert np.abs(shown[0][20, 30] - color).max() < 70, 'no point at its place'
    assert (shown[0][20, 20].max() > 60) == with_truth, 'the line to the true place'
    if with_truth:
        assert np.abs(shown[1][20, 10] - color).max() < 70 and shown[1][20, 30].max() < 60


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match='one evaluated run'):
        write_evaluation_report(tmp_path / 'r.html', [])


@pytest.mark.slow
@pytest.mark.real
def test_thirty_real_sequences_stay_within_the_budget(tmp_path, data_root):
    """30 sequences of 80 or 90 frames at 480p: below 20 MiB and below a minute."""
    source_root = data_root / 'davis2016'
    real = ('camel', 'dance-twirl', 'goat', 'paragliding-launch')
    names = [f'{real[n % 4]}-{n}' for n in range(30)]
    for n, name in enumerate(names):
        for target, kind in (('JPEGImages/480p', 'JPEGImages'), ('Annotations/480p', 'Annotations'), ('pred', None)):
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            (tmp_path / target / name).symlink_to(source_root / (kind or 'Annotations') / '480p' / real[n % 4])
    (tmp_path / 'ImageSets' / '2016').mkdir(parents=True)
    (tmp_path / 'ImageSets' / '2016' / 'val.txt').write_text('\n'.join(names))
    dataset = DavisDataset(str(tmp_path), 2016)
    rows = []
    for n, name in enumerate(names):
        frames = dataset.sample(name).frame_names[1:-1]
        rows.append(replace(sequence(name, 0.3 + n / 50, num_frames=len(frames)), frames=frames))
    run = EvaluatedRun(result(rows), card(), dataset, tmp_path / 'pred')
    done = write_evaluation_report(tmp_path / 'r.html', [run])
    assert done.num_bytes < 20 * 2**20 and not done.left_out
