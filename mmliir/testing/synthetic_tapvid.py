"""Generated videos with exact tracks, in the containers of TAP-Vid: for tests without the benchmark.

Textured rectangles move over a textured background by whole pixels a frame, so a point stays on its texture exactly; a
point is visible where its rectangle is the one on top. Small patches that come and go make the cases that are rare in
motion. Everything is a function of the seed.
"""

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mmliir.datasets.tapvid import Subset

#: Tracks of a video that are more than points on moving rectangles, by row.
NEVER_VISIBLE, VISIBLE_LATE, VISIBLE_ONCE, VISIBLE_AT_THE_END = -4, -3, -2, -1
_PATCH = 3  # half the side of a patch, pixels
_NUM_RECTANGLES = 3


@dataclass(frozen=True)
class SyntheticTracks:
    """A generated video and its tracks.

    Attributes:
        name: As `TapVidDataset` names it.
        frames: (T, H, W, 3) uint8 RGB.
        tracks: (N, T, 2) float64, (x, y) in pixels, centres at integers. The last four rows are `NEVER_VISIBLE`,
            `VISIBLE_LATE` (from frame 2 on), `VISIBLE_ONCE` (in frame 0 alone) and `VISIBLE_AT_THE_END` (in the last
            frame alone).
        visible: (N, T) bool.
    """

    name: str
    frames: np.ndarray
    tracks: np.ndarray
    visible: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """(N, T, 2) float64 as the benchmark stores them: 0 and 1 are the borders of the frame."""
        height, width = self.frames.shape[1:3]
        return (self.tracks + 0.5) / (width, height)


def generate_tracks(
    seed: int, num_frames: int = 8, size: tuple[int, int] = (48, 64), name: str | None = None
) -> SyntheticTracks:
    """Generate one video with 10 tracks; the same arguments give the same video.

    Args:
        seed: Any non-negative number.
        num_frames: T, 4 or more.
        size: (H, W), at least 40 each.
        name: Of the video; None for one made of the seed.
    """
    if num_frames < 4 or min(size) < 40:
        raise ValueError(f'expected at least 4 frames of 40x40 pixels, came {num_frames} of (H, W) = {size}.')
    rng = np.random.default_rng([seed, 0x7A9])
    height, width = size
    background = _texture(rng, height, width)
    sides = rng.integers(12, 17, size=(_NUM_RECTANGLES, 2))
    starts = np.stack([rng.integers(4, (width - 20, height - 20)) for _ in sides])
    velocities = rng.integers(-2, 3, size=(_NUM_RECTANGLES, 2))
    velocities[velocities.any(axis=1) == 0] = (2, 1)
    textures = [_texture(rng, side_y, side_x) for side_x, side_y in sides]
    patch = _texture(rng, 2 * _PATCH + 1, 2 * _PATCH + 1)
    # Still points at the borders, where patches cover them in the frames that say so.
    still = np.array([[4, 4], [width - 5, 4], [4, height - 5], [width - 5, height - 5]])
    time = np.arange(num_frames)
    covered = np.stack([time >= 0, time < 2, time > 0, time < num_frames - 1])
    inside = np.array([[3, 3], [8, 9]])  # points on each rectangle, from its corner
    tracks, owner = [], []
    for number in range(_NUM_RECTANGLES):
        for offset in inside:
            tracks.append(starts[number] + offset + time[:, None] * velocities[number])
            owner.append(number + 1)
    tracks += [np.broadcast_to(place, (num_frames, 2)) for place in still]
    owner += [0] * len(still)
    places = np.stack(tracks)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    visible = np.zeros(places.shape[:2], bool)
    for t in range(num_frames):
        frame, on_top = background.copy(), np.zeros(size, np.int64)
        for number, texture in enumerate(textures):
            _draw(frame, on_top, texture, starts[number] + t * velocities[number], number + 1)
        for place, is_covered in zip(still, covered[:, t]):
            # Where it may be seen, a patch of the background keeps the rectangles from covering it.
            x, y = place - _PATCH
            under = background[y : y + 2 * _PATCH + 1, x : x + 2 * _PATCH + 1]
            _draw(frame, on_top, patch if is_covered else under, (x, y), -1 if is_covered else 0)
        frames[t] = frame
        for n, (x, y) in enumerate(places[:, t]):
            visible[n, t] = 0 <= x < width and 0 <= y < height and on_top[y, x] == owner[n]
    return SyntheticTracks(name or f'seed{seed:05d}', frames, places.astype(np.float64), visible)


def write_tapvid(
    root: str | os.PathLike,
    subset: Subset = 'davis',
    num_videos: int = 3,
    num_frames: int = 8,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
) -> list[SyntheticTracks]:
    """Write generated videos as a part of TAP-Vid is published; `TapVidDataset(root, subset)` reads them back.

    davis: a dict. rgb_stacking: a list. kinetics: shards of lists, the frames JPEG, so not to the last grey value.
    robotap: dicts in several files.

    Args:
        root: Folder to write into; the files go to `tapvid_<subset>` (or `robotap`) in it.
        subset: Which part.
        num_videos: 2 or more for several files.
        num_frames: Of each video.
        size: (H, W).
        seed: Of the first video.

    Returns:
        The truth, in order.
    """
    folder = Path(root) / ('robotap' if subset == 'robotap' else f'tapvid_{subset}')
    folder.mkdir(parents=True, exist_ok=True)
    named = subset in ('davis', 'robotap')
    videos = [
        generate_tracks(seed + number, num_frames, size, f'video {number}' if named else f'{number:04d}')
        for number in range(num_videos)
    ]
    if subset in ('davis', 'rgb_stacking'):
        _write(folder / f'tapvid_{subset}.pkl', videos, named, subset)
        return videos
    half = (num_videos + 1) // 2
    for part, some in enumerate((videos[:half], videos[half:])):
        file_name = f'{part:04d}_of_0010.pkl' if subset == 'kinetics' else f'robotap_split{part}.pkl'
        if some:
            _write(folder / file_name, some, named, subset)
    return videos


def encode_jpegs(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T,) byte strings of one length, as the Kinetics files hold them."""
    coded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, 'JPEG', quality=95)
        coded.append(buffer.getvalue())
    return np.array(coded)


def _write(path: Path, videos: list[SyntheticTracks], named: bool, subset: str) -> None:
    samples: list[dict[str, Any]] = [
        {
            'video': encode_jpegs(video.frames) if subset == 'kinetics' else video.frames,
            'points': video.points if subset == 'kinetics' else video.points.astype(np.float32),
            'occluded': ~video.visible,
        }
        for video in videos
    ]
    container = {video.name: sample for video, sample in zip(videos, samples)} if named else samples
    path.write_bytes(pickle.dumps(container, protocol=4))


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: coloured spots of about four pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((height, width, 3)), (0, 0), 1.5, borderType=cv2.BORDER_REFLECT)
    noise = noise / max(float(np.abs(noise).max()), 1e-9)
    return np.rint(128 + 110 * noise).astype(np.uint8)


def _draw(frame: np.ndarray, on_top: np.ndarray, texture: np.ndarray, corner: Any, number: int) -> None:
    """Paint a texture whose first pixel is at `corner` (x, y), as far as it is inside; `on_top` gets its number."""
    height, width = on_top.shape
    x, y = (int(value) for value in corner)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + texture.shape[1], width), min(y + texture.shape[0], height)
    if left < right and top < bottom:
        frame[top:bottom, left:right] = texture[top - y : bottom - y, left - x : right - x]
        on_top[top:bottom, left:right] = number
