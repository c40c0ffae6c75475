"""Seeded features of moving objects and their first mask, the input of `tests/golden/protocol_*.npz`.

Numbers come from uniform draws by sums and products of elements alone, so that they are the same bits everywhere.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One video.

    Attributes:
        seed: Of its draws.
        frames: T.
        cells: (h, w).
        stride: Pixels of the encoder's input per cell.
        frame_size: (H, W) of the frames and of the label maps.
        short_side: The encoder's input has it; None: the frame as it is.
        scale: Standard deviation of the features, about.
        fine: How much of them is drawn anew in every frame.
    """

    seed: int
    frames: int
    cells: tuple[int, int]
    stride: int
    frame_size: tuple[int, int]
    short_side: int | None
    scale: float
    channels: int = 16
    fine: float = 0.25


#: Preset -> its video. Sizes that are no multiples of the stride wherever the protocol takes such.
CASES = {
    'crw': Case(11, 22, (12, 16), 8, (96, 123), None, 1.0),
    'vfs': Case(12, 22, (12, 16), 8, (96, 123), None, 1.0),
    'dino': Case(13, 12, (16, 24), 8, (120, 213), 128, 1.0),
    'mast': Case(14, 24, (15, 22), 4, (57, 86), None, 1.6),
    'uvc': Case(15, 12, (16, 24), 8, (120, 213), 128, 1.2),
    'dinov3': Case(16, 12, (12, 22), 16, (90, 160), 192, 1.0),
    'mamp': Case(17, 12, (15, 22), 4, (57, 86), None, 1.6),
    'spa_then_temp': Case(19, 6, (8, 44), 4, (32, 174), None, 1.0),
    'hvc': Case(18, 5, (12, 16), 8, (96, 123), None, 1.0),
}

# Centre (x, y), half axes and velocity a frame of each object, as shares of the frame's width and height.
_OBJECTS = (
    ((0.28, 0.35), (0.17, 0.22), (0.012, 0.006)),
    ((0.66, 0.62), (0.14, 0.24), (-0.010, -0.008)),
    ((0.55, 0.22), (0.10, 0.13), (0.008, 0.010)),
)
_NODE = 2.5  # cells between independent values


def features(case: Case) -> np.ndarray:
    """(T, C, h, w) float32: a moving background with moving objects over it, each smooth in space."""
    draw = np.random.default_rng(case.seed)
    h, w = case.cells
    nodes = (case.channels, int(h / _NODE) + 12, int(w / _NODE) + 12)
    layers = [2 * draw.random(nodes) - 1 for _ in range(len(_OBJECTS) + 1)]
    noise = 2 * draw.random((case.frames, case.channels, h, w)) - 1
    out = np.empty(noise.shape)
    for t in range(case.frames):
        out[t] = _sample(layers[0], h, w, 0.12 * t, -0.07 * t)
        number = _objects(h, w, t)
        for n, (_, _, (vx, vy)) in enumerate(_OBJECTS, start=1):
            own = _sample(layers[n], h, w, vx * w * t, vy * h * t)
            out[t] = np.where(number == n, own, out[t])
    return ((out + case.fine * noise) * (case.scale * 1.7)).astype(np.float32)


def first_mask(case: Case) -> np.ndarray:
    """(H, W) uint8 with ids 1 to 3."""
    return _objects(*case.frame_size, 0)


def checksum(array: np.ndarray) -> str:
    """SHA-256 of the bytes: a fixture belongs to these features alone."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _objects(height: int, width: int, t: int) -> np.ndarray:
    y = ((np.arange(height) + 0.5) / height)[:, None]
    x = ((np.arange(width) + 0.5) / width)[None]
    number = np.zeros((height, width), dtype=np.uint8)
    for n, ((cx, cy), (ax, ay), (vx, vy)) in enumerate(_OBJECTS, start=1):
        dx, dy = (x - cx - vx * t) / ax, (y - cy - vy * t) / ay
        number[dx * dx + dy * dy < 1] = n
    return number


def _sample(nodes: np.ndarray, h: int, w: int, shift_x: float, shift_y: float) -> np.ndarray:
    """(C, h, w): nodes on a lattice of `_NODE` cells that has moved by the shift, bilinear between them."""
    y = (np.arange(h) - shift_y) / _NODE + 5
    x = (np.arange(w) - shift_x) / _NODE + 5
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - top)[:, None], (x - left)[None]
    upper = nodes[:, top][:, :, left] * (1 - fx) + nodes[:, top][:, :, left + 1] * fx
    lower = nodes[:, top + 1][:, :, left] * (1 - fx) + nodes[:, top + 1][:, :, left + 1] * fx
    return upper * (1 - fy) + lower * fy
