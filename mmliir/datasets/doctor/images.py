"""Looks at folders of images: what is there, what is broken, what does not fit together."""

import errno
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmliir.datasets.doctor.findings import Level, Notebook
from mmliir.datasets.listing import (
    HIDDEN,
    OTHER_TYPE,
    Listing,
    is_clutter,
    list_label_maps,
    list_pictures,
    sort_naturally,
)
from mmliir.datasets.masks import LabelMap
from mmliir.datasets.pictures import BrokenMediaError, decode_picture, find_bit_depth

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
# A frame of 8K has 33 million; what claims more is not decoded.
_MOST_PIXELS = 1 << 27

ReadMask = Callable[[Path], LabelMap]


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image say: (H, W) as it is shown, and Pillow's name of its kind of pixels."""

    size: tuple[int, int]
    mode: str


@dataclass(frozen=True)
class SequenceState:
    """How a sequence is.

    Attributes:
        usable: Nothing is missing or broken.
        num_frames: Images of it.
        size: (H, W) of its frames; None where that cannot be told.
        notes: What reading the masks noted, see `LabelMap.notes`.
    """

    usable: bool
    num_frames: int = 0
    size: tuple[int, int] | None = None
    notes: frozenset[str] = frozenset()


def list_folder(
    book: Notebook,
    folder: Path,
    allowed: Sequence[str] = (),
    lister: Callable[[Path], Listing] = list_pictures,
) -> list[Path]:
    """Return the images that the readers take from a folder, in their order, and note what else is there.

    Args:
        book: Takes the findings.
        folder: To look into; one that cannot be read is a problem and gives no image.
        allowed: Suffixes of other files that belong there.
        lister: `list_pictures` for frames, `list_label_maps` for masks.
    """
    try:
        listing = lister(folder)
    except OSError as error:
        book.add('problem', f'folders that cannot be read: {_why(error)}', folder)
        return []
    for name, why in listing.left_out:
        path = folder / name
        if why == HIDDEN:
            book.add('note', 'hidden files of other systems or programs; ignored', path)
        elif why != OTHER_TYPE:
            book.add('note', f'images that do not belong to the sequence; ignored: {why}', path)
        elif path.suffix.lower() not in allowed:
            book.add('note', 'files that are no images; ignored', path)
    images = list(listing.files)
    stems = Counter(path.stem for path in images)
    twice = [path for path in images if stems[path.stem] > 1]
    if twice:
        book.add('problem', 'images that are there twice, under two suffixes: no frame can be both', twice)
    return images


def list_names(book: Notebook, folder: Path) -> list[str]:
    """Return the names of the folders in a folder, and note clutter, twins by case and folders that cannot be read."""
    try:
        entries = {entry.name: entry for entry in os.scandir(folder)}
    except OSError as error:
        book.add('problem', f'folders that cannot be read: {_why(error)}', folder)
        return []
    entries = [entries[name] for name in sort_naturally(entries)]
    for entry in entries:
        if is_clutter(entry.name):
            book.add('note', 'hidden files of other systems or programs; ignored', Path(entry.path))
    names = []
    for entry in entries:
        try:
            os.stat(entry.path)
        except OSError as error:
            book.add('problem', f'links and folders that cannot be followed: {_why(error)}', Path(entry.path))
            continue
        if entry.is_dir() and not is_clutter(entry.name):
            names.append(entry.name)
    alike = Counter(map(folded, names))
    twins = [name for name in names if alike[folded(name)] > 1]
    if twins:
        book.add('note', 'folders whose names differ by case or Unicode form only; on some systems they are one', twins)
    return names


def folded(name: str) -> str:
    """The name as a system sees it that tells neither case nor Unicode forms apart."""
    return unicodedata.normalize('NFC', name).casefold()


def pair_names(book: Notebook, listed: Sequence[str], there: Iterable[str], where: Path, what: str) -> list[str]:
    """Return the listed names that have a folder; the others are problems.

    Args:
        book: Takes the findings.
        listed: Names that are needed.
        there: Names of folders, see `list_names`.
        where: The folder that holds them.
        what: Frames, masks: for the text.
    """
    by_folded = {folded(name): name for name in there}
    present = set(there)
    for name in listed:
        if name in present:
            continue
        if folded(name) in by_folded:
            text = f'folders of {what} whose names differ from the list by case or Unicode form: rename them'
            book.add('problem', text, f'{by_folded[folded(name)]} (the list: {name})')
        else:
            book.add('problem', f'sequences of the list without a folder of {what} in {book.shown(where)}', name)
    return [name for name in listed if name in present]


def check_images(
    book: Notebook, paths: Sequence[Path], read: Callable[[Path], Any], full: bool
) -> tuple[dict[Path, Header], dict[Path, Any]]:
    """Read the header of every image, and decode the first and the last, or all.

    Args:
        book: Takes the findings.
        paths: Images in order.
        read: Decodes one; may raise `OSError` and `ValueError`.
        full: Decode all.

    Returns:
        Headers of the images that are whole, as far as was looked, and what was decoded.
    """
    headers, decoded = {}, {}
    for number, path in enumerate(paths):
        header = read_header(book, path)
        if header is None:
            continue
        if full or number in (0, len(paths) - 1):
            try:
                decoded[path] = read(path)
            except BrokenMediaError as error:
                book.add('problem', 'images that are damaged or cut off: copy them again', _example(book, path, error))
                continue
            except (OSError, ValueError) as error:
                text = 'masks whose ids cannot be told: get the originals, without smoothing and JPEG'
                book.add('problem', text, _example(book, path, error))
                continue
        headers[path] = header
    return headers, decoded


def read_header(book: Notebook, path: Path) -> Header | None:
    """Return what the header of an image says, or note why there is none."""
    try:
        if path.stat().st_size == 0:
            book.add('problem', 'empty files (0 bytes): copy them again', path)
            return None
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # the size is looked at below
            with Image.open(path) as image:
                width, height, mode = image.width, image.height, image.mode
                # Pillow turns TIFF itself.
                if image.format != 'TIFF' and image.getexif().get(_EXIF_ORIENTATION) in _TURNED:
                    width, height = height, width
    except UnidentifiedImageError:
        book.add('problem', 'files that are no images, whatever their names say: download them again', path)
    except Image.DecompressionBombError:
        book.add('problem', 'images that claim an unbelievable size; not decoded', path)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow has its own words for a broken header
        book.add('problem', f'files that cannot be opened: {_why(error)}', path)
    else:
        if width * height <= _MOST_PIXELS:
            return Header((height, width), mode)
        book.add('problem', 'images that claim an unbelievable size; not decoded', path)
    return None


def check_frames(book: Notebook, name: str, paths: Sequence[Path], full: bool, gaps: Level) -> SequenceState:
    """Look at the frames of one sequence: readable, of one size, none missing in the row of their numbers."""
    if not paths:
        book.add('problem', 'sequences without a frame', name)
        return SequenceState(False)
    missing = missing_numbers(paths)
    if missing:
        book.add(gaps, 'frames missing in the row of their numbers', [f'{name}/{stem}' for stem in missing])
    headers, decoded = check_images(book, paths, decode_picture, full)
    _note_bits(book, name, paths, decoded)
    sizes = Counter(header.size for header in headers.values())
    if len(sizes) > 1:
        shown = ' and '.join(f'{w}x{h}' for h, w in sorted(sizes))
        book.add('problem', 'sequences whose frames differ in size', f'{name} ({shown})')
    has_twins = len({path.stem for path in paths}) < len(paths)
    whole = len(headers) == len(paths) and len(sizes) == 1 and not has_twins and not (missing and gaps == 'problem')
    return SequenceState(whole, len(paths), sizes.most_common(1)[0][0] if sizes else None)


def _note_bits(book: Notebook, name: str, paths: Sequence[Path], decoded: dict[Path, np.ndarray]) -> None:
    if any(picture.dtype == np.uint16 for picture in decoded.values()):
        bits = find_bit_depth(paths)
        if bits < 16:
            text = 'sequences in 16 bits of which fewer are used; brightness is scaled by these, for all frames alike'
            book.add('note', text, f'{name} ({bits} bits)')


def missing_numbers(paths: Sequence[Path]) -> list[str]:
    """Return the stems that are missing where the stems are numbers at a regular distance."""
    stems = [path.stem for path in paths]
    if len(stems) < 3 or not all(stem.isascii() and stem.isdecimal() for stem in stems):
        return []
    numbers = sorted(map(int, stems))
    steps = Counter(b - a for a, b in zip(numbers, numbers[1:]))
    step, times = steps.most_common(1)[0]
    if step < 1 or times <= len(numbers) // 2:
        return []
    absent = set(range(numbers[0], numbers[-1], step)) - set(numbers)
    return [str(number).zfill(len(stems[0])) for number in sorted(absent)]


def check_masks(
    book: Notebook,
    name: str,
    frames: Sequence[Path],
    state: SequenceState,
    masks: Path,
    read: ReadMask,
    full: bool,
    davis_rules: bool = True,
) -> SequenceState:
    """Look at the masks of one sequence; they are paired with the frames by the stems of their names.

    Args:
        book: Takes the findings.
        name: Of the sequence.
        frames: Its frames.
        state: What `check_frames` said of them.
        masks: Folder of the masks, PNG.
        read: Reads a mask.
        full: Decode all masks, and not the first and the last alone.
        davis_rules: Every frame should have a mask, and what the first one does not show is worth a note.
    """
    mask_paths = list_folder(book, masks, ('.txt',), list_label_maps)
    if not mask_paths:
        book.add('problem', 'sequences without a mask (*.png)', name)
        return SequenceState(False, state.num_frames, state.size)
    paired = _check_pairs(book, name, frames, mask_paths, davis_rules)
    headers, decoded = check_images(book, mask_paths, read, full)
    misfits = [path for path, header in headers.items() if state.size and header.size != state.size]
    if misfits:
        (h, w), (fh, fw) = headers[misfits[0]].size, state.size
        text = f'masks of another size than the frames, e.g. {w}x{h} for {fw}x{fh}: get the ones that belong to them'
        book.add('problem', text, misfits)
    two_channels = [path for path, header in headers.items() if header.mode == 'LA']
    if two_channels:
        text = 'masks with a second channel, as bear/00077.png of DAVIS 2016 has; they are read like the others'
        book.add('note', text, two_channels)
    ids_fit = _check_ids(book, name, mask_paths, decoded, davis_rules)
    whole = state.usable and paired and ids_fit and len(headers) == len(mask_paths) and not misfits
    notes = frozenset(note for label_map in decoded.values() for note in label_map.notes)
    return SequenceState(whole, state.num_frames, state.size, notes)


def _check_pairs(book: Notebook, name: str, frames: Sequence[Path], masks: Sequence[Path], davis_rules: bool) -> bool:
    frame_stems, mask_stems = {path.stem for path in frames}, {path.stem for path in masks}
    stray = [path for path in masks if path.stem not in frame_stems]
    if stray:
        book.add('problem', 'masks without a frame of their name', stray)
    bare = [path for path in frames if davis_rules and path.stem not in mask_stems]
    if bare and 2 * len(masks) < len(frames):
        text = 'sequences with masks on some frames only, by design as it seems; those count'
        book.add('note', text, f'{name} ({len(masks)} of {len(frames)})')
    elif bare:
        book.add('problem', 'frames without a mask: a score would leave them out', bare)
        return False
    return not stray


def _check_ids(
    book: Notebook, name: str, masks: Sequence[Path], decoded: dict[Path, LabelMap], davis_rules: bool
) -> bool:
    """Look at the ids of the masks that were decoded; the first of a sequence says what is followed."""
    painted = [path for path, read in decoded.items() if any('this image alone' in note for note in read.notes)]
    if painted:
        book.add('problem', 'masks in free colours, whose ids hold for one image alone: get the indexed ones', painted)
    void = [path for path, label_map in decoded.items() if label_map.void is not None and label_map.void.any()]
    if void:
        book.add('note', 'masks with void pixels (255), which belong to no object', void)
    if masks[0] not in decoded:
        return False
    first = decoded[masks[0]].objects
    if not first:
        book.add('problem', 'sequences whose first mask shows no object: there is nothing to follow', name)
    if davis_rules and first and first != tuple(range(1, len(first) + 1)):
        book.add('note', 'sequences whose ids have gaps; they are kept', f'{name} ({", ".join(map(str, first))})')
    late = sorted({i for label_map in decoded.values() for i in label_map.objects} - set(first))
    if davis_rules and late and first and not painted:
        text = 'sequences with objects that the first mask does not show; the rules of DAVIS never give them'
        book.add('note', text, f'{name} ({", ".join(map(str, late))})')
    return bool(first) and not painted


def _why(error: Exception) -> str:
    """The reason alone, in the system's words."""
    if isinstance(error, FileNotFoundError):
        return 'a link that leads nowhere' if error.filename and os.path.islink(error.filename) else 'not there'
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return 'links in a circle'
    if isinstance(error, PermissionError):
        return 'no permission'
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def _example(book: Notebook, path: Path, error: Exception) -> str:
    """The file, and the first clause of what is wrong with it."""
    reason = str(error).replace(str(path), '').strip(' :')
    for end in ('. ', ': '):
        reason = reason.split(end, 1)[0]
    return f'{book.shown(path)} ({reason.strip()})' if reason else book.shown(path)


