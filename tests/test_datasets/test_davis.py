import pickle
import shutil

import numpy as np
import pytest

from mmliir.datasets import DavisDataset, read_davis_labels
from mmliir.datasets.named import is_folder_name
from mmliir.registry import DATASETS
from mmliir.testing.synthetic import SceneSettings, generate_video, generate_videos, write_davis_layout


@pytest.fixture(scope='module')
def videos():
    return list(generate_videos([1, 2], 8, (48, 64), SceneSettings(late_object=True, num_distractors=1)))


@pytest.fixture
def root(tmp_path, videos):
    write_davis_layout(tmp_path, videos)
    return tmp_path


def test_a_sample_gives_frames_and_the_first_labels(root, videos):
    dataset = DATASETS.build(dict(type='DavisDataset', data_root=str(root), year=2017))
    assert len(dataset) == 2
    for sample, video in zip(dataset, videos, strict=True):
        assert sample.name == video.name and len(sample.frames) == 8
        assert sample.frame_names == tuple(f'{t:05d}' for t in range(8))
        assert list(sample.given_labels) == [0]
        assert np.array_equal(sample.given_labels[0](), video.annotations()[0])
        assert np.abs(sample.frames[3].astype(int) - video.frames[3]).mean() < 12  # JPEG


def test_truth_is_all_annotations_in_order(root, videos):
    dataset = DavisDataset(root)
    maps = [read_davis_labels(path, 2017) for path in dataset.annotation_paths(videos[1].name)]
    assert np.array_equal(np.stack(maps), videos[1].annotations())


def test_late_objects_are_given_alone_and_only_when_asked(tmp_path, videos):
    write_davis_layout(tmp_path, videos, late_objects=True)
    sample = DavisDataset(tmp_path, given='first_appearance')[0]
    ((late_id, frame),) = videos[0].late_objects.items()
    assert list(sample.given_labels) == [0, frame]
    assert set(np.unique(sample.given_labels[frame]())) == {0, late_id}
    assert list(DavisDataset(tmp_path)[0].given_labels) == [0]


def test_2016_is_one_object(tmp_path, videos):
    write_davis_layout(tmp_path, videos, year=2016)
    sample = DavisDataset(tmp_path, year=2016)[0]
    assert np.array_equal(sample.given_labels[0](), videos[0].annotations()[0] > 0)


def test_2016_list_of_path_pairs(tmp_path, videos):
    write_davis_layout(tmp_path, videos, year=2016)
    shutil.rmtree(tmp_path / 'ImageSets')
    listing = tmp_path / 'ImageSets' / '480p' / 'val.txt'
    listing.parent.mkdir(parents=True)
    name = videos[1].name
    lines = [f'/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png' for t in range(8)]
    listing.write_text('\n'.join(lines) + '\n')
    assert DavisDataset(tmp_path, year=2016).names == [name]


def test_annotation_of_some_frames_only(root, videos):
    folder = root / 'Annotations' / '480p' / videos[0].name
    for number in (1, 2, 4, 5, 6):
        (folder / f'{number:05d}.png').unlink()
    dataset = DavisDataset(root)
    assert [path.stem for path in dataset.annotation_paths(videos[0].name)] == ['00000', '00003', '00007']
    (folder / '00000.png').unlink()
    assert list(dataset[0].given_labels) == [3]


def test_samples_travel_to_workers(root):
    sample = pickle.loads(pickle.dumps(DavisDataset(root)[0]))
    assert sample.given_labels[0]().shape == sample.frames[0].shape[:2]


def test_what_is_missing_is_named(root, videos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'docs/datasets.md#davis'):
        DavisDataset(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'ImageSets/2017/train.txt'):
        DavisDataset(root, split='train')
    with pytest.raises(ValueError, match='did you mean'):
        DavisDataset(root, sequences=[videos[0].name + 'x'])
    with pytest.raises(ValueError, match='2016 or 2017'):
        DavisDataset(root, year=2018)
    shutil.rmtree(root / 'Annotations' / '480p' / videos[1].name)
    dataset = DavisDataset(root)
    assert list(dataset.broken) == [videos[1].name] and 'DAVIS annotations not found' in dataset.broken[videos[1].name]
    with pytest.raises(ValueError, match=f'annotations not found at .*{videos[1].name}'):
        dataset.sample(videos[1].name)
    with pytest.raises(FileNotFoundError, match=f'annotations not found.*1 missing of 1.*{videos[1].name}'):
        DavisDataset(root, sequences=[videos[1].name])
    assert len(DavisDataset(root, sequences=[videos[0].name])) == 1


def test_a_mask_of_another_size_is_refused(root, videos):
    from mmliir.datasets import write_label_map

    path = root / 'Annotations' / '480p' / videos[0].name / '00000.png'
    write_label_map(path, np.ones((24, 32), np.uint8))
    with pytest.raises(ValueError, match='the mask is 32x24, the frame is 64x48'):
        DavisDataset(root)[0].given_labels[0]()


@pytest.mark.real
def test_real_davis(data_root):
    dataset = DavisDataset(data_root / 'davis2016', year=2016)
    assert len(dataset) == 9 and sum(len(sample.frames) for sample in dataset) == 582
    assert set(np.unique(dataset[0].given_labels[0]())) == {0, 1}
    dataset = DavisDataset(data_root / 'davis2017_like', given='first_appearance', sequences=['mosaic-a', 'caps'])
    assert set(np.unique(dataset[0].given_labels[0]())) == {0, 1, 2, 3, 4}
    assert list(dataset[1].given_labels) == [0, 33]


@pytest.mark.parametrize('year', [2016, 2017])
def test_the_truth_of_every_frame_is_there_by_number(tmp_path, year):
    video = generate_video(3, 4, (32, 48))
    write_davis_layout(tmp_path, [video], year=year)
    truth = DavisDataset(str(tmp_path), year).truth_labels(video.name)
    assert list(truth) == [0, 1, 2, 3]
    for number, read in truth.items():
        expected = video.label_maps[number] > 0 if year == 2016 else video.label_maps[number]
        np.testing.assert_array_equal(read(), expected)


@pytest.mark.parametrize('name', ['', '.', '..', 'a/b', 'a\\b', 'a\0b', 'a\nb', 'x' * 256, '\ud800'])
def test_what_cannot_be_a_folder_is_no_name_of_one(name):
    assert not is_folder_name(name) and is_folder_name('dance-twirl') and is_folder_name('vidéo 1')
