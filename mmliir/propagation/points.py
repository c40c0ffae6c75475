"""Follow points through a video: each is a Gaussian label, propagated like any other, and read back as a place.

Confidence: how sure the propagation is that the point is there, from 0 to 1; see `PointCodec`.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmliir.propagation.codecs import PointPlaces
from mmliir.propagation.presets import Protocol
from mmliir.propagation.session import PointSession, normalise_feature
from mmliir.propagation.video import EncodedFrame, encode_frames, read_frame


@dataclass(frozen=True)
class PointTracks:
    """Where the points of a video are.

    Attributes:
        tracks: (N, T, 2) float64, (x, y) in pixels of the frames; NaN in frames that a point was not followed to.
        confidence: (N, T) float64 from 0 to 1; 0 in those frames.
        visible: (N, T) bool, `confidence >= protocol.points.visible_above`.
    """

    tracks: np.ndarray
    confidence: np.ndarray
    visible: np.ndarray


def propagate_points(
    frames: Sequence[np.ndarray],
    encode: Callable[[Tensor], Tensor],
    queries: np.ndarray,
    protocol: Protocol,
    stride: int,
    device: str | torch.device = 'cpu',
    both_ways: bool = False,
    advance: Callable[[], None] | None = None,
    max_memory: int | None = None,
) -> PointTracks:
    """Follow points through a video; each frame is read and encoded once in each direction.

    The points of one frame are propagated together, from that frame on: it is their frame 0, for permanent references
    too. Those of other frames are propagated beside them, with the same features. What is returned for one point does
    not depend on the other points.

    Memory: for each frame with queries, its feature, and N x h x w labels for each of the frames that
    `PropagationSession` keeps; recent features are kept once. Never the whole video.

    Args:
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB, all of one size (a `FrameSequence`).
        encode: As for `propagate_video`.
        queries: (N, 3) float, (t, x, y); see `PointSample.queries`. Places outside the frame are allowed: what falls
            inside of their Gaussian is followed.
        protocol: Settings of the propagation, of the encoder's input and of the points.
        stride: Pixels of the encoder's input per cell.
        device: Where to encode and propagate.
        both_ways: Follow points to earlier frames too, by the video reversed in time.
        advance: Called T times, as the work goes on.
        max_memory: Bound in bytes on the memory of the propagation of the points of one frame, see `PointSession`.

    Returns:
        The tracks; at its query frame a point is where it was given, with confidence 1. Before it, the track is NaN
        with confidence 0 and not visible, unless `both_ways`. So is the whole track of a point so far outside the frame
        that nothing of it can be drawn (more than 3 sigma).

    Raises:
        ValueError: A video of 0 frames, queries that are not (N, 3), a query that is not finite or whose frame does not
            exist (by its number); frames that are no pictures or of different sizes.
    """
    name = getattr(frames, 'name', 'the video')
    queries = _check_queries(queries, len(frames), name)
    count = len(frames)
    found = PointTracks(
        np.full((len(queries), count, 2), np.nan),
        np.zeros((len(queries), count)),
        np.zeros((len(queries), count), dtype=bool),
    )
    directions = [range(count), range(count - 1, -1, -1)] if both_ways else [range(count)]
    steps = 0
    follow = _Follower(frames, encode, queries, protocol, stride, torch.device(device), name, max_memory)
    for order in directions:
        for _ in follow(order, found):
            steps += 1
            if advance is not None and steps % len(directions) == 0:
                advance()
    found.visible[:] = np.isfinite(found.tracks[..., 0]) & (found.confidence >= protocol.points.visible_above)
    return found


class _Follower:
    """What both directions share."""

    def __init__(
        self, frames, encode, queries, protocol: Protocol, stride: int, device: torch.device, name: str, max_memory
    ):
        self.frames, self.encode, self.queries = frames, encode, queries
        self.protocol, self.stride, self.device, self.name = protocol, stride, device, name
        self.max_memory: int | None = max_memory
        self.size: tuple[int, int] | None = None

    def __call__(self, order: Sequence[int], found: PointTracks) -> Iterator[None]:
        """Step through the frames of `order`, and write down what is found in each."""
        sessions: list[tuple[np.ndarray, PointSession]] = []
        asked = set(self.queries[:, 0].astype(int).tolist())
        start = next((place for place, number in enumerate(order) if number in asked), len(order))
        for _ in order[:start]:  # nothing is followed yet
            yield
        if start == len(order):
            return
        with contextlib.closing(self._encoded(order[start:])) as frames:
            for encoded in frames:
                new = np.flatnonzero(self.queries[:, 0] == encoded.number)
                feature = normalise_feature(encoded.feature) if self.protocol.settings.l2_normalise else encoded.feature
                for own, session in sessions:
                    _write(session.step(feature), own, encoded.number, found)
                if len(new):
                    sessions.append((new, self._session()))
                    _write(sessions[-1][1].step(feature, self.queries[new, 1:]), new, encoded.number, found)
                yield

    def _encoded(self, order: Sequence[int]) -> Generator[EncodedFrame, None, None]:
        first = read_frame(self.frames, order[0], self.name, self.size)
        self.size = first.shape[:2]
        return encode_frames(self.frames, order, self.encode, self.protocol.input, self.device, self.name, first)

    def _session(self) -> PointSession:
        resized = self.protocol.input.resized(*self.size)
        # Features are normalised here, once for all sessions, so that they share them.
        settings = replace(self.protocol.settings, l2_normalise=False)
        padded = self.protocol.input.padded(*resized)
        return PointSession(
            settings, self.protocol.points, self.stride, resized, self.size, padded, max_memory=self.max_memory
        )


def _write(places: PointPlaces, points: np.ndarray, number: int, found: PointTracks) -> None:
    found.tracks[points, number] = places.places.numpy()
    found.confidence[points, number] = places.confidence.numpy()


def _check_queries(queries: np.ndarray, count: int, name: str) -> np.ndarray:
    queries = np.asarray(queries, dtype=np.float64)
    if count == 0:
        raise ValueError(f'{name} has 0 frames: there is nothing to follow points through')
    if queries.ndim != 2 or queries.shape[1] != 3:
        raise ValueError(f'queries must be (N, 3), each (t, x, y), got {queries.shape}')
    for number, query in enumerate(queries):
        t, x, y = query.tolist()
        if not np.isfinite(query).all():
            raise ValueError(f'point {number} of {name} is asked for at (t, x, y) = ({t}, {x}, {y}): leave it out')
        if t not in range(count):
            raise ValueError(f'point {number} of {name} is asked for in frame {t:g}: there are frames 0..{count - 1}')
    return queries
