"""Looks at data sets with masks: DAVIS, YouTube-VOS, VIP."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmliir.datasets.catalog import CATALOG
from mmliir.datasets.davis import read_names
from mmliir.datasets.doctor.findings import Evaluable, Notebook, Progress, evaluable_rows
from mmliir.datasets.doctor.images import check_frames, check_masks, folded, list_folder, list_names, pair_names
from mmliir.datasets.listing import is_clutter, list_label_maps
from mmliir.datasets.masks import LabelMap, read_label_map
from mmliir.datasets.named import is_folder_name
from mmliir.datasets.png import read_ids
from mmliir.datasets.sources import holdout_names, youtube_vos_folders
from mmliir.datasets.vip import (
    VIP_VOID,
    find_vip_annotations,
    find_vip_root,
    read_categories,
    read_instance_classes,
    read_instances,
    read_vip_names,
)
from mmliir.datasets.youtube_vos import read_meta
from mmliir.utils.words import number_of

_RESOLUTION = '480p'
_SEVERAL_IDS = 'several ids'
#: Frames of the val splits, all sequences together.
_PUBLISHED_FRAMES = {2016: 1376, 2017: 1999}
_VOID = 255
#: Videos of YouTube-VOS train, both years.
_TRAIN_VIDEOS = 3471


def check_davis(book: Notebook, folder: Path, year: int, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at DAVIS 2016 or 2017: val, test-dev where its list is there, and what is there of other lists."""
    splits = {f'davis{year}': 'val'}
    if year == 2017 and (folder / 'ImageSets' / '2017' / 'test-dev.txt').is_file():
        splits['davis2017_test_dev'] = 'test-dev'
    published = {benchmark: CATALOG[f'davis{year}'].benchmarks[benchmark] for benchmark in splits}
    listed = {benchmark: _read_list(book, folder, year, split) for benchmark, split in splits.items()}
    num_listed = {benchmark: len(names) for benchmark, names in listed.items()}
    frames, masks = (folder / kind / _RESOLUTION for kind in ('JPEGImages', 'Annotations'))
    if not (_is_there(book, frames) and _is_there(book, masks)):
        return evaluable_rows({}, num_listed, published)

    frames_there, masks_there = list_names(book, frames), list_names(book, masks)
    wanted = {}
    for benchmark, names in listed.items():
        masked = pair_names(book, names, masks_there, masks, 'masks')
        wanted[benchmark] = [name for name in pair_names(book, names, frames_there, frames, 'frames') if name in masked]
    needed = list(dict.fromkeys(name for names in wanted.values() for name in names))
    in_lists = {name for names in listed.values() for name in names}
    both_there = set(frames_there) & set(masks_there)
    beyond = [name for name in _other_lists(folder, year) if name not in in_lists and name in both_there]
    aside, states = Notebook(folder), {}
    for number, name in enumerate([*needed, *beyond]):
        notes = book if number < len(needed) else aside
        paths = list_folder(notes, frames / name)
        state = check_frames(notes, name, paths, full, 'problem')
        read = _read_2016 if year == 2016 else _read_2017
        is_dense = name not in listed.get('davis2017_test_dev', ())
        states[name] = check_masks(notes, name, paths, state, masks / name, read, full, davis_rules=is_dense)
        progress(number + 1, len(needed) + len(beyond))
    several = [name for name, state in states.items() if _SEVERAL_IDS in state.notes]
    if several:
        text = 'sequences with several ids: masks of DAVIS 2017? Those of 2016 are other files, and give other scores'
        book.add('problem', text, several)
    for finding in aside.findings():
        count = f' ({finding.count})' if finding.count > len(finding.examples) else ''
        book.add('note', f'in sequences that no benchmark here uses: {finding.text}{count}', finding.examples)
    named = {folded(name) for name in (*in_lists, *beyond)}  # what differs by case has been named above
    unlisted = [name for name in frames_there if folded(name) not in named]
    if unlisted:
        book.add('note', 'sequences that no list names, or without masks; not used', unlisted)
    usable = {benchmark: [name for name in names if states[name].usable] for benchmark, names in wanted.items()}
    _note_sizes(book, [states[name].size for names in usable.values() for name in names])
    for benchmark, names in usable.items():
        num_frames = sum(states[name].num_frames for name in names)
        if names:
            book.add('ok', f'{splits[benchmark]}: {number_of(len(names), "whole sequence")}, {num_frames:,} frames')
        if splits[benchmark] == 'val' and len(names) == published[benchmark] and num_frames != _PUBLISHED_FRAMES[year]:
            text = f'val has {num_frames:,} frames, the published one {_PUBLISHED_FRAMES[year]:,}: not the same clips'
            book.add('problem', text)
    return evaluable_rows(usable, num_listed, published)


def check_youtube_vos(
    book: Notebook, folder: Path, year: int, full: bool, progress: Progress
) -> tuple[Evaluable, ...]:
    """Look at a year of YouTube-VOS: valid, and of train what is held out; the rest of train is counted.

    Returns:
        Rows of benchmarks, then rows of training videos, which the catalog does not know as benchmarks.
    """
    known = CATALOG[f'youtube_vos{year}'].benchmarks
    splits = {f'youtube_vos{year}': 'valid'}
    if 'youtube_vos_holdout' in known:
        splits['youtube_vos_holdout'] = 'train'
    splits = {
        benchmark: split
        for benchmark, split in splits.items()
        if (folder / split / 'meta.json').is_file() or (split == 'valid' and (folder / 'valid_all_frames').is_dir())
    }
    usable, num_listed, training = {}, {}, []
    for benchmark, split in splits.items():
        try:
            meta = read_meta(folder / split / 'meta.json')
        except (OSError, ValueError) as error:
            book.add('problem', str(error))
            continue
        names = holdout_names(meta) if split == 'train' else sorted(meta)
        num_listed[benchmark] = len(names)
        usable[benchmark] = _check_vos_split(book, folder, split, names, full, progress)
        if usable[benchmark]:
            what = number_of(len(usable[benchmark]), 'whole video')
            book.add('ok', f'{split}: {what}' + (' held out' if split == 'train' else ''))
    for part in ('train_all_frames', 'train'):
        parent = folder / part / 'JPEGImages'
        if parent.is_dir():
            names = tuple(list_names(book, parent))
            training.append(Evaluable(part, names, len(names), _TRAIN_VIDEOS, 'videos'))
    return (*evaluable_rows(usable, num_listed, {benchmark: known[benchmark] for benchmark in splits}), *training)


def _check_vos_split(
    book: Notebook, folder: Path, split: str, names: Sequence[str], full: bool, progress: Progress
) -> list[str]:
    """Return the videos that are whole: sampled frames, all frames, annotations."""
    places = youtube_vos_folders(folder, split)
    sampled, everything, masks = places['6fps'], places['all'], folder / split / 'Annotations'
    wanted = list(names)
    for place, what in ((sampled, 'frames'), (everything, 'frames'), (masks, 'annotations')):
        if not _is_there(book, place):
            return []
        there = set(pair_names(book, names, list_names(book, place), place, what))
        wanted = [name for name in wanted if name in there]
    whole = []
    for number, name in enumerate(wanted):
        paths, all_paths = list_folder(book, sampled / name), list_folder(book, everything / name)
        state = check_frames(book, name, paths, full, 'note')
        all_state = check_frames(book, name, all_paths, full, 'problem')
        state = check_masks(book, name, paths, state, masks / name, _read_strictly, full, davis_rules=False)
        stray = {path.stem for path in paths} - {path.stem for path in all_paths}
        if stray:
            stems = [f'{name}/{stem}' for stem in sorted(stray)]
            book.add('problem', 'frames of every fifth that are not among all frames', stems)
        if state.usable and all_state.usable and not stray:
            whole.append(name)
        progress(number + 1, len(wanted))
    return whole


def check_vip(book: Notebook, folder: Path, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at VIP, val: frames, classes, instances."""
    published = CATALOG['vip'].benchmarks
    try:
        root = find_vip_root(folder)
        listed = _safe_names(book, read_vip_names(root / 'lists' / 'val_videos.txt'))
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return evaluable_rows({}, {}, published)
    num_listed = dict.fromkeys(published, len(listed))
    images = root / 'Images'
    if not _is_there(book, images):
        return evaluable_rows({}, num_listed, published)
    wanted = pair_names(book, listed, list_names(book, images), images, 'frames')
    paths = {name: list_folder(book, images / name) for name in wanted}
    states = {}
    for number, name in enumerate(wanted):
        states[name] = check_frames(book, name, paths[name], full, 'note')
        progress(number + 1, 3 * len(wanted))
    usable: dict[str, list[str]] = {}
    for benchmark, kind, read in (
        ('vip', 'Category_ids', _read_categories),
        ('vip_instance', 'Instance_ids', _read_instances),
    ):
        try:
            parent = find_vip_annotations(root, kind)
        except FileNotFoundError as error:
            book.add('problem', str(error))
            continue
        if parent.parent == root:
            text = 'annotations lie beside Images and not in Annotations, as one release has them; harmless'
            book.add('note', text, kind)
        there = pair_names(book, wanted, list_names(book, parent), parent, 'annotations')
        usable[benchmark] = []
        for number, name in enumerate(there):
            state = check_masks(book, name, paths[name], states[name], parent / name, read, full, davis_rules=False)
            has_classes = benchmark == 'vip' or _check_class_files(book, parent / name)
            if state.usable and has_classes:
                usable[benchmark].append(name)
            progress((1 + len(usable)) * len(wanted) + number + 1 - len(wanted), 3 * len(wanted))
    if usable.get('vip'):
        num_frames = sum(states[name].num_frames for name in usable['vip'])
        book.add('ok', f'val: {number_of(len(usable["vip"]), "whole video")}, {num_frames:,} frames')
    return evaluable_rows(usable, num_listed, published)


def _check_class_files(book: Notebook, folder: Path) -> bool:
    """Whether every PNG of Instance_ids has its text file, and that can be read."""
    whole = True
    for path in list_label_maps(folder).files:
        try:
            read_instance_classes(path)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            text = 'instances without their text file of classes' if missing else 'text files of classes that are wrong'
            book.add('problem', text, path.with_suffix('.txt'))
            whole = False
    return whole


def _read_list(book: Notebook, folder: Path, year: int, split: str) -> list[str]:
    try:
        return _safe_names(book, read_names(folder, year, split)[0])
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return []


def _is_there(book: Notebook, folder: Path) -> bool:
    """Whether a folder that is needed is there; else say so, and what is there in its place."""
    if folder.is_dir():
        return True
    others = list_names(book, folder.parent) if folder.parent.is_dir() else []
    hint = f' (there is {", ".join(others[:5])})' if others else ''
    book.add('problem', f'the folder {book.shown(folder)} is missing{hint}')
    return False


def _read_strictly(path: Path) -> LabelMap:
    return LabelMap(read_ids(path))


def _read_categories(path: Path) -> LabelMap:
    ids = read_categories(path)
    return LabelMap(np.where(ids == VIP_VOID, 0, ids).astype(np.uint8), void=ids == VIP_VOID)


def _read_instances(path: Path) -> LabelMap:
    return LabelMap(read_instances(path).ids)


def _read_2017(path: Path) -> LabelMap:
    return read_label_map(path, void=_VOID)


def _read_2016(path: Path) -> LabelMap:
    """One object; several ids are no mask of 2016."""
    label_map = read_label_map(path)
    notes = (_SEVERAL_IDS,) if len(label_map.objects) > 1 else ()
    return LabelMap((label_map.ids > 0).astype(np.uint8), notes)


def _safe_names(book: Notebook, names: Sequence[str]) -> list[str]:
    wrong = [name for name in names if not is_folder_name(name)]
    if wrong:
        book.add('problem', 'names in the list that lead out of the data set; not looked at', wrong)
    return [name for name in names if name not in wrong]


def _other_lists(folder: Path, year: int) -> list[str]:
    """Names of the lists beside val, as far as they can be read."""
    names: list[str] = []
    places = [f'ImageSets/{year}', *(['ImageSets/480p'] if year == 2016 else [])]
    for path in sorted(path for place in places for path in (folder / place).glob('*.txt')):
        if is_clutter(path.name):
            continue
        try:
            names += read_names(folder, year, path.stem)[0]
        except (OSError, ValueError):
            continue  # only val is needed
    return [name for name in dict.fromkeys(names) if is_folder_name(name)]


def _note_sizes(book: Notebook, sizes: Sequence[tuple[int, int] | None]) -> None:
    known = Counter(size for size in sizes if size)
    if len(known) > 1:
        shown = ', '.join(f'{count} of {w}x{h}' for (h, w), count in known.most_common(5))
        text = 'sequences differ in size, as those of DAVIS do (854x480, and some wider): each is scored at its own'
        book.add('note', f'{text}. Here: {shown}')
    if known and all(h != 480 for h, _ in known):
        book.add('note', 'no sequence is 480 pixels high: scores will not be those of the published resolution')
