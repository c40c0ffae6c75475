"""Tracks from seeds for the TAP-Vid tests: what the official numbers in `tests/golden/tapvid_official.json` are of."""

import hashlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / 'golden' / 'tapvid_official.json'
# name: (seed, tracks, frames, size of the errors in pixels, share of occluded points)
CASES = {
    'typical': (1, 20, 24, 4.0, 0.3),
    'one-track': (2, 1, 12, 2.0, 0.3),
    'two-frames': (3, 6, 2, 2.0, 0.3),
    'long': (4, 40, 90, 8.0, 0.2),
    'mostly-hidden': (5, 15, 16, 4.0, 0.9),
    'no-track': (6, 0, 9, 1.0, 0.3),
    'one-frame': (7, 4, 1, 1.0, 0.0),
    'exact': (8, 10, 11, 0.0, 0.4),
    'on-the-thresholds': (9, 30, 20, 1.0, 0.2),
    'all-claimed': (10, 12, 14, 4.0, 0.5),
    'none-claimed': (11, 12, 14, 4.0, 0.5),
    'hidden-after-the-query': (12, 8, 10, 3.0, 0.3),
    'queries-in-the-last-frame': (13, 5, 9, 3.0, 0.3),
    'not-numbers': (14, 16, 18, 3.0, 0.3),
}


def make_case(name: str) -> dict[str, np.ndarray]:
    """Return `points` (M, T, 2) normalised raster and `occluded` (M, T) as a container has them, and predictions for
    every track: `tracks` (M, T, 2) on frames of 256x256 and `claimed` (M, T) bool, visible."""
    seed, num_tracks, num_frames, error, hidden = CASES[name]
    rng = np.random.default_rng(seed)
    shape = (num_tracks, num_frames)
    places = 128 + rng.uniform(-90, 90, (num_tracks, 1, 2)) + rng.normal(0, 2, (*shape, 2)).cumsum(axis=1)
    occluded = rng.random(shape) < hidden
    tracks = places + error * rng.standard_normal((*shape, 2)) * rng.exponential(1, (*shape, 1))
    claimed = occluded == (rng.random(shape) < 0.2)
    if name == 'on-the-thresholds':  # whole numbers: no rounding moves a distance off its threshold
        places = np.rint(places)
        tracks = places.copy()
        tracks[..., rng.integers(2)] += rng.choice([-16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16], shape)
    if name == 'all-claimed':
        claimed[:] = True
    if name == 'none-claimed':
        claimed[:] = False
    if name == 'hidden-after-the-query':
        occluded[:, 0], occluded[:, 1:] = False, True
    if name == 'queries-in-the-last-frame':
        occluded[:, :-1], occluded[:, -1] = True, False
    if name == 'not-numbers':
        tracks[rng.random(shape) < 0.2] = np.nan
        tracks[0, 3] = np.inf
    return {'points': places / 256, 'occluded': occluded, 'tracks': tracks, 'claimed': claimed}


def digest(name: str) -> str:
    """SHA-256 of a case's arrays in their order, rounded so that no library's last bit counts."""
    parts = (np.round(array.astype(np.float64), 6).tobytes() for array in make_case(name).values())
    return hashlib.sha256(b''.join(parts)).hexdigest()


def predict_replica(tracks: np.ndarray, visible: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for a generated video: its tracks in pixels with errors, float32 as files have them, and visibilities
    of which some are wrong."""
    rng = np.random.default_rng([seed, 77])
    moved = tracks + rng.normal(0, 1.0, tracks.shape) * rng.exponential(1, (*visible.shape, 1))
    return moved.astype(np.float32), visible == (rng.random(visible.shape) < 0.85)
