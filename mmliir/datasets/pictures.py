"""One picture in a file: read whole or refused, turned as it is shown, at 8 bits a channel.

Files of 16 bits often hold 10, 12 or 14 (cameras, medical data). The high byte of such a picture is nearly black, so
the number of bits in use is found, for a folder over all its pictures, and said.
"""

import functools
import io
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmliir.datasets.listing import IMAGE_SUFFIXES
from mmliir.utils.files import shown_path
from mmliir.utils.words import number_of

_logger = logging.getLogger(__name__)
_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
#: Bits that cameras give; the largest value of a dark picture may have one less.
BIT_DEPTHS = (8, 10, 12, 14, 16)
# The largest value that writers put into every PPM and PGM of 16 bits.
_ANY_VALUE = 65535
_MOVING_FORMATS = ('WEBP', 'TIFF')
_NETPBM_HEADER = re.compile(rb'P[56]\s(?:\s*#[^\n]*\n)*\s*\d+\s(?:\s*#[^\n]*\n)*\s*\d+\s(?:\s*#[^\n]*\n)*\s*(\d+)\s')


class BrokenMediaError(ValueError):
    """A folder, image or video that cannot give the frames it should; the text says which and why.

    The text can always be printed: names that are no UTF-8 are shown with `\\\\` and numbers.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.encode('utf-8', 'backslashreplace').decode('utf-8'))


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning, each text once in a process."""
    _logger.warning(text)


def read_image(path: str | os.PathLike, bit_depth: int | None = None) -> np.ndarray:
    """Read one image whole, or raise.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF, PPM or PGM. Grey images become three equal channels, alpha is dropped, an
            EXIF orientation (turned or mirrored) is applied.
        bit_depth: Of a file with 16 bits a channel: how many of them are used, 8 to 16. None: as `find_bit_depth` says
            of this picture alone; for the pictures of one sequence give one number, or read a `FrameFolder`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: No such file.
        BrokenMediaError: Not an image, or the file ends early. (Some decoders pad such pictures with grey.)
    """
    picture = decode_picture(path)
    if picture.dtype == np.uint8:
        return picture
    return to_8_bits(picture, find_bit_depth([Path(path)]) if bit_depth is None else check_bit_depth(bit_depth))


def decode_picture(path: str | os.PathLike) -> np.ndarray:
    """`read_image` as it is stored: (H, W, 3) RGB, uint8 or uint16."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f'image not found: {shown_path(path)}') from error
    if not data:
        raise BrokenMediaError(
            f'{path} is empty (0 bytes): expected an image ({", ".join(IMAGE_SUFFIXES)}). Copy or extract it again.'
        )
    _check_image_is_whole(data, path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # an unbelievable size
        raise BrokenMediaError(f'{path} ({len(data)} bytes) cannot be decoded ("{error.err}").') from error
    if image is None:
        raise BrokenMediaError(
            f'{path} ({len(data)} bytes) does not decode as an image: it is damaged, or none. Copy or extract it again.'
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise BrokenMediaError(
            f'{path} holds numbers of the kind {image.dtype}: expected a picture of 8 or 16 bits a channel. Convert it.'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def to_8_bits(picture: np.ndarray, bit_depth: int) -> np.ndarray:
    """Scale a uint16 picture, of whose bits `bit_depth` are used, to uint8: the lowest bits are cut off."""
    return np.minimum(picture >> (bit_depth - 8), 255).astype(np.uint8)


def check_bit_depth(bit_depth: int) -> int:
    """Return it, or raise `ValueError` where it is no number of bits that 8 to 16 stored bits can use."""
    if isinstance(bit_depth, bool) or not isinstance(bit_depth, int) or not 8 <= bit_depth <= 16:
        raise ValueError(f'bit_depth: expected 8 to 16, the bits that pictures of 16 bits use, came {bit_depth!r}.')
    return bit_depth


def find_bit_depth(paths: Sequence[Path]) -> int:
    """Return how many bits the 16-bit pictures of a sequence use, one number for all, and warn where it is not 16.

    It is what the files declare (PNG's `sBIT`, the largest value of PPM and PGM), where no value is larger than that;
    else the next of `BIT_DEPTHS` for the largest value of all pictures. 16 where there is no such picture or all are
    black. Pictures that cannot be read are not asked; whoever reads them will say so.
    """
    bits, how = _used_bits(tuple(paths))
    if bits < 16:
        what = shown_path(paths[0] if len(paths) == 1 else paths[0].parent)
        warn_once(
            f'{what}: 16 bits are stored, {bits} are used ({how}): brightness is scaled by these, for all pictures '
            'alike. Where dark pictures of full range were meant, give bit_depth=16 (--bit-depth 16).'
        )
    return bits


@functools.lru_cache(maxsize=64)
def _used_bits(paths: tuple[Path, ...]) -> tuple[int, str]:
    largest, declared = 0, None
    for path in paths:
        try:
            picture = decode_picture(path)
            if picture.dtype == np.uint8:
                continue
            declared = declared or _declared_bits(path.read_bytes())
        except (OSError, BrokenMediaError):
            continue
        largest = max(largest, int(picture.max()))
        if largest.bit_length() > BIT_DEPTHS[-2]:
            return 16, f'the largest value is {largest}'
    if declared is not None and largest < 1 << declared:
        return declared, 'the files say so'
    if not largest:
        return 16, 'all are black'
    bits = next(depth for depth in BIT_DEPTHS if largest.bit_length() <= depth)
    return bits, f'the largest value of {number_of(len(paths), "picture")} is {largest}'


def _declared_bits(data: bytes) -> int | None:
    """Bits that a file of 16 bits says are used, 8 to 16; None where it says nothing.

    PNG asks that such values are stretched to 16 bits; many writers leave them as they are. So a declaration counts
    only where no value exceeds it.
    """
    netpbm = _NETPBM_HEADER.match(data)
    if netpbm:
        largest = int(netpbm[1])
        return max(8, largest.bit_length()) if largest < _ANY_VALUE else None
    position = len(_PNG_START)
    while data.startswith(_PNG_START) and position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], 'big'), data[position + 4 : position + 8]
        if kind == b'sBIT' and 0 < length <= 4:
            return max(8, min(16, max(data[position + 8 : position + 8 + length])))
        if kind in (b'IDAT', b'IEND'):
            break
        position += 12 + length
    return None


def _check_image_is_whole(data: bytes, path: Path) -> None:
    """Look for the end marker; where it is not last (more bytes may follow), decode strictly."""
    if data.startswith(_JPEG_START) and data.rstrip(b'\0\r\n').endswith(_JPEG_END):
        return
    if data.startswith(_PNG_START) and data.endswith(_PNG_END):
        return
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            num_pictures = _num_pictures(image)
    except UnidentifiedImageError as error:
        if data.startswith((_JPEG_START, _PNG_START)):
            raise BrokenMediaError(f'{path} ({len(data)} bytes) is cut off in its header. Copy it again.') from error
        return  # colour TIFF of 16 bits is unknown to Pillow; what is no image at all, OpenCV refuses as well
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for a broken PNG chunk.
        raise BrokenMediaError(
            f'{path} ({len(data)} bytes) is damaged or cut off: no end marker, and a strict decoder says '
            f'"{error}". Copy or extract it again.'
        ) from error
    if data.startswith(_PNG_START):
        raise BrokenMediaError(
            f'{path} ({len(data)} bytes) has no PNG end chunk: the file is cut off. Copy or extract it again.'
        )
    if num_pictures > 1:
        raise BrokenMediaError(
            f'{path} holds {num_pictures} pictures, of which one alone would be read: expected one. Extract them into '
            'a folder, a file each.'
        )


def _num_pictures(image: Image.Image) -> int:
    """Pictures of one size in a file; a smaller one (a thumbnail) does not count."""
    count = getattr(image, 'n_frames', 1) if image.format in _MOVING_FORMATS else 1
    if count < 2:
        return 1
    size = image.size
    image.seek(1)
    return count if image.size == size else 1
