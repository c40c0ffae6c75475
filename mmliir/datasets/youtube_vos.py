"""YouTube-VOS 2018 and 2019, validation: objects that are given where they first appear, and what the server wants.

The truth of the validation videos is not public, and the server that scored them has closed its doors more than once.
What is left at home is a part of the training videos, held out by a hash of their names: split 'train_holdout'.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmliir.components import DATASETS
from mmliir.datasets.davis import first_appearances
from mmliir.datasets.frames import FrameFolder
from mmliir.datasets.masks import check_mask_size, list_annotations
from mmliir.datasets.named import NamedSamples, choose_sequences, is_folder_name, refuse_broken, without_files
from mmliir.datasets.png import read_ids
from mmliir.datasets.sources import HOLDOUT_SHARE, holdout_names, youtube_vos_folders
from mmliir.structures import VideoSample
from mmliir.utils.files import read_text

_DOC = 'See docs/datasets.md#youtube-vos.'
#: (year, split) -> videos that published scores are means over (youtube-vos.org, dataset statistics).
PUBLISHED_VIDEOS = {(2018, 'valid'): 474, (2019, 'valid'): 507}
HOLDOUT = 'train_holdout'
_LARGEST_ID = 255


@dataclass(frozen=True)
class VosObject:
    """An entry of `meta.json`: the category of an object, and the frames (stems) it is listed for."""

    category: str
    frames: tuple[str, ...]


@DATASETS.register_module()
class YouTubeVosDataset(NamedSamples):
    """Videos of YouTube-VOS as `VideoSample`s, made when asked for.

    Layout: `<split>/JPEGImages/<video>/*.jpg` (every 5th frame), `<split>_all_frames/JPEGImages/<video>/*.jpg`,
    `<split>/Annotations/<video>/*.png`, `<split>/meta.json`.

    An object is given at the first annotation that shows it, and there only its own pixels; what else the annotation
    shows is given already and left to the propagation. An annotation that shows no new object gives nothing. What
    the PNGs show counts, and not the frames that meta.json lists.

    Args:
        data_root: Folder of the year (it holds `valid`, `train`), or the folder above it.
        year: 2018 or 2019.
        split: 'valid' (or 'test'), or 'train_holdout': the part of the training videos that `holdout_names` names,
            with truth at hand. Train without them: `YouTubeVOSSource(holdout=0.05)`.
        frames: 'all': propagate through all frames, and store the predictions of every 5th, which is what is scored.
            'sampled': every 5th frame alone (published scores from it are several points lower).
        sequences: Names to keep, in this order; None for all.
        holdout_share: Of 'train_holdout'.

    Attributes:
        names: Videos, in order.
        meta: Video -> id -> `VosObject`.
        num_sequences_in_split: Videos of the whole split.

    Raises:
        FileNotFoundError: meta.json, a folder of all videos, or every video is missing; single ones are in `broken`.
        ValueError: meta.json is not as it should be, or an unknown video is asked for.
    """

    family = 'youtube_vos'
    kind = 'masks'

    def __init__(
        self,
        data_root: str,
        year: int = 2018,
        split: str = 'valid',
        frames: Literal['all', 'sampled'] = 'all',
        sequences: Sequence[str] | None = None,
        holdout_share: float = HOLDOUT_SHARE,
    ) -> None:
        if year not in (2018, 2019):
            raise ValueError(f'YouTube-VOS year: expected 2018 or 2019, came {year!r}.')
        if frames not in ('all', 'sampled'):
            raise ValueError(f"frames: expected 'all' or 'sampled', came {frames!r}.")
        self.year, self.split, self.frames = year, split, frames
        folder = 'train' if split == HOLDOUT else split
        self.data_root = find_year(data_root, year, folder)
        folders = youtube_vos_folders(self.data_root, folder)
        self._sampled_dir = folders['6fps']
        self._frames_dir = folders['all' if frames == 'all' else '6fps']
        self._annotations_dir = self.data_root / folder / 'Annotations'
        self.list_path = self.data_root / folder / 'meta.json'
        self.meta = read_meta(self.list_path)
        listed = holdout_names(self.meta, holdout_share) if split == HOLDOUT else sorted(self.meta)
        if not listed:
            raise ValueError(
                f'{self.list_path} lists {len(self.meta)} videos, of which a hold-out of {holdout_share:g} has none: '
                'raise holdout_share.'
            )
        self.num_sequences_in_split = len(listed)
        self.names = choose_sequences(listed, sequences, self.list_path)
        self.broken = self._without_folders()

    def sample(self, name: str) -> VideoSample:
        """Return one video by name. Frames are read when they are asked for.

        Raises:
            ValueError: Annotations without a frame, sampled frames that are not among all frames, or no object.
        """
        refuse_broken(self.broken, name)
        frames = FrameFolder(self._frames_dir / name)
        numbers = {stem: number for number, stem in enumerate(frames.frame_names)}
        exported = self.export_names(name)
        annotations = self.annotation_paths(name)
        for what, stems in (('sampled frame', exported), ('annotation', [path.stem for path in annotations])):
            stray = [stem for stem in stems if stem not in numbers]
            if stray:
                raise ValueError(
                    f'{name}: {what} {stray[0]} has no frame of that name in {frames.path} ({len(stray)} such). {_DOC}'
                )
        given: dict[int, Callable[[], np.ndarray]] = {}
        for path, new_ids in first_appearances(annotations, read_ids):
            given[numbers[path.stem]] = functools.partial(_read_given, path, frames.frame_size, new_ids)
        if not given:
            raise ValueError(
                f'{name}: no annotation shows an object ({len(annotations)} in {annotations[0].parent}). {_DOC}'
            )
        return VideoSample(name, frames, frames.frame_names, given, exported)

    def export_names(self, name: str) -> tuple[str, ...]:
        """Return the stems of the frames whose predictions are stored: every 5th, those of `<split>/JPEGImages`."""
        return FrameFolder(self._sampled_dir / name).frame_names

    def annotation_paths(self, name: str) -> list[Path]:
        """Return the annotation files of a video in order of frames: of 'valid' those that give objects, else all."""
        return list_annotations(self._annotations_dir / name, _DOC)

    truth = annotation_paths

    def truth_labels(self, name: str) -> dict[int, Callable[[], np.ndarray]]:
        """Return what reads the label map, (H, W) uint8, of each annotated frame: frame number -> function.

        Of 'valid' and 'test' these are the given objects, and no truth.
        """
        numbers = {stem: n for n, stem in enumerate(FrameFolder(self._frames_dir / name).frame_names)}
        return {
            numbers[path.stem]: functools.partial(read_ids, path)
            for path in self.annotation_paths(name)
            if path.stem in numbers
        }

    @property
    def num_published(self) -> int | None:
        """Videos of the official split, which the server expects."""
        return PUBLISHED_VIDEOS.get((self.year, self.split))

    def frame_size(self, name: str) -> tuple[int, int]:
        """Return the (H, W) of a video's frames."""
        return FrameFolder(self._sampled_dir / name).frame_size

    def allowed_ids(self, name: str) -> frozenset[int]:
        """Return the ids that predictions of a video may hold, without the background: those of meta.json."""
        return frozenset(self.meta[name])

    def _without_folders(self) -> dict[str, str]:
        """Video -> which of its folders is missing."""
        where = f'looked for the folders of the videos in {self.list_path}. {_DOC}'
        wanted = [('annotations', self._annotations_dir, where), ('sampled frames', self._sampled_dir, where)]
        if self.frames == 'all':
            hint = "frames='sampled' does without them. " if self._frames_dir != self._sampled_dir else ''
            wanted.append(('frames (all)', self._frames_dir, hint + where))
        missing: dict[str, str] = {}
        for what, folder, said in wanted:
            folders = {name: folder / name for name in self.names}
            missing |= without_files(f'YouTube-VOS {what}', folders, Path.is_dir, said)
        return missing


def _read_given(path: Path, frame_size: tuple[int, int], keep_ids: tuple[int, ...]) -> np.ndarray:
    ids = read_ids(path)
    check_mask_size(ids, frame_size, path)
    return np.where(np.isin(ids, keep_ids), ids, 0).astype(np.uint8)


def find_year(data_root: str | Path, year: int, folder: str) -> Path:
    """Return the folder of a year, which holds `<folder>/JPEGImages`: `data_root`, or one below it named by the year.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Several are named by the year.
    """
    root = Path(data_root)
    if (root / folder).is_dir():
        return root
    below = sorted(root.iterdir()) if root.is_dir() else []
    found = [path for path in below if str(year) in path.name and (path / folder).is_dir()]
    if len(found) > 1:
        names = ', '.join(path.name for path in found)
        raise ValueError(f'{root} holds {len(found)} folders of {year}: {names}. Name one. {_DOC}')
    if not found:
        raise FileNotFoundError(
            f'YouTube-VOS {year} not found at {root}: expected {folder}/JPEGImages, {folder}/Annotations and '
            f'{folder}/meta.json there, or in a folder named by the year. {_DOC}'
        )
    return found[0]


def read_meta(path: str | Path) -> dict[str, dict[int, VosObject]]:
    """Read a meta.json, `{"videos": {<video>: {"objects": {<id>: {"category": ..., "frames": [...]}}}}}`.

    Returns:
        Video -> id -> `VosObject`. Names are checked to be names of folders, ids to be 1 .. 255.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not JSON, or not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'YouTube-VOS list of videos not found: {path}. {_DOC}')
    text = read_text(path)
    try:
        videos = json.loads(text)['videos']
        return {name: _read_objects(name, video) for name, video in videos.items()}
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected {{"videos": {{<video>: {{"objects": {{<id>: {{"category", "frames"}}}}}}}}}} '
            f'({type(error).__name__}: {error}). {_DOC}'
        ) from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}. {_DOC}') from error


def _read_objects(name: str, video: Mapping[str, Any]) -> dict[int, VosObject]:
    # ':' names a drive on some systems, and a leading dot hides a folder, as those of unfinished predictions are.
    if not is_folder_name(name) or ':' in name or name.startswith('.'):
        raise ValueError(f'video name {name!r} cannot be the name of a folder')
    objects = {}
    for text, entry in video['objects'].items():
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _LARGEST_ID):
            raise ValueError(f'video {name!r} has an object {text!r}: ids go from 1 to {_LARGEST_ID}')
        frames = tuple(entry.get('frames', ()))
        if not isinstance(entry['category'], str) or not all(isinstance(frame, str) for frame in frames):
            raise ValueError(f'object {text} of {name!r}: expected a category and names of frames')
        objects[int(text)] = VosObject(entry['category'], frames)
    return objects
