"""Label maps in image files: read whatever people store them as, and write the one form everybody reads.

Inside the package a label map is (H, W) uint8, 0 = background. `read_label_map` says in `notes` what it had
to assume.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmliir.datasets.listing import list_label_maps
from mmliir.datasets.pictures import BrokenMediaError, warn_once
from mmliir.structures.palette import davis_palette
from mmliir.utils.files import write_bytes_atomic

_EDGE_IDS_TO_REFUSE = 8


@dataclass(frozen=True)
class LabelMap:
    """Object ids at pixels.

    Attributes:
        ids: (H, W) uint8, 0 = background.
        notes: What was assumed or is unusual about the file, one sentence each; empty for a plain indexed
            PNG.
        void: (H, W) bool, pixels that belong to nothing (see `read_label_map`), or None where no void id was
            asked for.
    """

    ids: np.ndarray
    notes: tuple[str, ...] = ()
    void: np.ndarray | None = None

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids that occur, without the background."""
        return tuple(int(i) for i in np.unique(self.ids) if i)


def read_label_map(
    path: str | os.PathLike,
    max_ids: int = 255,
    *,
    binary: bool = False,
    void: int | None = None,
    require_object: bool = False,
) -> LabelMap:
    """Read a label map from an image file.

    What the pixels mean, by image mode:
        P (indexed): the index is the id.  1, L, LA, I, I;16: the grey value is the id.
        RGB, RGBA: greys only -> the grey value is the id; colours of the DAVIS palette -> the id of the
        colour; any other colours -> ids 1, 2, ... in sorted order of (red, green, blue), black is 0, with a
        note that names them (such numbers hold for this image alone).
        Alpha: ignored where it is the same everywhere, else transparent pixels are background.
    Ids with gaps (1, 5, 9) stay as they are.

    Args:
        path: Image file.
        max_ids: How many different objects are believable, at most 255.
        binary: One object: every pixel that is not 0 becomes 1 (DAVIS-2016 stores 0 and 255).
        void: Id of pixels that belong to nothing; they become 0 in `ids` and True in `void`. DAVIS-2017 uses
            255 in some splits. With None, 255 is an object like any other, because a single mask of 0 and 255
            is the most common file there is.
        require_object: Refuse a map of background only, rather than noting it.

    Raises:
        FileNotFoundError: No such file.
        BrokenMediaError: Not an image, or cut off.
        ValueError: More than `max_ids` ids, ids over 255, smoothed edges, or no object where one is required.
    """
    path = Path(path)
    if not 1 <= max_ids <= 255:
        raise ValueError(f'max_ids: expected 1 to 255 (label maps are uint8), came {max_ids}.')
    pixels, mode = _load(path)
    notes: list[str] = []
    if mode in ('LA', 'RGBA', 'PA'):
        pixels, opaque = pixels[..., :-1].squeeze(-1) if mode != 'RGBA' else pixels[..., :3], pixels[..., -1]
        if opaque.min() != opaque.max():
            notes.append('transparent pixels are taken as background')
            pixels = np.where((opaque > 0)[..., None] if pixels.ndim == 3 else opaque > 0, pixels, 0)
    values = _colors_to_ids(pixels, max_ids, path, notes) if pixels.ndim == 3 else pixels
    _check_values(values, max_ids, path)
    ids = values.astype(np.uint8)
    _refuse_smoothed_edges(ids, path)

    void_pixels = None
    if void is not None:
        void_pixels = ids == void
        ids = np.where(void_pixels, 0, ids).astype(np.uint8)
    if binary:
        ids = (ids > 0).astype(np.uint8)
    _note_ids(ids, require_object, path, notes)
    return LabelMap(np.ascontiguousarray(ids), tuple(notes), void_pixels)


def write_label_map(path: str | os.PathLike, label_map: np.ndarray) -> None:
    """Write an indexed PNG with the DAVIS palette, atomically: the file is whole or not there.

    Args:
        path: File to write; its folder is made when it is missing.
        label_map: (H, W) uint8.
    """
    write_bytes_atomic(path, label_map_png(label_map, path), durable=False)


def label_map_png(label_map: np.ndarray, path: str | os.PathLike) -> bytes:
    """The content of the file that `write_label_map` writes; `path` is named in the error."""
    ids = np.asarray(label_map)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f'label map for {path}: expected (H, W) uint8, came {ids.shape} {ids.dtype}.')
    image = Image.fromarray(ids)  # mode L; the palette turns it into P with the same indices
    image.putpalette(davis_palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format='PNG')
    return stream.getvalue()


def list_annotations(folder: str | os.PathLike, doc: str) -> list[Path]:
    """Return the label maps of a sequence (PNG files) in order of frames; what is left out is logged.

    Args:
        folder: Of the sequence.
        doc: Where the layout is described, for the error.

    Raises:
        FileNotFoundError: There is none.
    """
    listing = list_label_maps(folder)
    if not listing.files:
        left_out = f' ({listing.told()})' if listing.left_out else ''
        raise FileNotFoundError(f'no annotation (*.png) in {folder}{left_out}. {doc}')
    if listing.noteworthy:
        warn_once(f'{listing.told(listing.noteworthy)}.')
    return list(listing.files)


def check_mask_size(label_map: LabelMap | np.ndarray, frame_size: tuple[int, int], path: str | os.PathLike) -> None:
    """Raise `ValueError` when a label map and its frame differ in size.

    Args:
        label_map: The map that was read from `path`.
        frame_size: (H, W) of the frame.
        path: Named in the error.
    """
    ids = label_map.ids if isinstance(label_map, LabelMap) else label_map
    if tuple(ids.shape) != tuple(frame_size):
        (h, w), (frame_h, frame_w) = ids.shape, frame_size
        swapped = (h, w) == (frame_w, frame_h)
        hint = 'One of the two is rotated' if swapped else 'Draw the mask on the frame itself'
        raise ValueError(
            f'{path}: the mask is {w}x{h}, the frame is {frame_w}x{frame_h} (width x height). {hint}, or '
            'resize the mask with nearest-neighbour interpolation (any other invents ids at edges).'
        )


def _load(path: Path) -> tuple[np.ndarray, str]:
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in ('1', 'P', 'PA', 'L', 'LA', 'RGB', 'RGBA', 'I', 'I;16', 'I;16B', 'I;16L'):
                raise ValueError(
                    f'{path}: image mode {mode!r} cannot hold object ids. Save it as an indexed or grey PNG.'
                )
            return np.array(ImageOps.exif_transpose(image)), mode  # turned and mirrored as its frame is
    except FileNotFoundError as error:
        raise FileNotFoundError(f'label map not found: {path}') from error
    except UnidentifiedImageError as error:
        raise BrokenMediaError(f'{path} is not an image that can be read: expected a PNG label map.') from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG chunk.
        raise BrokenMediaError(f'{path} is damaged or cut off ("{error}"). Copy or save it again.') from error


def _colors_to_ids(pixels: np.ndarray, max_ids: int, path: Path, notes: list[str]) -> np.ndarray:
    """Map (H, W, 3) uint8 to ids, (H, W) int64; see `read_label_map` for the rule."""
    if (pixels == pixels[..., :1]).all():
        notes.append('an RGB image of greys: the grey value is the id')
        return pixels[..., 0]
    codes = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    colors, inverse = np.unique(codes, return_inverse=True)
    inverse = inverse.reshape(codes.shape)
    palette = davis_palette().astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    known = {int(code): number for number, code in enumerate(palette)}
    # Some copies of the palette have 191 for 192.
    rounded = [sum((192 if c == 191 else c) << s for c, s in _channels(int(code))) for code in colors]
    if all(code in known for code in rounded):
        notes.append('an RGB image in colours of the DAVIS palette: each colour is its id')
        return np.array([known[code] for code in rounded])[inverse]
    objects = colors[colors != 0]
    if len(objects) > max_ids:
        raise ValueError(
            f'{path}: {len(objects)} different colours, more than max_ids={max_ids}: smoothed edges, or a '
            'photograph? Save the mask as PNG without anti-aliasing, one flat colour an object.'
        )
    numbers = np.zeros(len(colors), dtype=np.int64)
    numbers[colors != 0] = np.arange(1, len(objects) + 1)
    named = ', '.join(f'{n}=({c >> 16}, {c >> 8 & 255}, {c & 255})' for n, c in enumerate(objects[:8], 1))
    more = f', and {len(objects) - 8} more' if len(objects) > 8 else ''
    notes.append(f'colours are numbered in sorted order, for this image alone: {named}{more}')
    return numbers[inverse]


def _channels(code: int) -> tuple[tuple[int, int], ...]:
    return (code >> 16 & 255, 16), (code >> 8 & 255, 8), (code & 255, 0)


def _check_values(values: np.ndarray, max_ids: int, path: Path) -> None:
    found = np.unique(values)
    objects = found[found != 0]
    if objects.size and (objects.max() > 255 or objects.min() < 0):
        wrong = objects[(objects > 255) | (objects < 0)]
        shown = ', '.join(str(int(v)) for v in wrong[:6]) + (', ...' if wrong.size > 6 else '')
        raise ValueError(
            f'{path}: ids go from 0 (background) to 255, found {shown}. Renumber the objects and save an 8-bit PNG.'
        )
    if objects.size > max_ids:
        raise ValueError(
            f'{path}: {objects.size} distinct ids, more than max_ids={max_ids}: smoothed edges? Save the '
            'mask as PNG without anti-aliasing.'
        )


def _refuse_smoothed_edges(ids: np.ndarray, path: Path) -> None:
    """Anti-aliasing and JPEG make many ids that lie on borders only, without one pixel inside."""
    found = np.unique(ids)
    if len(found) <= _EDGE_IDS_TO_REFUSE:
        return
    padded = np.pad(ids, 1, mode='edge')
    inside = np.ones(ids.shape, dtype=bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inside &= padded[dy : dy + ids.shape[0], dx : dx + ids.shape[1]] == ids
    edge_only = np.setdiff1d(found, np.unique(ids[inside]))
    if len(edge_only) >= _EDGE_IDS_TO_REFUSE and len(edge_only) > len(found) // 2:
        raise ValueError(
            f'{path}: {len(found)} distinct values, {len(edge_only)} of them only along edges: the mask was '
            'smoothed. Save it as PNG (not JPEG) without anti-aliasing, and resize masks with nearest '
            'neighbour only.'
        )


def _note_ids(ids: np.ndarray, require_object: bool, path: Path, notes: list[str]) -> None:
    objects = [int(i) for i in np.unique(ids) if i]
    if not objects:
        if require_object:
            raise ValueError(f'{path}: every pixel is background (0): expected at least one object to follow.')
        notes.append('no object: every pixel is background')
    elif objects == [255]:
        notes.append('one object with id 255, which stays; in Python, binary=True numbers it 1')
    elif objects != list(range(1, len(objects) + 1)):
        shown = ', '.join(map(str, objects[:8])) + (', ...' if len(objects) > 8 else '')
        notes.append(f'ids are not consecutive: {shown}')
