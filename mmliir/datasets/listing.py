"""Which files of a folder are a sequence, and in which order: one answer for readers, doctor, scorers and tools.

    frames        every picture (`IMAGE_SUFFIXES`, in small or capital letters) but those below
    label maps    every `.png` or `.PNG` but those below
    left out      hidden files and what systems leave behind; files of other types; among frames also pictures that are
                  something else: named mask, flow, preview, ... where others are not; without a number where the others
                  are numbered alike; the preview of a video file of the same name; an image of ids (indexed or grey
                  PNG of few values) among frames of another type; the second picture of a frame, of a rarer type
    order         by the numbers in the names: `2` before `10`, `0.25` before `0.5`, `-1` before `0`

Nothing is left out without a word: a `Listing` names each file and why, and who lists says so.
"""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from PIL import Image

from mmliir.utils.files import shown_path

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')
LABEL_MAP_SUFFIXES = ('.png',)
VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.ts', '.wmv', '.flv')

HIDDEN = 'a hidden file of another system or program'
OTHER_TYPE = 'no picture of a type that is read'
OTHER_LABEL_TYPE = 'a picture that is no PNG'
NAMED_OTHERWISE = 'its name says mask, flow, preview or the like, the others do not'
NO_NUMBER = 'its name has no number, the others are numbered alike'
PREVIEW = 'the preview of a video file of its name'
IDS = 'an indexed or grey PNG of few values, as masks are, among frames of another type'
SECOND = 'the second picture of a frame, of a rarer type'

_DATA_SUFFIXES = ('.txt', '.json', '.csv', '.tsv', '.md', '.xml', '.yaml', '.yml', '.mat', '.npy', '.npz', '.pkl', '')
_CLUTTER = ('thumbs.db', 'desktop.ini', '__macosx')
#: Words of names, of pictures and folders, that are no frames.
_OTHER_WORDS = frozenset(
    'annotation annotations anno annos mask masks matte mattes label labels seg segs segmentation segmentations gt '
    'groundtruth flow flows opticalflow depth depths disparity preview previews thumb thumbs thumbnail thumbnails '
    'overlay overlays poster scribble scribbles contour contours trimap trimaps heatmap heatmaps saliency'.split()
)
#: Words that may stand beside them in the name of a folder that holds nothing else.
_SIDE_WORDS = frozenset(
    'optical dense forward backward fw bw fwd bwd vis viz visual visualization visualisation color colour colored '
    'unsupervised semantics semantic instance instances object objects category class classes human panoptic ground '
    'truth raw soft binary grey gray pred preds prediction predictions '
    'frame frames map maps image images img imgs png jpg rgb id ids full resolution res low high p video videos'.split()
)
#: Folders of labels whose names have none of `_OTHER_WORDS` (VIP).
_LABEL_FOLDERS = frozenset({'category ids', 'instance ids', 'human ids', 'ground truth', 'class ids'})
# Cheap to ask, and nearly always in vain.
_MAYBE_OTHER = re.compile('|'.join(sorted(_OTHER_WORDS)))
_NUMBER = re.compile(r'((?:(?<![^/_=])[-−])?\d+(?:\.\d+)*)')
_MINUS = '-−'
# What masks are stored as, and how many values one of them has at the most.
_ID_MODES = ('P', 'L', '1')
_MOST_IDS = 32


@dataclass(frozen=True)
class Listing:
    """The files of a sequence.

    Attributes:
        folder: That they are in.
        files: In order.
        left_out: (name, why) of the other files of the folder, in order; folders in it are not files and not here.
    """

    folder: Path
    files: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def noteworthy(self) -> tuple[tuple[str, str], ...]:
        """Those of `left_out` that could be missed: all but hidden files and lists, tables and texts."""
        return tuple(
            (name, why)
            for name, why in self.left_out
            if why != HIDDEN and not (why == OTHER_TYPE and _suffix(name) in _DATA_SUFFIXES)
        )

    def told(self, left_out: Sequence[tuple[str, str]] | None = None, most: int = 3) -> str:
        """What is left out in one sentence, a name or two for each reason; '' where nothing is."""
        rows = self.left_out if left_out is None else left_out
        parts = []
        for reason in dict.fromkeys(why for _, why in rows):
            names = [shown_path(name) for name, why in rows if why == reason]
            more = f' and {len(names) - most} more' if len(names) > most else ''
            parts.append(f'{", ".join(names[:most])}{more} ({reason})')
        return f'{shown_path(self.folder)}: left out {"; ".join(parts)}' if parts else ''


def natural_key(name: str, decimals: bool = True) -> tuple:
    """Sort key under which `frame_2` comes before `frame_10`: numbers by value, the rest as text without case.

    Args:
        name: A name without its suffix, or a path with `/`.
        decimals: Whether a point between two runs of digits is a decimal point. Three runs or more (`1.2.3`) are
            counters always.

    A minus belongs to a number at the start of a name and behind `_` or `=`; elsewhere it is a dash. Only decimal
    digits are numbers: `²` is text.
    """
    parts = _NUMBER.split(name)
    return tuple(_value(part, decimals) if odd % 2 else part.lower() for odd, part in enumerate(parts)), name


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Sort names by `natural_key`, those of a folder together.

    The point is a decimal point where the names are as programs write decimals: with one number of places, or without
    zeros at the end (`0.5`, `0.25`, `1.0`). Else it parts two counters, and `1.9` comes before `1.10`.
    """
    names = list(names)
    if all(map(str.isdecimal, names)):  # most frames: the same order, at a fraction of the time
        return sorted(names, key=lambda name: (int(name), name))
    fractions = {token.partition('.')[2] for name in names for token in _NUMBER.findall(name) if token.count('.') == 1}
    one_length = len(set(map(len, fractions))) <= 1
    decimals = one_length or not any(len(text) > 1 and text.endswith('0') for text in fractions)
    return sorted(names, key=lambda name: natural_key(name, decimals))


def list_pictures(folder: str | os.PathLike) -> Listing:
    """List the frames of a folder; see the top of this file for the rules.

    Raises:
        OSError: The folder cannot be read.
    """
    return pick_frames(folder, _file_names(folder))


def list_label_maps(folder: str | os.PathLike) -> Listing:
    """List the label maps of a folder, PNG files, in the order of `list_pictures`.

    Raises:
        OSError: The folder cannot be read.
    """
    pictures, left_out = _by_type(_file_names(folder))
    others = {name for name in pictures if _suffix(name) not in LABEL_MAP_SUFFIXES}
    left_out |= dict.fromkeys(others, OTHER_LABEL_TYPE)
    maps = [name for name in pictures if name not in others]
    left_out |= _named_otherwise(maps)
    return _listing(Path(folder), maps, left_out)


def label_map_path(folder: str | os.PathLike, stem: str) -> Path:
    """Return the label map of a frame: `<stem>.png`, or the file that differs by the case of its suffix alone.

    The path may be of a file that is not there: then it is the one to ask for.
    """
    usual = Path(folder) / f'{stem}.png'
    capital = usual.with_name(f'{stem}.PNG')
    return capital if not usual.exists() and capital.is_file() else usual


def pick_frames(folder: str | os.PathLike, names: Iterable[str]) -> Listing:
    """`list_pictures` of a folder whose file names are known; files are opened only where types are mixed."""
    folder = Path(folder)
    pictures, left_out = _by_type(names)
    videos = {_stem(name) for name in left_out if _suffix(name) in VIDEO_SUFFIXES}
    left_out |= {name: PREVIEW for name in pictures if _stem(name) in videos}
    left_out |= _named_otherwise([name for name in pictures if name not in left_out])
    left_out |= _without_number([name for name in pictures if name not in left_out])
    left_out |= _ids_among(folder, [name for name in pictures if name not in left_out])
    left_out |= _seconds([name for name in pictures if name not in left_out])
    return _listing(folder, pictures, left_out)


def names_other_than_frames(folder_name: str) -> bool:
    """Whether the name of a folder says that it holds masks, flow, depth, previews and the like, and no frames.

    Every word of it must: `Annotations`, `flow_fw`, `SegmentationClass`, `Instance_ids`; not `mask_dance`.
    """
    words = _words(folder_name)
    of_others = any(word in _OTHER_WORDS for word in words)
    return ' '.join(words) in _LABEL_FOLDERS or (
        of_others and all(word in _OTHER_WORDS or word in _SIDE_WORDS for word in words)
    )


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems and programs leave behind."""
    return name.startswith('.') or name.lower() in _CLUTTER


def walk_folders(root: str | os.PathLike) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Give each folder at or below `root` once: its path, names of its folders in natural order, names of its files.

    Links are followed. A folder that several paths lead to is given under the one without links where there is one,
    else under the first in order; a link to a folder around it leads nowhere. Hidden folders are not entered.
    """
    seen: set[tuple[int, int]] = set()
    starts = deque([os.fspath(root)])
    while starts:
        for folder, subfolders, files in os.walk(starts.popleft()):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            subfolders[:] = sort_naturally(name for name in subfolders if not is_clutter(name))
            links = [path for name in subfolders if os.path.islink(path := os.path.join(folder, name))]
            starts.extend(link for link in links if not _is_around(os.path.realpath(link), os.path.realpath(folder)))
            yield Path(folder), list(subfolders), sorted(files)


def _is_around(folder: str, inner: str) -> bool:
    return inner == folder or inner.startswith(folder.rstrip(os.sep) + os.sep)


def _file_names(folder: str | os.PathLike) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.is_dir()]


def _by_type(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Pictures by their suffix; name -> why of the others."""
    pictures, left_out = [], {}
    for name in names:
        if is_clutter(name):
            left_out[name] = HIDDEN
        elif _suffix(name) in IMAGE_SUFFIXES:
            pictures.append(name)
        else:
            left_out[name] = OTHER_TYPE
    return pictures, left_out


def _named_otherwise(pictures: Sequence[str]) -> dict[str, str]:
    maybe = [name for name in pictures if _MAYBE_OTHER.search(name.lower())]
    found = [name for name in maybe if not _OTHER_WORDS.isdisjoint(_words(_stem(name)))]
    return dict.fromkeys(found, NAMED_OTHERWISE) if len(found) < len(pictures) else {}


def _without_number(pictures: Sequence[str]) -> dict[str, str]:
    """Only where most are numbered, and all of these alike: names of another kind say nothing. `frame` beside
    `frame_1` is one of them, and so is what counts in other signs (`x²`)."""
    bare = [name for name in pictures if not any(map(str.isnumeric, _stem(name)))]
    if not bare:
        return {}
    patterns = Counter(_NUMBER.sub('#', _stem(name)) for name in pictures)
    pattern, count = patterns.most_common(1)[0] if patterns else ('', 0)
    if '#' not in pattern or count < 2 or 2 * count <= len(pictures):
        return {}
    words = _words(pattern)
    return {name: NO_NUMBER for name in bare if _words(_stem(name)) != words}


def _ids_among(folder: Path, pictures: Sequence[str]) -> dict[str, str]:
    maps = [name for name in pictures if _suffix(name) in LABEL_MAP_SUFFIXES]
    if not maps or 2 * len(maps) > len(pictures):
        return {}
    return {name: IDS for name in maps if is_image_of_ids(folder / name)}


def is_image_of_ids(path: Path) -> bool:
    """Whether a file holds one channel of few values, as masks do; one that cannot be read does not."""
    try:
        with Image.open(path) as image:
            return image.mode in _ID_MODES and len(np.unique(np.asarray(image))) <= _MOST_IDS
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # whoever reads it will say what is wrong


def _seconds(pictures: Sequence[str]) -> dict[str, str]:
    """Of the pictures of one frame those of a rarer type; none of them where the types are equally many."""
    types = Counter(map(_suffix, pictures))
    if len(types) < 2:
        return {}
    most: dict[str, int] = {}
    for name in pictures:
        most[_stem(name)] = max(most.get(_stem(name), 0), types[_suffix(name)])
    return {name: SECOND for name in pictures if types[_suffix(name)] < most[_stem(name)]}


def _listing(folder: Path, pictures: Sequence[str], left_out: dict[str, str]) -> Listing:
    stems: dict[str, list[str]] = {}
    for name in sorted(pictures):
        if name not in left_out:
            stems.setdefault(_stem(name), []).append(name)
    files = tuple(folder / name for stem in sort_naturally(stems) for name in stems[stem])
    return Listing(folder, files, tuple((name, left_out[name]) for name in sort_naturally(left_out)))


def _value(token: str, decimals: bool) -> tuple[int | Decimal, ...]:
    sign = -1 if token[0] in _MINUS else 1
    digits = token.lstrip(_MINUS)
    if decimals and digits.count('.') == 1:
        return (sign * Decimal(digits),)
    first, *rest = map(int, digits.split('.'))
    return sign * first, *rest


def _words(name: str) -> list[str]:
    """Words of a name in small letters: `SegmentationClass_480p` is segmentation, class, p."""
    return [word.lower() for word in re.findall(r'[^\W\d_]+', re.sub(r'([a-z])([A-Z])', r'\1 \2', name))]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
