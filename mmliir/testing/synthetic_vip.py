"""A small generated VIP: dressed figures that walk over a textured ground, written as the benchmark stores its data.

Each part of a figure is a textured rectangle that moves with it, so that the truth is exact. The two videos show all 19
classes; figures pass one another, one leaves the frame, and a patch of the truth is void.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmliir.datasets.masks import write_label_map
from mmliir.datasets.vip import VIP_CLASSES, VIP_VOID

#: Figures as (class, rectangles of (left, top, right, bottom)) in a box of 20 x 36 pixels; later parts lie on top.
_WINTER = (
    ('coat', ((5, 12, 15, 22),)),
    ('scarf', ((6, 10, 14, 13),)),
    ('gloves', ((2, 18, 5, 22), (15, 18, 18, 22))),
    ('pants', ((6, 22, 14, 32),)),
    ('face', ((7, 4, 13, 10),)),
    ('sun-glasses', ((7, 5, 13, 7),)),
    ('hat', ((6, 0, 14, 4),)),
    ('left-shoe', ((10, 32, 15, 36),)),
    ('right-shoe', ((5, 32, 10, 36),)),
)
_SPORT = (
    ('hair', ((6, 0, 14, 5),)),
    ('face', ((7, 3, 13, 9),)),
    ('torso-skin', ((8, 9, 12, 12),)),
    ('upper-clothes', ((5, 11, 15, 19),)),
    ('left-arm', ((15, 11, 19, 21),)),
    ('right-arm', ((1, 11, 5, 21),)),
    ('skirt', ((5, 19, 15, 24),)),
    ('left-leg', ((10, 24, 14, 31),)),
    ('right-leg', ((6, 24, 10, 31),)),
    ('socks', ((6, 29, 14, 33),)),
    ('left-shoe', ((10, 33, 15, 36),)),
    ('right-shoe', ((5, 33, 10, 36),)),
)
_SUMMER = (
    ('hair', ((5, 0, 15, 8),)),
    ('face', ((7, 3, 13, 9),)),
    ('dress', ((4, 10, 16, 26),)),
    ('left-arm', ((16, 11, 19, 20),)),
    ('right-arm', ((1, 11, 4, 20),)),
    ('left-leg', ((10, 26, 14, 36),)),
    ('right-leg', ((6, 26, 10, 36),)),
)
_FIGURE_SIZE = (36, 20)
_FRAMES_APART = 25


@dataclass(frozen=True)
class _Walk:
    """A figure, where its box starts (x, y) and how far it goes each frame, in pixels."""

    parts: tuple
    start: tuple[int, int]
    step: tuple[int, int]


#: A video each; in the second the last figure walks out of a frame of 64 x 96.
_SCENES = {
    'videos1': (_Walk(_WINTER, (8, 14), (6, 1)), _Walk(_SPORT, (66, 20), (-7, 0))),
    'videos2': (
        _Walk(_SPORT, (10, 18), (2, 1)),
        _Walk(_SUMMER, (36, 10), (2, 2)),
        _Walk(_WINTER, (66, 16), (8, -1)),
    ),
}


@dataclass(frozen=True)
class VipVideo:
    """A generated video and the truth about it; T frames.

    Attributes:
        name: Of the video.
        frame_names: T stems, '000000000001', '000000000026', ...
        frames: (T, H, W, 3) uint8 RGB.
        categories: (T, H, W) uint8 classes, `VIP_VOID` in a patch of some frames.
        instances: (T, H, W) uint8, the same instance has the same id in all frames.
        classes: Id -> class.
        persons: Id -> number of the figure, from 1 on.
    """

    name: str
    frame_names: tuple[str, ...]
    frames: np.ndarray
    categories: np.ndarray
    instances: np.ndarray
    classes: dict[int, int]
    persons: dict[int, int]


def generate_vip_videos(seed: int = 0, num_frames: int = 5, size: tuple[int, int] = (64, 96)) -> list[VipVideo]:
    """Generate the two videos; the same arguments give the same ones.

    Args:
        seed: Of the textures.
        num_frames: T.
        size: (H, W), at least 64 x 96, so that the first frame shows every part.
    """
    if num_frames < 1 or size[0] < 64 or size[1] < 96:
        raise ValueError(f'expected at least 1 frame of 64x96 pixels (H, W), came {num_frames} of {size}.')
    rng = np.random.default_rng([seed, 0x71B])
    return [_generate(rng, name, walks, num_frames, size) for name, walks in _SCENES.items()]


def write_vip(
    root: str | os.PathLike, videos: Iterable[VipVideo] | None = None, split: str = 'val', suffix: str = '.jpg'
) -> list[VipVideo]:
    """Write `<root>/VIP_Fine` as VIP stores it; `VipDataset(root)` reads it back.

    Args:
        root: Folder to write into.
        videos: Videos with different names; None for those of `generate_vip_videos()`.
        split: Name of the list.
        suffix: '.jpg' (quality 95) or '.png' (exact pixels).

    Returns:
        The videos.
    """
    videos = generate_vip_videos() if videos is None else list(videos)
    base = Path(root) / 'VIP_Fine'
    for video in videos:
        images = base / 'Images' / video.name
        instances = base / 'Annotations' / 'Instance_ids' / video.name
        images.mkdir(parents=True, exist_ok=True)
        for t, stem in enumerate(video.frame_names):
            done, data = cv2.imencode(suffix, cv2.cvtColor(video.frames[t], cv2.COLOR_RGB2BGR), _JPEG)
            assert done, f'cannot encode {suffix}'
            (images / f'{stem}{suffix}').write_bytes(data.tobytes())
            write_label_map(base / 'Annotations' / 'Category_ids' / video.name / f'{stem}.png', video.categories[t])
            write_label_map(instances / f'{stem}.png', video.instances[t])
            seen = [int(i) for i in np.unique(video.instances[t]) if i]
            lines = [f'{i} {video.classes[i]} {video.persons[i]}\n' for i in seen]
            (instances / f'{stem}.txt').write_text(''.join(lines))
    listing = base / 'lists' / f'{split}_videos.txt'
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(''.join(f'{video.name}\n' for video in videos), encoding='utf-8')
    return videos


_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def _generate(rng, name: str, walks: tuple[_Walk, ...], num_frames: int, size: tuple[int, int]) -> VipVideo:
    height, width = size
    frames = np.repeat(_texture(rng, height, width)[None], num_frames, axis=0)
    instances = np.zeros((num_frames, height, width), dtype=np.uint8)
    classes: dict[int, int] = {}
    persons: dict[int, int] = {}
    for person, walk in enumerate(walks, start=1):
        ids, skin = np.zeros(_FIGURE_SIZE, dtype=np.uint8), np.zeros((*_FIGURE_SIZE, 3), dtype=np.uint8)
        for class_name, boxes in walk.parts:
            instance = len(classes) + 1
            classes[instance], persons[instance] = VIP_CLASSES.index(class_name), person
            texture = _texture(rng, *_FIGURE_SIZE)
            for left, top, right, bottom in boxes:
                ids[top:bottom, left:right] = instance
                skin[top:bottom, left:right] = texture[top:bottom, left:right]
        for t in range(num_frames):
            x, y = (start + t * step for start, step in zip(walk.start, walk.step))
            _paste(frames[t], instances[t], skin, ids, x, y)
    class_of = np.zeros(256, dtype=np.uint8)
    class_of[list(classes)] = list(classes.values())
    categories = class_of[instances]
    categories[1::2, :4, :6] = VIP_VOID
    stems = tuple(f'{1 + t * _FRAMES_APART:012d}' for t in range(num_frames))
    return VipVideo(name, stems, frames, categories, instances, classes, persons)


def _paste(frame: np.ndarray, instances: np.ndarray, skin: np.ndarray, ids: np.ndarray, x: int, y: int) -> None:
    """Draw a figure whose box starts at (x, y), as far as it is inside."""
    height, width = instances.shape
    top, left = max(0, -y), max(0, -x)
    bottom, right = min(_FIGURE_SIZE[0], height - y), min(_FIGURE_SIZE[1], width - x)
    if bottom <= top or right <= left:
        return
    inside = slice(top, bottom), slice(left, right)
    there = slice(y + top, y + bottom), slice(x + left, x + right)
    shown = ids[inside] > 0
    instances[there][shown] = ids[inside][shown]
    frame[there][shown] = skin[inside][shown]


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: one colour with patches of about 4 pixels."""
    coarse = rng.normal(0, 35, (-(-height // 4) + 1, -(-width // 4) + 1, 3)) + rng.uniform(60, 200, 3)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(fine, 0, 255).astype(np.uint8)
