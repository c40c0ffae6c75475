"""YouTube-VOS as it is evaluated, in small: validation with late objects, and training videos to hold out.

The layout and the file formats are the official ones, the frames are generated, and the truth of all of it is known.
"""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmliir.datasets.masks import write_label_map
from mmliir.datasets.sources import holdout_names
from mmliir.testing.synthetic import SceneSettings, SyntheticVideo, generate_video, write_youtube_vos_layout

#: Every so many frames one is annotated, and scored.
ANNOTATED_STEP = 5


@dataclass(frozen=True)
class SyntheticYouTubeVos:
    """What was written.

    Attributes:
        root: Folder of the year.
        truth: Split ('valid', 'train') -> video -> (T, H, W) uint8, late objects from the frame that gives them.
        categories: Video -> id -> category. Of the held-out videos `holdout` one object is of a category that no other
            training video has.
        holdout: Training videos that `holdout_names` names.
    """

    root: Path
    truth: dict[str, dict[str, np.ndarray]]
    categories: dict[str, dict[int, str]]
    holdout: tuple[str, ...]

    def write_perfect_predictions(self, out_dir: str | os.PathLike, split: str, names: Sequence[str]) -> None:
        """Write the truth of every annotated frame to `<out_dir>/<video>/<frame>.png`."""
        for name in names:
            for t in range(0, len(self.truth[split][name]), ANNOTATED_STEP):
                write_label_map(Path(out_dir) / name / f'{t:05d}.png', self.truth[split][name][t])


def write_youtube_vos(
    root: str | os.PathLike,
    num_valid: int = 2,
    num_train: int = 2,
    num_holdout: int = 2,
    num_frames: int = 21,
    size: tuple[int, int] = (48, 64),
) -> SyntheticYouTubeVos:
    """Write `valid`, `valid_all_frames`, `train`, `train_all_frames` with meta.json.

    Every video has two objects from its start and one that enters late.

    Args:
        root: Folder of the year to write into.
        num_valid: Validation videos; their annotations give each object once, as the official ones do.
        num_train: Training videos that are not held out.
        num_holdout: Training videos that are.
        num_frames: Of each video.
        size: (H, W).
    """
    root = Path(root)
    train, holdout = _names(num_train, False), _names(num_holdout, True)
    names = {'valid': [f'{number:010x}' for number in range(0xA0, 0xA0 + num_valid)], 'train': [*train, *holdout]}
    if num_frames <= 2 * ANNOTATED_STEP:
        raise ValueError(f'num_frames: a late object needs three annotated frames, so more than 10; came {num_frames}.')
    base = _whole_video(num_frames, size)
    number = itertools.count()
    truth: dict[str, dict[str, np.ndarray]] = {'valid': {}, 'train': {}}
    categories = {}
    for split, wanted in names.items():
        videos = [_variant(base, next(number), name) for name in wanted]
        for frames in ('all', '6fps'):
            write_youtube_vos_layout(root, videos, split, frames)
        for video in videos:
            truth[split][video.name] = video.annotations(late_objects=True)
            categories[video.name] = {1: 'penguin', 2: 'unicycle' if video.name in holdout else 'zebra', 3: 'penguin'}
        _write_annotations(root / split, truth[split], only_new=split == 'valid')
        _write_meta(root / split / 'meta.json', truth[split], categories)
    return SyntheticYouTubeVos(root, truth, categories, tuple(sorted(holdout)))


def _names(count: int, held_out: bool) -> list[str]:
    """Return the first names that are, or are not, set aside."""
    candidates = (f'{number:010x}' for number in itertools.count())
    return list(itertools.islice((name for name in candidates if bool(holdout_names([name])) == held_out), count))


def _whole_video(num_frames: int, size: tuple[int, int]) -> SyntheticVideo:
    """Return a video of which all three objects are seen in annotated frames, the last one late and not at the end."""
    settings = SceneSettings(late_object=True, num_distractors=1)
    for seed in itertools.count():
        video = generate_video(seed, num_frames, size, settings)
        maps = video.annotations(late_objects=True)[::ANNOTATED_STEP]
        starts = [next((t for t, label_map in enumerate(maps) if (label_map == k).any()), len(maps)) for k in (1, 2, 3)]
        if starts[:2] == [0, 0] and 0 < starts[2] < len(maps) - 1:
            return video
    raise AssertionError('unreachable')


def _variant(video: SyntheticVideo, number: int, name: str) -> SyntheticVideo:
    """Return the video mirrored and in other colours: rendering a new one takes half a second."""
    flips = [axis for axis, bit in ((1, 1), (2, 2)) if number & bit]
    frames = np.roll(np.flip(video.frames, flips), number // 4, axis=-1)
    return replace(video, name=name, frames=frames, label_maps=np.flip(video.label_maps, flips))


def _write_annotations(folder: Path, truth: dict[str, np.ndarray], only_new: bool) -> None:
    for name, maps in truth.items():
        seen = [0]
        for t in range(0, len(maps), ANNOTATED_STEP):
            new = [number for number in np.unique(maps[t]).tolist() if number not in seen]
            label_map = np.where(np.isin(maps[t], new), maps[t], 0).astype(np.uint8) if only_new else maps[t]
            if new or not only_new:
                write_label_map(folder / 'Annotations' / name / f'{t:05d}.png', label_map)
            seen += new


def _write_meta(path: Path, truth: dict[str, np.ndarray], categories: dict[str, dict[int, str]]) -> None:
    videos = {}
    for name, maps in truth.items():
        stems = range(0, len(maps), ANNOTATED_STEP)
        videos[name] = {
            'objects': {
                str(number): {
                    'category': category,
                    'frames': [f'{t:05d}' for t in stems if (maps[: t + 1] == number).any()],
                }
                for number, category in categories[name].items()
            }
        }
    path.write_text(json.dumps({'videos': videos}))
