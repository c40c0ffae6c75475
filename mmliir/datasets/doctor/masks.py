"""Looks at data sets with masks: DAVIS."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmliir.datasets.catalog import CATALOG
from mmliir.datasets.davis import _read_names as read_names
from mmliir.datasets.doctor.findings import Evaluable, Notebook, Progress, evaluable_rows
from mmliir.datasets.doctor.images import check_sequence, list_names, pair_names
from mmliir.datasets.keypoints import is_folder_name
from mmliir.datasets.masks import LabelMap, read_label_map

_RESOLUTION = '480p'
_SEVERAL_IDS = 'several ids'
#: Frames of the val splits, all sequences together.
_PUBLISHED_FRAMES = {2016: 1376, 2017: 1999}
_VOID = 255


def check_davis(book: Notebook, folder: Path, year: int, full: bool, progress: Progress) -> tuple[Evaluable, ...]:
    """Look at DAVIS 2016 or 2017: the lists, the sequences of val, those of other lists as far as they are there."""
    name = f'davis{year}'
    published = CATALOG[name].benchmarks
    folders = {kind: folder / kind / _RESOLUTION for kind in ('JPEGImages', 'Annotations')}
    for kind, path in folders.items():
        if not path.is_dir():
            others = [other for other in list_names(book, path.parent)] if path.parent.is_dir() else []
            hint = f'; there is {", ".join(others)}: the archive of 480p is needed' if others else ''
            book.add('problem', f'{kind}/{_RESOLUTION} is missing{hint}')
    try:
        listed = read_names(folder, year, 'val')[0]
    except (OSError, ValueError) as error:
        book.add('problem', str(error))
        return evaluable_rows({}, {}, published)
    listed = _safe_names(book, listed)
    if not all(path.is_dir() for path in folders.values()):
        return evaluable_rows({}, {name: len(listed)}, published)

    there = {kind: list_names(book, path) for kind, path in folders.items()}
    paired = pair_names(book, listed, there['JPEGImages'], folders['JPEGImages'], 'frames')
    masked = pair_names(book, listed, there['Annotations'], folders['Annotations'], 'masks')
    wanted = [sequence for sequence in paired if sequence in masked]
    beyond = [n for n in _other_lists(folder, year) if n not in listed and all(n in there[kind] for kind in there)]
    aside = Notebook(folder)
    states = {}
    for number, sequence in enumerate([*wanted, *beyond]):
        states[sequence] = check_sequence(
            book if number < len(wanted) else aside,
            sequence,
            folders['JPEGImages'] / sequence,
            folders['Annotations'] / sequence,
            _read_2016 if year == 2016 else _read_2017,
            full,
        )
        progress(number + 1, len(wanted) + len(beyond))
    for finding in aside.findings():
        count = f' ({finding.count})' if finding.count > len(finding.examples) else ''
        book.add('note', f'outside val: {finding.text}{count}', finding.examples)
    several = [sequence for sequence, state in states.items() if _SEVERAL_IDS in state.notes]
    if several:
        text = 'sequences with several ids: masks of DAVIS 2017? Those of 2016 are other files, and give other scores'
        book.add('problem', text, several)
    unlisted = [n for n in there['JPEGImages'] if n not in listed and n not in beyond]
    if unlisted:
        book.add('note', 'sequences that no list names, or without masks; not used', unlisted)
    usable = [sequence for sequence in wanted if states[sequence].usable]
    _note_sizes(book, [states[sequence].size for sequence in usable])
    frames = sum(states[sequence].num_frames for sequence in usable)
    if len(usable) == published[name] and frames != _PUBLISHED_FRAMES[year]:
        book.add('problem', f'val has {frames:,} frames, published are {_PUBLISHED_FRAMES[year]:,}: not the same clips')
    if usable:
        book.add('ok', f'val: {len(usable)} whole sequences, {frames:,} frames')
    return evaluable_rows({name: usable}, {name: len(listed)}, published)


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
        try:
            names += read_names(folder, year, path.stem)[0]
        except (OSError, ValueError):
            continue  # only val is needed
    return [name for name in dict.fromkeys(names) if is_folder_name(name)]


def _note_sizes(book: Notebook, sizes: Sequence[tuple[int, int] | None]) -> None:
    known = Counter(size for size in sizes if size)
    if len(known) > 1:
        shown = ', '.join(f'{w}x{h} ({count})' for (h, w), count in known.most_common(5))
        text = f'sequences differ in size ({shown}), as those of DAVIS do: 854x480 and some wider ones; harmless'
        book.add('note', text)
    if known and all(h != 480 for h, _ in known):
        book.add('note', 'no sequence is 480 pixels high: scores will not be those of the published resolution')
