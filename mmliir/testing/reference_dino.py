"""DINO's evaluation of a video, from its frames to the label maps that it writes (facebookresearch/dino@7c446df,
`eval_video_segmentation.py`): what ours is held to from end to end.

Apart from `reference_evaluators.py`, because it needs OpenCV and Pillow, which programs that time a step do not.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmliir.testing.reference_evaluators import dino_mask, dino_step


def dino_size(height: int, width: int, short_side: int, unit: int = 64) -> tuple[int, int]:
    """(H, W) that DINO brings a frame to: the short side as it is asked for, the long one cut to a multiple."""
    if height > width:
        return int(short_side * height / width // unit * unit), short_side
    return short_side, int(short_side * width / height // unit * unit)


def dino_frame(frame_HW3: np.ndarray, short_side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A uint8 RGB frame -> (3, h, w) normalised: OpenCV's bilinear resize in 8 bits, then float."""
    height, width = dino_size(*frame_HW3.shape[:2], short_side)
    resized = cv2.resize(frame_HW3, (width, height))
    image = torch.from_numpy(resized.astype(np.float32) / 255.0).permute(2, 0, 1)
    return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def dino_video(
    frames: Sequence[np.ndarray],
    first_mask: np.ndarray,
    encode: Callable[[Tensor], Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    patch: int,
    short_side: int = 480,
    recent: int = 7,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
) -> list[np.ndarray]:
    """DINO's evaluation of one video, from its frames to the label maps that it writes.

    Args:
        frames: T uint8 RGB frames, (H, W, 3).
        first_mask: (H, W) uint8 ids.
        encode: (1, 3, h', w') normalised -> (1, C, h, w).
        mean, std: Of the normalisation.
        patch: Pixels per cell.
        short_side, recent, radius, topk, temperature: Its options.

    Returns:
        T label maps, (H, W) uint8; the first is `first_mask`.
    """
    height, width = dino_size(*first_mask.shape, short_side)
    cells = height // patch, width // patch
    small = np.array(Image.fromarray(first_mask).resize(cells[::-1], Image.Resampling.NEAREST))
    field = F.one_hot(torch.from_numpy(small).long()).permute(2, 0, 1).float()

    def feature(frame: np.ndarray) -> Tensor:
        return F.normalize(encode(dino_frame(frame, short_side, mean, std)[None])[0], dim=0)

    references, label_maps = [(feature(frames[0]), field)], [first_mask]
    for frame in frames[1:]:
        query = feature(frame)
        keys, values = (torch.stack(maps) for maps in zip(*references, strict=True))
        field = dino_step(query, keys, values, dino_mask(*cells, radius, len(keys)), temperature, topk)
        references = references[:1] + [*references[1:], (query, field)][-recent:]
        pixels = F.interpolate(field[None], scale_factor=patch, mode='bilinear', align_corners=False)[0]
        for channel in pixels:
            if channel.max() > 0:
                channel -= channel.min().item()
                channel /= channel.max().item()
        labels = pixels.max(dim=0).indices.numpy().astype(np.uint8)
        size = first_mask.shape[::-1]
        label_maps.append(np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)))
    return label_maps
