"""Unlabelled videos to train on: YouTube-VOS, folders of frame folders, folders of video files.

A source knows how many videos there are, how long each is, and how to read one frame. Broken clips are found when the
source is built (or, damage inside a file, when a frame is read), counted, and named in one line; too many stop the run.
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mmliir.components import DATASETS
from mmliir.datasets.finding import (
    existing_root,
    find_frame_folders,
    find_video_files,
    look_for_videos,
)
from mmliir.datasets.frames import FrameArray, FrameFolder, VideoFile
from mmliir.datasets.pictures import BrokenMediaError
from mmliir.structures import FrameSequence
from mmliir.utils.words import number_of

_WARNING = 30
_DOC = 'See docs/datasets.md#training-videos.'
_NATIVE_STEP_6FPS = 5
# Changes when the same file could give other frames.
_CACHE_VERSION = 2
#: Share of YouTube-VOS's training videos that `holdout_names` sets aside.
HOLDOUT_SHARE = 0.05


def _tell(text: str) -> None:
    """A warning in the log of the run."""
    from mmengine.logging import print_log  # here, as scoring and `mmliir data` read lists without MMEngine

    print_log(text, 'current', _WARNING)


class VideoSource:
    """What all sources share: names, lengths, reading, caching, and what happens to broken clips.

    Args:
        videos: Name -> path, in order.
        open_video: Makes a frame sequence of a path; may raise `BrokenMediaError`.
        short_side: Frames are read at this shorter side, ratio kept, never enlarged; None keeps their size.
        cache: 'memory' reads all frames when the source is built, into memory that forked workers share (take a
            `short_side`); 'disk' keeps JPEG frames under `cache_dir`; None decodes each time.
        cache_dir: Folder for cache='disk'.
        on_broken: 'skip' leaves broken clips out, 'stop' raises at the first.
        max_broken: With 'skip': how many are tolerated, a count, or a share of the clips below 1.
        frame_step: Native frames from one stored frame to the next.

    Attributes:
        names: Usable videos.
        broken: (path, reason) of those left out when the source was built.
        left_out: One sentence for each video beside whose frames lies something else.
    """

    def __init__(
        self,
        videos: dict[str, Path],
        open_video: Callable[[Path], FrameSequence],
        short_side: int | None = None,
        cache: Literal['memory', 'disk'] | None = None,
        cache_dir: str | None = None,
        on_broken: Literal['skip', 'stop'] = 'skip',
        max_broken: float = 0.05,
        frame_step: int = 1,
    ) -> None:
        if on_broken not in ('skip', 'stop'):
            raise ValueError(f"on_broken: expected 'skip' or 'stop', came {on_broken!r}.")
        if cache not in (None, 'memory', 'disk'):
            raise ValueError(f"cache: expected None, 'memory' or 'disk', came {cache!r}.")
        if (cache == 'disk') != (cache_dir is not None):
            raise ValueError(f"cache_dir goes with cache='disk': came cache={cache!r}, cache_dir={cache_dir!r}.")
        if short_side is not None and short_side < 1:
            raise ValueError(f'short_side: expected at least 1 pixel, came {short_side}.')
        self.short_side, self.cache = short_side, cache
        self.cache_dir = Path(cache_dir) if cache_dir is not None else None
        self.on_broken, self.max_broken, self.frame_step = on_broken, max_broken, frame_step
        self._open_video = open_video
        self._num_listed = len(videos)
        self.names: list[str] = []
        self.broken: list[tuple[str, str]] = []
        self.left_out: list[str] = []
        self._videos: list[FrameSequence] = []
        for name, path in videos.items():
            self._add(name, path)
        self._lengths = tuple(len(video) for video in self._videos)
        self._report()

    def __len__(self) -> int:
        return len(self.names)

    def num_frames(self, video: int) -> int:
        """Return the number of stored frames of a video."""
        return self._lengths[video]

    def read(self, video: int, frame: int) -> np.ndarray:
        """Return one frame, (H, W, 3) uint8 RGB.

        Raises:
            BrokenMediaError: The frame cannot be decoded.
        """
        return shrink_frame(self._videos[video][frame], self.short_side)

    def tolerates(self, num_broken: int) -> bool:
        """Whether this many broken clips may be skipped."""
        limit = self.max_broken * self._num_listed if self.max_broken < 1 else self.max_broken
        return self.on_broken == 'skip' and num_broken <= limit

    def _add(self, name: str, path: Path) -> None:
        try:
            opened = self._open_video(path)
            video = self._cached(name, path, opened)
            if not len(video):
                raise BrokenMediaError(f'{path} holds 0 frames')
        except (BrokenMediaError, OSError) as error:  # OSError: a link that leads nowhere, no permission
            if self.on_broken == 'stop':
                raise
            self.broken.append((str(path), str(error)))
        else:
            self.names.append(name)
            self._videos.append(video)
            if isinstance(opened, FrameFolder) and opened.left_out:
                self.left_out.append(opened.left_out)

    def _cached(self, name: str, path: Path, video: FrameSequence) -> FrameSequence:
        if self.cache == 'memory':
            return FrameArray(np.stack([shrink_frame(frame, self.short_side) for frame in video]), name)
        if self.cache == 'disk':
            return cache_frames(path, video, self.cache_dir, self.short_side)
        return video

    def _report(self) -> None:
        if self.left_out:
            more = f'; and {len(self.left_out) - 3} more' if len(self.left_out) > 3 else ''
            _tell(
                f'LEFT OUT of {number_of(len(self.left_out), "training video")}: {"; ".join(self.left_out[:3])}{more}'
            )
        if not self.broken:
            return
        shown = '; '.join(reason for _, reason in self.broken[:3])
        text = f'{len(self.broken)} of {self._num_listed} training videos are broken: {shown}'
        if len(self.broken) > 3:
            text += f'; and {len(self.broken) - 3} more'
        if not self.names or not self.tolerates(len(self.broken)):
            raise BrokenMediaError(
                f'{text}. That is more than max_broken={self.max_broken}: repair or remove them, or raise max_broken.'
            )
        _tell(f'SKIPPED: {text}')


@DATASETS.register_module()
class YouTubeVOSSource(VideoSource):
    """The frames of YouTube-VOS.

    Args:
        data_root: Folder that holds `train_all_frames/JPEGImages` or `train/JPEGImages`.
        split: 'train', 'valid' or 'test'.
        frames: 'all': `<split>_all_frames`, every frame. '6fps': `<split>`, every fifth frame; gaps keep their
            meaning in native frames.
        short_side, cache, cache_dir, on_broken, max_broken: See `VideoSource`.
        holdout: Share of the videos to leave out, those that `holdout_names` names: 0.05 when scores on the split
            'train_holdout' of `YouTubeVosDataset` are wanted. None leaves none out.
        bit_depth: See `FrameFolder`.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        frames: Literal['all', '6fps'] = 'all',
        short_side: int | None = None,
        cache: Literal['memory', 'disk'] | None = None,
        cache_dir: str | None = None,
        on_broken: Literal['skip', 'stop'] = 'skip',
        max_broken: float = 0.05,
        holdout: float | None = None,
        bit_depth: int | None = None,
    ) -> None:
        folders = youtube_vos_folders(data_root, split)
        if frames not in folders:
            raise ValueError(f"frames: expected 'all' or '6fps', came {frames!r}.")
        folder = folders[frames]
        if not folder.is_dir():
            other = next((key for key, path in folders.items() if path.is_dir()), None)
            hint = f'{folders[other]} is there: use frames={other!r}. ' if other else ''
            raise FileNotFoundError(f'YouTube-VOS frames ({frames}) not found at {folder}. {hint}{_DOC}')
        step = _NATIVE_STEP_6FPS if frames == '6fps' else 1
        videos = find_frame_folders(folder)
        if holdout is not None:
            left_out = set(holdout_names(videos, holdout))
            videos = {name: path for name, path in videos.items() if name not in left_out}
        super().__init__(videos, _folders(bit_depth), short_side, cache, cache_dir, on_broken, max_broken, step)


@DATASETS.register_module()
class FrameFolderSource(VideoSource):
    """Any folder of frame folders: each folder below `data_root` that holds images is a video.

    Args:
        data_root: Folder above the frame folders, any number of levels.
        frame_step: Native frames from one stored frame to the next, when every n-th frame was kept.
        short_side, cache, cache_dir, on_broken, max_broken: See `VideoSource`.
        bit_depth: See `FrameFolder`.
    """

    def __init__(
        self,
        data_root: str,
        frame_step: int = 1,
        short_side: int | None = None,
        cache: Literal['memory', 'disk'] | None = None,
        cache_dir: str | None = None,
        on_broken: Literal['skip', 'stop'] = 'skip',
        max_broken: float = 0.05,
        bit_depth: int | None = None,
    ) -> None:
        videos = find_frame_folders(data_root)
        open_folder = _folders(bit_depth)
        super().__init__(videos, open_folder, short_side, cache, cache_dir, on_broken, max_broken, frame_step)


@DATASETS.register_module()
class VideoFileSource(VideoSource):
    """Any folder of video files, read by PyAV.

    Args:
        data_root: Folder above the files, any number of levels.
        short_side, cache, cache_dir, on_broken, max_broken: See `VideoSource`. Decoding in the middle of a file
            costs a group of pictures: for a few clips take cache='memory' and a `short_side`.
    """

    def __init__(
        self,
        data_root: str,
        short_side: int | None = None,
        cache: Literal['memory', 'disk'] | None = None,
        cache_dir: str | None = None,
        on_broken: Literal['skip', 'stop'] = 'skip',
        max_broken: float = 0.05,
    ) -> None:
        videos = find_video_files(data_root)
        super().__init__(videos, VideoFile, short_side, cache, cache_dir, on_broken, max_broken)


@DATASETS.register_module()
def AutoSource(  # named like the classes it stands for: configs say `type='AutoSource'`
    data_root: str,
    split: str = 'train',
    short_side: int | None = None,
    cache: Literal['memory', 'disk'] | None = None,
    cache_dir: str | None = None,
    on_broken: Literal['skip', 'stop'] = 'skip',
    max_broken: float = 0.05,
    bit_depth: int | None = None,
) -> VideoSource:
    """Make the source that fits what lies under `data_root`.

    YouTube-VOS with all frames, YouTube-VOS at 6 fps, a folder of video files, a folder of frame folders, in this
    order. Arguments as for the sources; `split` is for YouTube-VOS alone, `bit_depth` for frames in image files.

    Raises:
        FileNotFoundError: None of them is there.
        ValueError: There are both video files and frame folders.
    """
    rest = dict(short_side=short_side, cache=cache, cache_dir=cache_dir, on_broken=on_broken, max_broken=max_broken)
    for frames, folder in youtube_vos_folders(data_root, split).items():
        if folder.is_dir():
            return YouTubeVOSSource(data_root, split, frames, bit_depth=bit_depth, **rest)
    root = existing_root(data_root)
    found = look_for_videos(root)
    if found.files and found.folders:
        raise ValueError(
            f'{root} holds video files and frame folders: expected one kind. Give the folder of one of them, or '
            f"say type='VideoFileSource' or 'FrameFolderSource'. {_DOC}"
        )
    if found.files:
        return VideoFileSource(data_root, **rest)
    return FrameFolderSource(data_root, bit_depth=bit_depth, **rest)


def _folders(bit_depth: int | None) -> Callable[[Path], FrameFolder]:
    """What opens a folder of frames; what is left out of all folders the source says in one line."""
    return functools.partial(FrameFolder, bit_depth=bit_depth, warn=False)


def youtube_vos_folders(data_root: str | os.PathLike, split: str) -> dict[str, Path]:
    """Return where the frames of a split lie: all of them, and those at 6 fps."""
    root = Path(data_root)
    return {'all': root / f'{split}_all_frames' / 'JPEGImages', '6fps': root / split / 'JPEGImages'}


def holdout_names(names: Iterable[str], share: float = HOLDOUT_SHARE) -> list[str]:
    """Return the videos that are set aside for evaluation, sorted.

    A video is set aside when the first 8 bytes of the SHA-256 of its name, as a number in [0, 1), are below the share.
    So the choice depends on the name alone: not on the others, their order or a random generator; and a larger share
    holds a smaller one.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f'the share of videos to hold out must be between 0 and 1, came {share}.')

    def draw(name: str) -> float:
        return int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()[:8], 'big') / 2**64

    return sorted(name for name in names if draw(name) < share)


def shrink_frame(frame: np.ndarray, short_side: int | None) -> np.ndarray:
    """Resize (H, W, 3) uint8 so that its shorter side is `short_side`; smaller frames stay as they are."""
    height, width = frame.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return frame
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def cache_frames(
    path: Path, video: FrameSequence, cache_dir: Path, short_side: int | None, quality: int = 95
) -> FrameFolder:
    """Decode a video once into a folder of JPEG frames, and return that folder.

    The folder's name carries the file's path, size, time and the resolution: a changed file is decoded anew. It is
    written beside its place and renamed, so that a folder that is there is whole.
    """
    state = path.stat()
    bit_depth = video.bit_depth if isinstance(video, FrameFolder) else None
    made = [short_side, quality, bit_depth, _CACHE_VERSION]
    key = json.dumps([str(path.resolve()), state.st_size, state.st_mtime_ns, *made])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    folder = cache_dir / f'{path.stem}-{digest}'
    if not folder.is_dir():
        partial = cache_dir / f'.{folder.name}.{os.getpid()}.partial'
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for number, frame in enumerate(video):
                image = cv2.cvtColor(shrink_frame(frame, short_side), cv2.COLOR_RGB2BGR)
                done, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
                assert done, 'JPEG encoder failed'
                (partial / f'{number:06d}.jpg').write_bytes(data.tobytes())
            try:
                os.rename(partial, folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return FrameFolder(folder)
