"""Resized copies and lists of videos: names stay, ids stay, originals stay."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import DavisDataset, read_image, read_label_map
from mmliir.datasets.doctor import diagnose
from mmliir.datasets.prepare import resize_frames, write_file_list
from mmliir.testing.synthetic import generate_videos, write_davis_layout, write_frame_folders


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp('davis')
    write_davis_layout(root, generate_videos([1, 2], 3, (48, 64)))
    return root


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def test_a_copy_is_the_same_data_set_at_another_size(original, tmp_path):
    before, steps = contents(original), []
    done = resize_frames(original, tmp_path / 'small', short_side=24, jobs=2, progress=lambda *step: steps.append(step))
    assert contents(original) == before
    assert names(tmp_path / 'small') == set(before) | {'resize.json'}
    assert (done.num_written, done.num_kept, done.num_copied, done.broken, done.left_out) == (12, 0, 1, (), ())
    assert steps[-1] == (12, 12)
    assert not diagnose('davis2017', tmp_path / 'small', full=True).problems
    large, small = DavisDataset(original), DavisDataset(tmp_path / 'small')
    assert small.names == large.names
    for name in small.names:
        (small_labels,), (large_labels,) = (dataset.sample(name).given_labels.values() for dataset in (small, large))
        # 2 to 1, nearest: the pixel at the lower right of each block of four.
        assert np.array_equal(small_labels(), large_labels()[1::2, 1::2])
        means = large.sample(name).frames[1].reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(small.sample(name).frames[1] - means).mean() < 10  # JPEG, colours at half resolution


def test_indexed_masks_keep_their_palette_and_ids(original, tmp_path):
    resize_frames(original, tmp_path / 'small', short_side=24)
    for path in (tmp_path / 'small' / 'Annotations').rglob('*.png'):
        with Image.open(path) as small, Image.open(original / path.relative_to(tmp_path / 'small')) as large:
            assert small.mode == 'P' and small.size == (32, 24)
            assert small.getpalette()[:30] == large.getpalette()[:30]
            assert set(np.unique(small)) <= set(np.unique(large))


def test_grey_masks_below_annotations_stay_two_valued(tmp_path):
    write_davis_layout(tmp_path / 'd', generate_videos([1], 2, (48, 64)), year=2016)
    resize_frames(tmp_path / 'd', tmp_path / 'small', short_side=31)
    path = next((tmp_path / 'small' / 'Annotations').rglob('*.png'))
    with Image.open(path) as image:
        assert image.size == (41, 31) and set(np.unique(image)) == {0, 255}
    assert read_label_map(path, binary=True).objects == (1,)


def test_png_frames_are_averaged_exactly(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (tmp_path / 'v' / 'clip').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'v' / 'clip' / '0.png'), frame[..., ::-1])
    resize_frames(tmp_path / 'v', tmp_path / 'small', size=(20, 30))
    mean = frame.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(read_image(tmp_path / 'small' / 'clip' / '0.png') - mean).max() <= 0.5


def test_small_images_are_copied_to_the_byte(original, tmp_path):
    resize_frames(original, tmp_path / 'same', short_side=48)
    before = contents(original)
    assert {name: data for name, data in contents(tmp_path / 'same').items() if name in before} == before


def test_an_interrupted_copy_continues_to_the_same_files(original, tmp_path):
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    resize_frames(original, whole, short_side=24)

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resize_frames(original, cut, short_side=24, progress=stop)
    kept = {name: (cut / name).stat().st_mtime_ns for name in names(cut) if not name.endswith('json')}
    assert 5 <= len(kept)
    done = resize_frames(original, cut, short_side=24)
    assert done.num_kept >= 5 and done.num_written + done.num_kept == 12
    assert contents(cut) == contents(whole)
    assert all((cut / name).stat().st_mtime_ns == time for name, time in kept.items() if name.endswith(('jpg', 'png')))


def test_copies_of_two_sizes_do_not_mix(original, tmp_path):
    resize_frames(original, tmp_path / 'small', short_side=24)
    with pytest.raises(ValueError, match='holds copies made with'):
        resize_frames(original, tmp_path / 'small', short_side=20)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('')
    with pytest.raises(ValueError, match='not empty and was not made by this command'):
        resize_frames(original, tmp_path / 'mine', short_side=20)


def test_a_copy_inside_or_around_the_original_is_refused(original, tmp_path):
    (tmp_path / 'link').symlink_to(original)
    for out in (original, original / 'small', original.parent, tmp_path / 'link' / 'small'):
        with pytest.raises(ValueError, match='lie inside one another'):
            resize_frames(original, out, short_side=24)
    for wrong in (dict(), dict(short_side=3, size=(3, 3)), dict(short_side=0), dict(size=(0, 3))):
        with pytest.raises(ValueError, match='give one of|1 pixel or more'):
            resize_frames(original, tmp_path / 'o', **wrong)
    with pytest.raises(FileNotFoundError, match='no image below'):
        resize_frames(tmp_path / 'link' / 'ImageSets', tmp_path / 'o', short_side=3)


def test_broken_images_are_named_and_links_in_a_circle_end(original, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(original, source)
    path = sorted((source / 'JPEGImages').rglob('*.jpg'))[0]
    path.write_bytes(path.read_bytes()[:-200])
    (source / 'Annotations' / 'loop').symlink_to(source)
    (source / 'joints.mat').write_bytes(b'')
    done = resize_frames(source, tmp_path / 'small', short_side=24)
    assert done.num_written == 11 and done.left_out == ('joints.mat',)
    assert done.broken[0].startswith(path.relative_to(source).as_posix()) and 'cut off' in done.broken[0]


def test_the_list_has_a_line_a_video_in_order(tmp_path):
    videos = list(generate_videos([3, 1, 2], 3, (48, 64)))
    write_frame_folders(tmp_path / 'v' / 'b', videos[:2])
    write_frame_folders(tmp_path / 'v' / 'a c', videos[2:], step=2)
    done = write_file_list(tmp_path / 'v', tmp_path / 'list.tsv')
    assert (tmp_path / 'list.tsv').read_text() == (
        'a c/seed00002\t2\t48\t64\nb/seed00001\t3\t48\t64\nb/seed00003\t3\t48\t64\n'
    )
    assert (done.num_videos, done.num_frames, done.broken) == (3, 8, ())


def test_a_video_that_cannot_be_read_is_named_and_left_out_of_the_list(tmp_path):
    write_frame_folders(tmp_path / 'v', generate_videos([1, 2], 2, (48, 64)))
    (tmp_path / 'v' / 'seed00001' / '00000.jpg').write_bytes(b'')
    done = write_file_list(tmp_path / 'v', tmp_path / 'list.tsv')
    assert done.num_videos == 1 and done.broken[0].startswith('seed00001: ')
    with pytest.raises(FileNotFoundError, match='no frame folders'):
        os.mkdir(tmp_path / 'none')
        write_file_list(tmp_path / 'none', tmp_path / 'list.tsv')


def test_the_card_says_how_the_copies_were_made(original, tmp_path):
    resize_frames(original, tmp_path / 'small', size=(24, 32))
    card = json.loads((tmp_path / 'small' / 'resize.json').read_text())
    digest = card.pop('source_sha256')
    assert len(digest) == 64 and card == {'short_side': None, 'size': [24, 32], 'jpeg_quality': 95}


def test_copies_of_other_images_are_refused(original, tmp_path):
    resize_frames(original, tmp_path / 'small', size=(24, 32))
    resize_frames(original, tmp_path / 'small', size=(24, 32))
    image = next(path for path in sorted(original.rglob('*.jpg')))
    shutil.copy(image, image.with_name('99999.jpg'))
    with pytest.raises(ValueError, match='holds copies made with'):
        resize_frames(original, tmp_path / 'small', size=(24, 32))
