"""Transforms of a clip.

A clip is dict(frames=list of T arrays (H, W, 3) uint8 RGB, video_id=int, frame_ids=T numbers). A transform is called
with the clip and a `numpy.random.Generator`, draws once for all frames, and returns the clip. There is no other
source of randomness.
"""

import math

import cv2
import numpy as np
import torch

from mmliir.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeClip:
    """Resize all frames bilinearly, as uint8.

    Args:
        size: (H, W), or one number: both sides, or with `keep_ratio` the shorter side.
        keep_ratio: Keep the aspect ratio; the longer side follows. The LIIR recipe does not (256x256).
    """

    def __init__(self, size: int | tuple[int, int], keep_ratio: bool = False) -> None:
        if keep_ratio and not isinstance(size, int):
            raise ValueError(f'ResizeClip: with keep_ratio, size is the shorter side, one number; came {size!r}.')
        self.size = size if keep_ratio else _pair(size, 'ResizeClip')
        self.keep_ratio = keep_ratio

    def __call__(self, clip: dict, rng: np.random.Generator) -> dict:
        size = _short_side_size(clip['frames'][0], self.size) if self.keep_ratio else self.size
        return {**clip, 'frames': [_resize(frame, size) for frame in clip['frames']]}


@TRANSFORMS.register_module()
class RandomCropClip:
    """Cut the same window out of all frames.

    Args:
        size: (H, W), or one number for a square.
        short_side: Resize the shorter side to this first; None does not, except that a frame smaller than the window
            is enlarged until it fits.
    """

    def __init__(self, size: int | tuple[int, int], short_side: int | None = None) -> None:
        self.size = _pair(size, 'RandomCropClip')
        if short_side is not None and short_side < max(self.size):
            raise ValueError(f'RandomCropClip: short_side={short_side} is smaller than the window {self.size}.')
        self.short_side = short_side

    def __call__(self, clip: dict, rng: np.random.Generator) -> dict:
        frames = clip['frames']
        if self.short_side is not None:
            size = _short_side_size(frames[0], self.short_side)
            frames = [_resize(frame, size) for frame in frames]
        height, width = frames[0].shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width)
        if scale > 1:
            height, width = math.ceil(height * scale), math.ceil(width * scale)
            frames = [_resize(frame, (height, width)) for frame in frames]
        top = int(rng.integers(height - self.size[0] + 1))
        left = int(rng.integers(width - self.size[1] + 1))
        return {**clip, 'frames': [_crop(frame, top, left, self.size) for frame in frames]}


@TRANSFORMS.register_module()
class RandomResizedCropClip:
    """Cut the same window of random area and shape out of all frames, and resize it.

    Args:
        size: (H, W) of the result, or one number for a square.
        area: Smallest and largest share of the frame's area.
        aspect: Smallest and largest width / height of the window. After ten windows that do not fit, the largest
            central one of a permitted shape is taken.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        area: tuple[float, float] = (0.6, 1.0),
        aspect: tuple[float, float] = (1.5, 2.0),
    ) -> None:
        self.size = _pair(size, 'RandomResizedCropClip')
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise ValueError(
                f'RandomResizedCropClip: expected 0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1], came '
                f'area={area}, aspect={aspect}.'
            )
        self.area, self.aspect = tuple(area), tuple(aspect)

    def __call__(self, clip: dict, rng: np.random.Generator) -> dict:
        top, left, window = self._draw(*clip['frames'][0].shape[:2], rng)
        return {**clip, 'frames': [_resize(_crop(f, top, left, window), self.size) for f in clip['frames']]}

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, tuple[int, int]]:
        for _ in range(10):
            area = rng.uniform(*self.area) * height * width
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            window = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < window[0] <= height and 0 < window[1] <= width:
                top = int(rng.integers(height - window[0] + 1))
                left = int(rng.integers(width - window[1] + 1))
                return top, left, window
        aspect = min(max(width / height, self.aspect[0]), self.aspect[1])
        window = min(height, round(width / aspect)), min(width, round(height * aspect))
        return (height - window[0]) // 2, (width - window[1]) // 2, window


@TRANSFORMS.register_module()
class FlipClip:
    """Mirror all frames left to right, or none.

    Args:
        prob: Chance to mirror.
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'FlipClip: prob lies in [0, 1], came {prob}.')
        self.prob = prob

    def __call__(self, clip: dict, rng: np.random.Generator) -> dict:
        if rng.random() >= self.prob:
            return clip
        return {**clip, 'frames': [np.ascontiguousarray(frame[:, ::-1]) for frame in clip['frames']]}


@TRANSFORMS.register_module()
class PackClip:
    """Make the item of a training batch.

    Returns dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=dict(video_id=int, frame_ids=tuple)).
    """

    def __call__(self, clip: dict, rng: np.random.Generator) -> dict:
        sizes = {frame.shape for frame in clip['frames']}
        if len(sizes) != 1:
            raise ValueError(f'PackClip: frames of one clip differ in size: {sorted(sizes)}. Resize before packing.')
        types = {frame.dtype.name for frame in clip['frames']}
        if types != {'uint8'} or any(len(size) != 3 or size[2] != 3 for size in sizes):
            raise ValueError(f'PackClip: frames are (H, W, 3) uint8, came {sorted(sizes)} {", ".join(sorted(types))}.')
        height, width, _ = clip['frames'][0].shape
        inputs = np.empty((len(clip['frames']), 3, height, width), np.uint8)
        for planes, frame in zip(inputs, clip['frames'], strict=True):
            cv2.split(frame, list(planes))  # into place, eight times as fast as a transposed copy
        return dict(
            inputs=torch.from_numpy(inputs),
            data_samples=dict(video_id=clip['video_id'], frame_ids=tuple(clip['frame_ids'])),
        )


def _pair(size: int | tuple[int, int], who: str) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f'{who}: size is (height, width) or one number of pixels, came {size!r}.')
    return pair


def _short_side_size(frame: np.ndarray, short_side: int) -> tuple[int, int]:
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    return round(height * scale), round(width * scale)


def _resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[:2] == tuple(size):
        return frame
    return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _crop(frame: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    return frame[top : top + size[0], left : left + size[1]]
