"""Label maps in image files: read whatever people store them as, and write the one form everybody reads.

Inside the package a label map is (H, W) uint8, 0 = background. `read_label_map` says in `notes` what it had
to assume.
"""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmliir.datasets.listing import list_label_maps
from mmliir.datasets.mask_edges import resolve_blends
from mmliir.datasets.pictures import BrokenMediaError, warn_once
from mmliir.structures.palette import davis_palette
from mmliir.utils.files import write_bytes_atomic

_EDGE_IDS_TO_REFUSE = 8
_COLOR_MODES = ('RGB', 'RGBA')
_INDEXED_MODES = ('P', 'PA')
#: Opacity from which on a pixel counts, of 255.
_HALF = 128
# 8 bits are widened to 16 so: 255 becomes 65535.
_WIDENED = 257
# Greys up to it are taken as ids that somebody counted, and not as brightness.
_LARGEST_USUAL_ID = 31
_SHOWN = 6


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
    colors: Mapping[int, int] | None = None,
) -> LabelMap:
    """Read a label map from an image file.

    What the pixels mean, by image mode:
        P (indexed): the index is the id.  1, L, LA, I, I;16: the grey value is the id; 16 bits that are 8 bits
        widened (257, 514, ...) are narrowed.
        RGB, RGBA: greys only -> the grey value is the id; colours of the DAVIS palette -> the id of the
        colour; any other colours -> ids 1, 2, ... in sorted order of (red, green, blue), black is 0, with a
        note that names them (such numbers hold for this image alone, see `number_colors`).
        Alpha, a channel or of a palette: ignored where it is the same everywhere, else pixels of less than half
        opacity are background; where all others are black, they are one object.
    Ids with gaps (1, 5, 9) stay as they are.

    Anti-aliasing, told by structure (`mask_edges`): values that lie along the border of areas alone, and between
    theirs, become the nearer one, with a note. Where that is no certain thing (several greys, wide ramps, JPEG) the
    file is refused. Indexed files hold numbers, and with `binary` or `void` the rule of a benchmark holds: there,
    nothing is changed.

    Args:
        path: Image file.
        max_ids: How many different objects are believable, at most 255.
        binary: One object: every pixel that is not 0 becomes 1 (DAVIS-2016 stores 0 and 255).
        void: Id of pixels that belong to nothing; they become 0 in `ids` and True in `void`. DAVIS-2017 uses
            255 in some splits. With None, 255 is an object like any other, because a single mask of 0 and 255
            is the most common file there is.
        require_object: Refuse a map of background only, rather than noting it.
        colors: From `number_colors`: red << 16 | green << 8 | blue -> id, of a file with colours; one that has colours
            is read by it and nothing else.

    Raises:
        FileNotFoundError: No such file.
        BrokenMediaError: Not an image, or cut off.
        ValueError: More than `max_ids` ids, ids over 255, smoothed edges that cannot be told from objects, or no object
            where one is required.
    """
    path = Path(path)
    if not 1 <= max_ids <= 255:
        raise ValueError(f'max_ids: expected 1 to 255 (label maps are uint8), came {max_ids}.')
    notes: list[str] = []
    pixels = _read_pixels(path, max_ids, notes, as_stored=binary, ids_as_stored=void is not None)
    if pixels.ndim == 3:
        ids = _colors_to_ids(pixels, max_ids, path, notes, colors)
    else:
        ids = _narrowed(pixels, notes)
    _check_values(ids, max_ids, path)
    ids = ids.astype(np.uint8)
    _refuse_smoothed_edges(ids, path)

    void_pixels = None
    if void is not None:
        void_pixels = ids == void
        ids = np.where(void_pixels, 0, ids).astype(np.uint8)
    if binary:
        ids = (ids > 0).astype(np.uint8)
    _note_ids(ids, require_object, path, notes)
    return LabelMap(np.ascontiguousarray(ids), tuple(notes), void_pixels)


def number_colors(paths: Sequence[str | os.PathLike], max_ids: int = 255) -> dict[int, int] | None:
    """Number the colours of several masks of one video together: one colour is one object in all of them.

    Args:
        paths: Image files.
        max_ids: How many different objects are believable.

    Returns:
        For `read_label_map`: red << 16 | green << 8 | blue -> id; None where no file has colours, so that the values of
        all are ids. Colours of the DAVIS palette alone have its ids; others are 1, 2, ... in sorted order.

    Raises:
        FileNotFoundError, BrokenMediaError: As `read_label_map`.
        ValueError: More than `max_ids` colours, or colours in one file and ids in another, so that nobody can say which
            are the same object.
    """
    images = [path for path in map(Path, paths) if has_colors(path)]
    pixels = {path: _read_pixels(path, max_ids, []) for path in images}
    if all(_is_grey(image) for image in pixels.values()):
        return None
    codes = np.unique(np.concatenate([np.unique(_codes(image)) for image in pixels.values()]))
    palette = _palette_ids(codes)
    if palette is not None:
        return palette
    with_ids = [path for path in map(Path, paths) if path not in images]
    if with_ids:
        raise ValueError(
            f'{with_ids[0]} holds ids, {images[0]} colours that are not of the DAVIS palette: which of them '
            'are one object cannot be known. Save all masks of a video in one way, indexed or in colours.'
        )
    objects = codes[codes != 0]
    if len(objects) > max_ids:
        raise ValueError(
            f'{len(objects)} different colours in {len(images)} masks, {images[0]} and others, more than '
            f'max_ids={max_ids}. Give each object one colour in all of them.'
        )
    return {0: 0} | {int(code): number for number, code in enumerate(objects, start=1)}


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


def has_colors(path: str | os.PathLike) -> bool:
    """Whether an image file has colour channels; only its header is read.

    Raises:
        FileNotFoundError, BrokenMediaError: As `read_label_map`.
    """
    with _opened(Path(path)) as image:
        return image.mode in _COLOR_MODES


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image that Pillow has opened, with one kind of error for what is none."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f'label map not found: {path}') from error
    except UnidentifiedImageError as error:
        raise BrokenMediaError(f'{path} is not an image that can be read: expected a PNG label map.') from error
    # Pillow raises SyntaxError for a broken PNG chunk, and an error of its own for a picture that is far too large.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenMediaError(f'{path} is damaged or cut off ("{error}"). Copy or save it again.') from error


def _read_pixels(
    path: Path, max_ids: int, notes: list[str], as_stored: bool = False, ids_as_stored: bool = False
) -> np.ndarray:
    """(H, W) numbers or (H, W, 3) colours: without what is transparent, and without anti-aliasing.

    Args:
        path: Image file.
        max_ids: As for `read_label_map`.
        notes: Gets what was assumed.
        as_stored: Leave every value as it is.
        ids_as_stored: Leave the numbers of a file without colours as they are.
    """
    pixels, alpha, mode, lossy = _load(path)
    if alpha is not None:
        pixels = _without_transparent(pixels, alpha, as_stored, notes)
    if lossy and len(np.unique(_codes(pixels) if pixels.ndim == 3 else pixels)) > 2:
        raise ValueError(
            f'{path} is a JPEG, which changes values along edges: the mask was smoothed, and its ids are not certain. '
            'Save it as PNG.'
        )
    if as_stored or (ids_as_stored and pixels.ndim == 2) or mode in _INDEXED_MODES:
        return pixels
    if pixels.ndim == 3 and _is_grey(pixels):
        return np.repeat(_without_blends(pixels[..., :1], max_ids, path, notes), 3, axis=2)
    grey = pixels.ndim == 2
    settled = _without_blends(pixels[..., None] if grey else pixels, max_ids, path, notes)
    return settled[..., 0] if grey else settled


def _load(path: Path) -> tuple[np.ndarray, np.ndarray | None, str, bool]:
    """(pixels, opacity (H, W) uint8 or None, mode, whether the format changes values)."""
    with _opened(path) as image:
        mode = image.mode
        if mode not in (*_COLOR_MODES, *_INDEXED_MODES, '1', 'L', 'LA', 'I', 'I;16', 'I;16B', 'I;16L'):
            raise ValueError(f'{path}: image mode {mode!r} cannot hold object ids. Save it as an indexed or grey PNG.')
        turned = ImageOps.exif_transpose(image)  # turned and mirrored as its frame is
        pixels, lossy = np.array(turned), image.format in ('JPEG', 'MPO')
        clear = image.info.get('transparency')
        if mode == 'P' and clear is not None:
            alpha = _palette_alpha(clear)[pixels]
            if alpha.min() < _HALF <= alpha[pixels == 0].max(initial=0):
                # Something else than index 0 is clear, and index 0 is seen: the colours say what it is.
                pixels, mode = np.array(turned.convert('RGBA'))[..., :3], 'RGB'
            return pixels, alpha, mode, lossy
    if mode in ('LA', 'PA', 'RGBA'):
        alpha = pixels[..., -1]
        return (pixels[..., :3] if mode == 'RGBA' else pixels[..., 0]), alpha, mode, lossy
    if clear is None:
        return pixels, None, mode, lossy
    same = pixels == np.asarray(clear)  # a grey value, or a colour
    return pixels, np.where(same.all(axis=-1) if pixels.ndim == 3 else same, 0, 255).astype(np.uint8), mode, lossy


def _palette_alpha(clear: int | bytes) -> np.ndarray:
    """(256,) uint8, the opacity of each index: `clear` is the index that has none, or that of the first ones."""
    alpha = np.full(256, 255, dtype=np.uint8)
    if isinstance(clear, bytes):
        alpha[: len(clear)] = np.frombuffer(clear, dtype=np.uint8)
    else:
        alpha[clear] = 0
    return alpha


def _without_transparent(
    pixels: np.ndarray, alpha: np.ndarray, as_stored: bool, notes: list[str]
) -> np.ndarray:
    """The pixels with 0 where less than half is opaque; as they are where alpha is the same everywhere."""
    if alpha.min() == alpha.max():
        return pixels
    opaque = alpha >= _HALF
    kept = np.where(opaque[..., None] if pixels.ndim == 3 else opaque, pixels, 0).astype(pixels.dtype)
    if not as_stored and opaque.any() and not opaque.all() and not kept.any():
        notes.append('every opaque pixel is black: what is opaque is taken as one object, transparent as background')
        return opaque.astype(np.uint8)
    soft = bool(((alpha > 0) & (alpha < 255)).any())
    notes.append(f'transparent pixels are taken as background{" where less than half opaque" if soft else ""}')
    return kept


def _without_blends(pixels: np.ndarray, max_ids: int, path: Path, notes: list[str]) -> np.ndarray:
    """(H, W, C) with anti-aliased borders resolved; raises `ValueError` where that is no certain thing."""
    codes = _codes(pixels) if pixels.shape[2] == 3 else pixels[..., 0]
    found, first, index = np.unique(codes, return_index=True, return_inverse=True)
    if len(found) < 3 or len(found) - 1 > max(max_ids, 255):  # many more: said by who counts them
        return pixels
    values = pixels.reshape(-1, pixels.shape[2])[first]
    black = int(np.argmin(found)) if found[0] == 0 else None
    blends = resolve_blends(index.reshape(codes.shape), values, black)
    if not blends.blended:
        return pixels
    shown = ', '.join(_shown_value(values[v]) for v in blends.blended[:_SHOWN])
    shown += f' and {len(blends.blended) - _SHOWN} more' if len(blends.blended) > _SHOWN else ''
    if pixels.shape[2] == 1 and values.max() <= _LARGEST_USUAL_ID:
        notes.append(f'ids {shown} lie along the border of others alone: objects, if the mask was not interpolated')
        return pixels
    if blends.ambiguous:
        raise ValueError(
            f'{path}: the mask was smoothed ({len(blends.blended)} values along edges only: {shown}), and has several '
            f'objects whose edges cannot be told from {_shown_value(values[blends.ambiguous[0]])}. Save it as PNG '
            'without anti-aliasing, and resize masks with nearest neighbour only.'
        )
    notes.append(f'the mask has smooth edges: along them alone are {shown}; each pixel is taken as the nearer side')
    return values[blends.index]


def _shown_value(value: np.ndarray) -> str:
    numbers = ', '.join(str(int(v)) for v in value)
    return numbers if len(value) == 1 else f'({numbers})'


def _narrowed(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """16-bit values that are 8-bit ones widened (times 257) as 8 bits; any other as they are."""
    largest = int(values.max(initial=0))
    if values.dtype == bool or largest <= 255 or (values % _WIDENED).any() or values.min() < 0:
        return values
    notes.append(f'16-bit values that are 8-bit ones times {_WIDENED}: divided by it')
    return values // _WIDENED


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether an image has one channel, or three equal ones."""
    return pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())


def _codes(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) int64, red << 16 | green << 8 | blue."""
    return pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _palette_ids(codes: np.ndarray) -> dict[int, int] | None:
    """Code of a colour -> its id in the DAVIS palette, 0 for black; None where one is not in it."""
    known = {int(code): number for number, code in enumerate(_codes(davis_palette()))}
    # Some copies of the palette have 191 for 192.
    rounded = {int(code): sum((192 if c == 191 else c) << s for c, s in _channels(int(code))) for code in codes}
    if not all(code in known for code in rounded.values()):
        return None
    return {0: 0} | {code: known[near] for code, near in rounded.items()}


def are_palette_colors(colors: Mapping[int, int]) -> bool:
    """Whether what `number_colors` returned has the ids of the DAVIS palette, which need no other file to be known."""
    return _palette_ids(np.array(list(colors))) == dict(colors)


def _colors_to_ids(
    pixels: np.ndarray, max_ids: int, path: Path, notes: list[str], numbers: Mapping[int, int] | None
) -> np.ndarray:
    """Map (H, W, 3) uint8 to ids, (H, W) int64; see `read_label_map` for the rule."""
    if numbers is None and _is_grey(pixels):
        notes.append('an RGB image of greys: the grey value is the id')
        return pixels[..., 0]
    colors, inverse = np.unique(_codes(pixels), return_inverse=True)
    inverse = inverse.reshape(pixels.shape[:2])
    palette = _palette_ids(colors)
    if palette is not None and numbers in (None, {**(numbers or {}), **palette}):
        notes.append('an RGB image in colours of the DAVIS palette: each colour is its id')
        return np.array([palette[int(code)] for code in colors])[inverse]
    objects = colors[colors != 0]
    if len(objects) > max_ids:
        raise ValueError(
            f'{path}: {len(objects)} different colours, more than max_ids={max_ids}: smoothed edges, or a '
            'photograph? Save the mask as PNG without anti-aliasing, one flat colour an object.'
        )
    scope = 'in sorted order, for this image alone' if numbers is None else 'together with those of the other masks'
    if numbers is None:
        numbers = {0: 0} | {int(code): number for number, code in enumerate(objects, start=1)}
    unknown = [int(code) for code in objects if int(code) not in numbers]
    if unknown:
        raise ValueError(f'{path}: the colour {_shown_color(unknown[0])} was not among those that were numbered.')
    named = ', '.join(f'{numbers[int(code)]}={_shown_color(int(code))}' for code in objects[:8])
    more = f', and {len(objects) - 8} more' if len(objects) > 8 else ''
    notes.append(f'colours are numbered {scope}: {named}{more}')
    return np.array([numbers[int(code)] for code in colors])[inverse]


def _shown_color(code: int) -> str:
    return f'({code >> 16}, {code >> 8 & 255}, {code & 255})'


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
