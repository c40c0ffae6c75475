"""DAVIS scores against the official tool's, and what happens to folders that are not as they should be."""

import dataclasses
import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from davis_cases import CASES, GOLDEN, digest, make_sequence, write_dataset, write_masks
from PIL import Image

from mmliir.datasets.davis import DavisDataset
from mmliir.evaluation.metrics import DavisMetric, Scores
from mmliir.registry import METRICS

SMALL = 'three-frames'
needs_official = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ('davis2017', 'skimage')),
    reason='the official davis2017-evaluation is not on PYTHONPATH',
)


@pytest.fixture(scope='module')
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope='module')
def all_cases(tmp_path_factory):
    root = tmp_path_factory.mktemp('davis')
    return root, write_dataset(root, list(CASES))


@pytest.fixture
def small(tmp_path):
    """One sequence of three frames, two objects, and a free hand to spoil it."""
    return tmp_path, write_dataset(tmp_path, [SMALL])


def _rows(scores: Scores) -> dict[str, list[float]]:
    objects = [scores for sequence in scores.sequences for scores in sequence.objects]
    return {
        f'{scores.sequence}_{scores.object_id}': [
            *dataclasses.astuple(scores.j),
            *dataclasses.astuple(scores.f),
        ]
        for scores in objects
    }


def _numbers(rows: dict[str, list]) -> np.ndarray:
    return np.array([[math.nan if value is None else value for value in row] for row in rows.values()])


def test_cases_are_those_the_golden_numbers_are_of(golden):
    assert {name: digest(name) for name in CASES} == golden['masks_sha256']


def test_every_number_equals_the_official_tools(all_cases, golden):
    root, predictions = all_cases
    scores = DavisMetric(root).score(predictions)
    rows = _rows(scores)
    assert list(rows) == list(golden['objects'])
    np.testing.assert_allclose(_numbers(rows), _numbers(golden['objects']), rtol=0, atol=1e-12)
    means = np.mean(_numbers(golden['objects']), axis=0)
    values = [*dataclasses.astuple(scores.j), *dataclasses.astuple(scores.f)]
    np.testing.assert_allclose(values, means, rtol=0, atol=1e-12)
    assert scores.jf_mean == pytest.approx((means[0] + means[3]) / 2, abs=1e-12)


def test_the_mean_is_over_objects_and_not_over_sequences(all_cases, golden):
    root, predictions = all_cases
    scores = DavisMetric(root, sequences=['many-objects', 'late-object']).score(predictions)
    j_means = [golden['objects'][f'many-objects_{k}'][0] for k in range(1, 6)]
    j_means.append(golden['objects']['late-object_1'][0])
    assert scores.j.mean == pytest.approx(np.mean(j_means), abs=1e-12)
    assert scores.sequences[0].j.mean == pytest.approx(np.mean(j_means[:5]), abs=1e-12)
    assert abs(scores.j.mean - np.mean([sequence.j.mean for sequence in scores.sequences])) > 0.01


def test_threads_change_no_number_and_progress_counts_every_frame(all_cases):
    root, predictions = all_cases
    metric = DavisMetric(root, sequences=['void', 'tall', 'noise'])
    calls = []
    assert metric.score(predictions, jobs=3, progress=lambda *call: calls.append(call)) == metric.score(
        predictions
    )
    total = 6 + 7 + 5
    assert calls == [(done, total) for done in range(1, total + 1)]


@needs_official
def test_the_official_tool_says_the_same(all_cases):
    root, predictions = all_cases
    names = [name for name in CASES if not name.startswith('scored-3')]
    metric = DavisMetric(root, sequences=names)
    ours, theirs = metric.score(predictions), metric.score(predictions, backend='official')
    np.testing.assert_allclose(_numbers(_rows(ours)), _numbers(_rows(theirs)), rtol=0, atol=1e-12)
    assert theirs.backend == 'official'
    assert ours.jf_mean == pytest.approx(theirs.jf_mean, abs=1e-12)
    assert not list(predictions.rglob('*.csv'))


@needs_official
def test_the_official_tool_agrees_on_2016(tmp_path):
    root, predictions = _write_2016(tmp_path)
    metric = DavisMetric(root, year=2016)
    ours, theirs = metric.score(predictions), metric.score(predictions, backend='official')
    np.testing.assert_allclose(_numbers(_rows(ours)), _numbers(_rows(theirs)), rtol=0, atol=1e-12)


def test_official_backend_says_how_to_install_it(small, monkeypatch):
    root, predictions = small
    monkeypatch.setitem(sys.modules, 'davis2017', None)
    monkeypatch.setitem(sys.modules, 'davis2017.evaluation', None)
    with pytest.raises(ImportError, match='git clone'):
        DavisMetric(root).score(predictions, backend='official')


def test_perfect_predictions_score_one(all_cases):
    root, _ = all_cases
    scores = DavisMetric(root, sequences=['tall', 'vanishing', 'empty-truth', 'full-frame']).score(
        root / 'Annotations' / '480p'
    )
    assert (scores.j.mean, scores.j.recall, scores.j.decay) == (1, 1, 0)
    assert (scores.f.mean, scores.f.recall, scores.f.decay) == (1, 1, 0)


def test_first_and_last_frame_are_not_scored_and_need_no_prediction(small):
    root, predictions = small
    before = DavisMetric(root).score(predictions)
    (predictions / SMALL / '00000.png').unlink()
    (predictions / SMALL / '00002.png').unlink()
    assert DavisMetric(root).score(predictions) == before
    assert before.sequences[0].frames == ('00001',)


# ------------------------------------------------------------------------------------------------- DAVIS-2016
def _write_2016(root: Path) -> tuple[Path, Path]:
    """Write 0 / 255 truth and predictions with several ids in the layout of the 2016 archive."""
    truth, prediction = make_sequence('noise')
    write_masks(root / 'Annotations' / '480p' / 'noise', (truth > 0).astype(np.uint8) * 255)
    write_masks(root / 'predictions' / 'noise', prediction)
    lists = root / 'ImageSets' / '480p'
    lists.mkdir(parents=True)
    pairs = [
        f'/JPEGImages/480p/noise/{t:05d}.jpg /Annotations/480p/noise/{t:05d}.png ' for t in range(len(truth))
    ]
    (lists / 'val.txt').write_text('\n'.join(pairs))
    return root, root / 'predictions'


def test_2016_compares_foreground_with_foreground(tmp_path):
    root, predictions = _write_2016(tmp_path / '2016')
    scores = DavisMetric(root, year=2016).score(predictions)
    truth, prediction = make_sequence('noise')
    binary = tmp_path / 'binary'
    write_masks(binary / 'Annotations' / '480p' / 'noise', (truth > 0).astype(np.uint8))
    write_masks(binary / 'predictions' / 'noise', (prediction > 0).astype(np.uint8))
    (binary / 'ImageSets' / '2017').mkdir(parents=True)
    (binary / 'ImageSets' / '2017' / 'val.txt').write_text('noise\n')
    expected = DavisMetric(binary).score(binary / 'predictions')
    assert _rows(scores) == _rows(expected)
    assert len(scores.sequences[0].objects) == 1
    assert scores.benchmark == 'davis2016'


def test_2016_prefers_the_list_of_names(tmp_path):
    root, _ = _write_2016(tmp_path)
    (root / 'ImageSets' / '2016').mkdir()
    (root / 'ImageSets' / '2016' / 'val.txt').write_text('noise\n\n')
    (root / 'ImageSets' / '480p' / 'val.txt').unlink()
    assert DavisMetric(root, year=2016).sequences == ('noise',)


def test_2016_truth_may_have_colour_channels(tmp_path):
    root, predictions = _write_2016(tmp_path)
    before = DavisMetric(root, year=2016).score(predictions)
    path = root / 'Annotations' / '480p' / 'noise' / '00003.png'
    grey = np.array(Image.open(path))
    Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])).save(path)
    assert DavisMetric(root, year=2016).score(predictions) == before


# ----------------------------------------------------------------------------------- what is said and refused
def test_partly_annotated_sequences_are_scored_where_annotated_and_say_so(small):
    root, predictions = small
    images = root / 'JPEGImages' / '480p' / SMALL
    images.mkdir(parents=True)
    for t in range(5):
        (images / f'{t:05d}.jpg').touch()
    notes = DavisMetric(root).score(predictions).notes
    assert any('3 of 5 frames are annotated' in note for note in notes)


def test_notes_tell_a_part_of_the_split_from_the_whole(all_cases):
    root, predictions = all_cases
    notes = DavisMetric(root, sequences=['tall']).score(predictions).notes
    assert any(f'1 of the {len(CASES)} sequences' in note for note in notes)
    assert any('over 30: not comparable' in note for note in notes)


def test_late_objects_are_left_out_with_a_note(all_cases, tmp_path):
    root, _ = all_cases
    _, prediction = make_sequence('late-object')
    prediction[4:, 2:9, 3:12] = 2
    write_masks(tmp_path / 'late-object', prediction)
    metric = DavisMetric(root, sequences=['late-object'])
    scores = metric.score(tmp_path)
    assert any('objects 2 enter after' in note for note in scores.notes)
    assert len(scores.sequences[0].objects) == 1


def test_long_sequences_say_that_decay_wraps(all_cases):
    root, predictions = all_cases
    scores = DavisMetric(root, sequences=['scored-300']).score(predictions)
    assert any('8 bits' in note for note in scores.notes)
    assert scores.to_dict()['j_decay'] is None
    json.dumps(scores.to_dict(), allow_nan=False)


def test_to_dict_holds_every_level(all_cases):
    root, predictions = all_cases
    result = DavisMetric(root, sequences=['tall']).score(predictions).to_dict()
    assert result['num_objects'] == 3
    sequence = result['sequences'][0]
    assert sequence['frames'] == [f'{t:05d}' for t in range(1, 8)]
    assert np.mean(sequence['objects'][1]['j_per_frame']) == pytest.approx(sequence['objects'][1]['j_mean'])
    assert result['jf_mean'] == pytest.approx((result['j_mean'] + result['f_mean']) / 2)


@pytest.mark.parametrize('backend', ['mmliir', pytest.param('official', marks=needs_official)])
def test_an_id_above_the_number_of_objects_is_refused(small, backend):
    root, predictions = small
    path = predictions / SMALL / '00001.png'
    ids = np.array(Image.open(path))
    ids[0, 0], ids[0, 1] = 7, 255
    Image.fromarray(ids).save(path)
    with pytest.raises(ValueError, match=r'00001\.png holds object ids 7, 255.*has 2 objects.*davis2016'):
        DavisMetric(root).score(predictions, backend)


def test_void_is_no_late_object_and_excuses_no_prediction(all_cases, tmp_path):
    root, predictions = all_cases
    metric = DavisMetric(root, sequences=['void'])
    assert not any('enter after' in note for note in metric.score(predictions).notes)
    _, prediction = make_sequence('void')
    prediction[3, 25, 20] = 255
    write_masks(tmp_path / 'void', prediction)
    with pytest.raises(ValueError, match=r'00003\.png holds object ids 255'):
        metric.score(tmp_path)


def test_missing_sequence_and_frame_are_named(small, tmp_path):
    root, predictions = small
    metric = DavisMetric(root)
    with pytest.raises(FileNotFoundError, match='Prediction folder not found'):
        metric.score(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=rf'{SMALL} not found: 1 of the 1 sequences'):
        metric.score(root / 'ImageSets')
    (predictions / SMALL / '00001.png').rename(predictions / SMALL / '1.png')
    with pytest.raises(FileNotFoundError, match=r'00001\.png not found: 1 of the 1 scored frames.*1\.png'):
        metric.score(predictions)


def test_missing_says_which_sequences_lack_what_and_score_stays_strict(all_cases, tmp_path):
    root, predictions = all_cases
    metric = DavisMetric(root, sequences=['tall', 'void', 'noise'])
    assert metric.missing(predictions) == {}
    shutil.copytree(predictions / 'tall', tmp_path / 'tall')
    shutil.copytree(predictions / 'void', tmp_path / 'void')
    for name in ('tall/00000.png', 'tall/00008.png', 'void/00003.png'):  # the first and the last are not scored
        (tmp_path / name).unlink()
    found = metric.missing(tmp_path)
    assert found == {
        'void': '1 of 6 scored frames have no prediction (00003.png)',
        'noise': 'no predictions',
    }
    with pytest.raises(FileNotFoundError):
        metric.score(tmp_path)
    assert list(metric.missing(tmp_path / 'nowhere')) == ['tall', 'void', 'noise']


def test_splits_without_public_truth_say_so(small):
    root, _ = small
    for split in ('test-dev', 'test-challenge'):
        with pytest.raises(ValueError, match=f'truth of DAVIS {split} is not public.*mmliir submit'):
            DavisMetric(root, split=split)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((20, 28), np.uint8), r'is 28 x 20 pixels, its annotation 56 x 40'),
        (np.zeros((40, 56, 3), np.uint8), 'is a colour image'),
        (np.zeros((40, 56), np.uint16), 'is a 16-bit image'),
    ],
)
@pytest.mark.parametrize('year', [2016, 2017])
def test_predictions_of_another_kind_are_refused(small, image, message, year):
    root, predictions = small
    (root / 'ImageSets' / '2016').mkdir()
    (root / 'ImageSets' / '2016' / 'val.txt').write_text(SMALL)
    Image.fromarray(image).save(predictions / SMALL / '00001.png')
    with pytest.raises(ValueError, match=rf'00001\.png {message}'):
        DavisMetric(root, year=year).score(predictions)


@pytest.mark.parametrize(('keep', 'jobs'), [(0, 1), (20, 1), (120, 1), (120, 2)])
def test_damaged_predictions_are_refused(small, keep, jobs):
    root, predictions = small
    path = predictions / SMALL / '00001.png'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'00001\.png is (not a readable image|damaged)'):
        DavisMetric(root).score(predictions, jobs=jobs)


@pytest.mark.parametrize('num_frames', [1, 2])
def test_sequences_without_a_scored_frame_are_refused(tmp_path, num_frames):
    write_dataset(tmp_path, [SMALL])
    for t in range(num_frames, 3):
        (tmp_path / 'Annotations' / '480p' / SMALL / f'{t:05d}.png').unlink()
    with pytest.raises(ValueError, match=f'holds {num_frames} annotated frames.*at least 3'):
        DavisMetric(tmp_path)


def test_a_first_frame_without_objects_is_refused(small):
    root, predictions = small
    write_masks_path = root / 'Annotations' / '480p' / SMALL / '00000.png'
    void = np.full((40, 56), 255, np.uint8)
    Image.fromarray(void).save(write_masks_path)
    with pytest.raises(ValueError, match='shows no object'):
        DavisMetric(root).score(predictions)


def test_wrong_arguments_are_named(small):
    root, predictions = small
    with pytest.raises(FileNotFoundError, match=r'train\.txt'):
        DavisMetric(root, split='train')
    with pytest.raises(ValueError, match='year'):
        DavisMetric(root, year=2018)
    with pytest.raises(ValueError, match='nobody'):
        DavisMetric(root, sequences=['nobody'])
    with pytest.raises(ValueError, match='twice'):
        DavisMetric(root, sequences=[SMALL, SMALL])
    with pytest.raises(ValueError, match='list of names'):
        DavisMetric(root, sequences=SMALL)
    with pytest.raises(ValueError, match='jobs'):
        DavisMetric(root).score(predictions, jobs=0)
    with pytest.raises(ValueError, match='backend'):
        DavisMetric(root).score(predictions, backend='other')
    with pytest.raises(TypeError, match='splitt'):
        METRICS.build(dict(type='DavisMetric', data_root=root, splitt='val'))


@pytest.mark.parametrize('year', [2016, 2017])
def test_metric_and_data_set_name_the_same_files(tmp_path, year):
    if year == 2016:
        _write_2016(tmp_path)
    else:
        write_dataset(tmp_path, ['void', 'tall'])
    metric = DavisMetric(tmp_path, year=year)
    for name in metric.sequences:
        images = tmp_path / 'JPEGImages' / '480p' / name
        images.mkdir(parents=True)
        for path in metric.truth[name]:
            (images / f'{path.stem}.jpg').touch()
    data_set = DavisDataset(tmp_path, year=year)
    assert tuple(data_set.names) == metric.sequences
    assert {name: data_set.truth(name) for name in data_set.names} == metric.truth


def test_registry_builds_it(small):
    root, predictions = small
    metric = METRICS.build(dict(type='DavisMetric', data_root=root))
    assert 0 < metric.score(predictions).jf_mean < 1
