"""Files that are either whole or not there: write beside the target, flush, rename. Text files of others are read
with whatever mark their editor put before them.
"""

import codecs
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20
# The mark of UTF-32 starts with that of UTF-16, so it goes first.
_UTF_MARKS = (
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
    (codecs.BOM_UTF8, 'utf-8'),
    (b'', 'utf-8'),
)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file: UTF-8, or what the byte order mark before it says (editors on Windows write one).

    The mark is no part of what comes back; line ends become line feeds, as when Python reads text.

    Raises:
        OSError: The file cannot be opened; `FileNotFoundError` where it is not there.
        ValueError: Bytes that are no text in that encoding. It names the file, the line and the byte, and is never a
            `UnicodeDecodeError`, which names none.
    """
    data = Path(path).read_bytes()
    mark, encoding = next((mark, name) for mark, name in _UTF_MARKS if data.startswith(mark))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        position = len(mark) + error.start
        line = data.count(b'\n', 0, position) + 1
        raise ValueError(
            f'{shown_path(path)} is no {encoding.upper()} text: byte 0x{data[position]:02x} at position {position}, '
            f'line {line} ({error.reason}). Save it as UTF-8; a file of an old Windows or Latin-1 system becomes one '
            'with `iconv -f LATIN1 -t UTF-8`.'
        ) from None
    return text.replace('\r\n', '\n').replace('\r', '\n')


def shown_path(path: str | os.PathLike[str]) -> str:
    """The path as it can be printed and written: bytes of a name that are no UTF-8 are shown as \\xNN."""
    return os.fsencode(path).decode('utf-8', 'backslashreplace')


def is_system_file(name: str) -> bool:
    """Whether a file is what a system leaves in every folder, so that it may go with the folder: `.DS_Store`, `._*`."""
    return name.startswith('._') or name.lower() in ('.ds_store', 'thumbs.db', 'desktop.ini')


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes, durable: bool = True) -> Path:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The data go to a new file in the same folder, are flushed to the disk and take the name of `path` in one
    step. An interrupted write leaves `path` as it was.

    Args:
        path: File to create or replace; its folder is created when missing.
        data: The whole content.
        durable: Wait until the disk has it, so that it outlives a loss of power. False for thousands of small files
            that can be made again.

    Returns:
        The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are readable by the owner only, and the renamed file would stay so.
    part = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part')
    try:
        with open(part, 'xb') as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)
    return path


def write_text_atomic(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text with `write_bytes_atomic`; line ends stay as they are."""
    return write_bytes_atomic(path, text.encode('utf-8'))


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> Path:
    """Write indented JSON with `write_bytes_atomic`.

    Raises:
        ValueError: `value` holds a NaN or an infinity, which JSON has no word for. Write None.
        TypeError: `value` holds something that is not a dict, list, tuple, string, number, bool or None.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # Names of files that are no UTF-8 hold lone surrogates; `\udce4` is how JSON writes one.
    return write_bytes_atomic(path, (text + '\n').encode('utf-8', 'backslashreplace'))


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits, reading it piece by piece."""
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system lets a folder be opened (POSIX)."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
