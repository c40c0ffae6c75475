"""Get data ready: unpack archives, make smaller copies, write lists of videos. Originals are never changed."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

from mmliir.datasets.archives import ARCHIVE_SUFFIXES, Extraction, Progress, extract_archive
from mmliir.datasets.frames import IMAGE_SUFFIXES, FrameFolder, read_image
from mmliir.datasets.sources import find_frame_folders
from mmliir.utils.files import read_text, write_json_atomic, write_text_atomic

__all__ = [
    'ARCHIVE_SUFFIXES',
    'Extraction',
    'Resized',
    'VideoList',
    'extract_archive',
    'resize_frames',
    'write_file_list',
]

#: Left in a folder of resized copies: how they were made.
RESIZE_CARD = 'resize.json'
JPEG_QUALITY = 95
#: Folders whose PNG files are labels, whatever their kind of pixels.
_LABEL_FOLDERS = {'annotations', 'category_ids', 'instance_ids', 'human_ids', 'masks', 'segmentations'}
_LABEL_MODES = ('P', '1')
_COPIED_SUFFIXES = ('.txt', '.json', '.csv', '.md', '')


@dataclass(frozen=True)
class Resized:
    """What `resize_frames` did.

    Attributes:
        out: The folder of the copies.
        num_written: Images written now.
        num_kept: Images that were there from an earlier call.
        num_copied: Lists and other small texts, copied as they are.
        broken: 'path: what is wrong' of images that cannot be read; they have no copy.
        left_out: Files of other kinds. What they hold may be in pixels of the originals (joints).
    """

    out: Path
    num_written: int
    num_kept: int
    num_copied: int
    broken: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class VideoList:
    """What `write_file_list` did.

    Attributes:
        path: The file.
        num_videos: Lines of it.
        num_frames: Of all videos.
        broken: 'path: what is wrong' of the folders that are not in it.
    """

    path: Path
    num_videos: int
    num_frames: int
    broken: tuple[str, ...]


def resize_frames(
    source: str | os.PathLike,
    out: str | os.PathLike,
    short_side: int | None = None,
    size: tuple[int, int] | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Resized:
    """Copy a data set, or a folder of folders of frames, with smaller images. A call that was cut off continues.

    Frames are averaged over areas when they shrink (bilinear when they grow); label maps, that is indexed PNG and every
    PNG below a folder Annotations, Category_ids, Instance_ids or masks, take the nearest pixel and keep their palette.
    Names and folders stay, so do the kinds of files; JPEG gets quality 95. Lists (.txt, .json, .csv, .md) are copied.

    Args:
        source: Folder to copy from.
        out: Folder to copy to, outside `source`.
        short_side: Shorter side of the copies in pixels; smaller images are copied as they are.
        size: (H, W) of the copies, whatever the originals' shape; instead of `short_side`.
        jobs: Threads.
        progress: Called with (done, total) images.

    Raises:
        FileNotFoundError: No such folder, or no image in it.
        ValueError: Both or neither of `short_side` and `size`, `out` inside `source` (or around it), or copies of
            another size in `out`.
    """
    source, out = Path(source), Path(out)
    _check_request(source, out, short_side, size)
    images, texts, others = _sort_files(source)
    if not images:
        raise FileNotFoundError(f'no image below {source}: looked for {", ".join(IMAGE_SUFFIXES)}.')
    made = {'short_side': short_side, 'size': list(size) if size else None, 'jpeg_quality': JPEG_QUALITY}
    _claim(out, {**made, 'source_sha256': _fingerprint(source, images)})

    def copy(name: str) -> str | bool:
        """True: written, False: was there, a text: what is wrong."""
        target = out / name
        if target.exists():
            return False
        try:
            data = _resized(source, name, short_side, size)
        except (OSError, ValueError) as error:
            return f'{name}: {str(error).replace(str(source / name), "").strip(" :") or type(error).__name__}'
        _write(target, data)
        return True

    outcomes = []
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for outcome in pool.map(copy, images):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(images))
    for name in texts:
        _write(out / name, (source / name).read_bytes())
    return Resized(
        out,
        sum(outcome is True for outcome in outcomes),
        sum(outcome is False for outcome in outcomes),
        len(texts),
        tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
        tuple(others),
    )


def write_file_list(root: str | os.PathLike, out: str | os.PathLike, progress: Progress | None = None) -> VideoList:
    """Write a line for each folder of frames below `root`: path below it, frames, height, width, with tabs between.

    The lines are sorted by path, so that the same folder gives the same file everywhere. Count them before training: a
    copy that stopped half-way shows here and nowhere else.

    Args:
        root: Folder of frame folders, at any depth.
        out: File to write.
        progress: Called with (done, total) folders.

    Raises:
        FileNotFoundError: No folder of frames.
        ValueError: `out` is a folder, or a folder's name holds a tab or line break.
    """
    root, out = Path(root), Path(out)
    if out.is_dir():
        raise ValueError(f'{out} is a folder; give the name of a file to write.')
    lines, broken, num_frames = [], [], 0
    folders = find_frame_folders(root)
    for number, name in enumerate(sorted(folders)):
        if any(character in name for character in '\t\n\r'):
            raise ValueError(f'{name!r}: a tab or line break in a name cannot stand in a list. Rename the folder.')
        try:
            frames = FrameFolder(folders[name])
            height, width = frames.frame_size
        except (OSError, ValueError) as error:
            broken.append(f'{name}: {error}')
        else:
            lines.append(f'{name}\t{len(frames)}\t{height}\t{width}\n')
            num_frames += len(frames)
        if progress is not None:
            progress(number + 1, len(folders))
    if not lines:
        raise FileNotFoundError(f'no folder of frames below {root} can be read, e.g. {broken[0]}')
    return VideoList(write_text_atomic(out, ''.join(lines)), len(lines), num_frames, tuple(broken))


def _check_request(source: Path, out: Path, short_side: int | None, size: tuple[int, int] | None) -> None:
    if (short_side is None) == (size is None):
        raise ValueError('give one of short_side and size.')
    if short_side is not None and short_side < 1 or size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f'expected sizes of 1 pixel or more, came {short_side if size is None else size}.')
    if not source.is_dir():
        raise FileNotFoundError(f'folder to resize not found: {source}')
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file: give a folder to write to.')
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ValueError(f'{out} and {source} lie inside one another: the copies need a folder of their own.')


def _sort_files(source: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the names below `source`, sorted, of images, of texts to copy, and of the rest, hidden ones left out."""
    images, texts, others = [], [], []
    for path in _walk(source):
        name, suffix = path.relative_to(source).as_posix(), path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            images.append(name)
        elif suffix in _COPIED_SUFFIXES and path.name != RESIZE_CARD:
            texts.append(name)
        elif path.name != RESIZE_CARD:
            others.append(name)
    return sorted(images), sorted(texts), sorted(others)


def _walk(root: Path) -> Iterator[Path]:
    """Give all files that are not hidden; links are followed, but no folder is entered from within itself."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        above = {here.resolve(), *here.resolve().parents} | {root.resolve()}
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith('.') and (here / name).resolve() not in above
        )
        yield from (here / name for name in files if not name.startswith('.'))


def _fingerprint(source: Path, images: Sequence[str]) -> str:
    """SHA-256 over the names of the images and their sizes in bytes."""
    rows = [[name, (source / name).stat().st_size] for name in sorted(images)]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode('utf-8')).hexdigest()


def _claim(out: Path, made: dict) -> None:
    """Leave a card in the folder; copies of another size, or of other images, there are refused."""
    card = out / RESIZE_CARD
    if card.is_file():
        try:
            known = json.loads(read_text(card))
        except ValueError as error:
            raise ValueError(f'{card} cannot be read ("{error}"): give another folder to write to.') from error
        if known != made:
            raise ValueError(f'{out} holds copies made with {known}, asked is {made}: give another folder.')
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out} is not empty and was not made by this command: give another folder.')
    else:
        write_json_atomic(card, made)


def _resized(source: Path, name: str, short_side: int | None, size: tuple[int, int] | None) -> bytes:
    """Return the content of the copy of one image."""
    path = source / name
    if path.suffix.lower() == '.png':
        with Image.open(path) as image:
            folders = {part.lower() for part in name.split('/')[:-1]}
            if image.mode in _LABEL_MODES or folders & _LABEL_FOLDERS:
                return _resized_labels(path, image, short_side, size)
    frame = read_image(path)
    height, width = _new_size(frame.shape[:2], short_side, size)
    if (height, width) == frame.shape[:2]:
        return path.read_bytes()
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    suffix = '.png' if path.suffix.lower() == '.png' else '.jpg'
    options = [] if suffix == '.png' else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode(suffix, cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
    assert done, f'{suffix} encoder failed'
    return data.tobytes()


def _resized_labels(path: Path, image: Image.Image, short_side: int | None, size: tuple[int, int] | None) -> bytes:
    """Nearest pixels: any other filter invents ids."""
    height, width = _new_size((image.height, image.width), short_side, size)
    if (height, width) == (image.height, image.width):
        return path.read_bytes()
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.NEAREST).save(buffer, 'PNG')
    return buffer.getvalue()


def _new_size(old: tuple[int, int], short_side: int | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """(H, W) of a copy; frames and labels of one size stay of one size."""
    if size is not None:
        return tuple(size)
    if min(old) <= short_side:
        return old
    scale = short_side / min(old)
    return round(old[0] * scale), round(old[1] * scale)


def _write(target: Path, data: bytes) -> None:
    """Whole or not there. (Without a flush to the disk for each: a copy that a power cut lost is made again.)"""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'.{target.name}.{os.getpid()}.part')
    try:
        part.write_bytes(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
