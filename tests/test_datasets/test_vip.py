import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import VIP_CLASSES, VipDataset, write_label_map
from mmliir.datasets.vip import read_categories, read_instances
from mmliir.registry import DATASETS
from mmliir.testing.synthetic_vip import generate_vip_videos, write_vip

VIDEOS = generate_vip_videos()


@pytest.fixture
def root(tmp_path):
    write_vip(tmp_path, VIDEOS)
    return tmp_path


def test_the_replica_shows_all_classes_passing_and_leaving_figures_and_void():
    assert {c for video in VIDEOS for c in video.classes.values()} == set(range(1, len(VIP_CLASSES)))
    assert all(set(np.unique(video.instances[0])) == {0, *video.classes} for video in VIDEOS)
    shown = [[(ids > 0).sum() for ids in video.instances] for video in VIDEOS]
    assert shown[0][-1] < 0.9 * shown[0][0]  # they pass
    assert shown[1][-1] < 0.9 * shown[1][0] and len(np.unique(VIDEOS[1].instances[-1])) < len(VIDEOS[1].classes)
    assert [(video.categories == 255).any() for video in VIDEOS] == [True, True]


def test_a_sample_gives_frames_and_the_classes_of_the_first_one(root):
    dataset = DATASETS.build(dict(type='VipDataset', data_root=str(root)))
    assert (dataset.family, dataset.kind, dataset.names) == ('vip', 'masks', ['videos1', 'videos2'])
    for sample, video in zip(dataset, VIDEOS, strict=True):
        assert sample.frame_names[:3] == ('000000000001', '000000000026', '000000000051')
        assert list(sample.given_labels) == [0] and sample.classes is None
        assert np.array_equal(sample.given_labels[0](), video.categories[0])
        assert np.abs(sample.frames[4].astype(int) - video.frames[4]).mean() < 12  # JPEG
        maps = [read_categories(path) for path in dataset.truth(video.name)]
        assert np.array_equal(np.stack(maps), video.categories)


def test_an_instance_sample_knows_the_class_of_each_id(root):
    dataset = VipDataset(str(root), annotation='instance')
    assert dataset.kind == 'instances' and VipDataset.kind == 'masks'
    for sample, video in zip(dataset, VIDEOS, strict=True):
        assert np.array_equal(sample.given_labels[0](), video.instances[0])
        assert sample.classes == video.classes
        last = read_instances(dataset.truth(video.name)[-1])
        assert np.array_equal(last.ids, video.instances[-1])
        assert last.classes == {i: c for i, c in video.classes.items() if (video.instances[-1] == i).any()}


def test_the_root_may_be_vip_fine_or_hold_it_or_have_ids_beside_images(root):
    inside = VipDataset(str(root / 'VIP_Fine'))
    assert inside.names == VipDataset(str(root)).names
    for folder in ('Category_ids', 'Instance_ids'):
        shutil.move(root / 'VIP_Fine' / 'Annotations' / folder, root / 'VIP_Fine' / folder)
    assert np.array_equal(VipDataset(str(root))[0].given_labels[0](), VIDEOS[0].categories[0])
    assert VipDataset(str(root), annotation='instance')[0].classes == VIDEOS[0].classes


def test_void_is_given_as_background(root):
    path = root / 'VIP_Fine/Annotations/Category_ids/videos1/000000000001.png'
    with_void = VIDEOS[0].categories[0].copy()
    with_void[:5] = 255
    write_label_map(path, with_void)
    given = VipDataset(str(root))[0].given_labels[0]()
    assert not given[:5].any() and np.array_equal(given[5:], with_void[5:])


def test_ids_without_a_class_are_background(root):
    path = root / 'VIP_Fine/Annotations/Instance_ids/videos1/000000000001.txt'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[1:]) + '\n')
    sample = VipDataset(str(root), annotation='instance')[0]
    assert 1 not in sample.classes
    assert np.array_equal(sample.given_labels[0](), np.where(VIDEOS[0].instances[0] == 1, 0, VIDEOS[0].instances[0]))


def test_names_may_have_spaces_and_any_letters_and_lines_may_be_paths(tmp_path):
    from dataclasses import replace

    names = ['vidéo 影像 1', 'b']
    write_vip(tmp_path, [replace(video, name=name) for video, name in zip(VIDEOS, names)])
    listing = tmp_path / 'VIP_Fine/lists/val_videos.txt'
    listing.write_text('VIP_Fine/Images/vidéo 影像 1\r\n\n./b/\nb\n', encoding='utf-8')
    dataset = VipDataset(str(tmp_path))
    assert dataset.names == names
    assert dataset[0].name == names[0]


@pytest.mark.parametrize('line', ['../videos1', 'Images/../../videos1', '..'])
def test_a_list_cannot_leave_the_data_root(root, line):
    (root / 'VIP_Fine/lists/val_videos.txt').write_text(f'videos1\n{line}\n')
    with pytest.raises(ValueError, match=r'val_videos.txt: .*leaves the data root'):
        VipDataset(str(root))


def test_the_first_annotated_frame_is_given(root):
    (root / 'VIP_Fine/Annotations/Category_ids/videos1/000000000001.png').unlink()
    sample = VipDataset(str(root))[0]
    assert list(sample.given_labels) == [1]
    second = VIDEOS[0].categories[1]
    assert np.array_equal(sample.given_labels[1](), np.where(second == 255, 0, second))


def test_samples_travel_to_workers(root):
    sample = pickle.loads(pickle.dumps(VipDataset(str(root), annotation='instance')[0]))
    assert sample.given_labels[0]().shape == sample.frames[0].shape[:2]


def test_what_is_missing_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'docs/datasets.md#vip'):
        VipDataset(str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match=r'lists/test_videos.txt'):
        VipDataset(str(root), split='test')
    with pytest.raises(ValueError, match='did you mean'):
        VipDataset(str(root), sequences=['videos11'])
    with pytest.raises(ValueError, match="'semantic' or 'instance'"):
        VipDataset(str(root), annotation='person')
    shutil.rmtree(root / 'VIP_Fine/Images/videos2')
    with pytest.raises(FileNotFoundError, match="frames not found at .*1 missing of 1, the first is 'videos2'"):
        VipDataset(str(root), sequences=['videos2'])
    assert list(VipDataset(str(root)).broken) == ['videos2']
    with pytest.raises(ValueError, match='VIP frames not found at .*videos2'):
        VipDataset(str(root)).sample('videos2')
    assert len(VipDataset(str(root), sequences=['videos1'])) == 1
    (root / 'VIP_Fine/lists/val_videos.txt').write_text('\n')
    with pytest.raises(ValueError, match='names no video'):
        VipDataset(str(root))
    shutil.rmtree(root / 'VIP_Fine/Annotations/Instance_ids')
    with pytest.raises(FileNotFoundError, match='Annotations/Instance_ids and '):
        VipDataset(str(root), annotation='instance')


def test_an_annotation_without_its_frame_is_refused(root):
    (root / 'VIP_Fine/Images/videos1/000000000026.jpg').unlink()
    with pytest.raises(ValueError, match='annotation 000000000026.png has no frame'):
        VipDataset(str(root))[0]


def test_a_truth_of_another_size_or_kind_is_refused(root):
    path = root / 'VIP_Fine/Annotations/Category_ids/videos1/000000000001.png'
    write_label_map(path, np.ones((24, 32), np.uint8))
    with pytest.raises(ValueError, match='the mask is 32x24, the frame is 96x64'):
        VipDataset(str(root))[0].given_labels[0]()
    write_label_map(path, np.full((64, 96), 20, np.uint8))
    with pytest.raises(ValueError, match='000000000001.png holds class 20; VIP has 0 to 19'):
        VipDataset(str(root))[0].given_labels[0]()
    Image.new('LA', (96, 64)).save(path)
    with pytest.raises(ValueError, match='000000000001.png.* mode LA'):
        VipDataset(str(root))[0].given_labels[0]()
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='000000000001.png'):
        VipDataset(str(root))[0].given_labels[0]()


@pytest.mark.parametrize(
    'text, error',
    [
        ('1\n', 'line 1: expected `id class`'),
        ('1 7\n2 hat\n', 'line 2: expected `id class`'),
        ('1 20 1\n', 'classes from 1 to 19'),
        ('256 3 1\n', 'ids go from 1 to 255'),
        ('1 3 1\n1 4 1\n', 'line 2: instance 1 is of class 4, an earlier line says 3'),
    ],
)
def test_a_broken_list_of_classes_is_refused(root, text, error):
    (root / 'VIP_Fine/Annotations/Instance_ids/videos1/000000000001.txt').write_text(text)
    with pytest.raises(ValueError, match=error):
        VipDataset(str(root), annotation='instance')[0]


def test_a_missing_list_of_classes_is_named(root):
    (root / 'VIP_Fine/Annotations/Instance_ids/videos1/000000000001.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'000000000001.txt not found: it says which class'):
        VipDataset(str(root), annotation='instance')[0]
