"""Propagate labels through a whole video: from features, or from frames and an encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.propagation.presets import Protocol
from mmliir.propagation.session import LabelMap, PropagationSession
from mmliir.propagation.settings import InputSettings, PropagationSettings

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
        sure the propagation is of each object, see `VideoLabels`.

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
    first = (start, first_frame, first_labels)
    device = torch.device(device)
    return VideoLabels(session, _propagate(frames, encode, given_labels, protocol.input, device, name, first, session))


class VideoLabels(Iterator[np.ndarray]):
    """The label maps of a video, computed while they are taken."""

    def __init__(self, session: PropagationSession, label_maps: Iterator[np.ndarray]) -> None:
        self._session, self._label_maps = session, label_maps

    def __next__(self) -> np.ndarray:
        return next(self._label_maps)

    def object_scores(self) -> dict[int, float]:
        """How sure the propagation is of each object in the label map that was taken last: id -> 0..1.

        See `PropagationSession.object_scores`. Empty before the first given label map.
        """
        return self._session.object_scores()


def prepare_frame(frame: np.ndarray, settings: InputSettings, device: str | torch.device = 'cpu') -> Tensor:
    """Resize and pad a frame for the encoder.

    Args:
        frame: (H, W, 3) uint8 RGB.
        settings: What size to bring it to.
        device: Where to.

    Returns:
        (1, 3, h', w') uint8 RGB. Resizing is bilinear and, when it shrinks, averages over the pixels (as PIL
        does).
    """
    tensor = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None]
    height, width = frame.shape[:2]
    size = settings.resized(height, width)
    if size != (height, width):
        resized = F.interpolate(
            tensor.float(), size=size, mode='bilinear', align_corners=False, antialias=True
        )
        tensor = resized.round_().clamp_(0, 255).to(torch.uint8)
    padded = settings.padded(*size)
    if padded != size:
        tensor = F.pad(tensor, [0, padded[1] - size[1], 0, padded[0] - size[0]], value=PAD_GREY)
    return tensor.contiguous()


def encode_frame(
    frame: np.ndarray, encode: Callable[[Tensor], Tensor], settings: InputSettings, device: str | torch.device
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


def _propagate(frames, encode, given_labels, settings, device, name, first, session) -> Iterator[np.ndarray]:
    start, first_frame, first_labels = first
    size = first_frame.shape[:2]
    for _ in range(start):
        yield np.zeros(size, dtype=first_labels.dtype)
    for number in range(start, len(frames)):
        frame, labels = first_frame, first_labels
        if number > start:
            frame, labels = read_frame(frames, number, name, size), None
            if number in given_labels:
                labels = _read_labels(given_labels[number], number, size, name)
        yield session.step(encode_frame(frame, encode, settings, device), labels)


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
