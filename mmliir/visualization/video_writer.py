"""Frames to a video file that browsers play. Needs PyAV, the extra `video`."""

import os
import secrets
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np

# In the order we want them: H.264 plays everywhere, WebM in all browsers of today.
_ENCODERS = (
    ('libx264', '.mp4', {'crf': '{crf}', 'preset': 'medium'}),
    ('libopenh264', '.mp4', {}),
    ('libvpx-vp9', '.webm', {'crf': '{crf}', 'b': '0', 'deadline': 'good', 'cpu-used': '4'}),
    ('libvpx', '.webm', {'crf': '{crf}', 'b': '4M', 'deadline': 'good', 'cpu-used': '4'}),
)
# Its look-ahead reads memory that was never written where sides are no multiples of 64 (seen with PyAV 18.1
# under MALLOC_PERTURB_), so that the same frames now and then give other bytes.
_NO_LOOK_AHEAD = 'rc-lookahead=0:mbtree=0:b-adapt=0:scenecut=0:weightp=0'
_BT709 = 1  # the number of ITU-R BT.709 for matrix, primaries and transfer in H.264 and VP9 streams
_LIMITED_RANGE = 1


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Writing a video needs PyAV: `pip install 'mmliir[video]'` (the import said: {error})."
        ) from error
    return av


def _usable_encoders(av: ModuleType) -> list[tuple[str, str, dict[str, str]]]:
    usable = []
    for name, suffix, options in _ENCODERS:
        try:
            av.Codec(name, 'w')
        except ValueError:  # av.codec.codec.UnknownCodecError
            continue
        usable.append((name, suffix, options))
    if not usable:
        names = ', '.join(name for name, _, _ in _ENCODERS)
        raise ImportError(
            f'This build of PyAV ({av.__version__}) has none of the encoders {names}; '
            "the wheel has: `pip install --force-reinstall --only-binary=av 'mmliir[video]'`."
        )
    return usable


def _checked(frame: np.ndarray, shape: tuple[int, ...] | None, index: int) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(
            f'Frame {index}: expected (H, W, 3) uint8 RGB, got shape {frame.shape} of {frame.dtype}.'
        )
    if shape is not None and frame.shape != shape:
        raise ValueError(
            f'Frame {index} is {frame.shape[:2]}, the first one was {shape[:2]}; resize them to one size.'
        )
    return frame


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    rows, columns = frame.shape[0] % 2, frame.shape[1] % 2
    if not rows and not columns:
        return np.ascontiguousarray(frame)
    return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode='edge')


def _encode(
    av: ModuleType,
    target: Path,
    encoder: tuple[str, str, dict[str, str]],
    frames: Iterable[np.ndarray],
    fps: Fraction,
    crf: int,
    reproducible: bool,
) -> int:
    codec, suffix, options = encoder
    count, shape, stream = 0, None, None
    container_options = {'movflags': '+faststart'} if suffix == '.mp4' else {}
    with av.open(str(target), 'w', format=suffix[1:], options=container_options) as container:
        for frame in frames:
            frame = _checked(frame, shape, count)
            padded = _pad_to_even(frame)
            if stream is None:
                shape = frame.shape
                filled = {key: value.format(crf=crf) for key, value in options.items()}
                if reproducible and codec == 'libx264':
                    filled['x264-params'] = _NO_LOOK_AHEAD
                stream = container.add_stream(codec, rate=fps, options=filled)
                stream.height, stream.width = padded.shape[:2]
                stream.pix_fmt = 'yuv420p'
                # Without these tags a player guesses the colour matrix from the size of the picture.
                context = stream.codec_context
                if reproducible:
                    context.thread_count = 1
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = _LIMITED_RANGE
            picture = av.VideoFrame.from_ndarray(padded, format='rgb24')
            picture = picture.reformat(
                format='yuv420p', dst_colorspace='ITU709', dst_color_range=_LIMITED_RANGE
            )
            picture.pts, picture.time_base = count, 1 / fps
            container.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise ValueError(f'A video needs at least one frame; got none for {target.name}.')
        container.mux(stream.encode(None))
    return count


def require_video_writer() -> None:
    """Find out whether `write_video` can work here, before the pictures are computed.

    Raises:
        ImportError: PyAV is not installed, or this build of it has no usable encoder; says what to install.
    """
    _usable_encoders(_import_av())


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float = 24.0,
    crf: int = 20,
    reproducible: bool = False,
) -> Path:
    """Write frames as a video that browsers play: H.264 yuv420p MP4, or WebM where PyAV has no H.264 encoder.

    The frames are taken one after the other, so a generator of any length will do. The file appears under its
    name when it is whole; after an error there is none, and an older file of this name is as it was.

    Args:
        path: File to write; folders are made. Suffix `.mp4` or `.webm`, or none for the best that is there.
        frames: T frames, each (H, W, 3) uint8 RGB, all of one size. Odd sizes get one more row or column, a
            copy of the last, because 4:2:0 video has even sizes.
        fps: Frames per second.
        crf: Constant quality of the encoder, lower is better and bigger; 18 to 28 is usual. libopenh264 has
            no such setting.
        reproducible: Equal frames give equal bytes, at the price of one thread and no look-ahead.

    Returns:
        The path written: `path`, with another suffix when this PyAV has no encoder for the one asked for.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: No frame, a frame of another size or type, or a setting out of its range.
    """
    av = _import_av()
    path = Path(path)
    if fps <= 0:
        raise ValueError(f'fps is a number of frames per second above 0; got {fps}.')
    if not 0 <= crf <= 51:
        raise ValueError(f'crf goes from 0 to 51; got {crf}.')
    if path.suffix not in ('', '.mp4', '.webm'):
        raise ValueError(f"Expected a file name that ends in '.mp4' or '.webm'; got {path.name!r}.")
    encoders = _usable_encoders(av)
    encoder = next((one for one in encoders if one[1] == path.suffix), encoders[0])
    path = path.with_suffix(encoder[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part')
    try:
        _encode(av, part, encoder, frames, Fraction(fps).limit_denominator(1001), crf, reproducible)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
