"""Readers, doctor and scorers see the same files of a sequence, in the same order."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import DavisDataset, YouTubeVosDataset, read_davis_labels, write_label_map
from mmliir.datasets.doctor import diagnose
from mmliir.evaluation.metrics.davis import DavisMetric
from mmliir.testing.synthetic import generate_videos, write_davis_layout
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos

_NUM_FRAMES = 12


@pytest.fixture
def data(tmp_path):
    """DAVIS of one sequence, and a perfect prediction of the frames that are scored."""
    (video,) = generate_videos([3], _NUM_FRAMES, (48, 64))
    write_davis_layout(tmp_path / 'data', [video])
    shutil.copytree(tmp_path / 'data' / 'Annotations' / '480p', tmp_path / 'pred')
    return tmp_path, video.name


def folders_of(root, name):
    return root / 'data/JPEGImages/480p' / name, root / 'data/Annotations/480p' / name, root / 'pred' / name


def rename(folder, name_of):
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(path.with_name(f'new{name_of(number)}{path.suffix}'))
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.removeprefix('new')))


def score(root, **settings):
    return DavisMetric(root / 'data', **settings).score(root / 'pred')


NAMES = {
    'unpadded': lambda number: str(number),
    'negative': lambda number: str(number - 6),
    'decimals': lambda number: repr(number / 4),
    'counters': lambda number: f'shot1.{number + 1}',
    'words': lambda number: f'frame-{number}',
}


@pytest.mark.parametrize('names', NAMES)
def test_names_in_any_form_are_in_order_of_time_everywhere(data, names):
    root, name = data
    for folder in folders_of(root, name):
        rename(folder, NAMES[names])
    stems = [str(NAMES[names](number)) for number in range(_NUM_FRAMES)]
    # DAVIS leaves out the first and the last frame: what is wrong there costs nothing.
    for stem in (stems[0], stems[-1]):
        write_label_map(root / 'pred' / name / f'{stem}.png', np.zeros((48, 64), np.uint8))
    scores = score(root)
    assert scores.j.mean == 1 and list(scores.sequences[0].frames) == stems[1:-1]
    dataset = DavisDataset(root / 'data')
    assert list(dataset[0].frame_names) == stems == [path.stem for path in dataset.annotation_paths(name)]
    assert not [finding for finding in diagnose('davis2017', root / 'data').problems if name in str(finding)]


CLUTTER = ['._00000.png', '._00003.png', '.DS_Store', 'Thumbs.db', '00000_preview.png', 'mask.png', '00002.jpg']


@pytest.mark.parametrize('where', ['data/Annotations/480p', 'pred'])
def test_what_is_no_mask_changes_no_score(data, where):
    root, name = data
    before = score(root)
    for stray in CLUTTER:
        (root / where / name / stray).write_bytes(b'\0\5\x16\7 of a Mac')
    assert score(root).j == before.j
    dataset = DavisDataset(root / 'data')
    assert len(dataset.annotation_paths(name)) == _NUM_FRAMES
    assert len(dataset.truth_labels(name)) == _NUM_FRAMES
    diagnosis = diagnose('davis2017', root / 'data')
    assert diagnosis.evaluable[0].usable == (name,)
    if where != 'pred':
        said = '\n'.join(map(str, diagnosis.findings))
        assert all(stray in said for stray in CLUTTER[:5]) and 'ignored' in said


@pytest.mark.parametrize('change', ['truth', 'predictions', 'both'])
def test_suffixes_in_capital_letters_count(data, change):
    root, name = data
    _, truth, predictions = folders_of(root, name)
    for folder in {'truth': [truth], 'predictions': [predictions], 'both': [truth, predictions]}[change]:
        for path in list(folder.iterdir()):
            path.rename(path.with_suffix('.PNG'))
    metric = DavisMetric(root / 'data')
    assert not metric.missing(root / 'pred') and metric.score(root / 'pred').j.mean == 1


@pytest.mark.parametrize('suffix', ['.webp', '.bmp', '.png', '.JPG'])
def test_frames_of_other_types_are_frames_for_reader_and_doctor(data, suffix):
    root, name = data
    frames = folders_of(root, name)[0]
    for path in sorted(frames.iterdir())[3:5]:
        Image.open(path).save(path.with_suffix(suffix))
        if suffix != '.JPG' or path.with_suffix(suffix).name != path.name:
            path.unlink()
    sample = DavisDataset(root / 'data')[0]
    assert len(sample.frames) == _NUM_FRAMES and len(list(sample.frames)) == _NUM_FRAMES
    diagnosis = diagnose('davis2017', root / 'data', full=True)
    assert diagnosis.evaluable[0].usable == (name,)


def test_youtube_vos_lists_its_masks_the_same_way(tmp_path):
    write_youtube_vos(tmp_path)
    dataset = YouTubeVosDataset(tmp_path, split='valid')
    name = dataset.names[0]
    paths = dataset.annotation_paths(name)
    (paths[0].parent / f'._{paths[0].name}').write_bytes(b'x')
    paths[0].rename(paths[0].with_suffix('.PNG'))
    assert [path.stem for path in dataset.annotation_paths(name)] == [path.stem for path in paths]
    assert dataset.sample(name).given_labels


def test_the_last_and_the_first_label_are_those_of_time(data):
    root, name = data
    for folder in folders_of(root, name):
        rename(folder, NAMES['unpadded'])
    given = DavisDataset(root / 'data')[0].given_labels
    first = read_davis_labels(root / 'data/Annotations/480p' / name / '0.png', 2017)
    assert list(given) == [0] and np.array_equal(given[0](), first)
