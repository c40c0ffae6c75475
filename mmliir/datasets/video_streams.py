"""Which stream of a video file is the video, and how its pictures are turned: as ffmpeg and players have it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What ffmpeg adds to the pixels of a stream that is marked as default, when it chooses.
_DEFAULT_BONUS = 5_000_000
_MATRIX_ENTRIES = 9
# Off the axes by a degree or less, as ffmpeg has it.
_MOST_SLANT = 0.0175


@dataclass(frozen=True)
class StreamFacts:
    """What decides between the video streams of a file.

    Attributes:
        index: Its number in the file.
        pixels: Width times height.
        is_default: Its disposition says so.
        is_cover: It is an attached picture (cover art) or holds thumbnails, and no video.
        is_still: It holds one picture, where it is one of several streams and that was counted.
    """

    index: int
    pixels: int
    is_default: bool = False
    is_cover: bool = False
    is_still: bool = False


def facts_of(stream) -> StreamFacts:
    """Read them of a PyAV video stream."""
    from av.stream import Disposition

    cover = Disposition.attached_pic | Disposition.timed_thumbnails
    return StreamFacts(
        stream.index,
        stream.codec_context.width * stream.codec_context.height,
        bool(stream.disposition & Disposition.default),
        bool(stream.disposition & cover),
    )


def best_stream(streams: Sequence[StreamFacts]) -> int | None:
    """Return the number of the stream that is the video; None where there is none but covers.

    Never a cover; rather one with several pictures than a still (covers that are not marked as such); then, as ffmpeg,
    the one of the most pixels, those of a default stream counting 5,000,000 more; then the first.
    """
    videos = [stream for stream in streams if not stream.is_cover]
    if not videos:
        return None
    return max(videos, key=lambda s: (not s.is_still, s.pixels + _DEFAULT_BONUS * s.is_default, -s.index)).index


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the one that is shown: transposed first, then mirrored.

    Attributes:
        transpose: Rows become columns.
        flip_x: Left and right change places.
        flip_y: Top and bottom change places.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Return (H, W, C) or (W, H, C), contiguous."""
        if self.transpose:
            frame = frame.swapaxes(0, 1)
        if self.flip_x:
            frame = frame[:, ::-1]
        if self.flip_y:
            frame = frame[::-1]
        return np.ascontiguousarray(frame)


UPRIGHT = Orientation()


def read_orientation(matrix: Sequence[int]) -> Orientation | None:
    """Return what a display matrix says, None where it turns by no multiple of 90 degrees.

    Args:
        matrix: Nine numbers, (a, b, u, c, d, v, x, y, w): a stored pixel (p, q) is shown at (a p + c q, b p + d q),
            moved into the picture; u, v, w, x, y and the scale play no part. All of a, b, c, d 0: upright.
    """
    a, b, _, c, d = map(int, matrix[:5])
    straight, across = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not any((a, b, c, d)):
        return UPRIGHT
    if max(abs(b), abs(c)) <= _MOST_SLANT * straight:
        return Orientation(False, a < 0, d < 0)
    if max(abs(a), abs(d)) <= _MOST_SLANT * across:
        return Orientation(True, c < 0, b < 0)
    return None


def orientation_of(picture) -> Orientation | None:
    """`read_orientation` of a picture that PyAV decoded; upright where it has no display matrix."""
    from av.sidedata.sidedata import Type

    data = picture.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return UPRIGHT
    return read_orientation(np.frombuffer(bytes(data), np.int32, _MATRIX_ENTRIES).tolist())
