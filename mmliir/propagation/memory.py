"""How much memory a propagation step takes, and the largest chunks that stay below a bound.

What is counted: features and labels that are kept, copies of the references that PyTorch's path makes, label fields
and their decoding, and the chunks that `window_topk_attend` works on, one a thread. The program itself, the encoder
and what it computes come on top.

Shape letters: C channels, R references, K label channels, h w cells.
"""

from dataclasses import dataclass

from mmliir.ops.window_topk_attend import LABEL_CHUNK, TILE_SIDE

_FLOAT = 4
# Values of the size of the logits that exist at a time: logits, weights, comparisons, and copies that selecting makes.
_COPIES_OF_LOGITS = 5
# What fitting a mixture, or sampling a displaced window, adds to them.
_COPIES_OF_WINDOWS = 12
# Upsampled channels, compared pair by pair.
_COPIES_OF_DECODED = 3

_UNITS = ((2**30, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB'))


@dataclass(frozen=True)
class StepSizes:
    """What a step works on, at its largest.

    Attributes:
        cells: (h, w).
        channels: C.
        labels: K.
        kept_frames: Frames whose features and labels are kept at a time, the current one among them.
        radii: R window radii in cells; None compares with the whole frame.
        hard: One channel number a cell is kept, not K values.
        topk: Kept keys, None for all.
        fits_windows: A mixture prior or displaced references.
        decoded: Upsampled values that exist at a time.
    """

    cells: tuple[int, int]
    channels: int
    labels: int
    kept_frames: int
    radii: tuple[int | None, ...]
    hard: bool
    topk: int | None
    fits_windows: bool
    decoded: int


def fixed_bytes(sizes: StepSizes) -> int:
    """Bytes that do not depend on chunks.

    kept_frames * (4 C + 4 K or, for hard labels, 4) h w, plus for the references a copy, and one that is padded by the
    radius, of 4 C + 4 K (hard: 8) a cell, plus 3 label fields and what decoding upsamples.
    """
    height, width = sizes.cells
    cells = height * width
    labels = _FLOAT * (1 if sizes.hard else sizes.labels)
    a_cell = _FLOAT * (sizes.channels + 1) + labels
    padding = TILE_SIDE + 2 * max([own for own in sizes.radii if own is not None], default=0)
    padded = (height + padding) * (width + padding)
    copies = len(sizes.radii) * a_cell * (cells + padded)
    fields = 3 * _FLOAT * sizes.labels * cells
    return sizes.kept_frames * a_cell * cells + copies + fields + _COPIES_OF_DECODED * _FLOAT * sizes.decoded


def choose_elements(sizes: StepSizes, max_memory: int, threads: int) -> int:
    """`max_elements` of `window_topk_attend` that keeps a step below `max_memory` bytes.

    Args:
        sizes: Of the step.
        max_memory: Bound in bytes.
        threads: Chunks that exist at a time: threads on a CPU, 1 on a GPU.

    Raises:
        ValueError: Not even one query cell at a time stays below it; the text names the smallest bound that would do.
    """
    fixed = fixed_bytes(sizes)
    read = min(sizes.labels, LABEL_CHUNK) if sizes.hard else sizes.labels
    copies = _COPIES_OF_LOGITS + (_COPIES_OF_WINDOWS if sizes.fits_windows else 0)
    for side in (TILE_SIDE, TILE_SIDE // 2, TILE_SIDE // 4, 1):
        cells = side * side
        keys = sum(
            sizes.cells[0] * sizes.cells[1] if own is None else (side + 2 * own + 1) ** 2 for own in sizes.radii
        )
        picked = 3 * cells * read * (sizes.topk or 0)
        tile = threads * _FLOAT * (keys * (copies * cells + sizes.channels + 1 + read) + picked)
        if fixed + tile <= max_memory:
            return cells * keys * ((max_memory - fixed) // tile)
    height, width = sizes.cells
    raise ValueError(
        f'max_memory {format_bytes(max_memory)} is too small for {height}x{width} cells, {sizes.channels} channels, '
        f'{len(sizes.radii)} references and {sizes.labels} label channels: give {format_bytes(fixed + tile)} or more, '
        'or smaller frames'
    )


def format_bytes(number: int) -> str:
    """'1.5 GiB', rounded up so that the text is never less than the number."""
    for unit, name in _UNITS:
        if number >= unit:
            tenths = -(-number * 10 // unit)
            return f'{tenths / 10:g} {name}'
    return f'{number} bytes'
