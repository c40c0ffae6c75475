"""VIP (Video Instance-level Parsing): parts of people, as classes and as instances."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mmliir.components import DATASETS
from mmliir.datasets.frames import FrameFolder
from mmliir.datasets.masks import check_mask_size, list_annotations
from mmliir.datasets.named import NamedSamples, choose_sequences, refuse_broken, without_files
from mmliir.datasets.png import read_ids
from mmliir.structures import VideoSample
from mmliir.utils.files import read_text

#: Class names by number, 0 = background: the order of ATEN's `vip.py` and `test_inst_part_ap.py`, and of the page of
#: the benchmark. The lists that `test_parsing.py` and UVC's and CRW's `eval_vip.py` print have another order, so that
#: their per-class rows carry other names; no mean depends on it.
VIP_CLASSES = (
    'background',
    'hat',
    'hair',
    'gloves',
    'sun-glasses',
    'upper-clothes',
    'dress',
    'coat',
    'socks',
    'pants',
    'torso-skin',
    'scarf',
    'skirt',
    'face',
    'left-arm',
    'right-arm',
    'left-leg',
    'right-leg',
    'left-shoe',
    'right-shoe',
)
#: Pixels of `Category_ids` that belong to no class; the official tools leave them out.
VIP_VOID = 255

_DOC = 'See docs/datasets.md#vip.'
_FOLDERS = {'semantic': 'Category_ids', 'instance': 'Instance_ids'}


@dataclass(frozen=True)
class VipInstances:
    """The instances of one annotated frame.

    Attributes:
        ids: (H, W) uint8, 0 = nothing; ids that the text file does not list are 0 too.
        classes: Id -> class, 1 to 19, of every listed id, whether it has a pixel or not.
    """

    ids: np.ndarray
    classes: dict[int, int]


@DATASETS.register_module()
class VipDataset(NamedSamples):
    """Sequences of VIP as `VideoSample`s, made when asked for.

    Layout: `Images/<video>/%012d.jpg`, `Annotations/Category_ids/<video>/*.png`, `Annotations/Instance_ids/<video>/`
    `*.png` and `*.txt`, `lists/<split>_videos.txt`. The three `_ids` folders may also lie beside `Images`, as ATEN's
    README has them. Only every 25th frame of a video is in VIP_Fine; they are taken as consecutive. The given labels
    are those of the first annotated frame.

    Args:
        data_root: `VIP_Fine`, or the folder that holds it.
        split: 'val' or 'train'.
        annotation: 'semantic': ids are the classes of `VIP_CLASSES`. 'instance': ids are instances, `sample.classes`
            has the class of each; ids without a class are background.
        sequences: Names to keep, in this order; None for the whole list.

    Raises:
        FileNotFoundError: A folder, the list, or every sequence of the list is missing; single ones are in `broken`.
        ValueError: An unknown annotation or sequence, or a list that leaves the data root.
    """

    family = 'vip'
    kind = 'masks'

    def __init__(
        self,
        data_root: str,
        split: str = 'val',
        annotation: Literal['semantic', 'instance'] = 'semantic',
        sequences: Sequence[str] | None = None,
    ) -> None:
        if annotation not in _FOLDERS:
            raise ValueError(f"annotation: expected 'semantic' or 'instance', came {annotation!r}.")
        self.data_root = Path(data_root)
        self.split, self.annotation = split, annotation
        self.kind = 'masks' if annotation == 'semantic' else 'instances'
        self._root = find_vip_root(self.data_root)
        self._annotations = find_vip_annotations(self._root, _FOLDERS[annotation])
        self.list_path = self._root / 'lists' / f'{split}_videos.txt'
        listed = read_vip_names(self.list_path)
        self.num_listed = len(listed)
        self.names = choose_sequences(listed, sequences, self.list_path)
        self.broken = self._without_folders()

    def sample(self, name: str) -> VideoSample:
        """Return one sequence by name. Frames and labels are read when they are asked for."""
        refuse_broken(self.broken, name)
        frames = FrameFolder(self._root / 'Images' / name)
        annotations = self.annotation_paths(name)
        numbers = {stem: number for number, stem in enumerate(frames.frame_names)}
        stray = [path.name for path in annotations if path.stem not in numbers]
        if stray:
            raise ValueError(
                f'{name}: annotation {stray[0]} has no frame of that name in {frames.path} ({len(stray)} such). '
                f'Frames and annotations are paired by file stem. {_DOC}'
            )
        first = annotations[0]
        read: Callable[[], np.ndarray] = functools.partial(_given, first, self.annotation, frames)
        classes = read_instance_classes(first) if self.annotation == 'instance' else None
        return VideoSample(name, frames, frames.frame_names, {numbers[first.stem]: read}, classes=classes)

    def annotation_paths(self, name: str) -> list[Path]:
        """Return the PNG files of a sequence in order of frames, for `read_categories` or `read_instances`."""
        return list_annotations(self._annotations / name, _DOC)

    truth = annotation_paths

    def truth_labels(self, name: str) -> dict[int, Callable[[], np.ndarray]]:
        """Return what reads the true classes, (H, W) uint8, of each annotated frame: frame number -> function.

        Classes of instances too: their ids differ from those of predictions, which are counted anew in each frame.
        """
        frames = FrameFolder(self._root / 'Images' / name)
        numbers = {stem: number for number, stem in enumerate(frames.frame_names)}
        return {
            numbers[path.stem]: functools.partial(_true_classes, path, self.annotation)
            for path in self.annotation_paths(name)
            if path.stem in numbers
        }

    def _without_folders(self) -> dict[str, str]:
        """Sequence of the list -> which of its folders is missing."""
        where = f'looked for the folders that {self.list_path} names. {_DOC}'
        annotations = {name: self._annotations / name for name in self.names}
        frames = {name: self._root / 'Images' / name for name in self.names}
        return without_files('VIP annotations', annotations, Path.is_dir, where) | without_files(
            'VIP frames', frames, Path.is_dir, where
        )


def read_categories(path: str | os.PathLike) -> np.ndarray:
    """Read a file of `Category_ids`: (H, W) uint8 classes 0 to 19, `VIP_VOID` where nothing is known.

    Raises:
        ValueError: Another value (a file of `Instance_ids`?), or not a readable one-channel image.
    """
    ids = read_ids(path)
    unknown = [int(value) for value in np.unique(ids) if len(VIP_CLASSES) <= value < VIP_VOID]
    if unknown:
        raise ValueError(
            f'{path} holds class {unknown[0]}; VIP has 0 to {len(VIP_CLASSES) - 1}, and {VIP_VOID} for void. Is it a '
            f'file of Category_ids? {_DOC}'
        )
    return ids


def read_instances(path: str | os.PathLike) -> VipInstances:
    """Read a PNG of `Instance_ids` and the text file beside it.

    Raises:
        FileNotFoundError: One of the two is missing.
        ValueError: One of the two cannot be read.
    """
    classes = read_instance_classes(path)
    ids = read_ids(path)
    known = np.zeros(256, dtype=bool)
    known[list(classes)] = True
    return VipInstances(np.where(known[ids], ids, 0).astype(np.uint8), classes)


def read_instance_classes(path: str | os.PathLike) -> dict[int, int]:
    """Read the class of each instance from the text file beside a PNG of `Instance_ids`.

    A line is `id class`, whole numbers; what follows them (the person) is not read.

    Args:
        path: The PNG; its text file has the same stem.

    Returns:
        Id (1 to 255) -> class (1 to 19).
    """
    path = Path(path).with_suffix('.txt')
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: it says which class each instance of {path.stem}.png has. {_DOC}')
    classes: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            instance, class_id = (int(word) for word in line.split()[:2])
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: expected `id class`, two whole numbers, came {line[:80]!r}. {_DOC}'
            ) from error
        if not (0 < instance < 256 and 0 < class_id < len(VIP_CLASSES)):
            raise ValueError(
                f'{path}, line {number}: instance {instance} of class {class_id}; ids go from 1 to 255, classes from 1 '
                f'to {len(VIP_CLASSES) - 1}. {_DOC}'
            )
        if classes.setdefault(instance, class_id) != class_id:
            raise ValueError(
                f'{path}, line {number}: instance {instance} is of class {class_id}, an earlier line says '
                f'{classes[instance]}. {_DOC}'
            )
    return classes


def _given(path: Path, annotation: str, frames: FrameFolder) -> np.ndarray:
    """(H, W) uint8: what is given in the first annotated frame; void is background."""
    if annotation == 'instance':
        ids = read_instances(path).ids
    else:
        ids = read_categories(path)
        ids[ids == VIP_VOID] = 0
    check_mask_size(ids, frames.frame_size, path)
    return ids


def _true_classes(path: Path, annotation: str) -> np.ndarray:
    """(H, W) uint8: classes of one annotated frame; void is background."""
    if annotation == 'instance':
        found = read_instances(path)
        return class_map(found.ids, found.classes)
    classes = read_categories(path)
    classes[classes == VIP_VOID] = 0
    return classes


def class_map(ids: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """(H, W) uint8 ids of instances -> (H, W) uint8 classes; ids that have no class become background."""
    class_of = np.zeros(256, dtype=np.uint8)
    class_of[list(classes)] = list(classes.values())
    return class_of[ids]


def find_vip_root(data_root: Path) -> Path:
    """Return the folder that holds Images, Annotations and lists: `data_root` itself, or VIP_Fine in it.

    Raises:
        FileNotFoundError: Neither.
    """
    for root in (data_root, data_root / 'VIP_Fine'):
        if (root / 'lists').is_dir() or (root / 'Images').is_dir():
            return root
    raise FileNotFoundError(
        f'VIP not found at {data_root}: expected a folder that holds Images, Annotations and lists, or VIP_Fine. {_DOC}'
    )


def find_vip_annotations(root: Path, folder: str) -> Path:
    """Return the folder of annotations of one kind: below Annotations, or beside it.

    Raises:
        FileNotFoundError: Neither is there.
    """
    candidates = [root / 'Annotations' / folder, root / folder]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        raise FileNotFoundError(f'VIP annotations not found: looked for {" and ".join(map(str, candidates))}. {_DOC}')
    return found


def read_vip_names(path: Path) -> list[str]:
    """Return the videos of a list, each once and in order; a line is a name, or a path that ends in it.

    Raises:
        FileNotFoundError: No such list.
        ValueError: It is empty, or a line leads elsewhere.
    """
    if not path.is_file():
        raise FileNotFoundError(f'list of videos not found: {path}, one name a line. {_DOC}')
    names = []
    for line in read_text(path).splitlines():
        parts = [part for part in line.strip().split('/') if part not in ('', '.')]
        if '..' in parts:
            raise ValueError(f'{path}: {line.strip()!r} leaves the data root; a line is the name of a video. {_DOC}')
        names += parts[-1:]
    if not names:
        raise ValueError(f'{path} names no video: expected one name a line. {_DOC}')
    return list(dict.fromkeys(names))
