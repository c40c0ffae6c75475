"""The colours of object ids: the palette of indexed PNG label maps."""

import functools

import numpy as np


@functools.cache
def _palette() -> np.ndarray:
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        # Bits 0, 1, 2 of the id go to the top bit of red, green, blue; the next three bits one level lower.
        channel, level = bit % 3, 7 - bit // 3
        colors[:, channel] |= (((ids >> bit) & 1) << level).astype(np.uint8)
    colors.setflags(write=False)
    return colors


def davis_palette() -> np.ndarray:
    """Return the palette that DAVIS, PASCAL VOC and YouTube-VOS label maps are shown with.

    The bits of an id are spread over red, green and blue, so that all 256 ids have different colours: 0 is
    black (background), 1 is (128, 0, 0), 2 is (0, 128, 0), 3 is (128, 128, 0). Some copies of the palette
    have 191 for 192 and turn grey after id 21; ids, and not colours, are what is scored.

    Returns:
        (256, 3) uint8 RGB, row n is the colour of id n. Read-only: copy it to change it. For a PIL image of
        mode 'P' use `image.putpalette(davis_palette().tobytes())`.
    """
    return _palette()
