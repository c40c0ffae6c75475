"""Propagate labels through a whole video: from features, or from frames and an encoder."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.propagation.presets import Protocol
from mmliir.propagation.session import LabelMap, PropagationSession
from mmliir.propagation.settings import InputSettings, PropagationSettings
from mmliir.utils.pipeline import ahead_of, map_ahead, overlap_for

# Mid-grey of Lab (50, 0, 0) in sRGB: LIIR pads with zeros after normalisation, which is this colour.
PAD_GREY = 119

GivenLabels = Mapping[int, np.ndarray | Callable[[], np.ndarray]]


def propagate_features(
    features: Tensor, label_map: LabelMap, settings: PropagationSettings, stride: int
) -> LabelMap:
    """Propagate the labels of the first frame through precomputed features.

    Args:
        features: (T, C, h, w), of any floating type; h = ceil(H / stride), w = ceil(W / stride).
        label_map: (H, W) uint8 labels of frame 0, 0 = background; an array or a tensor.
        settings: The protocol, for example `get_protocol('liir_paper').settings`.
        stride: Pixels per cell.

    Returns:
        (T, H, W) label maps, an array or a tensor as `label_map` is; entry 0 is `label_map` itself.

    Raises:
        ValueError: No frame, no object, or sizes that do not fit.
    """
    features = torch.as_tensor(features)
    if features.dim() != 4:
        raise ValueError(f'features must be (T, C, h, w), got {tuple(features.shape)}')
    if features.shape[0] == 0:
        raise ValueError('a video of 0 frames has nothing to propagate')
    if label_map.ndim != 2:
        raise ValueError(f'a label map must be (H, W), got {tuple(label_map.shape)}')
    session = PropagationSession(settings, stride, tuple(label_map.shape))
    maps = [session.step(feature, None if t else label_map) for t, feature in enumerate(features)]
    return np.stack(maps) if isinstance(maps[0], np.ndarray) else torch.stack(maps)


def propagate_video(
    frames: Sequence[np.ndarray],
    encode: Callable[[Tensor], Tensor],
    given_labels: GivenLabels,
    protocol: Protocol,
    stride: int,
    device: str | torch.device = 'cpu',
    max_memory: int | None = None,
) -> 'VideoLabels':
    """Propagate given labels through a video; each frame is read and encoded once.

    Args:
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB, all of one size (a `FrameSequence`).
        encode: (1, 3, h', w') uint8 RGB on `device` -> (1, C, h' / stride, w' / stride) features, rounded up.
            The size h' x w' is what `protocol.input` makes of the frame.
        given_labels: Frame number -> (H, W) uint8 label map, or a function without arguments that reads it.
            The first one starts the propagation; those at later frames are objects that enter late, see
            `PropagationSession`.
        protocol: Settings of the propagation and of the encoder's input.
        stride: Pixels of the encoder's input per cell.
        device: Where to encode and propagate.
        max_memory: Bound in bytes on the memory of the propagation, see `PropagationSession`.

    Returns:
        An iterator of T label maps, (H, W) uint8 at the frames' own size. Frames before the first label map
        are background and are not encoded; the first labelled frame comes back as it was given. It can also say how
        sure the propagation is of each object, see `VideoLabels`. Where reading overlaps (`overlap_for(device)`), later
        frames are read by another thread: do not read `frames` meanwhile.

    Raises:
        ValueError: A video of 0 frames, no label map, a label map without objects or of another size than its
            frame. Everything about the first labelled frame is checked by the call itself, the rest while
            iterating.
    """
    name = getattr(frames, 'name', 'the video')
    count = len(frames)
    if count == 0:
        raise ValueError(f'{name} has 0 frames: there is nothing to propagate')
    if not given_labels:
        raise ValueError(f'{name} has no given labels: give the label map of at least one frame')
    outside = [number for number in given_labels if not 0 <= number < count]
    if outside:
        raise ValueError(f'{name} has frames 0..{count - 1}, but labels are given for frame {outside[0]}')
    start = min(given_labels)
    first_frame = read_frame(frames, start, name)
    first_labels = _read_labels(given_labels[start], start, first_frame.shape[:2], name)
    if not first_labels.any():
        raise ValueError(
            f'frame {start} of {name}: the first label map holds no object, every pixel is 0 (background)'
        )
    resized = protocol.input.resized(*first_frame.shape[:2])
    session = PropagationSession(
        protocol.settings,
        stride,
        resized,
        output_size=first_frame.shape[:2],
        padded_size=protocol.input.padded(*resized),
        max_memory=max_memory,
    )
    numbers = range(start, count)
    encoded = encode_frames(frames, numbers, encode, protocol.input, torch.device(device), name, first_frame)
    return VideoLabels(session, _propagate(encoded, given_labels, name, first_labels, start, session))


@dataclass(frozen=True)
class EncodedFrame:
    """A frame as it was read, and its feature.

    Attributes:
        number: Of the frame.
        frame: (H, W, 3) uint8 RGB.
        feature: (C, h, w), on the device.
    """

    number: int
    frame: np.ndarray
    feature: Tensor


class VideoLabels(Iterator[np.ndarray]):
    """The label maps of a video, computed while they are taken."""

    def __init__(
        self, session: PropagationSession, label_maps: Iterator[tuple[np.ndarray, np.ndarray | None]]
    ) -> None:
        self._session, self._label_maps = session, label_maps
        self._frame: np.ndarray | None = None

    def __next__(self) -> np.ndarray:
        label_map, self._frame = next(self._label_maps)
        return label_map

    @property
    def frame(self) -> np.ndarray | None:
        """(H, W, 3), the frame of the label map that was taken last; None where it was not read."""
        return self._frame

    def object_scores(self) -> dict[int, float]:
        """How sure the propagation is of each object in the label map that was taken last: id -> 0..1.

        See `PropagationSession.object_scores`. Empty before the first given label map.
        """
        return self._session.object_scores()


def encode_frames(
    frames: Sequence[np.ndarray],
    numbers: Sequence[int],
    encode: Callable[[Tensor], Tensor],
    settings: InputSettings,
    device: torch.device,
    name: str,
    first: np.ndarray,
) -> Generator[EncodedFrame, None, None]:
    """Read and encode frames one after the other, each once; to be closed by who does not take them all.

    Where reading overlaps (`overlap_for`), a thread reads ahead; on a GPU the next frame is encoded, on a stream of its
    own, while the caller works on this one. An error of a frame comes when all frames before it have been taken.

    Args:
        frames, encode, device: As for `propagate_video`.
        numbers: Which frames, in this order; not empty.
        settings: Size of the encoder's input.
        name: Of the video, for errors.
        first: Frame `numbers[0]`, which has been read; all others must have its size.

    Raises:
        ValueError: A frame is no picture or of another size, or what `encode` returns is no feature.
    """
    overlap, size = overlap_for(device), first.shape[:2]

    def read(number: int) -> tuple[int, np.ndarray, Tensor]:
        frame = read_frame(frames, number, name, size)
        return number, frame, stage_frame(frame, device)

    readers = overlap.readers if getattr(frames, 'concurrent', False) else min(1, overlap.readers)
    run = functools.partial(encode_frame, encode=encode, settings=settings, device=device)
    with contextlib.ExitStack() as stack:
        later = stack.enter_context(contextlib.closing(map_ahead(read, numbers[1:], readers, overlap.ahead)))
        staged = itertools.chain([(numbers[0], first, stage_frame(first, device))], later)
        if device.type != 'cuda' or not overlap.readers:
            for number, frame, tensor in staged:
                yield EncodedFrame(number, frame, run(tensor))
            return
        stream = stack.enter_context(contextlib.closing(EncoderStream(device)))
        begun = ((number, frame, stream.begin(functools.partial(run, tensor))) for number, frame, tensor in staged)
        for number, frame, pending in ahead_of(begun, 1):
            yield EncodedFrame(number, frame, stream.take(pending))


class EncoderStream:
    """Work on a stream of its own of a GPU, taken over by the stream that the caller works on.

    The work must not depend on what the caller launches after this object was made: it waits for what came before.
    """

    def __init__(self, device: torch.device) -> None:
        self._callers = torch.cuda.current_stream(device)
        self._own = torch.cuda.Stream(device)
        self._own.wait_stream(self._callers)  # weights may still be on their way

    def begin(self, work: Callable[[], Tensor]) -> tuple[Tensor, torch.cuda.Event]:
        """Launch the work; it has not finished when this returns."""
        with torch.cuda.stream(self._own):
            result = work()
            return result, self._own.record_event()

    def take(self, pending: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        """The result, for work that the caller launches from now on; nothing waits but that work."""
        result, done = pending
        self._callers.wait_event(done)
        result.record_stream(self._callers)  # its memory is not given away while the caller's work reads it
        return result

    def close(self) -> None:
        """Let the caller's later work, which may change the weights, wait for what is still running here."""
        self._callers.wait_stream(self._own)


def stage_frame(frame: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 in memory from which a copy to the device need not be waited for; on a CPU it shares memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(frame))
    return tensor.pin_memory() if device.type == 'cuda' else tensor


def prepare_frame(
    frame: np.ndarray | Tensor, settings: InputSettings, device: str | torch.device = 'cpu'
) -> Tensor:
    """Resize and pad a frame for the encoder.

    Args:
        frame: (H, W, 3) uint8 RGB, an array or a tensor (see `stage_frame`).
        settings: What size to bring it to.
        device: Where to.

    Returns:
        (1, 3, h', w') uint8 RGB. Resizing is bilinear, by the filter of `settings.resize`.
    """
    height, width = frame.shape[:2]
    size = settings.resized(height, width)
    if size != (height, width) and settings.resize == 'opencv':
        frame = cv2.resize(frame.numpy(force=True) if isinstance(frame, Tensor) else frame, size[::-1])
    tensor = frame if isinstance(frame, Tensor) else torch.from_numpy(np.ascontiguousarray(frame))
    tensor = tensor.to(device, non_blocking=True).permute(2, 0, 1)[None]
    if size != tuple(tensor.shape[2:]):
        resized = F.interpolate(
            tensor.float(), size=size, mode='bilinear', align_corners=False, antialias=True
        )
        tensor = resized.round_().clamp_(0, 255).to(torch.uint8)
    padded = settings.padded(*size)
    if padded != size:
        tensor = F.pad(tensor, [0, padded[1] - size[1], 0, padded[0] - size[0]], value=PAD_GREY)
    return tensor.contiguous()


def encode_frame(
    frame: np.ndarray | Tensor, encode: Callable[[Tensor], Tensor], settings: InputSettings, device: str | torch.device
) -> Tensor:
    """The feature (C, h, w) of a frame; arguments as for `propagate_video`."""
    with torch.no_grad():
        feature = encode(prepare_frame(frame, settings, device))
    if feature.dim() != 4 or feature.shape[0] != 1:
        raise ValueError(f'encode must return (1, C, h, w) for one frame, got {tuple(feature.shape)}')
    return feature[0]


def read_frame(frames: Sequence[np.ndarray], number: int, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Frame `number`, checked: (H, W, 3) uint8, of the size of the frames before it, None for the first.

    Raises:
        ValueError: It is not.
    """
    frame = np.asarray(frames[number])
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(
            f'frame {number} of {name} must be (H, W, 3) uint8 RGB, got {frame.dtype} {frame.shape}'
        )
    if size is not None and frame.shape[:2] != size:
        raise ValueError(
            f'frame {number} of {name} is {frame.shape[0]}x{frame.shape[1]}, earlier frames are '
            f'{size[0]}x{size[1]} (height x width). All frames of a video must have one size.'
        )
    return frame


def _propagate(
    encoded: Generator[EncodedFrame, None, None],
    given_labels: GivenLabels,
    name: str,
    first_labels: np.ndarray,
    start: int,
    session: PropagationSession,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Label maps, each with its frame; frames before the first labels are not read."""
    for _ in range(start):
        yield np.zeros(first_labels.shape, dtype=first_labels.dtype), None
    with contextlib.closing(encoded):
        for item in encoded:
            labels = None
            if item.number == start:
                labels = first_labels
            elif item.number in given_labels:
                labels = _read_labels(given_labels[item.number], item.number, first_labels.shape, name)
            yield session.step(item.feature, labels), item.frame


def _read_labels(source, number: int, size: tuple[int, int], name: str) -> np.ndarray:
    labels = np.asarray(source() if callable(source) else source)
    if labels.shape != tuple(size):
        raise ValueError(
            f'frame {number} of {name} is {"x".join(map(str, size))}, its label map is '
            f'{"x".join(map(str, labels.shape))} (height x width). Resize the label map by nearest '
            'neighbour, for example with mmliir.ops.resize_label_map.'
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f'the label map of frame {number} of {name} must hold whole numbers, got {labels.dtype}'
        )
    return labels
