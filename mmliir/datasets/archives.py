"""Archives are unpacked inside one folder and nowhere else, or refused before anything is written.

Downloads come from anywhere: names may lead out of the folder, links may point out of it, a kilobyte may swell to a
terabyte. All headers are read first; what is unpacked goes to a hidden folder and is moved when it is whole.
"""

import filecmp
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO

Progress = Callable[[int, int], None]

ARCHIVE_SUFFIXES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.xz', '.txz', '.tar.bz2', '.tbz2')
#: Unpacked bytes above which an archive is refused: no data set of ours has as much.
MAX_BYTES = 500 * 10**9
#: Unpacked bytes for each byte of the archive. Images and videos hardly shrink, text some tenfold.
MAX_RATIO = 100.0
# Ratios say nothing of small files: a list of names shrinks a hundredfold.
_RATIO_FROM = 64 * 10**6
_MOST_MEMBERS = 5_000_000
_LONGEST_NAME = 255
_CHUNK = 1 << 20
_MOST_PADDING = 1 << 26
_ENCRYPTED = 0x1
# The last: zipfile does not know the compression.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, NotImplementedError)


@dataclass(frozen=True)
class Extraction:
    """What was unpacked.

    Attributes:
        into: The folder.
        num_files: Files of the archive that are in it now.
        num_bytes: Of them.
        num_left_out: Files that macOS adds to archives (`__MACOSX`, `._*`, `.DS_Store`).
        top: Names at the top of the archive.
    """

    into: Path
    num_files: int
    num_bytes: int
    num_left_out: int
    top: tuple[str, ...]


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive, its name checked: parts joined by '/'."""

    name: str
    size: int
    is_folder: bool


def extract_archive(
    path: str | os.PathLike,
    into: str | os.PathLike,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
    progress: Progress | None = None,
) -> Extraction:
    """Unpack a zip or tar (.gz, .xz, .bz2) file.

    A file that is in the folder already with the same content stays; with other content it is an error. When this is
    interrupted, the folder has nothing new but a hidden `.<archive>.part`, which the next call replaces.

    Args:
        path: The archive.
        into: Folder to unpack into; made when it is missing.
        max_bytes: Refuse archives that unpack to more.
        max_ratio: Refuse archives that unpack to more than this many times their size (from 64 MB unpacked on).
        progress: Called with (done, total) bytes.

    Raises:
        FileNotFoundError: No such archive.
        ValueError: Not an archive, cut off or damaged; or it holds names that lead out of the folder, links, devices,
            a name twice (also by case or Unicode form alone), encrypted files, or unpacks to too much; or a file is in
            the folder already with other content. Nothing is written then.
    """
    path, into = Path(path), Path(into)
    if not path.is_file():
        raise FileNotFoundError(f'archive not found: {path}' + (' is a folder' if path.is_dir() else ''))
    if into.exists() and not into.is_dir():
        raise ValueError(f'{into} is a file: give a folder to unpack into.')
    members, left_out = _read_members(path)
    total = _check_amount(path, members, into, max_bytes, max_ratio)
    files = [member for member in members if not member.is_folder]
    part = into / f'.{path.name}.part'
    _remove(part)
    part.mkdir(parents=True)
    try:
        _unpack(path, part, members, total, progress or (lambda done, total: None))
        _refuse_other_content(files, part, into)
        for member in members:
            _move(part / member.name, into / member.name, member.is_folder)
    finally:
        _remove(part)
    top = dict.fromkeys(member.name.split('/')[0] for member in members)
    return Extraction(into, len(files), total, left_out, tuple(top))


def _read_members(path: Path) -> tuple[list[_Member], int]:
    """Return all members, checked, and the number of those to leave out."""
    members, left_out, kinds = [], 0, {}
    try:
        for raw_name, size, kind in _headers(path):
            member = _Member(_checked_name(raw_name, path), size, kind == 'folder')
            if kind not in ('file', 'folder'):
                raise _refused(path, f'{raw_name!r} is {kind}')
            if not member.name:
                continue  # './', the folder itself
            if _is_of_macos(member.name):
                left_out += not member.is_folder
                continue
            _check_unique(path, member, kinds)
            members.append(member)
            if len(members) > _MOST_MEMBERS:
                raise _refused(path, f'it has more than {_MOST_MEMBERS:,} files')
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    if not any(not member.is_folder for member in members):
        raise ValueError(f'{path} holds no file. Download it again.')
    return members, left_out


def _headers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Give (name, size, kind) of every member as the archive has them; kind is 'file', 'folder', or what else it is."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if sum(info.compress_size for info in infos) > path.stat().st_size:
                raise _refused(path, 'its files overlap')
            for info in infos:
                yield info.filename, info.file_size, _zip_kind(info)
    elif _is_tar(path):
        with tarfile.open(path) as archive:
            for info in archive:
                yield info.name, info.size, _tar_kind(info)
            _check_tar_end(archive)
    else:
        raise ValueError(
            f'{path} is no archive that can be read (known are {", ".join(ARCHIVE_SUFFIXES)}), or is cut off. A web '
            'page saved under its name? Download it again.'
        )


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except _DAMAGED:
        return False


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return 'encrypted'
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(file_type):
        return 'a link'
    if file_type and not (stat.S_ISREG(file_type) or stat.S_ISDIR(file_type)):
        return 'a device'
    return 'folder' if info.is_dir() else 'file'


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return 'a link'
    if info.isdir():
        return 'folder'
    return 'file' if info.isreg() else 'a device'


def _check_tar_end(archive: tarfile.TarFile) -> None:
    """A tar file ends with blocks of zeros; one that was cut between two files has none, and looks whole otherwise.

    The reader has stopped behind the first of them. What follows is padding; reading it makes gzip and its like compare
    their check sums.
    """
    stream = archive.fileobj
    if stream.tell() <= archive.offset:
        raise tarfile.ReadError('no end mark')
    for _ in range(_MOST_PADDING // _CHUNK):
        if not stream.read(_CHUNK):
            break


def _checked_name(name: str, path: Path) -> str:
    """Return a name without './' and trailing '/', or raise when it leads elsewhere on any system."""
    parts = [part for part in name.split('/') if part not in ('', '.')]
    if name.startswith('/') or '..' in parts or '\\' in name or re.match('[A-Za-z]:', name):
        raise _refused(path, f'the name {name[:100]!r} leads out of the folder')
    if re.search(r'[\x00-\x1f\x7f]', name) or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        raise _refused(path, f'the name {name[:100]!r} cannot be that of a file')
    return '/'.join(parts)


def _check_unique(path: Path, member: _Member, kinds: dict[str, tuple[str, bool]]) -> None:
    """Keep account of names, and of the folders on the way to them, as a system sees them that ignores case."""
    parts = member.name.split('/')
    for depth in range(1, len(parts) + 1):
        name, is_folder = '/'.join(parts[:depth]), depth < len(parts) or member.is_folder
        key = unicodedata.normalize('NFC', name).casefold()
        known = kinds.setdefault(key, (name, is_folder))
        if known != (name, is_folder) or (not is_folder and f'{key}\0' in kinds):
            other = '' if known[0] == name else f' and as {known[0]!r}'
            raise _refused(path, f'{name!r} is in it twice{other}')
        if not is_folder:
            kinds[f'{key}\0'] = known


def _is_of_macos(name: str) -> bool:
    parts = name.split('/')
    return '__MACOSX' in parts or parts[-1].startswith('._') or parts[-1] == '.DS_Store'


def _check_amount(path: Path, members: list[_Member], into: Path, max_bytes: int, max_ratio: float) -> int:
    """Return the unpacked bytes; raise when they are too many for the limits or the disk."""
    total, packed = sum(member.size for member in members), path.stat().st_size
    if total > max_bytes:
        raise _refused(path, f'it unpacks to {_giga(total)}, the limit is {_giga(max_bytes)} (raise --max-gb)')
    if total > _RATIO_FROM and total > max_ratio * packed:
        ratio = f'{total / packed:,.0f} times its size'
        raise _refused(path, f'it unpacks to {ratio}, the limit is {max_ratio:g} (raise --max-ratio if you trust it)')
    existing = next(folder for folder in (into.absolute(), *into.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if total > free:
        raise ValueError(f'{path} unpacks to {_giga(total)}, and {existing} has {_giga(free)} left. Make room.')
    return total


def _unpack(path: Path, part: Path, members: list[_Member], total: int, progress: Progress) -> None:
    sizes = {member.name: member.size for member in members if not member.is_folder}
    for member in members:
        if member.is_folder:
            (part / member.name).mkdir(parents=True, exist_ok=True)
    done = 0
    try:
        for raw_name, stream in _streams(path):
            name = _checked_name(raw_name, path)
            if name not in sizes:
                continue
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            written = 0
            with closing(stream), open(target, 'xb') as file:
                while chunk := stream.read(_CHUNK):
                    written += len(chunk)
                    if written > sizes[name]:
                        raise _refused(path, f'{name!r} is longer than its header says')
                    file.write(chunk)
                    progress(done + written, total)
            if written != sizes[name]:
                raise EOFError(f'{name} ends early')
            done += written
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # not of the archive: the disk is full, no permission
        raise _damaged(path, error) from error


def _streams(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Give (name, content) of every file, in the order of the archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, archive.open(info)
    else:
        with tarfile.open(path) as archive:
            for info in archive:
                if info.isreg():
                    yield info.name, archive.extractfile(info)


def _refuse_other_content(files: list[_Member], part: Path, into: Path) -> None:
    for member in files:
        target = into / member.name
        if target.exists() and (target.is_dir() or not filecmp.cmp(part / member.name, target, shallow=False)):
            raise ValueError(
                f'{target} is there already and differs from that of the archive: move it away, or unpack into another '
                'folder. Nothing was changed.'
            )
        blocking = next((folder for folder in target.parents if folder.exists() and not folder.is_dir()), None)
        if blocking is not None:
            raise ValueError(f'{blocking} is a file where the archive has a folder. Nothing was changed.')


def _move(source: Path, target: Path, is_folder: bool) -> None:
    if is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(f'{path} is refused: {why}. Nothing was unpacked; get the archive from its official page.')


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(f'{path} is cut off or damaged ("{type(error).__name__}: {error}"). Download it again.')


def _giga(count: int) -> str:
    return f'{count / 1e9:.3g} GB'
