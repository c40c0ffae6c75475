"""Label maps and points over frames, and sheets of frames with captions.

Shape letters: H W pixels. Frames are (H, W, 3) uint8 RGB, label maps (H, W) uint8 with 0 = background.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmliir.structures.palette import davis_palette

_GOLDEN_RATIO = 0.618033988749895
_SHEET_BACKGROUND = (24, 26, 30)
_SHEET_TEXT = (236, 238, 242)


def _check_frame(frame: np.ndarray) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(
            f'A frame is (H, W, 3) uint8 RGB; got shape {frame.shape} of {frame.dtype}. '
            'Convert floats with `(frame * 255).round().astype(np.uint8)`.'
        )


def label_contours(label_map: np.ndarray) -> np.ndarray:
    """Find the pixels of objects that touch another id.

    Args:
        label_map: (H, W) uint8, 0 = background.

    Returns:
        (H, W) bool, True for a pixel of an object with at least one of its 4 neighbours of another id. The
        border of the picture is no contour.
    """
    contours = np.zeros(label_map.shape, dtype=bool)
    down = label_map[1:] != label_map[:-1]
    contours[1:] |= down
    contours[:-1] |= down
    right = label_map[:, 1:] != label_map[:, :-1]
    contours[:, 1:] |= right
    contours[:, :-1] |= right
    return contours & (label_map > 0)


def _thicken(mask: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def overlay_labels(
    frame: np.ndarray,
    label_map: np.ndarray,
    alpha: float = 0.5,
    contour_width: int = 2,
    palette: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a label map over its frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        label_map: (H, W) uint8, 0 = background, which stays as it is.
        alpha: Share of the object's colour inside of the object, 0 to 1.
        contour_width: Pixels of the outline, counted inwards; 0 draws none. Its colour is the object's at
            full brightness: the dark colours of the palette would be lost on dark frames.
        palette: (256, 3) uint8 RGB; None is `davis_palette()`.

    Returns:
        (H, W, 3) uint8 RGB, a new array.
    """
    _check_frame(frame)
    if label_map.dtype != np.uint8 or label_map.shape != frame.shape[:2]:
        raise ValueError(
            f'The label map of a {frame.shape[0]}x{frame.shape[1]} frame is {frame.shape[:2]} uint8; '
            f'got {label_map.shape} of {label_map.dtype}. Resize it by nearest neighbour: others invent ids.'
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is a share from 0 to 1; got {alpha}.')
    colors = (davis_palette() if palette is None else palette)[label_map]
    inside = label_map > 0
    drawn = frame.copy()
    drawn[inside] = np.rint(frame[inside] * (1 - alpha) + colors[inside] * alpha).astype(np.uint8)
    if contour_width > 0:
        outline = _thicken(label_contours(label_map), contour_width - 1) & inside
        strong = colors[outline].astype(np.float64)
        peak = np.maximum(strong.max(axis=1, keepdims=True), 1)
        drawn[outline] = np.rint(strong * 255 / peak).astype(np.uint8)
    return drawn


def overlay_points(
    frame: np.ndarray,
    points: np.ndarray,
    visible: np.ndarray,
    truth: np.ndarray | None = None,
    truth_visible: np.ndarray | None = None,
    radius: float | None = None,
) -> np.ndarray:
    """Draw points over their frame, and lines to where they truly are.

    Args:
        frame: (H, W, 3) uint8 RGB.
        points: (N, 2) float, (x, y) in pixels of the frame, pixel centres at integers; a NaN is not drawn. Point n has
            the same colour in every frame.
        visible: (N,) bool; a point that is said to be hidden is a ring, a visible one a disk.
        truth: (N, 2) float, true places; None draws none. The end of the line is the true place.
        truth_visible: (N,) bool, which true places are known to be seen; None: all that are finite.
        radius: Of a disk, in pixels; None is 1.6 % of the shorter side, 2 at least.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: Shapes that do not fit.
    """
    _check_frame(frame)
    points, visible = np.asarray(points, dtype=np.float64), np.asarray(visible, dtype=bool)
    if points.ndim != 2 or points.shape[1] != 2 or visible.shape != points.shape[:1]:
        raise ValueError(f'Expected (N, 2) points and (N,) visible; got {points.shape} and {visible.shape}.')
    if truth is not None:
        truth = np.asarray(truth, dtype=np.float64)
        known = np.isfinite(truth).all(axis=-1)
        known = known if truth_visible is None else known & np.asarray(truth_visible, dtype=bool)
        if truth.shape != points.shape or known.shape != visible.shape:
            raise ValueError(f'Expected true places of {points.shape}, as the points; got {truth.shape}.')
    radius = max(2.0, 0.016 * min(frame.shape[:2])) if radius is None else radius
    scale = 2  # drawn twice as large and made smaller: PIL's own circles have hard edges
    canvas = Image.fromarray(frame).resize((frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas)

    def place(point: np.ndarray) -> tuple[float, float]:
        return tuple((point + 0.5) * scale - 0.5)

    for number in np.flatnonzero(np.isfinite(points).all(axis=1)):
        color, (x, y) = point_color(number), place(points[number])
        if truth is not None and known[number]:
            draw.line([(x, y), place(truth[number])], fill=(255, 255, 255), width=round(radius * 0.9) + 2)
            draw.line([(x, y), place(truth[number])], fill=color, width=max(2, round(radius * 0.6)))
        box = [x - radius * scale, y - radius * scale, x + radius * scale, y + radius * scale]
        fill = color if visible[number] else None
        draw.ellipse(box, fill=fill, outline=(255, 255, 255) if visible[number] else color, width=scale)
    return np.asarray(canvas.resize((frame.shape[1], frame.shape[0]), Image.Resampling.LANCZOS))


def point_color(number: int) -> tuple[int, int, int]:
    """The colour of point `number`: hues a golden angle apart, so that neighbours in number differ."""
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN_RATIO) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def resize_to_width(image: np.ndarray, width: int) -> np.ndarray:
    """Resize a picture, not a label map, to a width in pixels; the aspect ratio stays."""
    _check_frame(image)
    if image.shape[1] == width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _fit_text(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont, width: int) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + '...', font=font) > width:
        text = text[:-1]
    return text + '...'


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    row_captions: Sequence[str] | None = None,
    column_captions: Sequence[str] | None = None,
    cell_width: int = 280,
    gap: int = 6,
) -> np.ndarray:
    """Lay frames out in rows, with a caption above each row and each column.

    Args:
        rows: Frames, each (H, W, 3) uint8 RGB; sizes may differ and rows may have different lengths. A cell
            has the aspect ratio of the first frame; others are fitted into it.
        row_captions: One text a row, for example 'predicted'; None draws none.
        column_captions: One text a column, for example 'frame 40'; None draws none.
        cell_width: Pixels.
        gap: Pixels between cells.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = [list(row) for row in rows]
    if not rows or not all(rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f'A contact sheet needs rows of one frame or more; got rows of {lengths} frames.')
    columns = max(len(row) for row in rows)
    for name, captions, count in (('row', row_captions, len(rows)), ('column', column_captions, columns)):
        if captions is not None and len(captions) != count:
            raise ValueError(f'Expected {count} {name} captions, one a {name}; got {len(captions)}.')
    _check_frame(rows[0][0])
    height, width = rows[0][0].shape[:2]
    cell_height = max(1, round(height * cell_width / width))
    font_size = max(11, cell_width // 17)
    font = ImageFont.load_default(size=font_size)
    strip = round(font_size * 1.9)
    top = strip if column_captions is not None else gap
    row_strip = strip if row_captions is not None else 0
    sheet = Image.new(
        'RGB',
        (columns * (cell_width + gap) + gap, top + len(rows) * (row_strip + cell_height + gap)),
        _SHEET_BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(column_captions or ()):
        text = _fit_text(draw, caption, font, cell_width)
        draw.text((gap + column * (cell_width + gap), strip // 2), text, _SHEET_TEXT, font, anchor='lm')
    for number, row in enumerate(rows):
        y = top + number * (row_strip + cell_height + gap)
        if row_captions is not None:
            text = _fit_text(draw, row_captions[number], font, sheet.width - 2 * gap)
            draw.text((gap, y + row_strip // 2), text, _SHEET_TEXT, font, anchor='lm')
        for column, frame in enumerate(row):
            _check_frame(frame)
            scale = min(cell_width / frame.shape[1], cell_height / frame.shape[0])
            size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
            picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
            x = gap + column * (cell_width + gap) + (cell_width - size[0]) // 2
            sheet.paste(picture, (x, y + row_strip + (cell_height - size[1]) // 2))
    return np.asarray(sheet)
