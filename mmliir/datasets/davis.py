"""DAVIS 2016 and 2017, and everything that is stored in their layout."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mmliir.components import DATASETS
from mmliir.datasets.frames import FrameFolder
from mmliir.datasets.masks import check_mask_size, has_colors, list_annotations, number_colors, read_label_map
from mmliir.datasets.named import NamedSamples, choose_sequences, refuse_broken, without_files
from mmliir.structures import VideoSample
from mmliir.utils.files import read_text

_DOC = 'See docs/datasets.md#davis.'
_VOID_2017 = 255
#: (year, split) -> sequences that published scores are means over.
PUBLISHED_SEQUENCES = {
    (2017, 'train'): 60,
    (2017, 'val'): 30,
    (2017, 'test-dev'): 30,
    (2017, 'test-challenge'): 30,
    (2016, 'train'): 30,
    (2016, 'val'): 20,
}
#: Splits of which only the first annotation of a sequence is public: they can be predicted and handed in, not scored.
SPLITS_WITHOUT_TRUTH = ('test-dev', 'test-challenge')


@DATASETS.register_module()
class DavisDataset(NamedSamples):
    """Sequences of DAVIS as `VideoSample`s, made when asked for.

    Layout: `JPEGImages/<resolution>/<name>/*.jpg`, `Annotations/<resolution>/<name>/*.png`, and the list of
    names in `ImageSets/<year>/<split>.txt` (2016 also: `ImageSets/480p/<split>.txt`, pairs of paths).

    2017: object ids are kept, 255 is void. 2016: one object, every pixel that is not 0 is id 1.

    Of 'test-dev' and 'test-challenge' the first annotation alone is public: that is enough to predict, and
    `mmliir.evaluation.submission` makes what the server takes.

    Args:
        data_root: Folder that holds JPEGImages, Annotations and ImageSets.
        year: Which DAVIS: 2016 or 2017.
        split: Name of the list, e.g. 'val'.
        sequences: Names to keep, in this order; None for the whole list.
        resolution: Folder below JPEGImages and Annotations.
        given: Which labels a sample gives. 'first_frame' is the DAVIS protocol: the first annotated frame and
            nothing else, so objects that enter later are never given. 'first_appearance' adds, at the first
            annotated frame of each later object, a map of the new objects alone (as YouTube-VOS does).

    Raises:
        FileNotFoundError: A folder, the list, or every sequence of the list is missing; single ones are in `broken`.
        ValueError: An unknown year or sequence.
    """

    family = 'davis'
    kind = 'masks'

    def __init__(
        self,
        data_root: str,
        year: int = 2017,
        split: str = 'val',
        sequences: Sequence[str] | None = None,
        resolution: str = '480p',
        given: Literal['first_frame', 'first_appearance'] = 'first_frame',
    ) -> None:
        if year not in (2016, 2017):
            raise ValueError(f'DAVIS year: expected 2016 or 2017, came {year!r}.')
        if given not in ('first_frame', 'first_appearance'):
            raise ValueError(f"given: expected 'first_frame' or 'first_appearance', came {given!r}.")
        self.data_root = Path(data_root)
        self.year, self.split, self.resolution, self.given = year, split, resolution, given
        listed, self.list_path = read_names(self.data_root, year, split)
        self.num_sequences_in_split = len(listed)
        self.names = choose_sequences(listed, sequences, self.list_path)
        self.broken = self._without_folders()

    def sample(self, name: str) -> VideoSample:
        """Return one sequence by name. Frames and labels are read when they are asked for."""
        refuse_broken(self.broken, name)
        frames = FrameFolder(self._frames_dir(name))
        annotations = self.annotation_paths(name)
        numbers = {stem: number for number, stem in enumerate(frames.frame_names)}
        stray = [path.name for path in annotations if path.stem not in numbers]
        if stray:
            raise ValueError(
                f'{name}: annotation {stray[0]} has no frame of that name in {frames.path} '
                f'({len(stray)} such). Frames and annotations are paired by file stem. {_DOC}'
            )
        colors = self._colors(annotations)
        given: dict[int, Callable[[], np.ndarray]] = {}
        for path, new_ids in self._given_paths(annotations, colors):
            given[numbers[path.stem]] = functools.partial(
                read_davis_labels, path, self.year, frames.frame_size, new_ids, colors
            )
        return VideoSample(name, frames, frames.frame_names, given)

    def annotation_paths(self, name: str) -> list[Path]:
        """Return the annotation files of a sequence in order of frames (some frames may have none).

        A file's stem is the stem of its frame. Read them with `read_davis_labels` (or `read_label_map`).
        """
        return list_annotations(self._annotations_dir(name), _DOC)

    truth = annotation_paths

    @property
    def num_published(self) -> int | None:
        """Sequences of the official split, which published scores are means over and the server expects."""
        return PUBLISHED_SEQUENCES.get((self.year, self.split))

    def truth_labels(self, name: str) -> dict[int, Callable[[], np.ndarray]]:
        """Return what reads the true label map, (H, W) uint8, of each annotated frame: frame number -> function."""
        numbers = {stem: number for number, stem in enumerate(FrameFolder(self._frames_dir(name)).frame_names)}
        annotations = self.annotation_paths(name)
        colors = self._colors(annotations)
        return {
            numbers[path.stem]: functools.partial(read_davis_labels, path, self.year, colors=colors)
            for path in annotations
            if path.stem in numbers
        }

    def _colors(self, annotations: list[Path]) -> dict[int, int] | None:
        """The ids of a sequence's colours, for annotations that were saved as pictures; of 2016 everything is id 1."""
        if self.year == 2016 or (self.given == 'first_frame' and not has_colors(annotations[0])):
            return None
        return number_colors(annotations)

    def _given_paths(
        self, annotations: list[Path], colors: Mapping[int, int] | None
    ) -> Iterator[tuple[Path, tuple[int, ...] | None]]:
        first = annotations[0]
        yield first, None
        if self.given == 'first_appearance':
            new = first_appearances(annotations, lambda path: read_davis_labels(path, self.year, colors=colors))
            yield from ((path, ids) for path, ids in new if path != first)

    def export_names(self, name: str) -> tuple[str, ...]:
        """Return the stems of the frames whose predictions are stored: all."""
        return FrameFolder(self._frames_dir(name)).frame_names

    def frame_size(self, name: str) -> tuple[int, int]:
        """Return the (H, W) of a sequence's frames."""
        return FrameFolder(self._frames_dir(name)).frame_size

    def allowed_ids(self, name: str) -> frozenset[int]:
        """Return the ids that predictions of a sequence may hold: those of its first annotation."""
        annotations = self.annotation_paths(name)
        first = read_davis_labels(annotations[0], self.year, colors=self._colors(annotations))
        return frozenset(np.unique(first).tolist()) - {0}

    def _frames_dir(self, name: str) -> Path:
        return self.data_root / 'JPEGImages' / self.resolution / name

    def _annotations_dir(self, name: str) -> Path:
        return self.data_root / 'Annotations' / self.resolution / name

    def _without_folders(self) -> dict[str, str]:
        """Sequence of the list -> which of its folders is missing."""
        where = f'looked for the folders that {self.list_path} names. {_DOC}'
        annotations = {name: self._annotations_dir(name) for name in self.names}
        frames = {name: self._frames_dir(name) for name in self.names}
        return without_files('DAVIS annotations', annotations, Path.is_dir, where) | without_files(
            'DAVIS frames', frames, Path.is_dir, where
        )


def read_davis_labels(
    path: str | os.PathLike,
    year: int,
    frame_size: tuple[int, int] | None = None,
    keep_ids: Sequence[int] | None = None,
    colors: Mapping[int, int] | None = None,
) -> np.ndarray:
    """Read one annotation by the rule of its year.

    Args:
        path: PNG file.
        year: 2017: ids, 255 is void and becomes 0. 2016: one object, whatever its value, becomes 1.
        frame_size: (H, W) that the map must have; None to accept any.
        keep_ids: Objects to keep, the others become background; None for all.
        colors: Of a sequence whose annotations are pictures in colours, see `number_colors`; None for ids.

    Returns:
        (H, W) uint8.
    """
    if year == 2016:
        label_map = read_label_map(path, binary=True)
    else:
        label_map = read_label_map(path, void=_VOID_2017, colors=colors)
    if frame_size is not None:
        check_mask_size(label_map, frame_size, path)
    if keep_ids is None:
        return label_map.ids
    return np.where(np.isin(label_map.ids, list(keep_ids)), label_map.ids, 0).astype(np.uint8)


def first_appearances(
    annotations: Sequence[Path], read: Callable[[Path], np.ndarray]
) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Give the annotations that show an object for the first time, and which.

    Args:
        annotations: Files in order of time.
        read: Path -> (H, W) uint8 ids.

    Yields:
        (path, ids that are new there, without the background), for the paths that have any.
    """
    seen = {0}
    for path in annotations:
        new = set(np.flatnonzero(np.bincount(read(path).ravel())).tolist()) - seen
        if new:
            yield path, tuple(sorted(new))
        seen |= new


def check_truth_is_public(split: str) -> None:
    """Raise `ValueError` for a split that nobody can score at home."""
    if split in SPLITS_WITHOUT_TRUTH:
        raise ValueError(
            f'the truth of DAVIS {split} is not public, so it has no score here. Predict it, and make the archive for '
            "the server with `mmliir submit`; 'val' is the split to score on."
        )


def read_names(data_root: Path, year: int, split: str) -> tuple[list[str], Path]:
    """Return the names of a split, each once and in order, and the file they came from.

    The list is `ImageSets/<year>/<split>.txt`, names; for 2016 also `ImageSets/480p/<split>.txt`, pairs of paths.

    Raises:
        FileNotFoundError: No data, or no list.
        ValueError: The list is empty.
    """
    if not data_root.is_dir():
        raise FileNotFoundError(
            f'DAVIS not found at {data_root}: expected a folder that holds JPEGImages, Annotations, ImageSets. {_DOC}'
        )
    candidates = [data_root / 'ImageSets' / str(year) / f'{split}.txt']
    if year == 2016:
        candidates.append(data_root / 'ImageSets' / '480p' / f'{split}.txt')
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f'list of sequences not found: looked for {" and ".join(map(str, candidates))} '
            f'(DAVIS {year}, split {split!r}). {_DOC}'
        )
    names = []
    for line in read_text(path).splitlines():
        first = line.split()[0] if line.split() else ''
        if first:
            # A pair of paths '/JPEGImages/480p/<name>/00000.jpg ...', or the name itself.
            names.append(Path(first).parent.name if '/' in first else first)
    if not names:
        raise ValueError(f'{path} names no sequence: expected one name a line. {_DOC}')
    return list(dict.fromkeys(names)), path
