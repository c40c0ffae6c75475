"""TAP-Vid (DAVIS, Kinetics, RGB-stacking) and RoboTAP: points to follow, in the containers they are published in.

google-deepmind/tapnet, tapnet/tapvid; Doersch et al., NeurIPS 2022. A container is a pickle of samples, a dict by name
or a list; a sample has `video`, `points` and `occluded`. Pickles are read by `safe_pickle`, which executes nothing and
maps the file: frames are read from the disk, and JPEGs decoded, when they are asked for.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from mmliir.components import DATASETS
from mmliir.datasets.named import NamedSamples, choose_sequences, is_folder_name
from mmliir.datasets.pictures import BrokenMediaError
from mmliir.datasets.safe_pickle import read_pickle
from mmliir.structures import PointSample

_DOC = 'See docs/datasets.md#tap-vid.'

Subset = Literal['davis', 'kinetics', 'rgb_stacking', 'robotap']
QueryMode = Literal['first', 'strided']
#: 'strided' asks in every fifth frame, as the benchmark does.
QUERY_STRIDE = 5


@dataclass(frozen=True)
class _Layout:
    """Where a subset's files lie: in one of `folders`, names that fit `pattern`, whose group 1 is a running number."""

    folders: tuple[str, ...]
    pattern: str
    shown: str


_LAYOUTS: dict[str, _Layout] = {
    'davis': _Layout(('tapvid_davis',), r'tapvid_davis\.pkl', 'tapvid_davis.pkl'),
    'rgb_stacking': _Layout(('tapvid_rgb_stacking',), r'tapvid_rgb_stacking\.pkl', 'tapvid_rgb_stacking.pkl'),
    'kinetics': _Layout(('tapvid_kinetics', 'kinetics'), r'(?:tapvid_)?(\d+)_of_\d+\.pkl', '0000_of_0010.pkl, ...'),
    'robotap': _Layout(('robotap',), r'robotap_split(\d+)\.pkl', 'robotap_split0.pkl, ...'),
}


@dataclass(frozen=True)
class TapVidTruth:
    """What is known about a video, one row a query (with 'strided' several of one track). N queries, T frames.

    Attributes:
        queries: (N, 3) float64, (t, x, y) in pixels of the frames as they are given, centres at integers.
        points: (N, T, 2) float64, (x, y), normalised raster: 0 and 1 are the borders of the frame, whatever its size.
            NaN is possible where the point is not visible.
        visible: (N, T) bool.
        track: (N,) int, row of the track in the container.
        num_tracks: Tracks in the container.
        frame_size: (H, W) of the frames as they are given.
    """

    queries: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    track: np.ndarray
    num_tracks: int
    frame_size: tuple[int, int]


@DATASETS.register_module()
class TapVidDataset(NamedSamples):
    """Videos of one part of TAP-Vid as `PointSample`s, made when asked for.

    Files, in `data_root` itself or in the folder of that name below it: `tapvid_davis/tapvid_davis.pkl`,
    `tapvid_rgb_stacking/tapvid_rgb_stacking.pkl`, `tapvid_kinetics/NNNN_of_0010.pkl` (or `tapvid_NNNN_of_0010.pkl`),
    `robotap/robotap_split*.pkl`. The videos of a list have the names 0000, 0001, ... in order, across the files.

    Tracks without a query are left out, as in the benchmark's own reader: with 'first' those that are visible in no
    frame, with 'strided' those that are visible in no frame 0, 5, 10, ... A video may be left with none.
    A position that is not a number is an error where the point is visible, and means nothing where it is not.

    Args:
        data_root: Folder with the files, or its parent.
        subset: 'davis', 'kinetics', 'rgb_stacking' or 'robotap'.
        query_mode: 'first': each track is given in the first frame where it is visible, and followed from there on.
            'strided': in every fifth frame each visible point is given, and followed both ways.
        resize: (H, W) to resize the frames to, as the official reader does (256, 256), with Lanczos; None keeps them.
            Predictions are then in pixels of these frames, and the metric needs the same value.
        sequences: Names to keep, in this order; None for all.

    Raises:
        FileNotFoundError: No file, or one is missing from the row of numbered files.
        ValueError: An unknown subset, query mode or name; a file or sample that is not as it should be. Samples are
            looked at when they are asked for.
    """

    kind = 'points'
    family = 'tapvid'

    def __init__(
        self,
        data_root: str,
        subset: Subset = 'davis',
        query_mode: QueryMode = 'first',
        resize: tuple[int, int] | None = None,
        sequences: Sequence[str] | None = None,
    ) -> None:
        for what, value, allowed in (
            ('subset', subset, get_args(Subset)),
            ('query_mode', query_mode, get_args(QueryMode)),
        ):
            if value not in allowed:
                raise ValueError(f'TAP-Vid {what}: expected one of {", ".join(allowed)}, came {value!r}.')
        if resize is not None and (len(resize) != 2 or not all(type(side) is int and side > 0 for side in resize)):
            raise ValueError(f'resize: expected (height, width) in pixels or None, came {resize!r}.')
        self.data_root = Path(data_root)
        self.subset, self.query_mode = subset, query_mode
        self.resize = tuple(resize) if resize is not None else None
        self.paths = _find_files(self.data_root, subset)
        self._opened: tuple[Path, Any] | None = None
        self._places = self._index()
        self.names = choose_sequences(
            list(self._places), sequences, f'the files of {self.paths[0].parent}', what='video'
        )

    @property
    def num_in_files(self) -> int:
        """Videos in the files, whatever was selected."""
        return len(self._places)

    def sample(self, name: str) -> PointSample:
        """Return one video by name; its frames are read when they are asked for."""
        frames, truth = self._load(name)
        return PointSample(name, frames, frames.frame_names, truth.queries, self.query_mode == 'strided')

    def truth(self, name: str) -> TapVidTruth:
        """Return the truth of one video; no frame is read (of JPEGs, the header of the first)."""
        return self._load(name)[1]

    def truth_points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the true places of `sample(name).queries`, (x, y) in pixels of the frames, and where they are visible.

        Returns:
            (N, T, 2) float64, NaN where a point is not visible, and (N, T) bool.
        """
        truth = self.truth(name)
        tracks = raster_to_pixels(truth.points, truth.frame_size)
        tracks[~truth.visible] = np.nan
        return tracks, truth.visible.copy()

    def _load(self, name: str) -> tuple['TapVidFrames', TapVidTruth]:
        path, key = self._places[name]
        where = f'{path}, video {name!r}'
        stored = self._container(path)[key]
        if not isinstance(stored, Mapping) or not {'video', 'points', 'occluded'} <= set(stored):
            raise ValueError(f'{where}: expected a dict with video, points and occluded, came {_shown(stored)}. {_DOC}')
        frames = TapVidFrames(name, stored['video'], where, self.resize)
        points, visible = _read_tracks(stored, len(frames), where)
        times, track = sample_queries(visible, self.query_mode)
        places = raster_to_pixels(points[track, times], frames.frame_size)
        queries = np.concatenate([times[:, None].astype(np.float64), places], axis=1)
        return frames, TapVidTruth(queries, points[track], visible[track], track, len(points), frames.frame_size)

    def _container(self, path: Path) -> Any:
        """The content of a file; the last one stays open."""
        if self._opened is None or self._opened[0] != path:
            self._opened = path, read_pickle(path)
        return self._opened[1]

    def _index(self) -> dict[str, tuple[Path, Any]]:
        """Video name -> (file, key in it)."""
        places: dict[str, tuple[Path, Any]] = {}
        count = 0
        for path in self.paths:
            container = self._container(path)
            if not isinstance(container, (dict, list)) or not container:
                raise ValueError(f'{path}: expected a dict or list of videos, came {_shown(container)}. {_DOC}')
            for key in container if isinstance(container, dict) else range(len(container)):
                name = _checked_name(key, path) if isinstance(container, dict) else f'{count:04d}'
                if name in places:
                    raise ValueError(f'video {name!r} is in {places[name][0]} and in {path}: names must differ.')
                places[name] = path, key
                count += 1
        return places


class TapVidFrames:
    """The frames of one video, a `FrameSequence`.

    Args:
        name: Of the video.
        stored: As in the container: (T, H, W, 3) uint8, or T JPEG files as a NumPy array of bytes or a list.
        where: What an error names.
        resize: (H, W) of the frames that are given; None as stored.

    Raises:
        ValueError: Not of this form, or no frame. Reading a frame raises `BrokenMediaError` for a damaged JPEG, or for
            one whose size differs from the first one's.
    """

    #: Several threads may read frames at a time.
    concurrent = True

    def __init__(self, name: str, stored: Any, where: str, resize: tuple[int, int] | None = None) -> None:
        is_array = isinstance(stored, np.ndarray)
        if is_array and stored.dtype == np.uint8 and stored.ndim == 4 and stored.shape[3] == 3:
            self._encoded = False
        elif is_array and stored.dtype.kind == 'S' and stored.ndim == 1 or _are_byte_strings(stored):
            self._encoded = True
        else:
            raise ValueError(
                f'{where}: video: expected (T, H, W, 3) uint8 or T byte strings of JPEG, came {_shown(stored)}. {_DOC}'
            )
        if not len(stored):
            raise ValueError(f'{where}: the video has 0 frames.')
        self.name, self._stored, self._where, self._resize = name, stored, where, resize
        self._stored_size: tuple[int, int] = self._header_size(0) if self._encoded else stored.shape[1:3]

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(f'{number:05d}' for number in range(len(self)))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of every frame as it is given."""
        return self._resize or self._stored_size

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f'frame {index} of {self.name}: it has {len(self)} frames, 0 to {len(self) - 1}.')
        frame = self._decode(int(index) % len(self)) if self._encoded else np.array(self._stored[index])
        if self._resize is None or frame.shape[:2] == self._resize:
            return frame
        height, width = self._resize
        return np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(len(self)):
            yield self[index]

    def _open(self, index: int) -> Image.Image:
        """Open one frame; only its header is read."""
        try:
            return Image.open(io.BytesIO(bytes(self._stored[index])), formats=['JPEG'])
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BrokenMediaError(
                f'{self._where}: frame {index} is no JPEG ("{error}"). Make the file again.'
            ) from error

    def _header_size(self, index: int) -> tuple[int, int]:
        with self._open(index) as image:
            return image.height, image.width

    def _decode(self, index: int) -> np.ndarray:
        with self._open(index) as image:
            if (image.height, image.width) != self._stored_size:
                raise BrokenMediaError(
                    f'{self._where}: frame {index} is {image.width}x{image.height}, frame 0 '
                    f'{self._stored_size[1]}x{self._stored_size[0]} (width x height). Make the file again.'
                )
            try:
                return np.array(image.convert('RGB'))
            except OSError as error:
                raise BrokenMediaError(
                    f'{self._where}: frame {index} is damaged or cut off ("{error}"). Make the file again.'
                ) from error


def raster_to_pixels(points: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Normalised raster coordinates to pixels.

    The benchmark's x runs from 0 at the left border of the frame to 1 at the right one, so the centre of pixel i of W
    lies at (i + 0.5) / W; here centres lie at integers: x_px = x W - 0.5.

    Args:
        points: (..., 2) float, (x, y).
        frame_size: (H, W).

    Returns:
        (..., 2) float64, (x, y).
    """
    height, width = frame_size
    return points * np.array([width, height], dtype=np.float64) - 0.5


def pixels_to_raster(points: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Inverse of `raster_to_pixels`."""
    height, width = frame_size
    return (points + 0.5) / np.array([width, height], dtype=np.float64)


def sample_queries(visible: np.ndarray, query_mode: QueryMode) -> tuple[np.ndarray, np.ndarray]:
    """Say where tracks are given, in the order of the benchmark's own reader.

    Args:
        visible: (M, T) bool, M tracks.
        query_mode: 'first': the first visible frame of each track that has one. 'strided': every visible point of
            every fifth frame, frame after frame.

    Returns:
        Frame and track of each query, two (N,) int arrays.
    """
    if query_mode == 'first':
        track = np.nonzero(visible.any(axis=1))[0]
        return visible[track].argmax(axis=1) if len(track) else track, track
    row, track = np.nonzero(visible[:, ::QUERY_STRIDE].T)
    return QUERY_STRIDE * row, track


def _read_tracks(stored: Mapping[str, Any], num_frames: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return points (M, T, 2) float64 and visible (M, T) bool of a sample, checked."""
    points, occluded = stored['points'], stored['occluded']
    if not isinstance(points, np.ndarray) or points.dtype.kind != 'f' or points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f'{where}: points: expected (N, T, 2) floats, came {_shown(points)}. {_DOC}')
    if not isinstance(occluded, np.ndarray) or occluded.dtype.kind not in 'bui' or occluded.shape != points.shape[:2]:
        raise ValueError(
            f'{where}: occluded: expected {points.shape[:2]} booleans as `points` has, came {_shown(occluded)}. {_DOC}'
        )
    if points.shape[1] != num_frames:
        raise ValueError(
            f'{where}: the video has {num_frames} frames, its annotation {points.shape[1]}: they do not belong '
            f'together. Make or download the file again. {_DOC}'
        )
    visible = occluded == 0
    bad = np.argwhere(visible & ~np.isfinite(points).all(axis=2))
    if len(bad):
        track, frame = bad[0]
        raise ValueError(
            f'{where}: track {track} is visible in frame {frame} at {points[track, frame].tolist()} ({len(bad)} such): '
            'expected finite coordinates where a point is not occluded.'
        )
    return points.astype(np.float64), visible


def _find_files(data_root: Path, subset: str) -> list[Path]:
    """Return the files of a subset in order, none missing between the first and the last."""
    layout = _LAYOUTS[subset]
    folders = [data_root, *(data_root / name for name in layout.folders)]
    for folder in folders:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        found = [(match, folder / name) for name in names if (match := re.fullmatch(layout.pattern, name))]
        if not found:
            continue
        numbers = [int(match[1]) for match, _ in found if match.re.groups]
        found.sort(key=lambda pair: [int(text) for text in pair[0].groups()])
        if len(set(numbers)) != len(numbers):
            raise ValueError(f'{folder} holds a part of TAP-Vid {subset} twice: {", ".join(p.name for _, p in found)}.')
        absent = set(range(max(numbers, default=-1) + 1)) - set(numbers)
        if absent:
            raise FileNotFoundError(
                f'TAP-Vid {subset}: part {min(absent)} is missing from {folder} ({len(numbers)} parts, the last is '
                f'{found[-1][1].name}). Complete the folder. {_DOC}'
            )
        return [path for _, path in found]
    raise FileNotFoundError(
        f'TAP-Vid {subset} not found: looked for {layout.shown} in {" and ".join(map(str, folders))}. {_DOC}'
    )


def _checked_name(name: Any, path: Path) -> str:
    """A video's name becomes a folder's: one that leads elsewhere is refused."""
    if not isinstance(name, str):
        raise ValueError(f'{path}: the name of a video is {name!r}: expected a string. {_DOC}')
    if not is_folder_name(name):
        raise ValueError(
            f'{path}: the name of a video is {name[:80]!r}: expected a name that can be that of a folder, without '
            f'separators and control characters. {_DOC}'
        )
    return name


def _are_byte_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (bytes, memoryview)) for item in value)


def _shown(value: Any) -> str:
    """What came, in words short enough for an error."""
    if isinstance(value, np.ndarray):
        return f'{value.shape} {value.dtype}'
    if isinstance(value, dict):
        return f'a dict of {len(value)} with {", ".join(repr(key)[:40] for key in list(value)[:5]) or "nothing"}'
    return f'{type(value).__name__} of {len(value)}' if isinstance(value, (list, tuple)) else repr(value)[:80]
