"""Label maps from PNG files, strictly and fast: what benchmarks score, pixel by pixel, must be ids.

`read_label_map` (masks.py) takes whatever people store masks as; here a file is refused unless it has one channel, and
is decoded somewhat faster than by Pillow, which copies more. Both give the same ids.
"""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

try:  # where it has a wheel: inflating is most of the time of scoring masks, and this does it in a third
    from isal import isal_zlib as _inflate
except ImportError:
    _inflate = zlib

#: Modes of Pillow whose pixels are taken as ids.
SINGLE_CHANNEL_MODES = ('P', 'L', '1')

_EXIF_ORIENTATION = 0x0112
_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY, _PALETTE = 0, 3
# Chunks that change nothing about the ids of a file with one channel of 8 bits.
_IGNORED_CRITICAL = (b'PLTE',)
_LARGEST_PIXELS = 1 << 26  # beyond it Pillow's own limit against bombs decides
_FILTER_SUB, _FILTER_UP = 1, 2
_ZLIB_HEADER = 2


def read_ids(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read the ids of an 8-bit image file with one channel, palette or grey.

    Args:
        path: Image file; the pixel value is the id.
        size: (H, W) that it must have, those of its annotation; None for any. Checked before anything is decoded.

    Returns:
        (H, W) uint8, an array of its own.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an image, damaged, of another size, or of another kind.
    """
    path = Path(path)
    return decode_ids(path.read_bytes(), path, size)


def decode_ids(data: bytes, path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """`read_ids` of a file's content; `path` is named in errors."""
    header = _fast_header(data)
    if header is not None and (size is None or header == tuple(size)):
        ids = _decode_fast(data, *header, path)
        if ids is not None:
            return ids
    return _decode_by_pillow(data, path, size)


def png_size(data: bytes) -> tuple[int, int] | None:
    """Return the (H, W) that the first bytes of a PNG file declare; None where they are no PNG."""
    if len(data) < 24 or not data.startswith(_SIGNATURE) or data[12:16] != b'IHDR':
        return None
    width, height = struct.unpack('>II', data[16:24])
    return height, width


def _decode_by_pillow(data: bytes, path: str | os.PathLike, size: tuple[int, int] | None) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError(f'{path} is not a readable image (its format is unknown). Write it again.') from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} is not a readable image ({error}). Write it again.') from error
    with image:
        if size is not None and image.size != (size[1], size[0]):
            raise ValueError(
                f'{path} is {image.width} x {image.height} pixels, its annotation {size[1]} x {size[0]}. Write '
                'predictions at the size of the annotation (resize label maps with nearest neighbour).'
            )
        if image.mode not in SINGLE_CHANNEL_MODES:
            kind = {'RGB': 'a colour image', 'RGBA': 'a colour image', 'I;16': 'a 16-bit image'}.get(
                image.mode, f'an image of mode {image.mode}'
            )
            raise ValueError(
                f'{path} is {kind}; expected an 8-bit PNG with one channel, palette or grey, whose pixel values are '
                'object ids. Save the ids, not their colours.'
            )
        ids = decode_image(image, path).astype(np.uint8, copy=False)
        if image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1):
            raise ValueError(f'{path} is to be shown turned or mirrored (EXIF orientation). Write it as it is shown.')
        return ids


def decode_image(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """Decode an image that Pillow has opened, with one kind of error."""
    try:
        return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports a damaged PNG as any of them
        raise ValueError(f'{path} is damaged ({error}). Write it again.') from error


def _fast_header(data: bytes) -> tuple[int, int] | None:
    """Return (H, W) of a PNG of one channel of 8 bits, without interlacing; None for anything else."""
    size = png_size(data)
    if size is None or len(data) < 33 or data[8:12] != b'\0\0\0\r':
        return None
    depth, colour, compression, filtering, interlace = data[24:29]
    plain = depth == 8 and colour in (_GREY, _PALETTE) and not (compression or filtering or interlace)
    return size if plain and 0 < size[0] * size[1] <= _LARGEST_PIXELS else None


def _decode_fast(data: bytes, height: int, width: int, path: str | os.PathLike) -> np.ndarray | None:
    """Return (H, W) uint8, or None where Pillow must look: unusual, or damaged and in need of its words."""
    stream = _image_stream(data, path)
    if stream is None or not _is_plain_zlib(stream):
        return None
    # The check sum behind the stream is not computed: those of the chunks are, and it takes a sixth of the time.
    inflate = _inflate.decompressobj(-zlib.MAX_WBITS)
    wanted = height * (width + 1)
    try:
        raw = inflate.decompress(stream[_ZLIB_HEADER:], wanted)
    except _inflate.error:
        return None
    if len(raw) != wanted:
        return None
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(height, width + 1)
    return _unfilter(rows[:, 0], rows[:, 1:])


def _is_plain_zlib(stream: bytes) -> bool:
    """Whether the two bytes of the header are right, and no dictionary follows them (RFC 1950)."""
    return (
        len(stream) > _ZLIB_HEADER
        and stream[0] & 0x0F == zlib.DEFLATED
        and int.from_bytes(stream[:_ZLIB_HEADER], 'big') % 31 == 0
        and not stream[1] & 0x20
    )


def _image_stream(data: bytes, path: str | os.PathLike) -> bytes | None:
    """Return the compressed pixels, when all chunks are whole and known.

    Raises:
        ValueError: A check sum does not fit. (Pillow does not look at those of the pixels.)
    """
    position, parts = len(_SIGNATURE), []
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], 'big')
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            return None
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], 'big'):
            raise ValueError(f'{path} is damaged (the check sum of a part does not fit). Write it again.')
        if kind == b'IEND':
            return b''.join(parts)
        if kind == b'IDAT':
            parts.append(data[position + 8 : end])
        elif kind in (b'acTL', b'eXIf') or (is_critical and kind != b'IHDR' and kind not in _IGNORED_CRITICAL):
            return None
        position = end + 4
    return None


def _unfilter(filters: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Undo PNG's row filters (H,) on (H, W) uint8; None where a row depends on two neighbours (average, Paeth)."""
    if not filters.any():
        return rows.copy()
    if filters.max() > _FILTER_UP:
        return None
    pixels = rows.copy()
    sub = filters == _FILTER_SUB  # each byte is the difference to the one on its left, modulo 256
    if sub.any():
        pixels[sub] = _running_sum(pixels[sub])
    # Each byte is the difference to the one above: a run of such rows adds up from the row before it.
    up = np.concatenate([[0], filters == _FILTER_UP, [0]])
    starts, stops = np.flatnonzero(np.diff(up) == 1), np.flatnonzero(np.diff(up) == -1)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        first = max(start - 1, 0)  # above the first row is 0
        np.add.accumulate(pixels[first:stop], axis=0, dtype=np.uint8, out=pixels[first:stop])
    return pixels


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """Return the sums along each row modulo 256; (H, W) uint8. `np.cumsum` is half as fast: it adds one by one."""
    step = 1
    while step < rows.shape[1]:
        further = rows.copy()
        further[:, step:] += rows[:, :-step]
        rows, step = further, 2 * step
    return rows
