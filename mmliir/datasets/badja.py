"""BADJA: joints of animals, annotated in about every fifth frame of DAVIS videos."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from mmliir.components import DATASETS
from mmliir.datasets.keypoints import FrameFiles
from mmliir.datasets.listing import is_clutter, list_pictures
from mmliir.datasets.named import NamedSamples, choose_sequences, is_folder_name, refuse_broken, sort_out
from mmliir.structures import PointSample
from mmliir.utils.files import read_text

#: Of the 37 joints of the animal model, those that are annotated and scored (aharley/pips, badjadataset.py).
EVALUATED_JOINTS = (8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36)
#: The DAVIS videos that published scores are means over.
PUBLISHED_ANIMALS = ('bear', 'camel', 'cows', 'dog', 'dog-agility', 'horsejump-high', 'horsejump-low')
#: The videos that come with BADJA and are not of DAVIS; they are used where they are named.
EXTRA_ANIMALS = ('impala0', 'rs_dog', 'cat_jump', 'tiger')
#: (H, W) that joints are given in, where no image of full resolution says otherwise.
ANNOTATION_SIZE = (1080, 1920)

_DOC = 'See docs/datasets.md#badja.'
_NUM_MODEL_JOINTS = 37
_FULL = 'Full-Resolution'
_RESOLUTIONS = (_FULL, '1080p', '480p')
_SIBLINGS = ('davis2016', 'davis2017', 'DAVIS', 'davis')
# 854 x 480 is 0.08 % wider than 1920 x 1080; another video's frames are not that near.
_MOST_STRETCH = 0.02


@dataclass(frozen=True)
class BadjaTruth:
    """The annotation of one video.

    Attributes:
        frames: (A,) int, the annotated frames, as numbers of the clip; the first is 0.
        joints: (A, 20, 2) float64, (x, y) in pixels of the annotation, 0-based.
        visible: (A, 20) bool; the others have no place.
        queried: (N,) int, which of the 20 joints are queries, in their order.
        annotation_size: (H, W) of the frame that the joints are given in.
        frame_size: (H, W) of the frames at hand.
        num_frames: Of the clip, T.
    """

    frames: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    queried: np.ndarray
    annotation_size: tuple[int, int]
    frame_size: tuple[int, int]
    num_frames: int


@dataclass(frozen=True)
class _Row:
    """One annotated frame of a file of joints."""

    image: PurePosixPath
    mask: PurePosixPath
    number: int
    joints: np.ndarray
    visible: np.ndarray


@DATASETS.register_module()
class BadjaDataset(NamedSamples):
    """Videos of BADJA as `PointSample`s: the joints of the first annotated frame are what is followed.

    Layout: `joint_annotations/<animal>.json`, and the frames in DAVIS, at any resolution: the joints are scaled from
    the annotation's (pixel centres at integers: (x + 0.5) * scale - 0.5). A clip runs from the first annotated frame
    to the last.

    Frames are looked for, in this order, as the annotation names them (`DAVIS/JPEGImages/Full-Resolution/<animal>`)
    in `frames_root`, else in `data_root`; as `JPEGImages/<resolution>/<animal>` there (Full-Resolution, 1080p, 480p);
    as `<animal>` in `frames_root`; and, without a `frames_root`, in the folders davis2016, davis2017, DAVIS and davis
    beside `data_root`.

    Args:
        data_root: Folder that holds joint_annotations.
        frames_root: Folder that holds the frames; None to look as above.
        sequences: Animals, in this order; None for those of DAVIS, which published scores are on. The others
            (impala0, rs_dog, cat_jump, tiger: `extra_videos`) have to be named.
        keep_unwinnable: Query joints too that are not visible in the first frame, at (0, 0), as PIPs and FGVC do:
            nobody can follow them, and 43 of the 1,632 evaluations are on such. False leaves them out.

    Raises:
        FileNotFoundError: The joints, or the frames of every sequence are missing; the message says where was looked.
        ValueError: No file of joints can be read, or an unknown sequence. Single sequences whose joints cannot be read
            or whose frames are missing are in `broken`.
    """

    family = 'badja'
    kind = 'points'

    def __init__(
        self,
        data_root: str | Path,
        frames_root: str | Path | None = None,
        sequences: Sequence[str] | None = None,
        keep_unwinnable: bool = True,
    ) -> None:
        self.data_root = Path(data_root)
        self.frames_root = None if frames_root is None else Path(frames_root)
        self.keep_unwinnable = keep_unwinnable
        folder = self.data_root / 'joint_annotations'
        files = {path.stem: path for path in sorted(folder.glob('*.json')) if not is_clutter(path.name)}
        if not files:
            raise FileNotFoundError(f'BADJA not found at {self.data_root}: no joint_annotations/*.json in it. {_DOC}')
        self._rows, unread = sort_out(files, lambda name: read_badja_rows(files[name]))
        usual = [
            name for name in files if not (name in EXTRA_ANIMALS if name in unread else is_extra(self._rows[name][0]))
        ]
        self.num_sequences_in_split = len(usual)
        self.names = usual if sequences is None else choose_sequences(list(files), sequences, str(folder))
        if not self.names:
            raise ValueError(f'{folder} holds extra_videos alone ({", ".join(files)}): name the sequences. {_DOC}')
        self._folders, self.broken = sort_out(self.names, functools.partial(self._frames_folder, unread))

    def _frames_folder(self, unread: Mapping[str, str], name: str) -> Path:
        refuse_broken(unread, name)
        return self._find(self._rows[name][0].image, 'frames', name)

    def sample(self, name: str) -> PointSample:
        """Return one video by name. Frames are read when they are asked for.

        Raises:
            ValueError: Frames are missing, or their shape is not that of the annotation.
        """
        paths, truth = self._read(name)
        frames = FrameFiles(paths)
        return PointSample(name, frames, frames.frame_names, badja_queries(truth))

    def truth(self, name: str) -> BadjaTruth:
        """Return the annotation of one video; raises as `sample`."""
        return self._read(name)[1]

    def truth_points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the true places of `sample(name).queries`, (x, y) in pixels of the frames, and which are known.

        Returns:
            (N, T, 2) float64, NaN where a joint is not annotated or not visible, and (N, T) bool.
        """
        truth = self.truth(name)
        places = scale_points(truth.joints[:, truth.queried], truth.annotation_size, truth.frame_size)
        tracks = np.full((len(truth.queried), truth.num_frames, 2), np.nan)
        visible = np.zeros(tracks.shape[:2], dtype=bool)
        tracks[:, truth.frames], visible[:, truth.frames] = places.swapaxes(0, 1), truth.visible[:, truth.queried].T
        tracks[~visible] = np.nan
        return tracks, visible

    def mask_paths(self, name: str) -> list[Path]:
        """Return the masks of the annotated frames, of the first folder that has all, at whatever resolution.

        Raises:
            FileNotFoundError: The folder or a mask is missing; the message says where was looked.
        """
        refuse_broken(self.broken, name)
        rows = self._rows[name]
        first = self._find(rows[0].mask, 'masks', name)
        missing: list[Path] = []
        for folder in self._candidates(rows[0].mask):
            paths = [folder / row.mask.name for row in rows]
            absent = [path for path in paths if not path.is_file()]
            if not absent:
                return paths
            missing = absent if folder == first else missing
        raise FileNotFoundError(
            f'{name}: mask not found at {missing[0]} ({len(missing)} missing of {len(rows)}): PCK is measured in the '
            f'size of the animal. {_DOC}'
        )

    def _read(self, name: str) -> tuple[list[Path], BadjaTruth]:
        refuse_broken(self.broken, name)
        rows = self._rows[name]
        paths = _clip(list_pictures(self._folders[name]).files, rows, self._folders[name], name)
        places = {_number(path.stem): place for place, path in enumerate(paths)}
        frame_size, annotation_size = FrameFiles(paths).frame_size, self._annotation_size(name)
        _check_sizes(name, rows, frame_size, annotation_size)
        visible = np.stack([row.visible for row in rows])
        queried = np.arange(len(EVALUATED_JOINTS)) if self.keep_unwinnable else np.flatnonzero(visible[0])
        frames = np.array([places[row.number] for row in rows])
        joints = np.stack([row.joints for row in rows])
        return paths, BadjaTruth(frames, joints, visible, queried, annotation_size, frame_size, len(paths))

    def _annotation_size(self, name: str) -> tuple[int, int]:
        """(H, W) of an image of full resolution, of frames or masks, where there is one."""
        first = self._rows[name][0]
        for named in (first.image, first.mask):
            for folder in self._candidates(named):
                path = folder / named.name
                if (_FULL in folder.parts or is_extra(first)) and path.is_file():
                    with Image.open(path) as image:
                        return image.height, image.width
        return ANNOTATION_SIZE

    def _find(self, named: PurePosixPath, what: str, name: str) -> Path:
        candidates = self._candidates(named)
        found = next((folder for folder in candidates if folder.is_dir()), None)
        if found is None:
            shown = ', '.join(map(str, candidates))
            raise FileNotFoundError(
                f'BADJA {what} of {name!r} not found: looked for {shown}. Give `frames_root`, a folder in the layout '
                f'of DAVIS, or name the sequences that are there. {_DOC}'
            )
        return found

    def _candidates(self, named: PurePosixPath) -> list[Path]:
        """Folders that could hold what the annotation calls so: that of the frames, or that of the masks."""
        root = self.frames_root or self.data_root
        animal, kind = named.parent.name, named.parts[1]
        found = [root / named.parent, root.joinpath(*named.parent.parts[1:])]
        if named.parts[0] == 'DAVIS':
            roots = [root] if self.frames_root else [root, *(root.parent / sibling for sibling in _SIBLINGS)]
            found += [base / kind / resolution / animal for resolution in _RESOLUTIONS for base in roots]
            if self.frames_root and kind != 'Annotations':
                found.append(root / animal)
        return list(dict.fromkeys(found))


def badja_queries(truth: BadjaTruth) -> np.ndarray:
    """Return what is asked for: (N, 3) float64, (t, x, y) in pixels of the frames at hand, t = 0."""
    places = scale_points(truth.joints[0], truth.annotation_size, truth.frame_size)
    places = np.where(truth.visible[0][:, None], places, 0.0)[truth.queried]
    return np.concatenate([np.zeros((len(places), 1)), places], axis=1)


def scale_points(points: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """Carry (..., 2) points (x, y) from an image of (H, W) `size` to the same image at `new_size`.

    Pixel centres lie at integers, so that the image's edge is at -0.5.
    """
    scale = np.array([new_size[1] / size[1], new_size[0] / size[0]])
    return (np.asarray(points, np.float64) + 0.5) * scale - 0.5


def read_badja_rows(path: Path) -> list[_Row]:
    """Read a file of joints; every word in it is checked before it is used."""
    text = read_text(path)
    try:
        entries = json.loads(text)
        rows = [_read_row(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f'{path} is no file of BADJA joints ({type(error).__name__}: {error}): expected a list of image_path, '
            f'segmentation_path, {_NUM_MODEL_JOINTS} joints (y, x) and their visibility. {_DOC}'
        ) from error
    if not rows:
        raise ValueError(f'{path} annotates no frame. {_DOC}')
    folders = {(row.image.parent, row.mask.parent) for row in rows}
    numbers = [row.number for row in rows]
    if len(folders) > 1 or numbers != sorted(set(numbers)):
        raise ValueError(f'{path}: expected frames of one folder in the order of time, each once. {_DOC}')
    if not rows[0].visible.any():
        raise ValueError(f'{path}: no joint is visible in the first frame, so there is nothing to follow. {_DOC}')
    return rows


def _read_row(entry: dict) -> _Row:
    image, mask = PurePosixPath(entry['image_path']), PurePosixPath(entry['segmentation_path'])
    for named in (image, mask):
        if named.is_absolute() or len(named.parts) < 3 or not all(map(is_folder_name, named.parts)):
            raise ValueError(f'{str(named)!r} is not a path below the data')
    joints, visible = np.asarray(entry['joints'], np.float64), np.asarray(entry['visibility'])
    shapes = joints.shape, visible.shape
    if shapes != ((_NUM_MODEL_JOINTS, 2), (_NUM_MODEL_JOINTS,)) or visible.dtype.kind not in 'bi':
        raise ValueError(f'joints of the shape {joints.shape}, visibility {visible.shape} of {visible.dtype}')
    chosen = list(EVALUATED_JOINTS)
    joints, visible = joints[chosen, ::-1], visible[chosen] > 0
    if not np.isfinite(joints).all():
        raise ValueError(f'a joint of {image.name} is NaN or infinite')
    return _Row(image, mask, _number(image.stem), joints.copy(), visible)


def _number(stem: str) -> int:
    digits = re.search(r'(\d+)$', stem)
    if digits is None:
        raise ValueError(f'{stem!r} does not end in the number of a frame')
    return int(digits[1])


def _clip(images: Sequence[Path], rows: list[_Row], folder: Path, name: str) -> list[Path]:
    """The images from the first annotated frame to the last, in order of their numbers."""
    by_number = {_number(path.stem): path for path in images}
    first, last = rows[0].number, rows[-1].number
    # The frames of extra videos are not numbered one by one.
    needed = [row.number for row in rows] if is_extra(rows[0]) else range(first, last + 1)
    missing = [number for number in needed if number not in by_number]
    if missing:
        raise ValueError(
            f'{name}: frame {missing[0]} not found in {folder} ({len(missing)} missing of {len(needed)}, {first} to '
            f'{last}). Copy the frames again. {_DOC}'
        )
    return [by_number[number] for number in sorted(by_number) if first <= number <= last]


def _check_sizes(name: str, rows: list[_Row], size: tuple[int, int], annotation_size: tuple[int, int]) -> None:
    (height, width), (full_height, full_width) = size, annotation_size
    stretch = width * full_height / (height * full_width)
    if abs(stretch - 1) > _MOST_STRETCH:
        raise ValueError(
            f'{name}: the frames are {width}x{height}, the joints are given in {full_width}x{full_height}: not the '
            f'same picture. {_DOC}'
        )
    farthest = np.max([row.joints[row.visible].max(axis=0, initial=0) for row in rows], axis=0)
    if (farthest >= (full_width, full_height)).any():
        raise ValueError(
            f'{name}: a joint lies at (x, y) = {tuple(farthest.tolist())}, outside the {full_width}x{full_height} that '
            f'joints are given in. Are the images in {_FULL} of that size? {_DOC}'
        )


def is_extra(row: _Row) -> bool:
    """Whether the row's image is of the videos that come with BADJA, and not of DAVIS."""
    return row.image.parts[0] == 'extra_videos'

