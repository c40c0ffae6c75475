"""YouTube-VOS validation: which objects are given where, which frames are stored, and what is refused."""

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import YouTubeVosDataset, YouTubeVOSSource, holdout_names, write_label_map
from mmliir.registry import DATASETS
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_youtube_vos(tmp_path_factory.mktemp('ytvos') / 'YouTubeVOS_2018')


@pytest.fixture
def copy(written, tmp_path):
    """A copy to spoil, and the name of its first validation video."""
    shutil.copytree(written.root, tmp_path / '2018')
    return tmp_path / '2018', sorted(written.truth['valid'])[0]


@pytest.mark.parametrize('split', ['valid', 'train_holdout'])
def test_each_object_is_given_once_where_it_first_appears(written, split):
    data = DATASETS.build(dict(type='YouTubeVosDataset', data_root=str(written.root), year=2018, split=split))
    truth = written.truth['valid' if split == 'valid' else 'train']
    assert len(data) == 2 and (split == 'valid' or tuple(data.names) == written.holdout)
    for sample in data:
        maps = truth[sample.name]
        shown = {t: set(np.unique(maps[t]).tolist()) - {0} for t in range(0, len(maps), 5)}
        first = {number: min(t for t, ids in shown.items() if number in ids) for number in (1, 2, 3)}
        assert sorted(sample.given_labels) == sorted(set(first.values())) and len(sample.given_labels) == 2
        for t, read in sample.given_labels.items():
            new = [number for number, start in first.items() if start == t]
            assert np.array_equal(read(), np.where(np.isin(maps[t], new), maps[t], 0))


def test_all_frames_are_there_and_every_fifth_is_stored(written):
    sample = YouTubeVosDataset(written.root)[0]
    assert len(sample.frames) == 21 and sample.export_names == ('00000', '00005', '00010', '00015', '00020')
    sampled = YouTubeVosDataset(written.root, frames='sampled').sample(sample.name)
    assert sampled.frame_names == sampled.export_names == sample.export_names
    assert list(sampled.given_labels) == [t // 5 for t in sample.given_labels]
    assert pickle.loads(pickle.dumps(sample)).given_labels[0]().any()


def test_the_year_is_found_below_the_folder_given(written, tmp_path):
    assert YouTubeVosDataset(written.root.parent).data_root == written.root
    with pytest.raises(FileNotFoundError, match='YouTube-VOS 2019 not found'):
        YouTubeVosDataset(written.root.parent, year=2019)
    for name in ('a2018', 'b2018'):
        (tmp_path / name / 'valid').mkdir(parents=True)
    with pytest.raises(ValueError, match='2 folders of 2018: a2018, b2018'):
        YouTubeVosDataset(tmp_path)


def test_the_hold_out_depends_on_the_name_alone(written):
    names = [f'{number:010x}' for number in range(4000)]
    held = holdout_names(names)
    assert 0.04 < len(held) / len(names) < 0.06
    assert holdout_names(reversed(names)) == held and holdout_names(held) == held
    assert set(holdout_names(names[:100])) == set(held) & set(names[:100])
    assert set(held) < set(holdout_names(names, 0.1))
    # What is published cannot change silently: SHA-256, first 8 bytes, big-endian.
    assert held[:4] == ['0000000004', '000000001a', '000000002e', '000000003d']
    assert all(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < 0.05 * 2**64 for name in held)
    for share in (0, 1, -0.1, 5):
        with pytest.raises(ValueError, match='between 0 and 1'):
            holdout_names(names, share)


def test_training_without_the_hold_out_shares_no_video_with_it(written):
    whole = YouTubeVOSSource(str(written.root))
    rest = YouTubeVOSSource(str(written.root), holdout=0.05)
    evaluated = YouTubeVosDataset(written.root, split='train_holdout').names
    assert set(rest.names) | set(evaluated) == set(whole.names) and not set(rest.names) & set(evaluated)


def test_an_empty_annotation_gives_nothing(copy):
    root, name = copy
    first, late = sorted((root / 'valid' / 'Annotations' / name).iterdir())
    # The late object's first annotation shows nothing, the next one does.
    ids = np.array(Image.open(late))
    write_label_map(late.with_name('00010.png'), np.zeros_like(ids))
    assert list(YouTubeVosDataset(root).sample(name).given_labels) == [0, int(late.stem)]
    # It is never shown: the video is still there, without it.
    write_label_map(late, np.zeros_like(ids))
    assert list(YouTubeVosDataset(root).sample(name).given_labels) == [0]
    assert YouTubeVosDataset(root).allowed_ids(name) == {1, 2, 3}
    # The first mask is empty: objects start later.
    write_label_map(late, ids)
    write_label_map(first, np.zeros_like(ids))
    assert list(YouTubeVosDataset(root).sample(name).given_labels) == [int(late.stem)]
    write_label_map(late, np.zeros_like(ids))
    with pytest.raises(ValueError, match=f'{name}: no annotation shows an object'):
        YouTubeVosDataset(root).sample(name)


def test_what_is_missing_is_named(copy):
    root, name = copy
    with pytest.raises(ValueError, match='2018 or 2019'):
        YouTubeVosDataset(root, year=2017)
    with pytest.raises(ValueError, match="'all' or 'sampled'"):
        YouTubeVosDataset(root, frames='6fps')
    with pytest.raises(ValueError, match='did you mean'):
        YouTubeVosDataset(root, sequences=[name + 'x'])
    with pytest.raises(ValueError, match='raise holdout_share'):
        YouTubeVosDataset(root, split='train_holdout', holdout_share=1e-9)
    (root / 'valid' / 'JPEGImages' / name / '00003.jpg').write_bytes(b'x')
    (root / 'valid_all_frames' / 'JPEGImages' / name / '00003.jpg').unlink()
    with pytest.raises(ValueError, match='sampled frame 00003 has no frame of that name'):
        YouTubeVosDataset(root).sample(name)
    shutil.rmtree(root / 'valid_all_frames')
    with pytest.raises(FileNotFoundError, match=r"frames \(all\) not found.*2 missing.*frames='sampled' does without"):
        YouTubeVosDataset(root)
    assert len(YouTubeVosDataset(root, frames='sampled')) == 2
    shutil.rmtree(root / 'valid' / 'Annotations' / name)
    dataset = YouTubeVosDataset(root, frames='sampled')
    assert list(dataset.broken) == [name]
    with pytest.raises(ValueError, match=f'annotations not found at .*{name}'):
        dataset.sample(name)
    (root / 'valid' / 'meta.json').unlink()
    with pytest.raises(FileNotFoundError, match='list of videos not found'):
        YouTubeVosDataset(root)


def test_an_annotation_of_another_size_or_kind_is_refused(copy):
    root, name = copy
    path = root / 'valid' / 'Annotations' / name / '00000.png'
    write_label_map(path, np.ones((24, 32), np.uint8))
    with pytest.raises(ValueError, match='the mask is 32x24, the frame is 64x48'):
        YouTubeVosDataset(root).sample(name).given_labels[0]()
    Image.new('LA', (64, 48)).save(path)
    with pytest.raises(ValueError, match='mode LA'):
        YouTubeVosDataset(root).sample(name)


@pytest.mark.parametrize(
    ('video', 'objects', 'message'),
    [
        ('../outside', {}, 'cannot be the name of a folder'),
        ('/etc', {}, 'cannot be the name of a folder'),
        ('..', {}, 'cannot be the name of a folder'),
        ('a\\b', {}, 'cannot be the name of a folder'),
        ('fine', {'0': {'category': 'x'}}, "object '0': ids go from 1 to 255"),
        ('fine', {'256': {'category': 'x'}}, "object '256'"),
        ('fine', {'x': {'category': 'x'}}, "object 'x'"),
        ('fine', {'1': {'category': 3}}, 'expected a category'),
        ('fine', {'1': {'category': 'x', 'frames': [1]}}, 'expected a category and names of frames'),
        ('fine', {'1': {}}, 'KeyError'),
        ('fine', [], 'AttributeError'),
    ],
)
def test_a_meta_json_of_another_form_is_refused(copy, video, objects, message):
    root, _ = copy
    (root / 'valid' / 'meta.json').write_text(json.dumps({'videos': {video: {'objects': objects}}}))
    with pytest.raises(ValueError, match=message):
        YouTubeVosDataset(root)


@pytest.mark.parametrize('text', ['', '[]', '{"videos": 3}', '\xff\xfe', '{"videos": {"a": null}}'])
def test_a_meta_json_that_is_none_is_refused(copy, text):
    root, _ = copy
    (root / 'valid' / 'meta.json').write_bytes(text.encode('latin-1'))
    with pytest.raises(ValueError, match=r'meta\.json'):
        YouTubeVosDataset(root)


@pytest.mark.parametrize(
    'new_name', ['ein Video mit Leerzeichen', 'видео-名前-é', '<b onclick=alert(1)>&amp;', "a'b%20;$x"]
)
def test_names_may_hold_any_letters(copy, new_name):
    root, name = copy
    for folder in ('valid/JPEGImages', 'valid_all_frames/JPEGImages', 'valid/Annotations'):
        (root / folder / name).rename(root / folder / new_name)
    meta = root / 'valid' / 'meta.json'
    meta.write_text(meta.read_text().replace(name, json.dumps(new_name)[1:-1]))
    sample = YouTubeVosDataset(root, sequences=[new_name])[0]
    assert sample.name == new_name and sample.given_labels[0]().any()
