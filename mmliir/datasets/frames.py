"""Frames by number, from a folder of images, a video file or an array.

All three are `FrameSequence`s (`mmliir.structures`): a name, a length, `frames[n]` as (H, W, 3) uint8 RGB,
and iteration in order. Frame n is the n-th decoded picture, whatever its time stamp: a video of variable
frame rate has as many frames as pictures. What cannot be read as asked raises `BrokenMediaError`; nothing is
padded, repeated or skipped in silence.
"""

import bisect
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmliir.datasets.listing import IMAGE_SUFFIXES, Listing, list_pictures
from mmliir.datasets.pictures import (
    BrokenMediaError,
    check_bit_depth,
    decode_picture,
    find_bit_depth,
    to_8_bits,
    warn_once,
)
from mmliir.datasets.video_streams import UPRIGHT, best_stream, facts_of, orientation_of
from mmliir.structures import FrameSequence
from mmliir.utils.files import shown_path


class FrameFolder:
    """The frames among the files of one folder, in natural order of their names; `listing` has the rules.

    Pictures of 16 bits a channel are read with one scale for the whole folder, see `find_bit_depth`, so that the
    brightness of a video stays what it is.

    Args:
        path: Folder that holds pictures, all of one size.
        bit_depth: Of pictures with 16 bits a channel: how many are used, 8 to 16; None to find it out, which reads
            them once.
        warn: Log what is left out; False where the caller says it. `left_out` has it either way.

    Attributes:
        name: Name of the folder.
        paths: T image files.
        frame_names: T stems.
        bit_depth: As it was given.
        left_out: What else is there and why it is no frame, in one sentence; '' where nothing is worth a word.

    Raises:
        FileNotFoundError: No such folder.
        BrokenMediaError: The folder holds no frame, or two pictures of one name. Reading a frame raises it for a
            damaged image, or for one whose size differs from the first one's.
    """

    #: Several threads may read frames at a time; not so in a `VideoFile`, whose decoder goes from frame to frame.
    concurrent = True

    def __init__(self, path: str | os.PathLike, bit_depth: int | None = None, warn: bool = True) -> None:
        folder = Path(path)
        if not folder.is_dir():
            came = 'is a file' if folder.exists() else 'does not exist'
            raise FileNotFoundError(f'frame folder expected at {shown_path(folder)}, which {came}.')
        self.path = folder
        self.name = folder.resolve().name
        listing = list_pictures(folder)
        _check_frames_are_there(listing)
        self.paths = list(listing.files)
        self.left_out = listing.told(listing.noteworthy)
        if self.left_out and warn:
            warn_once(f'{self.left_out}.')
        self._frame_size: tuple[int, int] | None = None
        self.bit_depth = self._used_bits = None if bit_depth is None else check_bit_depth(bit_depth)

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(path.stem for path in self.paths)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the first frame."""
        if self._frame_size is None:
            self._frame_size = decode_picture(self.paths[0]).shape[:2]
        return self._frame_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.paths[_checked_index(index, len(self), self.path)]
        frame = decode_picture(path)
        if self._frame_size is None and path == self.paths[0]:
            self._frame_size = frame.shape[:2]
        if frame.shape[:2] != self.frame_size:
            (h, w), (first_h, first_w) = frame.shape[:2], self.frame_size
            raise BrokenMediaError(
                f'frames of different sizes in {self.path}: {self.paths[0].name} is {first_w}x{first_h}, '
                f'{path.name} is {w}x{h} (width x height). Put one video in a folder, at one size.'
            )
        if frame.dtype == np.uint8:
            return frame
        if self._used_bits is None:
            self._used_bits = find_bit_depth(self.paths)
        return to_8_bits(frame, self._used_bits)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(len(self)):
            yield self[index]


class FrameArray:
    """Frames that are in memory already.

    Args:
        array: (T, H, W, 3) uint8 RGB.
        name: Name of the video.
    """

    def __init__(self, array: np.ndarray, name: str = 'array') -> None:
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise ValueError(
                f'frames of {name!r}: expected (T, H, W, 3) uint8 RGB, came {array.shape} {array.dtype}. '
                'Convert with e.g. `(frames * 255).round().astype(np.uint8)` and channels last.'
            )
        if not len(array):
            raise BrokenMediaError(f'frames of {name!r}: the array holds 0 frames.')
        self.array = array
        self.name = name

    @property
    def frame_names(self) -> tuple[str, ...]:
        return _numbered_names(len(self))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self.array.shape[1], self.array.shape[2]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.array[_checked_index(index, len(self), self.name)]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.array)


class VideoFile:
    """A video file, decoded by PyAV.

    The index is made once, on first use, by reading the packets and not by decoding: it knows the time stamp
    of every picture. Frame n is then the n-th smallest time stamp. Asking in order decodes on; asking
    elsewhere seeks to the key frame before, decodes from there and checks that the picture that came is the
    one that was asked for. Files whose packets carry no usable time stamps are counted by decoding, and read
    from the start when asked backwards.

    The decoder is opened on first use in each process and never pickled, so one object serves forked and
    spawned workers. Iterate with `for frame in video` or ask in order: seeking costs a group of pictures.

    Args:
        path: Video file. Of several streams the one that ffmpeg takes, never cover art. The display matrix in its
            metadata (phones turn, cameras mirror) is applied.

    Attributes:
        name: Stem of the file.

    Raises:
        ImportError: PyAV is not installed.
        FileNotFoundError: No such file.
        BrokenMediaError: Raised when the index is made or a frame is decoded: no video in it but a cover, 0 pictures,
            a picture turned by no quarter, or the file is cut off or damaged.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            came = 'is a folder: use FrameFolder' if self.path.is_dir() else 'does not exist'
            raise FileNotFoundError(f'video file expected at {shown_path(self.path)}, which {came}.')
        self.name = self.path.stem
        self._av = _import_av()
        # Sorted time stamps of all pictures, or None where pictures can only be counted.
        self._stamps: list[int] | None = None
        self._keys: list[int] = []
        self._length: int | None = None
        self._frame_size: tuple[int, int] | None = None
        # Number of the stream that is the video, once it was chosen.
        self._stream: int | None = None
        self._forget_decoder()

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        for key in ('_av', '_container', '_pictures', '_last_index', '_last_picture', '_owner'):
            state.pop(key)
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._av = _import_av()
        self._forget_decoder()

    @property
    def frame_names(self) -> tuple[str, ...]:
        return _numbered_names(len(self))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the first frame, rotated as it is shown."""
        if self._frame_size is None:
            self._frame_size = self[0].shape[:2]
        return self._frame_size

    @property
    def frame_rate(self) -> float | None:
        """Pictures a second on average, as the file says; None where it does not."""
        with self._open() as container:
            rate = self._video_stream(container).average_rate
        return float(rate) if rate else None

    def __len__(self) -> int:
        if self._length is None:
            self._make_index()
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        index = _checked_index(index, len(self), self.path)
        self._drop_decoder_of_other_process()
        if self._last_picture is not None and index == self._last_index:
            return self._to_rgb(self._last_picture, index)
        start = self._key_before(index)
        if self._pictures is None or self._last_index >= index or self._last_index < start - 1:
            self._start_at(start)
        while self._last_index < index:
            self._decode_next()
        return self._to_rgb(self._last_picture, index)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(len(self)):
            yield self[index]

    def close(self) -> None:
        """Close the file. The next access opens it again."""
        if self._container is not None and self._owner == os.getpid():
            self._container.close()
        self._forget_decoder()

    # -- index ----------------------------------------------------------------------------------------------

    def _make_index(self) -> None:
        stamps, keys, usable = [], [], True
        with self._open() as container:
            stream = self._video_stream(container)
            claimed, end = stream.frames, 0.0
            try:
                for packet in container.demux(stream):
                    if not packet.size:
                        continue
                    if packet.pts is None:
                        usable = False
                        break
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if not packet.is_discard:
                        stamps.append(packet.pts)
                        if packet.is_keyframe:
                            keys.append(packet.pts)
                    elif claimed:
                        claimed -= 1
            except self._av.error.FFmpegError as error:
                raise self._broken(f'reading stopped after {len(stamps)} packets ("{error}")') from error
            self._check_is_whole(container, stream, claimed, len(stamps), end, usable)
        usable = usable and len(set(stamps)) == len(stamps) and self._first_picture_is(min(stamps, default=None))
        if usable:
            self._stamps, self._keys = sorted(stamps), sorted(keys)
            self._length = len(stamps)
        else:
            self._length = self._count_pictures()
        if not self._length:
            raise self._broken('the file opens, but holds 0 pictures')

    def _check_is_whole(self, container, stream, claimed: int, found: int, end: float, usable: bool) -> None:
        """Compare the packets that are there with what the header promises."""
        # MP4 and MOV list every picture in their header; AVI counts time slots, which may be empty.
        if usable and 'mp4' in container.format.name and claimed > found:
            raise self._broken(f'its header promises {claimed} pictures, the file holds {found}: it is cut off')
        promised = _matroska_duration(container, stream)
        if usable and promised is not None and end < promised - max(1.0, 0.02 * promised):
            raise self._broken(f'its header promises {promised:.2f} s, the pictures end at {end:.2f} s: it is cut off')

    def _first_picture_is(self, stamp: int | None) -> bool:
        """Whether decoding starts with the smallest time stamp, as where packets and pictures match."""
        if stamp is None:
            return False
        with self._open() as container:
            picture = next(self._decode(container), None)
        return picture is not None and picture.pts == stamp

    def _count_pictures(self) -> int:
        with self._open() as container:
            return sum(1 for _ in self._decode(container))

    def _key_before(self, index: int) -> int:
        """Number of the last key frame at or before frame `index`; 0 where pictures are only counted."""
        if self._stamps is None:
            return 0
        position = bisect.bisect_right(self._keys, self._stamps[index]) - 1
        return bisect.bisect_left(self._stamps, self._keys[position]) if position >= 0 else 0

    # -- decoder --------------------------------------------------------------------------------------------

    def _forget_decoder(self) -> None:
        self._container = None
        self._pictures = None
        self._last_index = -1
        self._last_picture = None
        self._owner = os.getpid()

    def _drop_decoder_of_other_process(self) -> None:
        """A fork shares the file position and the decoder's threads do not survive it: open our own."""
        if self._owner != os.getpid():
            self._forget_decoder()

    def _open(self):
        try:
            # Titles in other encodings (Latin-1 in AVI, MP4, Matroska) are no reason to refuse the pictures.
            return self._av.open(str(self.path), metadata_errors='replace')
        except self._av.error.FFmpegError as error:
            size = self.path.stat().st_size
            raise self._broken(f'{size} bytes, cannot be opened as video ("{error}")') from error

    def _video_stream(self, container):
        if self._stream is None:
            self._stream = self._choose_stream()
        return container.streams[self._stream]

    def _choose_stream(self) -> int:
        with self._open() as container:
            facts = {stream.index: facts_of(stream) for stream in container.streams.video}
            videos = [stream for stream in container.streams.video if not facts[stream.index].is_cover]
            if len(videos) > 1:
                for index in self._stills(container, videos):
                    facts[index] = replace(facts[index], is_still=True)
        chosen = best_stream(list(facts.values()))
        if chosen is None and facts:
            raise BrokenMediaError(
                f'{self.path} holds no video: the only picture in it is a cover (attached picture) or a thumbnail. '
                'Leave the file out, or get the one with the video.'
            )
        if chosen is None:
            raise self._broken('the file opens, but has no video stream')
        return chosen

    def _stills(self, container, streams) -> list[int]:
        """Numbers of the streams that hold one picture or none, as far as the file can be read."""
        missing = {stream.index: 2 for stream in streams}
        with contextlib.suppress(self._av.error.FFmpegError):  # damage is found, and told, when the index is made
            for packet in container.demux(streams):
                index = packet.stream.index
                missing[index] -= bool(packet.size)
                if all(count <= 0 for count in missing.values()):
                    break
        return [index for index, count in missing.items() if count > 0]

    def _decoding_stream(self, container):
        stream = self._video_stream(container)
        # No threads: a forked worker that frees a decoder waits for ever for threads that it does not have.
        stream.codec_context.thread_count = 1
        return stream

    def _decode(self, container) -> Iterator:
        """Yield the pictures from the current position on; damage raises."""
        stream = self._decoding_stream(container)
        try:
            for packet in container.demux(stream):
                for picture in packet.decode():
                    if picture.is_corrupt:
                        raise self._broken(f'the picture at {picture.time} s is damaged')
                    yield picture
        except self._av.error.EOFError:
            return
        except self._av.error.FFmpegError as error:
            raise self._broken(f'decoding stopped after frame {self._last_index} ("{error}")') from error

    def _start_at(self, start: int) -> None:
        """Open, and stand before frame `start`, the number of a key frame."""
        self.close()
        self._container = self._open()
        self._pictures = self._decode(self._container)
        self._last_index = -1
        if self._stamps is None or start == 0:
            return
        stamp = self._stamps[start]
        self._container.seek(stamp, backward=True, stream=self._video_stream(self._container))
        for picture in self._pictures:
            if picture.pts == stamp:
                self._last_index, self._last_picture = start, picture
                return
            if picture.pts is None or picture.pts > stamp:
                break
        # The seek landed behind the key frame (formats without a seek table): decode from the start.
        self.close()
        self._container = self._open()
        self._pictures = self._decode(self._container)

    def _decode_next(self) -> None:
        expected = self._last_index + 1
        picture = next(self._pictures, None)
        if picture is None:
            raise self._broken(f'{len(self)} pictures are in the index, decoding ended before frame {expected}')
        if self._stamps is not None and picture.pts != self._stamps[expected]:
            raise self._broken(
                f'asked for frame {expected} (time stamp {self._stamps[expected]}), got time stamp '
                f'{picture.pts}: packets are missing or damaged'
            )
        self._last_index, self._last_picture = expected, picture

    def _to_rgb(self, picture, index: int) -> np.ndarray:
        frame = picture.to_ndarray(format='rgb24', **_one_thread(self._av))
        orientation = orientation_of(picture)
        if orientation is None:
            raise self._broken(f'it is to be shown turned by {picture.rotation} degrees, which is no quarter turn')
        if orientation != UPRIGHT:
            frame = orientation.apply(frame)
        if self._frame_size is None and index == 0:
            self._frame_size = frame.shape[:2]
        if self._frame_size is not None and frame.shape[:2] != self._frame_size:
            raise self._broken(
                f'frame 0 is {self._frame_size[1]}x{self._frame_size[0]}, frame {index} is '
                f'{frame.shape[1]}x{frame.shape[0]}'
            )
        return frame

    def _broken(self, what: str) -> BrokenMediaError:
        return BrokenMediaError(
            f'broken video {self.path}: {what}. Copy or download it again, or write it anew with '
            f'`ffmpeg -i {self.path.name} repaired.mp4`.'
        )


def open_frames(path: str | os.PathLike, bit_depth: int | None = None) -> FrameSequence:
    """Open a folder of images or a video file.

    Args:
        path: Folder or file.
        bit_depth: See `FrameFolder`; of no use to video files, which say it themselves.

    Raises:
        FileNotFoundError: Neither is there.
        BrokenMediaError: It holds no frames.
    """
    if Path(path).is_dir():
        return FrameFolder(path, bit_depth)
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f'{path} is one image: expected a folder of frames or a video file.')
    return VideoFile(path)


def _check_frames_are_there(listing: Listing) -> None:
    folder = listing.folder
    if not listing.files:
        folders = sorted(os.listdir(folder))
        found = f'it holds {len(folders)} folders, the first is {folders[0]!r}' if folders else 'it is empty'
        found = listing.told() or found
        raise BrokenMediaError(
            f'no frames in {folder}: looked for {", ".join(IMAGE_SUFFIXES)}; {found}. '
            'Give the folder that holds the images themselves.'
        )
    for path, following in zip(listing.files, listing.files[1:]):
        if path.stem == following.stem:
            raise BrokenMediaError(
                f'{folder}: {path.name} and {following.name} are two pictures of one frame. Keep one of them, and put '
                'masks and the like into a folder of their own.'
            )


def _matroska_duration(container, stream) -> float | None:
    """Seconds that a Matroska or WebM header promises for this stream; None for other formats or no
    promise."""
    if 'matroska' not in container.format.name:
        return None
    text = stream.metadata.get('DURATION', '')
    match = re.fullmatch(r'(\d+):(\d+):(\d+(?:\.\d+)?)', text)
    if match:
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None


def _checked_index(index: int, length: int, where: object) -> int:
    if not -length <= index < length:
        raise IndexError(f'frame {index} of {where}: it has {length} frames, 0 to {length - 1}.')
    return int(index) % length


def _numbered_names(count: int) -> tuple[str, ...]:
    return tuple(f'{number:05d}' for number in range(count))


def _one_thread(av) -> dict[str, int]:
    """Argument that keeps colour conversion in this thread (see `_decoding_stream`); older PyAV has no other way."""
    return {'threads': 1} if 'threads' in (av.video.reformatter.VideoReformatter.reformat.__doc__ or '') else {}


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ImportError("video files need PyAV: pip install 'mmliir[video]'") from error
    return av
