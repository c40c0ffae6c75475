"""The doctor: a whole replica has no problem; break one thing, and the finding names it."""

import json
import os
import pickle
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import BadjaDataset, DavisDataset, write_label_map
from mmliir.datasets.catalog import CATALOG, find_all
from mmliir.datasets.doctor import diagnose
from mmliir.datasets.doctor.masks import _PUBLISHED_FRAMES
from mmliir.evaluation.benchmarks import BENCHMARKS, open_benchmark
from mmliir.testing.synthetic import generate_videos, write_davis_layout
from mmliir.testing.synthetic_badja import write_badja
from mmliir.testing.synthetic_jhmdb import write_jhmdb
from mmliir.testing.synthetic_tapvid import write_tapvid
from mmliir.testing.synthetic_vip import write_vip
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos

TAPVID = ('davis', 'kinetics', 'rgb_stacking', 'robotap')


@pytest.fixture(scope='module')
def replicas(tmp_path_factory):
    """A small one of every data set, under its usual name."""
    root = tmp_path_factory.mktemp('data')
    videos = list(generate_videos([1, 2], 8, (48, 64)))
    write_davis_layout(root / 'davis2016', videos, year=2016)
    write_davis_layout(root / 'davis2017', videos)
    for year in (2018, 2019):
        write_youtube_vos(root / f'youtube_vos{year}', num_frames=11)
    write_vip(root / 'vip')
    write_badja(root / 'badja')
    for subset in TAPVID:
        write_tapvid(root, subset)
    return root


@pytest.fixture
def copy(replicas, tmp_path):
    def make(name: str) -> Path:
        folder = CATALOG[name].folders[0]
        shutil.copytree(replicas / folder, tmp_path / folder)
        return tmp_path / folder

    return make


def texts(diagnosis, level: str) -> str:
    return '\n'.join(str(finding) for finding in diagnosis.findings if finding.level == level)


def usable(diagnosis) -> dict[str, int]:
    return {row.benchmark: len(row.usable) for row in diagnosis.evaluable}


def first_video(root: Path) -> tuple[str, Path, Path]:
    name = sorted(os.listdir(root / 'JPEGImages' / '480p'))[0]
    return name, root / 'JPEGImages' / '480p' / name, root / 'Annotations' / '480p' / name


# -- whole replicas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', [name for name in CATALOG if name != 'jhmdb'])
@pytest.mark.parametrize('full', [False, True])
def test_a_whole_replica_has_no_problem_and_can_be_evaluated(replicas, name, full):
    diagnosis = diagnose(name, replicas, full)
    assert not diagnosis.problems, texts(diagnosis, 'problem')
    assert diagnosis.state == 'usable'  # not 'complete': it has fewer sequences than the published one
    for row in diagnosis.evaluable:
        assert len(row.usable) == row.listed > 0
        task = open_benchmark(row.benchmark, replicas, list(row.usable))
        assert task.dataset.sample(row.usable[0]).frames[0].ndim == 3


def test_a_whole_jhmdb_notes_its_clip_of_two_lengths(tmp_path):
    pytest.importorskip('scipy')
    write_jhmdb(tmp_path)
    diagnosis = diagnose('jhmdb', tmp_path, full=True)
    assert not diagnosis.problems and usable(diagnosis) == {'jhmdb': 2}
    assert 'harmless: wave__an_arm_wave_u_cm (8 frames, 6 annotated)' in texts(diagnosis, 'note')


def test_what_has_the_published_number_of_sequences_is_complete(tmp_path, monkeypatch):
    write_davis_layout(tmp_path, generate_videos([1, 2], 3, (48, 64)))
    monkeypatch.setitem(CATALOG, 'davis2017', replace(CATALOG['davis2017'], benchmarks={'davis2017': 2}))
    monkeypatch.setitem(_PUBLISHED_FRAMES, 2017, 6)
    assert diagnose('davis2017', tmp_path).state == 'complete'
    monkeypatch.setitem(_PUBLISHED_FRAMES, 2017, 7)
    other = diagnose('davis2017', tmp_path)
    assert other.state == 'usable' and 'val has 6 frames, the published one 7' in texts(other, 'problem')


def test_the_catalog_and_the_benchmarks_name_each_other():
    by_data = {}
    for name, task in BENCHMARKS.items():
        by_data.setdefault(Path(task['dataset']['data_root']).name, set()).add(name)
    assert {name: set(entry.benchmarks) for name, entry in CATALOG.items()} == by_data


# -- frames and masks ---------------------------------------------------------------------------------------


def remove_frame(root, frames, masks):
    (frames / '00003.jpg').unlink()
    return '{name}/00003'


def remove_frame_and_mask(root, frames, masks):
    (frames / '00003.jpg').unlink()
    (masks / '00003.png').unlink()
    return 'missing in the row of their numbers: {name}/00003'


def remove_mask(root, frames, masks):
    (masks / '00003.png').unlink()
    return 'frames without a mask: a score would leave them out: JPEGImages/480p/{name}/00003.jpg'


def remove_frames_folder(root, frames, masks):
    shutil.rmtree(frames)
    return 'without a folder of frames in JPEGImages/480p: {name}'


def remove_masks_folder(root, frames, masks):
    shutil.rmtree(masks)
    return 'without a folder of masks in Annotations/480p: {name}'


def empty_folder(root, frames, masks):
    for path in frames.iterdir():
        path.unlink()
    return 'sequences without a frame: {name}'


def rename_by_case(root, frames, masks):
    frames.rename(frames.with_name(frames.name.upper()))
    return 'by case or Unicode form: rename them: {upper} (the list: {name})'


def empty_file(root, frames, masks):
    (frames / '00002.jpg').write_bytes(b'')
    return 'empty files (0 bytes): copy them again: JPEGImages/480p/{name}/00002.jpg'


def cut_off_last_frame(root, frames, masks):
    path = frames / '00007.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    return 'damaged or cut off: copy them again: JPEGImages/480p/{name}/00007.jpg'


def web_page_for_frame(root, frames, masks):
    (frames / '00002.jpg').write_text('<html>404</html>')
    return 'files that are no images, whatever their names say: download them again: JPEGImages/480p/{name}/00002.jpg'


def frame_of_other_size(root, frames, masks):
    cv2.imwrite(str(frames / '00002.jpg'), np.zeros((24, 32, 3), np.uint8))
    return 'whose frames differ in size: {name} (32x24 and 64x48)'


def mask_of_other_size(root, frames, masks):
    write_label_map(masks / '00002.png', np.ones((24, 32), np.uint8))
    return 'masks of another size than the frames, e.g. 32x24 for 64x48'


def smoothed_mask(root, frames, masks):
    ids = np.asarray(Image.open(masks / '00000.png')).astype(np.uint8)
    Image.fromarray(cv2.GaussianBlur(ids * 100, (0, 0), 2)).save(masks / '00000.png')
    return 'whose ids cannot be told: get the originals, without smoothing and JPEG: Annotations/480p/{name}/00000.png'


def nothing_to_follow(root, frames, masks):
    write_label_map(masks / '00000.png', np.zeros((48, 64), np.uint8))
    return 'whose first mask shows no object: there is nothing to follow: {name}'


def painted_mask(root, frames, masks):
    painted = np.zeros((48, 64, 3), np.uint8)
    painted[10:20, 10:20] = (10, 200, 30)
    Image.fromarray(painted).save(masks / '00000.png')
    return 'free colours, whose ids hold for one image alone: get the indexed ones: Annotations/480p/{name}/00000.png'


def frame_twice(root, frames, masks):
    for path in frames.glob('*.jpg'):
        Image.open(path).save(path.with_suffix('.png'))
    return 'there twice, under two suffixes'


def broken_link(root, frames, masks):
    (frames / '00002.jpg').unlink()
    (frames / '00002.jpg').symlink_to(frames / 'nowhere.jpg')
    return 'a link that leads nowhere: JPEGImages/480p/{name}/00002.jpg'


def links_in_a_circle(root, frames, masks):
    shutil.rmtree(frames)
    frames.symlink_to(frames)
    return 'links in a circle: JPEGImages/480p/{name}'


DAMAGES = [
    remove_frame,
    remove_frame_and_mask,
    remove_mask,
    remove_frames_folder,
    remove_masks_folder,
    empty_folder,
    rename_by_case,
    empty_file,
    cut_off_last_frame,
    web_page_for_frame,
    frame_of_other_size,
    mask_of_other_size,
    smoothed_mask,
    nothing_to_follow,
    painted_mask,
    frame_twice,
    broken_link,
    links_in_a_circle,
]


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_one_damage_is_named_and_costs_one_sequence(copy, damage):
    root = copy('davis2017')
    name, frames, masks = first_video(root)
    expected = damage(root, frames, masks).format(name=name, upper=name.upper())
    diagnosis = diagnose('davis2017', root)
    assert expected in texts(diagnosis, 'problem')
    (row,) = diagnosis.evaluable
    assert name not in row.usable and len(row.usable) == 1 and row.listed == 2
    assert str(row) == 'davis2017: 1 of the 30 published sequences; the list has 2'
    # What is said to be usable is: the data set opens with it.
    assert len(DavisDataset(root, sequences=row.usable)[0].frames) == 8


def test_damage_in_the_middle_shows_when_everything_is_decoded(copy):
    root = copy('davis2016')
    name, frames, _ = first_video(root)
    path = frames / '00004.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    assert usable(diagnose('davis2016', root)) == {'davis2016': 2}
    assert usable(diagnose('davis2016', root, full=True)) == {'davis2016': 1}


def test_a_png_frame_whose_check_sum_does_not_fit_is_found(tmp_path):
    write_davis_layout(tmp_path, generate_videos([1], 3, (48, 64)), suffix='.png')
    path = sorted((tmp_path / 'JPEGImages').rglob('*.png'))[1]
    data = bytearray(path.read_bytes())
    place = len(data) - 14  # in the check sum of the last piece of pixels, before IEND
    data[place] ^= 1
    path.write_bytes(data)
    assert not diagnose('davis2017', tmp_path).problems
    assert 'damaged or cut off' in texts(diagnose('davis2017', tmp_path, full=True), 'problem')


def test_a_list_that_is_no_text_is_named(copy):
    root = copy('davis2017')
    (root / 'ImageSets' / '2017' / 'val.txt').write_bytes(b'\xff\xfe\x00')
    diagnosis = diagnose('davis2017', root)
    assert 'val.txt is no UTF-16-LE text' in texts(diagnosis, 'problem') and diagnosis.state == 'unusable'


def test_an_image_that_claims_an_unbelievable_size_is_not_decoded(copy):
    root = copy('davis2017')
    _, frames, _ = first_video(root)
    header = struct.pack('>II5B', 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b'IHDR' + header
    bomb = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
    (frames / '00000.jpg').write_bytes(bomb + struct.pack('>I', 0) + b'IDAT' + struct.pack('>I', zlib.crc32(b'IDAT')))
    diagnosis = diagnose('davis2017', root, full=True)
    assert 'claim an unbelievable size; not decoded: JPEGImages/480p/seed00001/00000.jpg' in texts(diagnosis, 'problem')


def test_a_folder_without_permission_is_a_finding(copy, monkeypatch):
    root = copy('davis2017')
    name, frames, _ = first_video(root)
    scandir = os.scandir

    def refuse(folder):
        if Path(folder) == frames:
            raise PermissionError(13, 'Permission denied', str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', refuse)
    diagnosis = diagnose('davis2017', root)
    assert f'folders that cannot be read: no permission: JPEGImages/480p/{name}' in texts(diagnosis, 'problem')
    assert usable(diagnosis) == {'davis2017': 1}


def test_what_is_harmless_is_a_note(copy):
    root = copy('davis2017')
    name, frames, masks = first_video(root)
    for path in (frames / 'Thumbs.db', frames / '._00000.jpg', root / 'JPEGImages' / '480p' / '.DS_Store'):
        path.write_bytes(b'x')
    (masks / 'readme.txt').write_text('')
    (frames / 'notes.doc').write_text('')
    ids = np.asarray(Image.open(masks / '00000.png')).copy()
    ids[ids > 0] += 4
    ids[:4] = 255
    write_label_map(masks / '00000.png', ids)
    shutil.copytree(frames, frames.with_name('unlisted'))
    diagnosis = diagnose('davis2017', root)
    assert not diagnosis.problems and usable(diagnosis) == {'davis2017': 2}
    notes = texts(diagnosis, 'note')
    assert 'hidden files of other systems or programs; ignored (3): ' in notes
    assert f'files that are no images; ignored: JPEGImages/480p/{name}/notes.doc' in notes
    assert f'whose ids have gaps; they are kept: {name} (5' in notes
    assert f'void pixels (255), which belong to no object: Annotations/480p/{name}/00000.png' in notes
    assert 'no list names, or without masks; not used: unlisted' in notes


def test_masks_on_some_frames_only_are_by_design_where_they_are_few(copy):
    root = copy('davis2017')
    name, _, masks = first_video(root)
    for number in range(1, 8, 1):
        if number != 4:
            (masks / f'{number:05d}.png').unlink()
    diagnosis = diagnose('davis2017', root)
    assert usable(diagnosis) == {'davis2017': 2}
    assert f'by design as it seems; those count: {name} (2 of 8)' in texts(diagnosis, 'note')


def test_a_mask_of_two_channels_is_known_from_the_original_and_harmless(copy):
    root = copy('davis2016')
    _, _, masks = first_video(root)
    grey = np.asarray(Image.open(masks / '00002.png').convert('L'))
    Image.fromarray(np.stack([grey, np.full_like(grey, 255)], -1), 'LA').save(masks / '00002.png')
    diagnosis = diagnose('davis2016', root, full=True)
    assert 'as bear/00077.png of DAVIS 2016 has' in texts(diagnosis, 'note') and not diagnosis.problems


def test_masks_of_2017_are_told_from_those_of_2016(copy):
    root = copy('davis2017')
    (root / 'ImageSets' / '2017').rename(root / 'ImageSets' / '2016')
    assert 'several ids: masks of DAVIS 2017?' in texts(diagnose('davis2016', root), 'problem')


def test_names_that_lead_out_of_the_folder_are_not_followed(copy):
    root = copy('davis2017')
    with open(root / 'ImageSets' / '2017' / 'val.txt', 'a') as file:
        file.write('..\n')
    diagnosis = diagnose('davis2017', root)
    assert 'names in the list that lead out of the data set; not looked at: ..' in texts(diagnosis, 'problem')
    assert usable(diagnosis) == {'davis2017': 2}


def test_many_of_a_kind_are_counted_and_five_are_named(copy):
    root = copy('davis2017')
    _, frames, _ = first_video(root)
    for path in frames.iterdir():
        path.write_bytes(b'')
    (finding,) = [f for f in diagnose('davis2017', root).problems if 'empty files' in f.text]
    assert finding.count == 8 and len(finding.examples) == 5 and str(finding).endswith('00004.jpg, ...')


def test_the_wrong_resolution_is_named(copy):
    root = copy('davis2017')
    (root / 'JPEGImages' / '480p').rename(root / 'JPEGImages' / 'Full-Resolution')
    diagnosis = diagnose('davis2017', root)
    assert 'JPEGImages/480p is missing (there is Full-Resolution)' in texts(diagnosis, 'problem')
    assert diagnosis.state == 'unusable'


# -- the other benchmarks -----------------------------------------------------------------------------------


def test_youtube_vos_without_all_frames_says_so(copy):
    root = copy('youtube_vos2018')
    shutil.rmtree(root / 'valid_all_frames')
    diagnosis = diagnose('youtube_vos2018', root)
    assert 'the folder valid_all_frames/JPEGImages is missing' in texts(diagnosis, 'problem')
    assert usable(diagnosis) == {'youtube_vos2018': 0, 'youtube_vos_holdout': 2}
    assert [str(row) for row in diagnosis.training] == [
        f'{part}: 4 of the 3,471 published videos; the list has 4' for part in ('train_all_frames', 'train')
    ]


def test_training_videos_alone_are_usable(copy):
    root = copy('youtube_vos2018')
    for part in ('valid', 'valid_all_frames', 'train'):
        shutil.rmtree(root / part)
    diagnosis = diagnose('youtube_vos2018', root)
    assert not diagnosis.problems and diagnosis.evaluable == () and diagnosis.state == 'usable'


def test_a_hold_out_with_a_missing_video_is_evaluated_on_the_rest(copy):
    root = copy('youtube_vos2018')
    lost = diagnose('youtube_vos2018', root).evaluable[1].usable[0]
    shutil.rmtree(root / 'train' / 'JPEGImages' / lost)
    row = diagnose('youtube_vos2018', root).evaluable[1]
    assert row.benchmark == 'youtube_vos_holdout' and len(row.usable) == 1 and lost not in row.usable
    task = open_benchmark('youtube_vos_holdout', root, list(row.usable))
    assert task.metric.sequences == row.usable


def test_a_sampled_frame_that_is_not_among_all_frames_is_named(copy):
    root = copy('youtube_vos2018')
    folder = sorted((root / 'valid_all_frames' / 'JPEGImages').iterdir())[0]
    (folder / '00005.jpg').unlink()
    diagnosis = diagnose('youtube_vos2018', root)
    assert f'not among all frames: {folder.name}/00005' in texts(diagnosis, 'problem')
    assert usable(diagnosis)['youtube_vos2018'] == 1


def test_vip_keeps_classes_when_instances_are_broken(copy):
    root = copy('vip') / 'VIP_Fine'
    path = sorted((root / 'Annotations' / 'Instance_ids' / 'videos1').glob('*.txt'))[0]
    path.unlink()
    diagnosis = diagnose('vip', root)
    expected = f'without their text file of classes: Annotations/Instance_ids/videos1/{path.name}'
    assert expected in texts(diagnosis, 'problem')
    assert usable(diagnosis) == {'vip': 2, 'vip_instance': 1}


def test_vip_folders_beside_images_are_harmless(copy):
    root = copy('vip') / 'VIP_Fine'
    for kind in ('Category_ids', 'Instance_ids'):
        (root / 'Annotations' / kind).rename(root / kind)
    diagnosis = diagnose('vip', root)
    assert not diagnosis.problems and usable(diagnosis) == {'vip': 2, 'vip_instance': 2}
    assert 'beside Images and not in Annotations, as one release has them; harmless' in texts(diagnosis, 'note')


def test_vip_classes_that_there_are_not_are_named(copy):
    root = copy('vip') / 'VIP_Fine'
    path = sorted((root / 'Annotations' / 'Category_ids' / 'videos1').glob('*.png'))[0]
    write_label_map(path, np.full((64, 96), 77, np.uint8))
    diagnosis = diagnose('vip', root)
    assert 'holds class 77' in texts(diagnosis, 'problem') and usable(diagnosis) == {'vip': 1, 'vip_instance': 2}


def test_jhmdb_names_missing_joints_and_frames(tmp_path):
    pytest.importorskip('scipy')
    write_jhmdb(tmp_path)
    mat = tmp_path / 'joint_positions' / 'clap' / 'hands_clap_u_nm' / 'joint_positions.mat'
    mat.write_bytes(mat.read_bytes()[:100])
    diagnosis = diagnose('jhmdb', tmp_path)
    assert 'joint_positions/clap/hands_clap_u_nm/joint_positions.mat' in texts(diagnosis, 'problem')
    mat.unlink()
    assert 'without joint_positions.mat: clap__hands_clap_u_nm' in texts(diagnose('jhmdb', tmp_path), 'problem')
    shutil.rmtree(tmp_path / 'Rename_Images' / 'wave')
    diagnosis = diagnose('jhmdb', tmp_path)
    assert 'without a folder of frames: wave__an_arm_wave_u_cm' in texts(diagnosis, 'problem')
    assert usable(diagnosis) == {'jhmdb': 0} and diagnosis.state == 'unusable'


def test_badja_says_which_animals_have_frames(copy):
    root = copy('badja')
    shutil.rmtree(root / 'DAVIS' / 'JPEGImages' / 'Full-Resolution' / 'bear')
    diagnosis = diagnose('badja', root)
    assert 'put DAVIS 2017 TrainVal beside this folder' in texts(diagnosis, 'problem')
    (row,) = diagnosis.evaluable
    assert row.usable == ('dog',) and 'DAVIS/JPEGImages/Full-Resolution' in texts(diagnosis, 'ok')
    assert BadjaDataset(root, sequences=row.usable).names == ['dog']


def test_badja_extra_videos_and_the_missing_comma_are_harmless(copy):
    root = copy('badja')
    entries = json.loads((root / 'joint_annotations' / 'dog.json').read_text())
    for number, entry in enumerate(entries):
        entry['image_path'] = f'extra_videos/cat_jump/rgb/{number:05d}.png'
        entry['segmentation_path'] = f'extra_videos/cat_jump/segmentations/{number:05d}.png'
    (root / 'joint_annotations' / 'cat_jump.json').write_text(json.dumps(entries))
    diagnosis = diagnose('badja', root)
    assert not diagnosis.problems and usable(diagnosis) == {'badja': 2}
    assert 'lacks a comma, which changes no score): cat_jump' in texts(diagnosis, 'note')


def test_one_wrong_file_of_joints_costs_its_animal_and_is_named(copy):
    root = copy('badja')
    (root / 'joint_annotations' / 'cows.json').write_text('[{}]')
    diagnosis = diagnose('badja', root)
    assert 'cows.json is no file of BADJA joints' in texts(diagnosis, 'problem') and diagnosis.state == 'usable'
    assert usable(diagnosis) == {'badja': 2} and diagnosis.evaluable[0].listed == 3
    with pytest.raises(ValueError, match='cows.json'):
        BadjaDataset(root).sample('cows')


@pytest.mark.parametrize('subset', TAPVID)
def test_a_tapvid_file_that_is_cut_off_is_named(copy, subset):
    name = subset if subset == 'robotap' else f'tapvid_{subset}'
    path = sorted(copy(name).glob('*.pkl'))[-1]
    path.write_bytes(path.read_bytes()[:-1000])
    diagnosis = diagnose(name, path.parent)
    assert f'{path.name} ' in texts(diagnosis, 'problem') and diagnosis.state == 'unusable'


def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(copy, tmp_path):
    path = next(copy('tapvid_davis').glob('*.pkl'))

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'owned'),)

    path.write_bytes(pickle.dumps({'video': Attack()}))
    diagnosis = diagnose('tapvid_davis', path.parent)
    assert 'nothing was executed' in texts(diagnosis, 'problem') and not (tmp_path / 'owned').exists()


def test_one_tapvid_video_with_pixels_for_fractions_is_named(copy):
    path = next(copy('tapvid_rgb_stacking').glob('*.pkl'))
    samples = pickle.loads(path.read_bytes())  # written by this test's own fixture
    samples[1]['points'] = samples[1]['points'] * 64
    samples[2]['occluded'] = samples[2]['occluded'][:, 1:]
    path.write_bytes(pickle.dumps(samples))
    diagnosis = diagnose('tapvid_rgb_stacking', path.parent)
    problems = texts(diagnosis, 'problem')
    assert 'no fractions of the frame (0 to 1): pixels?: 0001' in problems and 'occluded: expected' in problems
    assert usable(diagnosis)['tapvid_rgb_stacking'] == 1


def test_missing_kinetics_videos_are_expected_and_counted(copy):
    notes = texts(diagnose('tapvid_kinetics', copy('tapvid_kinetics')), 'note')
    assert '3 videos of 1,189: the others have vanished from YouTube' in notes


# -- finding ------------------------------------------------------------------------------------------------


def test_all_data_sets_are_found_and_years_told_apart(replicas):
    assert list(find_all(replicas)) == [name for name in CATALOG if name != 'jhmdb']
    assert list(find_all(replicas / 'youtube_vos2019')) == ['youtube_vos2019']
    with pytest.raises(ValueError, match='unknown data set'):
        diagnose('davis', replicas)
    with pytest.raises(FileNotFoundError, match='JHMDB not found'):
        diagnose('jhmdb', replicas)


def test_a_diagnosis_is_plain_json(replicas):
    written = json.loads(json.dumps(diagnose('vip', replicas).to_dict()))
    assert written['state'] == 'usable' and written['benchmarks']['vip']['usable'] == ['videos1', 'videos2']


@pytest.mark.real
def test_real_data_are_as_their_readme_says(data_root):
    found = find_all(data_root)
    assert found['davis2017'].name == 'davis2017_like' and 'youtube_vos2018' not in found
    d2016, d2017, badja = (diagnose(name, data_root) for name in ('davis2016', 'davis2017', 'badja'))
    assert not (d2016.problems or d2017.problems or badja.problems)
    assert str(d2016.evaluable[0]) == 'davis2016: 9 of the 20 published sequences; the list has 9'
    assert 'val: 9 whole sequences, 582 frames' in texts(d2016, 'ok')
    assert usable(d2017)['davis2017'] == 4 and 'caps (5 of 67)' in texts(d2017, 'note')
    assert badja.evaluable[0].usable == ('camel', 'horsejump-high')
    assert '../davis2016/JPEGImages/480p' in texts(badja, 'ok')
    assert 'take the masks of DAVIS 2017: horsejump-high' in texts(badja, 'note')
