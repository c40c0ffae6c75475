import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import BadjaDataset
from mmliir.datasets.badja import EVALUATED_JOINTS, PUBLISHED_ANIMALS, scale_points
from mmliir.datasets.masks import read_label_map
from mmliir.evaluation.writers import WRITERS
from mmliir.registry import DATASETS
from mmliir.testing.synthetic_badja import ANNOTATED, HIDDEN_AT_FIRST, write_badja


@pytest.fixture
def replica(tmp_path):
    return tmp_path / 'badja', write_badja(tmp_path / 'badja')


def edit(root, animal, change):
    path = root / 'joint_annotations' / f'{animal}.json'
    entries = json.loads(path.read_text())
    path.write_text(json.dumps(change(entries)))


def half_size_davis(root, target):
    """The frames and masks of the replica at half the size, as 480p in DAVIS's layout."""
    for kind, resample in (('JPEGImages', Image.BILINEAR), ('Annotations', Image.NEAREST)):
        for path in (root / 'DAVIS' / kind / 'Full-Resolution').rglob('*.*'):
            copy = target / kind / '480p' / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.resize((64, 48), resample).save(copy)
    return target


def test_a_sample_gives_the_clip_and_the_joints_of_its_first_annotated_frame(replica):
    root, videos = replica
    dataset = DATASETS.build(dict(type='BadjaDataset', data_root=str(root)))
    assert dataset.names == ['bear', 'dog'] and len(EVALUATED_JOINTS) == len(set(EVALUATED_JOINTS)) == 20
    assert (dataset.family, dataset.kind) == ('badja', 'points') and dataset.kind in WRITERS
    for sample, video in zip(dataset, videos.values(), strict=True):
        assert len(sample.frames) == 11 and sample.queries.shape == (20, 3)
        given = np.arange(20) != HIDDEN_AT_FIRST if sample.name == 'bear' else np.full(20, True)
        assert np.all(sample.queries[:, 0] == 0)
        assert np.abs(sample.queries[given, 1:] - video.joints[0, given]).max() <= 0.5  # x, y: not y, x
        assert np.all(sample.queries[~given, 1:] == 0)
        assert np.abs(sample.frames[3].astype(int) - video.frames[3]).mean() < 12  # JPEG
    assert dataset[0].frame_names[0] == '00002' and dataset[1].frame_names[0] == '00000'


def test_truth_is_of_the_annotated_frames(replica):
    root, videos = replica
    dataset = BadjaDataset(root)
    truth = dataset.truth('bear')
    assert truth.frames.tolist() == list(ANNOTATED) and truth.num_frames == 11
    assert truth.annotation_size == truth.frame_size == (96, 128)
    assert np.argwhere(~truth.visible).tolist() == [[0, HIDDEN_AT_FIRST]]
    expected = np.rint(videos['bear'].joints[list(ANNOTATED)])
    assert np.array_equal(truth.joints[truth.visible], expected[truth.visible])
    masks = [read_label_map(path).ids > 0 for path in dataset.mask_paths('bear')]
    assert np.array_equal(np.stack(masks), videos['bear'].masks[list(ANNOTATED)])


def test_joints_that_nobody_can_be_given_are_left_out_on_request(replica):
    root, _ = replica
    whole, part = BadjaDataset(root)[0], BadjaDataset(root, keep_unwinnable=False)[0]
    assert np.array_equal(part.queries, np.delete(whole.queries, HIDDEN_AT_FIRST, axis=0))


def test_pixel_centres_are_scaled_not_corners():
    # The first and the last pixel of 4 cover the same part of the picture as pairs of pixels of 8.
    points = np.array([[0.0, 0.0], [3.0, 1.0]])
    assert scale_points(points, (2, 4), (4, 8)).tolist() == [[0.5, 0.5], [6.5, 2.5]]
    assert scale_points(scale_points(points, (2, 4), (5, 7)), (5, 7), (2, 4)) == pytest.approx(points)


@pytest.mark.parametrize('sibling', ['davis2016', 'davis2017', 'DAVIS', 'davis'])
def test_frames_beside_the_data_are_found_at_their_resolution(replica, sibling, monkeypatch):
    """Without an image of full size the joints are in 1920 x 1080; here that is made 128 x 96."""
    root, _ = replica
    full = BadjaDataset(root)[0]
    half_size_davis(root, root.parent / sibling)
    shutil.rmtree(root / 'DAVIS')
    monkeypatch.setattr('mmliir.datasets.badja.ANNOTATION_SIZE', (96, 128))
    dataset = BadjaDataset(root)
    sample = dataset[0]
    assert sample.frames[0].shape == (48, 64, 3) and sample.frame_names == full.frame_names
    given = np.arange(20) != HIDDEN_AT_FIRST
    assert sample.queries[given, 1:] == pytest.approx((full.queries[given, 1:] + 0.5) / 2 - 0.5)
    assert dataset.mask_paths('bear')[0] == root.parent / sibling / 'Annotations' / '480p' / 'bear' / '00002.png'


def test_full_resolution_tells_the_annotations_size_and_is_taken_first(replica):
    root, _ = replica
    half_size_davis(root, root / 'DAVIS')
    assert BadjaDataset(root).truth('dog').frame_size == (96, 128)
    half = half_size_davis(root, root.parent / 'elsewhere')
    (half / 'JPEGImages' / 'Full-Resolution' / 'dog').mkdir(parents=True)
    shutil.copy(root / 'DAVIS/JPEGImages/Full-Resolution/dog/00000.jpg', half / 'JPEGImages/Full-Resolution/dog')
    with pytest.raises(ValueError, match=r'frame 1 not found in .*elsewhere.* \(10 missing of 11, 0 to 10\)'):
        BadjaDataset(root, frames_root=half, sequences=['dog'])[0]


@pytest.mark.parametrize('layout', ['as named', 'davis', 'animals'])
def test_frames_root_may_be_any_of_three_layouts(replica, layout, monkeypatch):
    monkeypatch.setattr('mmliir.datasets.badja.ANNOTATION_SIZE', (96, 128))
    root, videos = replica
    target = root.parent / 'frames'
    source = root / 'DAVIS' / 'JPEGImages' / 'Full-Resolution'
    within = {'as named': 'DAVIS/JPEGImages/Full-Resolution', 'davis': 'JPEGImages/Full-Resolution', 'animals': ''}
    shutil.copytree(source, target / within[layout])
    shutil.rmtree(root / 'DAVIS')
    sample = BadjaDataset(root, frames_root=target)[1]
    assert np.abs(sample.frames[0].astype(int) - videos['dog'].frames[0]).mean() < 12


def test_extra_videos_count_only_when_they_are_named(replica):
    root, _ = replica
    folder = root / 'extra_videos' / 'tiger' / 'rgb'
    folder.mkdir(parents=True)
    for number in (3, 5, 8, 9):  # not one by one
        cv2.imwrite(str(folder / f'{number:08d}.png'), np.zeros((96, 128, 3), np.uint8))
    source = json.loads((root / 'joint_annotations' / 'dog.json').read_text())[:2]
    for entry, number in zip(source, (3, 8)):
        entry['image_path'] = f'extra_videos/tiger/rgb/{number:08d}.png'
        entry['segmentation_path'] = f'extra_videos/tiger/segmentations/{number:08d}.png'
    (root / 'joint_annotations' / 'tiger.json').write_text(json.dumps(source))
    dataset = BadjaDataset(root)
    assert dataset.names == ['bear', 'dog'] and dataset.num_sequences_in_split == 2
    dataset = BadjaDataset(root, sequences=['tiger', 'dog'])
    assert dataset.names == ['tiger', 'dog'] and 'tiger' not in PUBLISHED_ANIMALS
    truth = dataset.truth('tiger')
    assert truth.frames.tolist() == [0, 2] and truth.num_frames == 3 and truth.annotation_size == (96, 128)


def test_samples_travel_to_workers(replica):
    root, _ = replica
    assert pickle.loads(pickle.dumps(BadjaDataset(root)[0])).frames[10].shape == (96, 128, 3)


def test_what_is_missing_is_named_with_where_it_was_looked_for(replica, tmp_path):
    root, _ = replica
    with pytest.raises(FileNotFoundError, match=r'no joint_annotations/\*.json'):
        BadjaDataset(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match="did you mean 'bear'"):
        BadjaDataset(root, sequences=['baer'])
    (root / 'DAVIS/JPEGImages/Full-Resolution/dog/00004.jpg').unlink()
    with pytest.raises(ValueError, match=r'dog: frame 4 not found in .* \(1 missing of 11, 0 to 10\)'):
        BadjaDataset(root)[1]
    shutil.rmtree(root / 'DAVIS' / 'JPEGImages')
    with pytest.raises(FileNotFoundError) as error:
        BadjaDataset(root)
    for place in (
        'badja/DAVIS/JPEGImages/Full-Resolution/bear',
        'davis2016/JPEGImages/480p/bear',
        'davis2017/JPEGImages/Full-Resolution/bear',
        'frames_root',
    ):
        assert place in str(error.value)
    with pytest.raises(FileNotFoundError, match='looked for .*empty/bear'):
        BadjaDataset(root, frames_root=tmp_path / 'empty')
    shutil.rmtree(root / 'DAVIS' / 'Annotations')
    with pytest.raises(FileNotFoundError, match="frames of 'bear' not found"):
        BadjaDataset(root)


@pytest.mark.parametrize(
    'path',
    ['DAVIS/../../etc/00002.jpg', '/etc/x/00002.jpg', '00002.jpg', 'DAVIS\\JPEGImages/x/00002.jpg', 'a/b/c/last.jpg'],
)
def test_paths_that_lead_elsewhere_are_refused(replica, path):
    root, _ = replica
    edit(root, 'bear', lambda entries: [{**entries[0], 'image_path': path}, *entries[1:]])
    with pytest.raises(ValueError, match='bear.json is no file of BADJA joints'):
        BadjaDataset(root).sample('bear')


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda entries: [], 'annotates no frame'),
        (lambda entries: {'a': 1}, 'no file of BADJA joints'),
        (lambda entries: [1, 2], 'no file of BADJA joints'),
        (lambda entries: entries[::-1], 'in the order of time'),
        (lambda entries: [entries[0], *entries], 'each once'),
        (lambda entries: [{**entry, 'joints': entry['joints'][:36]} for entry in entries], r'shape \(36, 2\)'),
        (lambda entries: [{**entry, 'visibility': [0.5] * 37} for entry in entries], 'visibility'),
        (lambda entries: [{**entry, 'visibility': [False] * 37} for entry in entries], 'no joint is visible'),
        (lambda entries: [{**entry, 'joints': [[float('nan')] * 2] * 37} for entry in entries], 'NaN or infinite'),
        (lambda entries: [{**entry, 'joints': [['a', 'b']] * 37} for entry in entries], 'no file of BADJA joints'),
    ],
)
def test_joints_that_are_none_are_refused(replica, change, message):
    root, _ = replica
    edit(root, 'bear', change)
    dataset = BadjaDataset(root)
    assert list(dataset.broken) == ['bear'] and len(dataset.sample('dog').frames) == 11
    with pytest.raises(ValueError, match=message) as error:
        dataset.sample('bear')
    assert 'bear.json' in str(error.value)


def test_frames_of_another_picture_are_refused(replica, monkeypatch):
    root, _ = replica
    edit(root, 'bear', lambda entries: [{**entry, 'joints': [[5, 400]] * 37} for entry in entries])
    with pytest.raises(ValueError, match=r'bear: a joint lies at \(x, y\) = \(400.0, 5.0\), outside the 128x96'):
        BadjaDataset(root)[0]
    half_size_davis(root, root.parent / 'davis')
    shutil.rmtree(root / 'DAVIS')
    with pytest.raises(ValueError, match='dog: the frames are 64x48, the joints are given in 1920x1080'):
        BadjaDataset(root)[1]


@pytest.mark.real
def test_real_badja(data_root):
    if not (data_root / 'badja').is_dir():
        pytest.skip('no badja/ in the folder of real clips')
    dataset = BadjaDataset(data_root / 'badja', sequences=['camel', 'horsejump-high'])
    counts = {}
    for name in dataset.names:
        truth = dataset.truth(name)
        assert truth.annotation_size == (1080, 1920)
        later = truth.visible[1:, ~truth.visible[0]].sum()
        counts[name] = (len(truth.frames), truth.visible.sum(), truth.visible[0].sum(), later)
        near = []
        for annotated, path in enumerate(dataset.mask_paths(name)):
            mask = cv2.dilate(read_label_map(path, binary=True).ids, np.ones((11, 11), np.uint8))
            places = scale_points(truth.joints[annotated], truth.annotation_size, truth.frame_size)
            x, y = np.rint(places[truth.visible[annotated]]).astype(int).T
            near.append(mask[y.clip(0, 479), x.clip(0, 853)] > 0)
        assert np.concatenate(near).all()  # every joint lies on its animal, to five pixels
    # Annotated frames, visible joints, of them in the first frame, and later of joints hidden there.
    assert counts == {'camel': (18, 331, 20, 0), 'horsejump-high': (10, 169, 18, 12)}
