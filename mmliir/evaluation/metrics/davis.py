"""DAVIS-2017 and DAVIS-2016 scores of a folder of predicted masks.

The numbers are those of the official tool (davisvideochallenge/davis2017-evaluation, commit ac7c43f): the
first and the last annotated frame are left out, the objects are 1 .. the largest id of the first annotated
frame, and the data set's value is the mean over objects. For DAVIS-2016 the same rules act on masks that are
binarised first, one object a sequence, so that the mean over objects is the mean over sequences.
"""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mmliir.components import METRICS
from mmliir.datasets.davis import PUBLISHED_SEQUENCES, check_truth_is_public, read_names
from mmliir.datasets.listing import label_map_path, list_pictures
from mmliir.datasets.masks import list_annotations
from mmliir.datasets.named import choose_sequences, sort_out
from mmliir.datasets.png import SINGLE_CHANNEL_MODES, decode_image, read_ids
from mmliir.evaluation.functional import statistics
from mmliir.evaluation.functional.region import object_measures

from .davis_official import official_class, run_official
from .parallel import Progress, counted, in_order
from .results import BenchmarkResult, coverage_notes, refuse_unscorable, unasked_notes
from .scores import ObjectScores, Scores, SequenceScores, Statistics, mean_over, to_result

# Changes when the same files could give another number.
METRIC_VERSION = 'davis-1'
VOID_ID = 255
_DOC = 'See docs/datasets.md#davis.'
# The first and the last annotated frame are not scored, so there must be one more.
_MIN_ANNOTATED_FRAMES = 3


@METRICS.register_module()
class DavisMetric:
    """Scores prediction folders against the truth of DAVIS, or of any data in its layout.

    Args:
        data_root: Folder with `Annotations/480p/<sequence>/*.png` and `ImageSets/<year>/<split>.txt` (for
            2016 also `ImageSets/480p/<split>.txt` with pairs of paths, the layout of the 2016 archive).
        year: 2017: several objects, ids are compared, 255 in the truth is background. 2016: one object,
            everything that is not 0 belongs to it, in the truth and in the prediction.
        split: Which list of sequences.
        sequences: Score only these, in this order; None means all of the split.

    Raises:
        FileNotFoundError: The list is missing, or all truth.
        ValueError: A name that is not in the split, or no sequence is long enough to score. Single ones whose truth is
            missing or too short are in `broken`.
    """

    def __init__(
        self,
        data_root: str | Path,
        year: Literal[2017, 2016] = 2017,
        split: str = 'val',
        sequences: Sequence[str] | None = None,
    ) -> None:
        if year not in (2016, 2017):
            raise ValueError(f'year must be 2016 or 2017, got {year!r}.')
        self.data_root = Path(data_root)
        self.year = year
        self.split = split
        check_truth_is_public(split)
        names, list_path = read_names(self.data_root, year, split)
        self.num_sequences_in_split = len(names)
        self.sequences = tuple(choose_sequences(names, sequences, list_path))
        self.truth, self.broken = sort_out(self.sequences, functools.partial(_truth_files, self.data_root))

    version = METRIC_VERSION

    @property
    def num_published(self) -> int | None:
        """Sequences that published scores are means over."""
        return PUBLISHED_SEQUENCES.get((self.year, self.split))

    def missing(self, pred_dir: str | Path) -> dict[str, str]:
        """Return sequence -> why it cannot be scored, for those of which a file is absent; nothing is read."""
        found = dict(self.broken)
        for name, truth in self.truth.items():
            folder, scored = Path(pred_dir) / name, _scored(truth)
            absent = [file.name for path in scored if not (file := label_map_path(folder, path.stem)).is_file()]
            if not folder.is_dir():
                found[name] = 'no predictions'
            elif absent:
                found[name] = f'{len(absent)} of {len(scored)} scored frames have no prediction ({_some(absent, 3)})'
        return found

    def evaluate(
        self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None
    ) -> BenchmarkResult:
        """`score`, in the form that all benchmarks share."""
        scores = self.score(pred_dir, jobs=jobs, progress=progress)
        return to_result(scores, self.num_sequences_in_split, self.num_published)

    def evaluate_official(self, pred_dir: str | Path, progress: Progress | None = None) -> BenchmarkResult:
        """`evaluate` by the original tool, when it is installed."""
        scores = self.score(pred_dir, backend='official', progress=progress)
        return to_result(scores, self.num_sequences_in_split, self.num_published)

    @property
    def benchmark(self) -> str:
        """'davis2017' or 'davis2016'."""
        return f'davis{self.year}'

    def score(
        self,
        pred_dir: str | Path,
        backend: Literal['mmliir', 'official'] = 'mmliir',
        jobs: int = 1,
        progress: Progress | None = None,
    ) -> Scores:
        """Score one folder of predictions.

        Args:
            pred_dir: Folder with `<sequence>/<frame>.png`, 8-bit, one channel (palette or grey), the pixel
                value is the object id, of the size of the truth. The first and the last annotated frame may
                be absent.
            backend: 'mmliir' or 'official', the original tool when it is installed: same numbers, for the
                doubtful.
            jobs: Processes; they do not change any number. The official tool has one.
            progress: Called with (frames done, frames in all) after every frame.

        Returns:
            The scores. Nothing is written.

        Raises:
            FileNotFoundError: A folder or a frame is missing.
            ValueError: A prediction of the wrong size or kind, or with an id the sequence does not have.
            ImportError: `backend='official'` and the tool is not installed.
        """
        pred_dir = Path(pred_dir)
        if jobs < 1:
            raise ValueError(f'jobs must be at least 1, got {jobs}.')
        self._check_predictions(pred_dir)
        if backend == 'mmliir':
            sequences = self._score_own(pred_dir, jobs, progress)
        elif backend == 'official':
            sequences = self._score_official(pred_dir, progress)
        else:
            raise ValueError(f"backend must be 'mmliir' or 'official', got {backend!r}.")
        scored = tuple(scores for scores, _ in sequences)
        objects = [scores for sequence in scored for scores in sequence.objects]
        notes = (*self._split_notes(pred_dir), *(note for _, notes in sequences for note in notes))
        return Scores(
            benchmark=self.benchmark,
            split=self.split,
            backend=backend,
            metric_version=METRIC_VERSION,
            sequences=scored,
            j=mean_over(objects, 'j'),
            f=mean_over(objects, 'f'),
            notes=notes,
        )

    # ------------------------------------------------------------------------------------------- own formulas
    def _score_own(
        self, pred_dir: Path, jobs: int, progress: Progress | None
    ) -> list[tuple[SequenceScores, list[str]]]:
        num_objects = {name: _count_objects(name, self.truth[name][0], self.year) for name in self.sequences}
        items = [
            (path, label_map_path(pred_dir / name, path.stem), num_objects[name])
            for name in self.sequences
            for path in _scored(self.truth[name])
        ]
        results = []
        with in_order(functools.partial(_score_frame, year=self.year), items, jobs) as frames:
            stream = counted(frames, len(items), progress)
            for name in self.sequences:
                paths = _scored(self.truth[name])
                scored = [next(stream) for _ in paths]
                self._check_ids(pred_dir, name, num_objects[name], scored)
                curves = np.stack([frame.values for frame in scored], axis=-1)
                objects = [_object_scores(name, k + 1, *curves[:, k]) for k in range(num_objects[name])]
                notes = self._sequence_notes(name, sorted(set().union(*(frame.late_ids for frame in scored))))
                results.append((_sequence_scores(name, paths, objects), notes))
        return results

    def _check_ids(self, pred_dir: Path, name: str, num_objects: int, frames: list['_FrameScores']) -> None:
        """Refuse predicted ids that the sequence's truth shows in no scored frame."""
        late = set().union(*(frame.late_ids for frame in frames))
        for path, frame in zip(_scored(self.truth[name]), frames):
            unknown = sorted(frame.extra_ids - late)
            if unknown:
                source = label_map_path(pred_dir / name, path.stem)
                raise ValueError(_unknown_ids_message(source, name, num_objects, unknown))

    # -------------------------------------------------------------------------------------- the official tool
    def _score_official(
        self, pred_dir: Path, progress: Progress | None
    ) -> list[tuple[SequenceScores, list[str]]]:
        """Run the original on copies; nothing is written into the user's folders."""
        evaluation = official_class()
        results = []
        total = sum(len(_scored(self.truth[name])) for name in self.sequences)
        done = 0
        with tempfile.TemporaryDirectory(prefix='mmliir-davis-') as scratch:
            for name in self.sequences:
                root, predictions = self._lay_out_for_official(Path(scratch) / name, pred_dir, name)
                objects = run_official(evaluation, root, predictions, name)
                paths = _scored(self.truth[name])
                results.append((_sequence_scores(name, paths, objects), self._sequence_notes(name, [])))
                shutil.rmtree(Path(scratch) / name)
                done += len(paths)
                if progress is not None:
                    progress(done, total)
        return results

    def _lay_out_for_official(self, folder: Path, pred_dir: Path, name: str) -> tuple[Path, Path]:
        """Write one sequence's truth and predictions as the tool wants them; return the two roots."""
        root, predictions = folder / 'davis', folder / 'predictions'
        for path in (root / 'Annotations/480p' / name, root / 'ImageSets/2017', predictions / name):
            path.mkdir(parents=True)
        (root / 'ImageSets/2017/val.txt').write_text(name + '\n')
        num_objects = _count_objects(name, self.truth[name][0], self.year)
        # The tool sorts names as text: it gets numbers that sort as ours do.
        names = {path: f'{number:05d}.png' for number, path in enumerate(self.truth[name])}
        for path in self.truth[name]:
            _save_ids(root / 'Annotations/480p' / name / names[path], _read_truth(path, self.year))
        for path in _scored(self.truth[name]):
            source = label_map_path(pred_dir / name, path.stem)
            ids = _read_prediction(source, _read_truth(path, self.year).shape, self.year)
            if ids.max() > num_objects:
                unknown = [int(value) for value in np.unique(ids) if value > num_objects]
                raise ValueError(_unknown_ids_message(source, name, num_objects, unknown))
            _save_ids(predictions / name / names[path], ids)
        return root, predictions

    # ------------------------------------------------------------------------------------------ checks, notes
    def _check_predictions(self, pred_dir: Path) -> None:
        """Stop before the first frame is scored when any file is missing."""
        refuse_unscorable(self.broken)
        if not pred_dir.is_dir():
            raise FileNotFoundError(
                f'Prediction folder not found: {pred_dir}. Expected <sequence>/<frame>.png in it.'
            )
        absent = [name for name in self.sequences if not (pred_dir / name).is_dir()]
        if absent:
            found = sorted(path.name for path in pred_dir.iterdir() if path.is_dir())
            raise FileNotFoundError(
                f'{pred_dir / absent[0]} not found: {len(absent)} of the {len(self.sequences)} sequences of '
                f'{self.benchmark} {self.split} have no predictions ({_some(absent)}). The folder holds '
                f'{_some(found) or "no sequence folder"}. Predict them too, or name the sequences to score.'
            )
        for name in self.sequences:
            wanted = [label_map_path(pred_dir / name, path.stem) for path in _scored(self.truth[name])]
            missing = [path for path in wanted if not path.is_file()]
            if missing:
                found = sorted(path.name for path in (pred_dir / name).iterdir())
                raise FileNotFoundError(
                    f'{pred_dir / name / missing[0].name} not found: {len(missing)} of the '
                    f"{len(wanted)} scored frames of '{name}' have no prediction. The "
                    'folder holds '
                    f'{_some(found, 3) or "nothing"}. A prediction has the name of its annotation.'
                )

    def _split_notes(self, pred_dir: Path) -> Iterator[str]:
        count, published = len(self.sequences), PUBLISHED_SEQUENCES.get((self.year, self.split))
        benchmark = f'DAVIS-{self.year} {self.split}'
        yield from coverage_notes(
            count, self.num_sequences_in_split, published, benchmark, where=f'list {self.split}'
        )
        yield from unasked_notes(pred_dir, self.truth)

    def _sequence_notes(self, name: str, late_ids: list[int]) -> list[str]:
        notes = []
        num_annotated = len(self.truth[name])
        images = self.data_root / 'JPEGImages' / '480p' / name
        num_images = len(list_pictures(images).files) if images.is_dir() else 0
        if num_images > num_annotated:
            notes.append(
                f'{name}: {num_annotated} of {num_images} frames are annotated; scored on '
                f'{num_annotated - 2} of '
                'them (the first and the last are left out).'
            )
        if late_ids:
            notes.append(
                f'{name}: objects {_some(late_ids)} enter after the first annotated frame; DAVIS does not '
                'score them.'
            )
        if statistics.decay_wraps(num_annotated - 2):
            notes.append(
                f'{name}: {num_annotated - 2} scored frames; the official decay keeps frame numbers in 8 '
                'bits and says nothing from 256 on. Repeated as it is.'
            )
        return notes


# --------------------------------------------------------------------------------------------- scoring frames
@dataclasses.dataclass(frozen=True)
class _FrameScores:
    """One frame: `values` (2, objects) float64, J and F; the ids of truth and prediction above `objects`."""

    values: np.ndarray
    late_ids: frozenset[int]
    extra_ids: frozenset[int]


def _score_frame(item: tuple[Path, Path, int], year: int) -> _FrameScores:
    truth_path, prediction_path, num_objects = item
    truth = _read_truth(truth_path, year)
    if truth.max() == VOID_ID:
        truth[truth == VOID_ID] = 0
    prediction = _read_prediction(prediction_path, truth.shape, year)
    values = object_measures(prediction, truth, range(1, num_objects + 1))
    return _FrameScores(values, _ids_above(truth, num_objects), _ids_above(prediction, num_objects))


def _ids_above(label_map: np.ndarray, largest: int) -> frozenset[int]:
    if label_map.max() <= largest:  # np.unique is slow, this is the usual case
        return frozenset()
    return frozenset(int(value) for value in np.unique(label_map) if value > largest)


def _object_scores(sequence: str, object_id: int, j_curve: np.ndarray, f_curve: np.ndarray) -> ObjectScores:
    def summarise(curve: np.ndarray) -> Statistics:
        return Statistics(statistics.mean(curve), statistics.recall(curve), statistics.decay(curve))

    j_per_frame, f_per_frame = tuple(j_curve.tolist()), tuple(f_curve.tolist())
    return ObjectScores(sequence, object_id, summarise(j_curve), summarise(f_curve), j_per_frame, f_per_frame)


def _sequence_scores(name: str, paths: list[Path], objects: list[ObjectScores]) -> SequenceScores:
    frames = tuple(path.stem for path in paths)
    return SequenceScores(name, frames, tuple(objects), mean_over(objects, 'j'), mean_over(objects, 'f'))


# ------------------------------------------------------------------------------------------------------ files
def _truth_files(data_root: Path, name: str) -> list[Path]:
    """Return all annotation files of a sequence in the order of frames."""
    folder = data_root / 'Annotations' / '480p' / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f'Annotations of {name!r} not found at {folder}. Complete the data set, or name the '
            'sequences to score.'
        )
    paths = list_annotations(folder, _DOC)
    if len(paths) < _MIN_ANNOTATED_FRAMES:
        raise ValueError(
            f'{folder} holds {len(paths)} annotated frames; DAVIS leaves out the first and the last, so at '
            'least '
            f'{_MIN_ANNOTATED_FRAMES} are needed. (The truth of the test splits is not public.)'
        )
    return paths


def _scored(truth: list[Path]) -> list[Path]:
    return truth[1:-1]


def _count_objects(name: str, first_truth: Path, year: int) -> int:
    """Return the number of objects of a sequence: the largest id of the first annotated frame."""
    truth = _read_truth(first_truth, year)
    largest = int(np.max(truth, where=truth != VOID_ID, initial=0))
    if largest == 0:
        raise ValueError(
            f'{first_truth} shows no object; the first annotated frame says what sequence {name!r} is '
            'scored on. Leave the sequence out, or start at the frame with the first object.'
        )
    return largest


def _read_truth(path: Path, year: int) -> np.ndarray:
    """Read an annotation as (H, W) uint8 ids; of 2016 as 0 or 1. Void (255 in 2017) is kept."""
    try:
        return _as_year(read_ids(path), year)
    except FileNotFoundError:
        raise
    except ValueError:
        if year == 2017:
            raise
    return _read_colour_truth(path)


def _read_colour_truth(path: Path) -> np.ndarray:
    """Read one of the few masks of the 2016 archive that have colour channels, all of them equal, as 0 or 1."""
    with Image.open(path) as image:
        if image.mode not in (*SINGLE_CHANNEL_MODES, 'RGB', 'RGBA', 'LA'):
            raise ValueError(f'{path}: expected an annotation with one 8-bit channel of ids, got mode {image.mode}.')
        num_colours = len(image.getbands()) - image.mode.endswith('A')
        pixels = decode_image(image, path)
    return pixels.reshape(*pixels.shape[:2], -1)[..., :num_colours].any(axis=-1).view(np.uint8)


def _read_prediction(path: Path, size: tuple[int, int], year: int) -> np.ndarray:
    """Read a prediction as (H, W) uint8 ids; for 2016 as 0 or 1."""
    return _as_year(read_ids(path, size), year)


def _as_year(ids: np.ndarray, year: int) -> np.ndarray:
    return ids if year == 2017 else (ids != 0).view(np.uint8)


def _save_ids(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids).save(path, compress_level=1)


def _unknown_ids_message(path: Path, name: str, num_objects: int, unknown: Sequence[int]) -> str:
    hint = ' 255 is void only in the truth; score 0/255 masks as davis2016.' if VOID_ID in unknown else ''
    return (
        f'{path} holds object ids {_some(unknown)}, but {name!r} has {num_objects} objects in its first '
        'annotated '
        f'frame, so ids 0-{num_objects} are expected. Write the ids of the annotation.{hint}'
    )


# ------------------------------------------------------------------------------------------------------ small
def _some(names: Sequence[Any], limit: int = 5) -> str:
    """Return the first names, and how many more there are."""
    shown = ', '.join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f'{shown} and {len(names) - limit} more'
