"""A small JHMDB in the official layout, with exact joints: textured bodies that move over a textured background."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmliir.datasets.jhmdb import NUM_JOINTS

_TEXTURE_SIDE = 256  # pixels; textures tile with this period


@dataclass(frozen=True)
class JointedVideo:
    """A generated video of one stiff body.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (T, H, W) bool, where the body is seen.
        joints: (T, J, 2) float64, (x, y) in pixels, centres at integers; they are fixed to the body, one may lie
            outside it and the picture.
    """

    frames: np.ndarray
    masks: np.ndarray
    joints: np.ndarray


def generate_jointed_video(
    seed: int, num_frames: int, size: tuple[int, int], num_joints: int, outside: bool = False
) -> JointedVideo:
    """Generate one video; the same arguments give the same video.

    Args:
        seed: Any non-negative number.
        num_frames: T.
        size: (H, W).
        num_joints: J.
        outside: Put the last joint right of the picture, in all frames.
    """
    rng = np.random.default_rng([seed, 0x10175])
    height, width = size
    radii = np.array([0.16 * width, 0.24 * height])
    time = np.arange(num_frames)[:, None] - (num_frames - 1) / 2
    center = np.array([width / 2, height / 2]) + time * rng.uniform(0.4, 0.9, 2) * rng.choice([-1, 1], 2)
    angle = np.deg2rad(rng.uniform(-2, 2)) * time[:, 0] + rng.uniform(-0.3, 0.3)
    around, reach = rng.uniform(0, 2 * np.pi, num_joints), np.sqrt(rng.uniform(0.05, 0.8, num_joints))
    joints = np.stack([np.cos(around), np.sin(around)], axis=-1) * reach[:, None] * radii
    if outside:
        joints[-1] = 0.6 * width, 0.0
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1)
    body, background = _texture(rng), _texture(rng)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    frames = np.empty((num_frames, *size, 3), np.uint8)
    masks = np.empty((num_frames, *size), bool)
    for t in range(num_frames):
        # Turned back: where a pixel lies on the body.
        on_body = np.stack([x - center[t, 0], y - center[t, 1]], axis=-1) @ turn[t]
        masks[t] = ((on_body / radii) ** 2).sum(axis=-1) <= 1
        inside = _look_up(body, on_body + _TEXTURE_SIDE / 2)  # away from the seam of the texture
        frames[t] = np.where(masks[t][..., None], inside, _look_up(background, np.stack([x, y], axis=-1)))
    return JointedVideo(frames, masks, center[:, None] + np.einsum('tij,nj->tni', turn, joints))


def write_jhmdb(root: str | os.PathLike, split: int = 1) -> dict[str, JointedVideo]:
    """Write two clips of two classes, 6 frames of 60 x 80 each, in JHMDB's layout; SciPy is needed.

    The second clip has 8 images for its 6 annotated frames, and its last joint is outside the image. The lists name
    one training clip too, which is not there.

    Args:
        root: Folder to write into.
        split: Which of the three lists to write.

    Returns:
        Name, as `JhmdbDataset` gives it -> the video, of the annotated frames.
    """
    from scipy.io import savemat

    root, videos = Path(root), {}
    for seed, (group, clip, extra) in enumerate((('clap', 'hands_clap_u_nm', 0), ('wave', 'an_arm_wave_u_cm', 2))):
        video = generate_jointed_video(seed, 6 + extra, (60, 80), NUM_JOINTS, outside=extra > 0)
        write_images(root / 'Rename_Images' / group / clip, video.frames, '.png', first=1)
        video = JointedVideo(video.frames[:6], video.masks[:6], video.joints[:6])
        path = root / 'joint_positions' / group / clip / 'joint_positions.mat'
        path.parent.mkdir(parents=True)
        savemat(path, {'pos_img': video.joints.transpose(2, 1, 0) + 1, 'viewpoint': 'E', 'scale': np.ones(6)})
        listing = root / 'splits' / f'{group}_test_split{split}.txt'
        listing.parent.mkdir(exist_ok=True)
        listing.write_text(f'{clip}.avi 2 \n{clip}_training.avi 1 \n')
        videos[f'{group}__{clip}'] = video
    return videos


def write_images(folder: Path, frames: np.ndarray, suffix: str, first: int = 0) -> None:
    """Write frames as `<number>.png` or `.jpg` (quality 95), counted from `first`, five digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == '.jpg' else []
        done, data = cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
        assert done, f'cannot encode {suffix}'
        (folder / f'{number:05d}{suffix}').write_bytes(data.tobytes())


def _texture(rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) float32, colours that vary over some 5 pixels."""
    noise = rng.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(128 + rng.uniform(-30, 30, 3) + 45 * smooth / smooth.std(), 0, 255).astype(np.float32)


def _look_up(texture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Read a tiling texture at (H, W, 2) places (x, y), bilinearly."""
    u, v = (np.mod(places[..., axis], _TEXTURE_SIDE).astype(np.float32) for axis in (0, 1))
    return cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
