"""Where points of a generated video are, exactly, and a feature that needs no training."""

import numpy as np
import torch
import torch.nn.functional as F

from mmliir.testing.synthetic import SceneSettings, _Scene, generate_video

# A frame's points: on the objects, on what has no label, and on the background.
SETTINGS = SceneSettings(
    num_objects=3,
    num_distractors=3,
    crossing_share=1.0,
    max_speed=4.0,
    max_rotation=1.0,
    scale_change=0.05,
    deformation=0.03,
    distractor_likeness=0.0,
    color_gap=16.0,
    brightness_drift=0.05,
    chroma_drift=3.0,
    light_gradient=0.0,
)


class PointScene:
    """A generated video with the truth about any of its points.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
    """

    def __init__(self, seed: int, num_frames: int = 16, size: tuple[int, int] = (96, 128)) -> None:
        self.frames = generate_video(seed, num_frames, size, SETTINGS).frames
        # Everything but the noise of the pixels is drawn before the first frame is rendered.
        self._scene = _Scene(np.random.default_rng([seed, 0x11CE]), num_frames, size, SETTINGS)
        self.size = size

    def follow(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) queries to (N, T, 2) places and (N, T) whether the point is seen there."""
        count = len(self.frames)
        tracks, visible = np.zeros((len(queries), count, 2)), np.zeros((len(queries), count), dtype=bool)
        for n, (t, x, y) in enumerate(queries):
            owner = self._front(int(t), x, y)
            tracks[n] = self._carry(owner, int(t), x, y)
            for other, (px, py) in enumerate(tracks[n]):
                inside = 0 <= px <= self.size[1] - 1 and 0 <= py <= self.size[0] - 1
                visible[n, other] = inside and self._front(other, px, py) is owner
        return tracks, visible

    def _front(self, t: int, x: float, y: float):
        """The shape that is in front at a place; None is the background."""
        for sprite in reversed(self._scene.sprites):
            if sprite.cover(t, np.array([x]), np.array([y]))[0][0] >= 0.5:
                return sprite
        return None

    def _carry(self, sprite, t: int, x: float, y: float) -> np.ndarray:
        scene = self._scene
        if sprite is None:
            return np.array([x, y]) + scene.pan[t] - scene.pan
        _, u, v = sprite.cover(t, np.array([x]), np.array([y]))  # bent back: the place in the pattern
        u, v = u[0], v[0]
        direction = np.arctan2(v, u)
        bend = np.ones(len(self.frames))
        for order, rest, swinging, phase in sprite.harmonics:
            bend += (rest + swinging * sprite.swing) * np.cos(order * direction + phase)
        cos, sin = np.cos(sprite.angle) * sprite.scale, np.sin(sprite.angle) * sprite.scale
        return sprite.center + np.stack([cos * u - sin * v, sin * u + cos * v], axis=-1) * bend[:, None]


def draw_queries(seed: int, count: int, size: tuple[int, int], num_frames: int = 1) -> np.ndarray:
    """(N, 3) queries anywhere in the frame, at whole pixels, in one of the first frames."""
    draw = np.random.default_rng(seed)
    return np.stack(
        [draw.integers(0, high, count) for high in (num_frames, size[1], size[0])], axis=-1
    ).astype(np.float64)


def patch_feature(frames: torch.Tensor, stride: int = 4) -> torch.Tensor:
    """(B, 3, H, W) uint8 to (B, 75, H / stride, W / stride): 5 x 5 means around each cell, less their mean."""
    means = F.avg_pool2d(frames.float() / 255, stride // 2, ceil_mode=True)
    means = F.pad(means, [2, 2, 2, 2], mode='replicate')
    patches = F.unfold(means, 5, stride=2).unflatten(1, (3, 25))
    patches = patches - 0.7 * patches.mean(dim=2, keepdim=True)
    return patches.flatten(1, 2).unflatten(2, tuple(-(-pixels // stride) for pixels in frames.shape[2:]))
