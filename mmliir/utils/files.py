"""Files that are either whole or not there: write beside the target, flush, rename."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


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
    return write_text_atomic(path, text + '\n')


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
