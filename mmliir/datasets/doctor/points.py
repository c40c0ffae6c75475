"""Looks at data sets with points and joints: TAP-Vid, RoboTAP, JHMDB, BADJA."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from mmliir.datasets.badja import EXTRA_ANIMALS, PUBLISHED_ANIMALS, BadjaDataset, is_extra, read_badja_rows
from mmliir.datasets.catalog import CATALOG
from mmliir.datasets.doctor.findings import Evaluable, Notebook, Progress, evaluable_rows
from mmliir.datasets.doctor.images import check_frames, check_images, list_folder, list_names
from mmliir.datasets.jhmdb import FRAME_FOLDERS, find_jhmdb_root, read_jhmdb_lists, read_joint_positions
from mmliir.datasets.listing import is_clutter
from mmliir.datasets.masks import read_label_map
from mmliir.datasets.named import is_folder_name
from mmliir.datasets.pictures import decode_picture
from mmliir.datasets.tapvid import TapVidDataset
from mmliir.utils.words import number_of

# Points of people lie a little outside the frame at times; these are in other units.
_FARTHEST = 2.0
#: Horse and rider are two objects in DAVIS 2017.
_WITH_RIDER = ('horsejump-high', 'horsejump-low')


def check_tapvid(book: Notebook, folder: Path, name: str, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at a part of TAP-Vid, or RoboTAP: the files, and every video in them."""
    published = CATALOG[name].benchmarks
    try:
        dataset = TapVidDataset(folder, name.removeprefix('tapvid_'))
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return evaluable_rows({}, {}, published)
    usable, never_visible, frames = [], 0, 0
    for number, video in enumerate(dataset.names):
        if _check_tapvid_video(book, dataset, video, full):
            usable.append(video)
            truth = dataset.truth(video)
            never_visible += truth.num_tracks - len(np.unique(truth.track))
            frames += truth.points.shape[1]
        progress(number + 1, len(dataset))
    if never_visible:
        book.add('note', f'{never_visible} tracks are visible in no frame; the benchmark leaves them out')
    count = len(dataset)
    if name == 'tapvid_kinetics' and count != published[name]:
        text = (
            f'{count} videos of {published[name]:,}: the others have vanished from YouTube or were not fetched; a '
            f'score says that it is a mean over {count}'
        )
        book.add('note', text)
    if usable:
        files = number_of(len(dataset.paths), 'file')
        book.add('ok', f'{number_of(len(usable), "whole video")}, {frames:,} frames, in {files}')
    return evaluable_rows(dict.fromkeys(published, usable), dict.fromkeys(published, count), published)


def _check_tapvid_video(book: Notebook, dataset: TapVidDataset, video: str, full: bool) -> bool:
    try:
        truth = dataset.truth(video)
        frames = dataset.sample(video).frames
        for index in range(len(frames)) if full else (0, -1):
            frames[index]
    except (OSError, ValueError) as error:
        book.add('problem', f'videos that cannot be used: {_after(str(error), repr(video))}', video)
        return False
    if not len(truth.queries):
        book.add('note', 'videos without a point that is visible in any frame; they have no score', video)
    elif np.abs(truth.points[truth.visible]).max(initial=0) > _FARTHEST:
        book.add('problem', 'videos whose points are no fractions of the frame (0 to 1): pixels?', video)
        return False
    return True


def check_jhmdb(book: Notebook, folder: Path, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at JHMDB, split 1: lists, frames, joints, and whether they are of one length."""
    published = CATALOG['jhmdb'].benchmarks
    try:
        root = find_jhmdb_root(folder)
        listed, _ = read_jhmdb_lists(root, 1)
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return evaluable_rows({}, {}, published)
    images = next((root / name for name in FRAME_FOLDERS if (root / name).is_dir()), None)
    if images is None:
        book.add('problem', f'no folder of frames: looked for {" and ".join(FRAME_FOLDERS)} in {book.shown(root)}')
        return evaluable_rows({}, {'jhmdb': len(listed)}, published)
    for parent in (images, root / 'joint_positions'):
        list_names(book, parent)
    usable = []
    for number, (name, parts) in enumerate(listed.items()):
        joints = root.joinpath('joint_positions', *parts, 'joint_positions.mat')
        if _check_jhmdb_clip(book, name, images.joinpath(*parts), joints, full):
            usable.append(name)
        progress(number + 1, len(listed))
    if usable:
        book.add('ok', f'split 1: {number_of(len(usable), "whole clip")} to test on')
    return evaluable_rows({'jhmdb': usable}, {'jhmdb': len(listed)}, published)


def _check_jhmdb_clip(book: Notebook, name: str, frames: Path, joints: Path, full: bool) -> bool:
    if not frames.is_dir():
        book.add('problem', 'clips of the list without a folder of frames', name)
        return False
    state = check_frames(book, name, list_folder(book, frames, ('.avi',)), full, 'problem')
    try:
        positions = read_joint_positions(joints)
    except FileNotFoundError:
        book.add('problem', 'clips of the list without joint_positions.mat', name)
        return False
    except ImportError as error:
        book.add('problem', str(error))
        return False
    except (OSError, ValueError) as error:
        book.add('problem', f'joints that cannot be read: {_after(str(error), joints.name)}', joints)
        return False
    if state.num_frames and state.num_frames != len(positions):
        text = 'clips with more frames than annotated ones, or fewer, as in the original; cut to the shorter: harmless'
        book.add('note', text, f'{name} ({state.num_frames} frames, {len(positions)} annotated)')
    return state.usable


def check_badja(book: Notebook, folder: Path, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at BADJA: the files of joints, and the frames and masks of DAVIS, wherever they are found."""
    published = CATALOG['badja'].benchmarks
    found = sorted((folder / 'joint_annotations').glob('*.json'))
    files = [path for path in found if is_folder_name(path.stem) and not is_clutter(path.name)]
    usual, extra, unread = [], [], []
    for path in files:
        try:
            rows = read_badja_rows(path)
        except (OSError, ValueError) as error:
            book.add('problem', str(error))
            unread += [path.stem] if path.stem not in EXTRA_ANIMALS else []
            continue
        (extra if is_extra(rows[0]) else usual).append(path.stem)
    if extra:
        text = (
            'files of joints for extra_videos, which published scores leave out and `mmliir` uses only when they are '
            'named (the original list of what to ignore lacks a comma, which changes no score)'
        )
        book.add('note', text, extra)
    absent = [name for name in PUBLISHED_ANIMALS if name not in usual]
    if absent:
        book.add('note', 'animals of the published scores without a file of joints', absent)
    usable, where = [], Counter()
    for number, name in enumerate(usual):
        found = _check_animal(book, folder, name, full)
        if found is not None:
            usable.append(name)
            where[found] += 1
        progress(number + 1, len(usual))
    for found, count in where.items():
        book.add('ok', f'frames of {number_of(count, "animal")} found in {found}')
    return evaluable_rows({'badja': usable}, {'badja': len(usual) + len(unread)}, published)


def _check_animal(book: Notebook, folder: Path, name: str, full: bool) -> str | None:
    """Return where the frames were found, None where the animal cannot be evaluated."""
    try:
        dataset = BadjaDataset(folder, sequences=[name])
        frames = dataset.sample(name).frames.paths
        masks = dataset.mask_paths(name)
    except FileNotFoundError as error:
        if 'frames of' not in str(error):
            book.add('problem', str(error))
        else:
            text = 'animals without frames: put DAVIS 2017 TrainVal beside this folder as davis2017 (480p will do)'
            book.add('problem', text, name)
        return None
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return None
    state = check_frames(book, name, frames, full, 'problem')
    headers, decoded = check_images(book, masks, read_label_map, full)
    misfits = [path for path in decoded if not decoded[path].objects]
    if misfits:
        book.add('problem', 'masks without an animal: PCK is measured in its size', misfits)
    if name in _WITH_RIDER and decoded and all(len(label_map.objects) == 1 for label_map in decoded.values()):
        text = (
            'animals whose masks show one object, rider and all, as those of DAVIS 2016: thresholds of PCK are larger '
            'than the published; take the masks of DAVIS 2017'
        )
        book.add('note', text, name)
    if not state.usable or misfits or len(headers) != len(masks):
        return None
    try:
        dataset.truth(name)
        decode_picture(frames[0])
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return None
    return Path(os.path.relpath(frames[0].parents[1], folder)).as_posix()


def _after(text: str, mark: str) -> str:
    """What a message says behind its place, so that the same fault of many files is one finding."""
    return text.split(mark, 1)[-1].strip(' :') or text
