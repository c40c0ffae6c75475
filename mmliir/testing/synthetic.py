"""Generated videos with exact label maps: for tests, and for a benchmark that fits in minutes.

Textured shapes move, turn, grow and bend over a moving textured background and pass over one another. Every
texture of a scene is made of the same colours in the same amounts, so that an object differs from what
surrounds it by its pattern and not by its mean colour; light and colour drift over time, so that colours
remembered from the first frame mislead. What is left to follow is structure at 4 to 16 pixels, which is what
a network learns when it reconstructs one frame from another.

Everything is a function of the seed: pure NumPy and OpenCV, no files, no global random state.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from mmliir.datasets.frames import FrameArray
from mmliir.datasets.masks import write_label_map
from mmliir.structures import VideoSample
from mmliir.utils.pipeline import map_ahead

_TEXTURE_SIDE = 256  # textures tile with this period, in pixels
_FULL_CIRCLE = 2 * np.pi


@dataclass(frozen=True)
class SceneSettings:
    """How hard a generated scene is. Lengths in pixels, times in frames, colours in Lab units (L 0 to 100).

    Attributes:
        num_objects: Objects that are there in the first frame; their ids are 1, 2, ...
        num_distractors: Shapes without a label. Each has the pattern of one of the objects, or of the scene.
        crossing_share: Share of the distractors whose path crosses an object.
        late_object: Whether one more object enters from outside after a third of the video, with the next id.
        radius: Smallest and largest mean radius of a shape, as a share of the shorter side.
        max_speed: Of a shape.
        background_speed: Of the background.
        max_rotation: Of a shape, degrees a frame.
        scale_change: Largest relative change of size.
        deformation: How far the outline bends over time, as a share of the radius.
        wavelength: Smallest and largest wavelength of a pattern.
        bandwidth: Relative spread of a pattern's wavelengths. Small: it repeats, and places of one texture look alike.
        contrast: Half the range of a pattern's colours in L, a and b.
        edge_hardness: 0: soft patterns; 4: almost flat patches.
        color_gap: Distance of each shape's mean colour from the scene's.
        distractor_likeness: Chance that a distractor has an object's pattern and colour, and not its own.
        brightness_drift: Largest relative change of L over the video.
        chroma_drift: Largest shift of a and b over the video.
        drift_period: Frames of one full swing of light and colour, smallest and largest.
        light_gradient: Strength of a patch of light that wanders over the scene, relative.
        noise: Standard deviation of the noise of each pixel and channel, of 255.
    """

    num_objects: int = 2
    num_distractors: int = 3
    crossing_share: float = 0.5
    late_object: bool = False
    radius: tuple[float, float] = (0.20, 0.28)
    max_speed: float = 2.0
    background_speed: float = 1.0
    max_rotation: float = 2.5
    scale_change: float = 0.15
    deformation: float = 0.10
    wavelength: tuple[float, float] = (10.0, 24.0)
    bandwidth: float = 0.8
    contrast: tuple[float, float, float] = (14.0, 26.0, 26.0)
    edge_hardness: float = 0.5
    color_gap: float = 8.0
    distractor_likeness: float = 0.5
    brightness_drift: float = 0.12
    chroma_drift: float = 8.0
    drift_period: tuple[float, float] = (30.0, 60.0)
    light_gradient: float = 0.15
    noise: float = 2.0


@dataclass(frozen=True)
class SyntheticVideo:
    """A generated video and the truth about it.

    Attributes:
        name: Name of the video.
        frames: (T, H, W, 3) uint8 RGB.
        label_maps: (T, H, W) uint8, the object seen at each pixel, late ones included; 0 = background or
            distractor.
        late_objects: Id of each object that is not there at the start -> frame at which it is to be given.
    """

    name: str
    frames: np.ndarray
    label_maps: np.ndarray
    late_objects: dict[int, int] = field(default_factory=dict)

    def annotations(self, late_objects: bool = False) -> np.ndarray:
        """Return what a benchmark would store, (T, H, W) uint8.

        Args:
            late_objects: False: the objects of the first frame alone, as DAVIS scores (a late object is
                background). True: late objects too, from the frame on at which they are given.
        """
        maps = self.label_maps.copy()
        for object_id, start in self.late_objects.items():
            part = maps[:start] if late_objects else maps
            part[part == object_id] = 0
        return maps

    def sample(self, late_objects: bool = False) -> VideoSample:
        """Return the video as a benchmark gives it: frames, and the label maps that are given."""
        annotations = self.annotations(late_objects)
        given = {0: lambda: annotations[0]}
        if late_objects:
            for start in sorted(set(self.late_objects.values())):
                new = [object_id for object_id, frame in self.late_objects.items() if frame == start]
                label_map = np.where(np.isin(annotations[start], new), annotations[start], 0).astype(np.uint8)
                given[start] = lambda label_map=label_map: label_map
        frames = FrameArray(self.frames, self.name)
        return VideoSample(self.name, frames, frames.frame_names, given)


def generate_video(
    seed: int,
    num_frames: int = 25,
    size: tuple[int, int] = (96, 160),
    settings: SceneSettings | None = None,
    num_objects: int | None = None,
    name: str | None = None,
) -> SyntheticVideo:
    """Generate one video; the same arguments give the same video.

    Args:
        seed: Any non-negative number. Keep training and evaluation seeds apart.
        num_frames: T.
        size: (H, W), at least 32 each.
        settings: How hard the scene is; None for the defaults of `SceneSettings`.
        num_objects: Overrides `settings.num_objects`.
        name: Of the video; None for one made of the seed.

    Returns:
        The video. Every object of the first frame is seen there.
    """
    settings = settings or SceneSettings()
    if num_objects is not None:
        settings = replace(settings, num_objects=num_objects)
    if num_frames < 1 or min(size) < 32:
        raise ValueError(f'expected at least 1 frame of 32x32 pixels, came {num_frames} of (H, W) = {size}.')
    if not 0 <= settings.num_objects <= 254:
        raise ValueError(f'num_objects: expected 0 to 254, came {settings.num_objects}.')
    rng = np.random.default_rng([seed, 0x11CE])
    scene = _Scene(rng, num_frames, size, settings)
    frames = np.empty((num_frames, *size, 3), dtype=np.uint8)
    label_maps = np.empty((num_frames, *size), dtype=np.uint8)
    for t in range(num_frames):
        frames[t], label_maps[t] = scene.render(t)
    late = {}
    if settings.late_object and num_frames > 1:
        late_id = settings.num_objects + 1
        areas = (label_maps == late_id).sum((1, 2))
        if areas.max() > 0:
            late[late_id] = int(np.argmax(areas >= 0.6 * areas.max()))
    return SyntheticVideo(name or f'seed{seed:05d}', frames, label_maps, late)


def generate_videos(
    seeds: Iterable[int],
    num_frames: int = 25,
    size: tuple[int, int] = (96, 160),
    settings: SceneSettings | None = None,
    threads: int = 1,
) -> Iterator[SyntheticVideo]:
    """Generate one video a seed, in order; the videos do not depend on the number of threads."""
    workers = threads if threads > 1 else 0
    yield from map_ahead(lambda seed: generate_video(seed, num_frames, size, settings), seeds, workers, 2 * workers)


# -- writing ------------------------------------------------------------------------------------------------


def write_davis_layout(
    root: str | os.PathLike,
    videos: Iterable[SyntheticVideo],
    split: str = 'val',
    year: int = 2017,
    late_objects: bool = False,
    resolution: str = '480p',
    suffix: str = '.jpg',
) -> list[str]:
    """Write videos as DAVIS stores them; `DavisDataset(root)` reads them back.

    Args:
        root: Folder to write into.
        videos: Videos with different names.
        split: Name of the list.
        year: 2017: object ids. 2016: one object of all, stored as 255.
        late_objects: See `SyntheticVideo.annotations`.
        resolution: Name of the folder; the frames keep their size.
        suffix: '.jpg' (quality 95) or '.png' (exact pixels).

    Returns:
        Names, as listed in ImageSets.
    """
    root = Path(root)
    names = []
    for video in videos:
        _write_frames(root / 'JPEGImages' / resolution / video.name, video.frames, suffix)
        for t, label_map in enumerate(video.annotations(late_objects)):
            path = root / 'Annotations' / resolution / video.name / f'{t:05d}.png'
            if year == 2016:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_image(path, np.where(label_map > 0, 255, 0).astype(np.uint8))
            else:
                write_label_map(path, label_map)
        names.append(video.name)
    list_path = root / 'ImageSets' / str(year) / f'{split}.txt'
    list_path.parent.mkdir(parents=True, exist_ok=True)
    list_path.write_text(''.join(f'{name}\n' for name in names))
    return names


def write_frame_folders(
    root: str | os.PathLike, videos: Iterable[SyntheticVideo], suffix: str = '.jpg', step: int = 1
) -> list[str]:
    """Write each video's frames to `root/<name>/<number>.jpg` and return the names.

    Args:
        root: Folder to write into.
        videos: Videos with different names.
        suffix: '.jpg' (quality 95) or '.png' (exact pixels).
        step: Keep every `step`-th frame; files keep the number of the original frame.
    """
    names = []
    for video in videos:
        _write_frames(Path(root) / video.name, video.frames, suffix, step)
        names.append(video.name)
    return names


def write_youtube_vos_layout(
    root: str | os.PathLike,
    videos: Iterable[SyntheticVideo],
    split: str = 'train',
    frames: str = 'all',
    suffix: str = '.jpg',
) -> list[str]:
    """Write videos as YouTube-VOS stores them; `YouTubeVOSSource(root)` reads them back.

    Args:
        root: Folder to write into.
        videos: Videos with different names.
        split: Name of the split.
        frames: 'all': `<split>_all_frames/JPEGImages`, every frame. '6fps': `<split>/JPEGImages`, every
            fifth.
        suffix: '.jpg' or '.png'.
    """
    if frames not in ('all', '6fps'):
        raise ValueError(f"frames: expected 'all' or '6fps', came {frames!r}.")
    folder = f'{split}_all_frames' if frames == 'all' else split
    return write_frame_folders(Path(root) / folder / 'JPEGImages', videos, suffix, 1 if frames == 'all' else 5)


def _write_frames(folder: Path, frames: np.ndarray, suffix: str, step: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(0, len(frames), step):
        _write_image(folder / f'{t:05d}{suffix}', cv2.cvtColor(frames[t], cv2.COLOR_RGB2BGR))


def _write_image(path: Path, image: np.ndarray) -> None:
    done, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done, f'cannot encode {path.suffix}'
    path.write_bytes(data.tobytes())


# -- textures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pattern:
    """What a texture looks like, apart from the random numbers it is made of.

    Attributes:
        wavelength: Pixels.
        angle: Direction in which it varies, radians.
        spread: Angular width; large: the same in all directions (spots), small: stripes.
        folds: 1: stripes, 2: a weave.
    """

    wavelength: float
    angle: float
    spread: float
    folds: int


def _draw_pattern(rng: np.random.Generator, wavelength: tuple[float, float]) -> _Pattern:
    return _Pattern(
        wavelength=rng.uniform(*wavelength),
        angle=rng.uniform(0, np.pi),
        spread=float(rng.choice([0.15, 0.35, 10.0])),
        folds=int(rng.integers(1, 3)),
    )


def _band_noise(rng: np.random.Generator, pattern: _Pattern, bandwidth: float) -> np.ndarray:
    """Return tiling noise of one wavelength, (S, S) in [-1, 1], every value equally frequent."""
    side = _TEXTURE_SIDE
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing='ij')
    frequency = np.hypot(fx, fy)
    center = 1 / pattern.wavelength
    ring = np.exp(-(((frequency - center) / (bandwidth * center)) ** 2))
    ring[0, 0] = 0
    turned = np.arctan2(fy, fx) - pattern.angle
    ring *= np.exp(-((np.sin(pattern.folds * turned) / pattern.spread) ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * ring).real
    ranks = np.empty(side * side)
    ranks[np.argsort(noise, axis=None, kind='stable')] = np.arange(side * side)
    return (2 * ranks / (side * side - 1) - 1).reshape(side, side)


def _make_texture(
    rng: np.random.Generator, pattern: _Pattern, axes: np.ndarray, mean: np.ndarray, settings: SceneSettings
) -> np.ndarray:
    """Return a tiling Lab texture, (S, S, 3) float32.

    Args:
        rng: Random numbers.
        pattern: What it looks like.
        axes: (2, 3), the two directions in Lab along which the colours vary, at full length.
        mean: (3,) Lab.
        settings: Bandwidth and edge hardness of the patterns.
    """
    second = replace(pattern, wavelength=1.4 * pattern.wavelength, spread=10.0)
    fields = np.stack([_band_noise(rng, p, settings.bandwidth) for p in (pattern, second)], axis=-1)
    if settings.edge_hardness > 0:
        fields = np.tanh(settings.edge_hardness * fields) / np.tanh(settings.edge_hardness)
    return (mean + fields @ axes).astype(np.float32)


# -- scene --------------------------------------------------------------------------------------------------


@dataclass
class _Sprite:
    """One moving shape.

    Attributes:
        label: Object id; 0 for a distractor.
        texture: (S, S, 3) Lab.
        radius: Mean radius, pixels.
        harmonics: (N, 4): order, amplitude at rest, amplitude that swings, phase.
        center: (T, 2), x and y.
        angle: (T,) radians.
        scale: (T,)
        swing: (T,) in [-1, 1], how far the outline is bent.
    """

    label: int
    texture: np.ndarray
    radius: float
    harmonics: np.ndarray
    center: np.ndarray
    angle: np.ndarray
    scale: np.ndarray
    swing: np.ndarray

    def cover(self, t: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return opacity and texture coordinates at pixels (x, y) of frame t."""
        dx, dy = x - self.center[t, 0], y - self.center[t, 1]
        cos, sin = np.cos(self.angle[t]) / self.scale[t], np.sin(self.angle[t]) / self.scale[t]
        u, v = cos * dx + sin * dy, -sin * dx + cos * dy
        direction = np.arctan2(v, u)
        bend = np.ones_like(u)
        for order, rest, swinging, phase in self.harmonics:
            bend += (rest + swinging * self.swing[t]) * np.cos(order * direction + phase)
        inside = self.radius - np.hypot(u, v) / bend
        # The pattern bends with the outline, so that motion is not rigid.
        return np.clip(inside * self.scale[t] + 0.5, 0, 1), u / bend, v / bend


class _Scene:
    """All that is drawn once a video; `render` draws what is left, once a frame, in order of t."""

    def __init__(
        self, rng: np.random.Generator, num_frames: int, size: tuple[int, int], settings: SceneSettings
    ) -> None:
        self.num_frames, self.size, self.settings = num_frames, size, settings
        self.rng = rng
        self.time = np.arange(num_frames)
        y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing='ij')
        self.x, self.y = x.astype(np.float32), y.astype(np.float32)
        self.mean = np.array([rng.uniform(48, 60), rng.uniform(-6, 6), rng.uniform(-6, 6)])
        turn = rng.uniform(0, _FULL_CIRCLE)
        light, red_green, blue_yellow = settings.contrast
        # Two colour axes, at right angles in (a, b), the same for the whole scene.
        self.axes = np.array(
            [
                [0.75 * light, red_green * np.cos(turn), blue_yellow * np.sin(turn)],
                [0.65 * light, -red_green * np.sin(turn), blue_yellow * np.cos(turn)],
            ]
        )
        self.background = self._texture(_draw_pattern(rng, settings.wavelength), gap=0.0)
        self.pan = _smooth_path(rng, num_frames, settings.background_speed)
        self.sprites = self._draw_sprites()
        self.brightness = 1 + settings.brightness_drift * self._swing()
        self.chroma = settings.chroma_drift * np.stack([self._swing(), self._swing()], axis=-1)
        self.light_path = self._draw_light_path()

    def render(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frame t, (H, W, 3) uint8 RGB, and its label map, (H, W) uint8."""
        lab = _look_up(self.background, self.x + self.pan[t, 0], self.y + self.pan[t, 1])
        label_map = np.zeros(self.size, dtype=np.uint8)
        for sprite in self.sprites:
            opacity, u, v = sprite.cover(t, self.x, self.y)
            if opacity.max() <= 0:
                continue
            color = _look_up(sprite.texture, u, v)
            lab += opacity[..., None].astype(np.float32) * (color - lab)
            label_map[opacity >= 0.5] = sprite.label
        lab = self._light(t, lab)
        rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB) * 255
        rgb += self.settings.noise * self.rng.standard_normal(rgb.shape)
        return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), label_map

    def _light(self, t: int, lab: np.ndarray) -> np.ndarray:
        h, w = self.size
        cx, cy = self.light_path[t]
        patch = np.exp(-((self.x - cx) ** 2 + (self.y - cy) ** 2) / (2 * (0.4 * max(h, w)) ** 2))
        gain = self.brightness[t] * (1 + self.settings.light_gradient * (2 * patch - 1))
        lab[..., 0] = np.clip(lab[..., 0] * gain, 0, 100)
        lab[..., 1:] += self.chroma[t].astype(np.float32)
        return lab

    def _texture(self, pattern: _Pattern, gap: float) -> np.ndarray:
        offset = self.rng.standard_normal(3)
        mean = self.mean + gap * offset / np.linalg.norm(offset)
        return _make_texture(self.rng, pattern, self.axes, mean, self.settings)

    def _swing(self) -> np.ndarray:
        """A slow swing that starts anywhere, (T,) in [-1, 1]."""
        period = self.rng.uniform(*self.settings.drift_period)
        return np.sin(_FULL_CIRCLE * self.time / period + self.rng.uniform(0, _FULL_CIRCLE))

    def _draw_light_path(self) -> np.ndarray:
        h, w = self.size
        return np.stack([w * (0.5 + 0.5 * self._swing()), h * (0.5 + 0.5 * self._swing())], axis=-1)

    def _draw_sprites(self) -> list[_Sprite]:
        """Draw distractors and objects in order of depth, the last in front."""
        rng, settings = self.rng, self.settings
        count = settings.num_objects + settings.num_distractors
        radii = rng.uniform(*settings.radius, size=count) * min(self.size)
        places, radii = _place(rng, radii, self.size)
        patterns = [_draw_pattern(rng, settings.wavelength) for _ in range(count)]
        sprites = []
        for number in range(settings.num_objects):
            center = places[number] + self._stay_inside(places[number], radii[number])
            sprites.append(self._sprite(number + 1, patterns[number], radii[number], center))
        for number in range(settings.num_objects, count):
            pattern = patterns[number]
            if settings.num_objects and rng.random() < settings.distractor_likeness:
                pattern = patterns[rng.integers(settings.num_objects)]
            center = places[number] + _smooth_path(rng, self.num_frames, settings.max_speed)
            if settings.num_objects and rng.random() < settings.crossing_share:
                target = sprites[rng.integers(settings.num_objects)]
                center = self._crossing_path(places[number], target)
            sprites.append(self._sprite(0, pattern, radii[number], center))
        if settings.late_object:
            sprites.append(self._late_sprite(settings.num_objects + 1))
        return [sprites[i] for i in rng.permutation(len(sprites))]

    def _sprite(self, label: int, pattern: _Pattern, radius: float, center: np.ndarray) -> _Sprite:
        rng, settings = self.rng, self.settings
        orders = np.arange(2, 6)
        rest = rng.uniform(-0.22, 0.22, size=4) / np.sqrt(orders - 1)
        bend = rng.uniform(-1, 1, size=4) * settings.deformation / np.sqrt(orders - 1)
        harmonics = np.stack([orders, rest, bend, rng.uniform(0, _FULL_CIRCLE, size=4)], axis=-1)
        turning = np.deg2rad(settings.max_rotation)
        return _Sprite(
            label=label,
            texture=self._texture(pattern, settings.color_gap),
            radius=float(radius),
            harmonics=harmonics,
            center=center,
            angle=_smooth_path(rng, self.num_frames, turning)[:, 0] + rng.uniform(0, _FULL_CIRCLE),
            scale=1 + settings.scale_change * self._swing(),
            swing=self._swing(),
        )

    def _stay_inside(self, start: np.ndarray, radius: float) -> np.ndarray:
        """Return a path from 0 that keeps the centre of a shape in the picture, (T, 2)."""
        path = _smooth_path(self.rng, self.num_frames, self.settings.max_speed)
        h, w = self.size
        low, high = 0.5 * radius, np.array([w, h]) - 0.5 * radius
        beyond = np.maximum(np.maximum(low - (start + path), (start + path) - high), 0).max(axis=0)
        reach = np.abs(path).max(axis=0)
        return path * np.clip(1 - beyond / np.maximum(reach, 1e-6), 0, 1)

    def _crossing_path(self, start: np.ndarray, target: _Sprite) -> np.ndarray:
        """Return a path that meets the target about half-way through the video, at no more than the top
        speed."""
        meeting = int(self.rng.uniform(0.3, 0.8) * (self.num_frames - 1)) or 1
        way = target.center[min(meeting, self.num_frames - 1)] - start
        speed = np.linalg.norm(way) / meeting
        way *= min(1.0, self.settings.max_speed / max(speed, 1e-6))
        return start + self.time[:, None] * way / meeting

    def _late_sprite(self, label: int) -> _Sprite:
        rng = self.rng
        h, w = self.size
        radius = rng.uniform(*self.settings.radius) * min(self.size)
        from_left = rng.random() < 0.5
        outside = -1.8 * radius if from_left else w + 1.8 * radius
        inside = 0.25 * w if from_left else 0.75 * w
        # Outside for the first third, then in.
        share = np.clip((self.time / max(self.num_frames - 1, 1) - 0.3) / 0.4, 0, 1)
        x = outside + (inside - outside) * share
        y = np.full(self.num_frames, rng.uniform(0.3, 0.7) * h)
        pattern = _draw_pattern(rng, self.settings.wavelength)
        return self._sprite(label, pattern, radius, np.stack([x, y], axis=-1))


def _smooth_path(rng: np.random.Generator, num_frames: int, max_speed: float) -> np.ndarray:
    """Return a smooth path that starts at 0, (T, 2), with no step longer than `max_speed`."""
    time = np.arange(num_frames)
    path = np.zeros((num_frames, 2))
    for axis in range(2):
        for period in rng.uniform((30, 15), (60, 30)):
            phase = rng.uniform(0, _FULL_CIRCLE)
            path[:, axis] += period * np.sin(_FULL_CIRCLE * time / period + phase) * rng.uniform(0.3, 1.0)
    path -= path[0]
    fastest = np.linalg.norm(np.diff(path, axis=0), axis=1).max(initial=0.0)
    return path * (max_speed / fastest * rng.uniform(0.5, 1.0) if fastest > 0 else 0.0)


def _place(rng: np.random.Generator, radii: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (N, 2) that do not overlap, and the radii, made smaller where there is no room."""
    h, w = size
    while True:
        places: list[np.ndarray] = []
        for radius in radii:
            for _ in range(100):
                place = rng.uniform((radius, radius), (w - radius, h - radius))
                gaps = [np.linalg.norm(place - p) - 1.2 * (radius + r) for p, r in zip(places, radii, strict=False)]
                if min(gaps, default=0) >= 0:
                    places.append(place)
                    break
            else:
                break
        if len(places) == len(radii):
            return np.array(places).reshape(-1, 2), radii
        radii = radii * 0.9


def _look_up(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Read a tiling texture at (u, v) pixels, bilinearly."""
    # OpenCV interpolates at 1/32 pixel and wraps.
    side = texture.shape[0]
    u, v = np.mod(u, side).astype(np.float32), np.mod(v, side).astype(np.float32)
    return cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
