"""Archives for the servers of benchmarks whose truth is not public, and what may be wrong with one.

YouTube-VOS takes `Annotations/<video>/<frame>.png`, DAVIS `<sequence>/<frame>.png`: indexed PNG, the pixel value is the
id, at the size of the frames. A server says little about a bad archive and counts the try; `validate_submission` looks
at everything first. An archive is read entry by entry and never unpacked to the disk.
"""

import collections
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mmliir.datasets.listing import label_map_path
from mmliir.datasets.png import decode_ids, png_size
from mmliir.structures.palette import davis_palette

#: Family of a data set -> folder of the archive that its sequences lie in.
ARCHIVE_FOLDERS = {'davis': '', 'youtube_vos': 'Annotations/'}

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal predictions make equal archives
_PALETTE = 3  # colour type in a PNG header
_COLOUR_TYPE_AT = 25
_PNG_OVERHEAD = 1 << 16  # header, palette, text; more than any mask's
_SHOWN = 5


class SubmissionDataset(Protocol):
    """What a data set must know to be handed in; `DavisDataset` and `YouTubeVosDataset` do."""

    family: str
    names: list[str]

    def export_names(self, name: str) -> tuple[str, ...]: ...

    def frame_size(self, name: str) -> tuple[int, int]: ...

    def allowed_ids(self, name: str) -> frozenset[int]: ...


def write_submission(pred_dir: str | Path, dataset: SubmissionDataset, out_zip: str | Path) -> Path:
    """Make the archive of a folder of predictions; equal predictions give equal archives, byte for byte.

    Grey PNGs become indexed ones of the same ids; indexed ones are copied.

    Args:
        pred_dir: `<sequence>/<frame>.png`.
        dataset: Says which videos, frames, sizes and ids there must be.
        out_zip: File to write, in one step: it is whole and valid, or not there.

    Raises:
        FileNotFoundError: A prediction is missing.
        ValueError: The archive would not be valid; the first problems are named.
    """
    pred_dir, out_zip = Path(pred_dir), Path(out_zip)
    folder = _archive_folder(dataset)
    files = {
        f'{folder}{name}/{frame}.png': label_map_path(pred_dir / name, frame)
        for name in dataset.names
        for frame in dataset.export_names(name)
    }
    absent = [path for path in files.values() if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f'{absent[0]} not found: {len(absent)} of the {len(files)} masks to hand in are missing. Predict them.'
        )
    out_zip.parent.mkdir(parents=True, exist_ok=True)
    part = out_zip.with_name(f'.{out_zip.name}.{os.getpid()}.part')
    try:
        with zipfile.ZipFile(part, 'x', zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, _indexed(files[name]))
        problems = validate_submission(part, dataset)
        if problems:
            more = f' (and {len(problems) - _SHOWN} more)' if len(problems) > _SHOWN else ''
            raise ValueError(f'{pred_dir} cannot be handed in: {"; ".join(problems[:_SHOWN])}{more}')
        os.replace(part, out_zip)
    finally:
        part.unlink(missing_ok=True)
    return out_zip


def validate_submission(path: str | Path, dataset: SubmissionDataset) -> list[str]:
    """Say what is wrong with an archive, whoever made it; nothing is unpacked.

    Args:
        path: Zip file.
        dataset: Says which videos, frames, sizes and ids there must be.

    Returns:
        One line a problem, those of one kind in one video together; empty for a valid archive.

    Raises:
        FileNotFoundError: No such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'archive not found: {path}')
    wanted = {name: dataset.export_names(name) for name in dataset.names}
    try:
        with zipfile.ZipFile(path) as archive:
            return list(_problems(archive, dataset, wanted))
    # NotImplementedError: a compression that zipfile does not know.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        return [f'{path.name} is not a readable zip file ({error})']


def _problems(
    archive: zipfile.ZipFile, dataset: SubmissionDataset, wanted: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    folder = _archive_folder(dataset)
    entries = archive.infolist()
    num_wanted = sum(map(len, wanted.values()))
    if len(entries) > 2 * num_wanted + 1000:
        yield f'{len(entries)} entries, {num_wanted} are expected: not looked at further'
        return
    expected = {f'{folder}{name}/{frame}.png' for name, frames in wanted.items() for frame in frames}
    folders = {f'{folder}{name}/' for name in wanted} | ({folder} if folder else set())
    names = [entry.filename for entry in entries]
    tricks = [entry.filename for entry in entries if _leaves_its_folder(entry)]
    if tricks:
        yield f'{len(tricks)} entries whose path leads elsewhere: {_some(tricks)}'
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        yield f'{len(twice)} entries are there more than once: {_some(twice)}'
    extra = sorted(set(names) - expected - folders - set(tricks))
    if extra:
        yield f'{len(extra)} entries that do not belong there: {_some(extra)}'
    found = {entry.filename: entry for entry in entries if entry.filename not in tricks}
    for name, frames in wanted.items():
        files = {frame: f'{folder}{name}/{frame}.png' for frame in frames}
        absent = [frame for frame, file in files.items() if file not in found]
        if len(absent) == len(frames):
            yield f'{name!r}: no prediction at all ({len(frames)} frames are expected in {folder}{name}/)'
            continue
        if absent:
            yield f'{name!r}: {len(absent)} of {len(frames)} frames are missing: {_some(absent)}'
        there = {frame: found[file] for frame, file in files.items() if file in found}
        yield from _video_problems(archive, there, name, dataset)


def _video_problems(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str, dataset: SubmissionDataset
) -> Iterator[str]:
    size, allowed = dataset.frame_size(name), dataset.allowed_ids(name)
    frames_of: dict[str, list[str]] = {}
    for frame, entry in entries.items():
        problem = _mask_problem(archive, entry, size, allowed)
        if problem is not None:
            frames_of.setdefault(problem, []).append(frame)
    for problem, frames in frames_of.items():
        yield f'{name!r}: {problem} (frame {frames[0]}' + (f' and {len(frames) - 1} more)' if frames[1:] else ')')


def _mask_problem(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: tuple[int, int], allowed: frozenset[int]
) -> str | None:
    largest = size[0] * (size[1] + 1) * 2 + _PNG_OVERHEAD
    if entry.flag_bits & 1:
        return 'encrypted'
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return 'packed in a way that not every server knows: use deflate, or no compression'
    if entry.file_size > largest:  # said by the archive; reading stops there, however much follows
        return f'unpacks to {entry.file_size} bytes, a mask of {size[1]} x {size[0]} pixels has at most {largest}'
    try:
        with archive.open(entry) as stream:
            data = stream.read(largest + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        return f'cannot be unpacked ({type(error).__name__})'
    found = png_size(data)
    if found is None:
        return 'not a PNG'
    if found != size:
        return f'{found[1]} x {found[0]} pixels, the frames are {size[1]} x {size[0]}'
    if data[_COLOUR_TYPE_AT] != _PALETTE:
        return 'not an indexed (palette) PNG'
    try:
        ids = decode_ids(data, 'the mask', size)
    except ValueError:
        return 'damaged, or not an 8-bit indexed PNG'
    unknown = sorted(set(np.flatnonzero(np.bincount(ids.ravel())).tolist()) - allowed - {0})
    return f'ids {_some(unknown)}, allowed are 0, {_some(sorted(allowed), 20)}' if unknown else None


def _leaves_its_folder(entry: zipfile.ZipInfo) -> bool:
    # `orig_filename` is what the archive says: zipfile cuts names at a null byte.
    name = entry.orig_filename
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    parts = name.replace('\\', '/').split('/')
    return is_link or '..' in parts or name.startswith('/') or any(mark in name for mark in '\\\0') or ':' in parts[0]


def _indexed(path: Path) -> bytes:
    """Return the file itself, or a grey one with the same ids and a palette."""
    data = path.read_bytes()
    if len(data) > _COLOUR_TYPE_AT and png_size(data) is not None and data[_COLOUR_TYPE_AT] == _PALETTE:
        return data
    image = Image.fromarray(decode_ids(data, path))
    image.putpalette(davis_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return buffer.getvalue()


def _archive_folder(dataset: SubmissionDataset) -> str:
    if dataset.family not in ARCHIVE_FOLDERS:
        raise ValueError(f'no server is known for {dataset.family!r}; archives are made for {sorted(ARCHIVE_FOLDERS)}.')
    return ARCHIVE_FOLDERS[dataset.family]


def _some(names, limit: int = 3) -> str:
    shown = ', '.join(map(str, names[:limit]))
    return shown if len(names) <= limit else f'{shown} and {len(names) - limit} more'
