"""VIP scores of a folder of predictions: mIoU of classes, and AP of instances.

The rules are those of the benchmark's own tools, see `functional.semantic` and `functional.instance_ap`. Every
annotated frame is scored, the given first one too: the pipelines of UVC, CRW and VFS save it and their evaluators score
what is saved. A prediction has the size of its annotation; the official tools resize one that has not, ATEN's and UVC's
with a filter that invents classes.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmliir.components import METRICS
from mmliir.datasets.listing import label_map_path
from mmliir.datasets.named import sort_out
from mmliir.datasets.png import read_ids
from mmliir.datasets.vip import VIP_CLASSES, VipDataset, read_categories, read_instances
from mmliir.evaluation.functional.instance_ap import (
    THRESHOLDS,
    InstanceMatches,
    average_precision_table,
    match_instances,
)
from mmliir.evaluation.functional.semantic import (
    confusion_matrix,
    intersection_and_union,
    iou_per_class,
    mean_iou,
)
from mmliir.utils.files import read_text

from .parallel import Progress, counted, in_order
from .results import BenchmarkResult, SequenceResult, combine, coverage_notes, refuse_unscorable, unasked_notes

#: Split -> videos that published scores are over.
PUBLISHED_VIDEOS = {'val': 50}
NUM_CLASSES = len(VIP_CLASSES)
MAX_INSTANCES = 255

#: (truth, prediction) of one frame.
_Files = tuple[Path, Path]


class _VipMetric:
    """What the two metrics share: the sequences, which files must be there, and the order of the frames."""

    annotation: Literal['semantic', 'instance']
    suffixes: tuple[str, ...]  # of a frame's files

    def __init__(self, data_root: str | Path, split: str = 'val', sequences: Sequence[str] | None = None) -> None:
        data = VipDataset(str(data_root), split, self.annotation, sequences)
        if len(set(data.names)) != len(data.names):
            raise ValueError(f'sequences are named twice: {", ".join(data.names)}.')
        self.data_root = data.data_root
        self.split = split
        self.sequences = tuple(data.names)
        self.num_sequences_in_split = data.num_listed
        self.num_published = PUBLISHED_VIDEOS.get(split)
        samples, self.broken = sort_out(self.sequences, data.sample)
        self.truth = {name: data.annotation_paths(name) for name in samples}
        self._num_images = {name: len(sample.frame_names) for name, sample in samples.items()}

    def missing(self, pred_dir: str | Path) -> dict[str, str]:
        """Return sequence -> why its predictions cannot be scored, for those of which a file is absent."""
        pred_dir = Path(pred_dir)
        reasons = dict(self.broken)
        for name, paths in self.truth.items():
            folder = pred_dir / name
            maps = [label_map_path(folder, path.stem) for path in paths]
            files = [path.with_suffix(end) if end != '.png' else path for path in maps for end in self.suffixes]
            absent = [path.name for path in files if not path.is_file()]
            if not folder.is_dir():
                reasons[name] = 'no predictions'
            elif absent:
                reasons[name] = (
                    f'{len(absent)} of {len(files)} files are missing, e.g. {absent[0]}; a prediction has the name of '
                    'its annotation'
                )
        return reasons

    def _score_frames(
        self, score: Callable[[_Files], Any], pred_dir: Path, jobs: int, progress: Progress | None
    ) -> dict[str, list]:
        """Call `score((truth path, prediction path))` of every frame; return sequence -> results in order of frames."""
        if not pred_dir.is_dir():
            raise FileNotFoundError(f'prediction folder not found: {pred_dir}. Expected <sequence>/<frame>.png in it.')
        refuse_unscorable(self.broken)
        missing = self.missing(pred_dir)
        if missing:
            name, reason = next(iter(missing.items()))
            raise FileNotFoundError(
                f'{pred_dir}: {len(missing)} of the {len(self.sequences)} sequences of {self.benchmark} {self.split} '
                f'cannot be scored; the first is {name}: {reason}. Predict them too, or name the sequences to score.'
            )
        items = [
            (path, label_map_path(pred_dir / name, path.stem)) for name in self.sequences for path in self.truth[name]
        ]
        with in_order(score, items, jobs) as results:
            stream = counted(results, len(items), progress)
            return {name: [next(stream) for _ in self.truth[name]] for name in self.sequences}

    def _notes(self, pred_dir: Path) -> Iterator[str]:
        yield from coverage_notes(
            len(self.sequences),
            self.num_sequences_in_split,
            self.num_published,
            f'VIP {self.split}',
            where=f'list {self.split}',
        )
        for name in self.sequences:
            if self._num_images[name] > len(self.truth[name]):
                yield (
                    f'{name}: {len(self.truth[name])} of {self._num_images[name]} frames are annotated and scored; '
                    'VIP_Fine has annotated frames alone, so this is not the published protocol.'
                )
        yield from unasked_notes(pred_dir, self.truth)


@METRICS.register_module()
class VipSemanticMetric(_VipMetric):
    """mIoU of predicted classes: one confusion matrix over all frames, the mean over the classes that occur.

    `iou_<class>` of each class of `VIP_CLASSES`; a class that occurs nowhere is NaN and not in the mean.

    Args:
        data_root: `VIP_Fine`, or the folder that holds it; see `VipDataset`.
        split: 'val' or 'train'.
        sequences: Score only these, in this order; None means all of the split.

    Raises:
        FileNotFoundError: The list or a folder of truth is missing.
        ValueError: A name that is not in the split.
    """

    benchmark = 'vip'
    version = 'vip-1'
    annotation = 'semantic'
    suffixes = ('.png',)

    def evaluate(self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None) -> BenchmarkResult:
        """Score one folder of predictions.

        Args:
            pred_dir: Folder with `<sequence>/<frame>.png`, 8-bit, one channel (palette or grey), the pixel value is the
                class 0 to 19, of the size of the truth, for every annotated frame.
            jobs: Processes; they do not change any number.
            progress: Called with (frames done, frames in all) after every frame.

        Raises:
            FileNotFoundError: A folder or a frame is missing.
            ValueError: A prediction of the wrong size or kind, or of a class that VIP does not have.
        """
        pred_dir = Path(pred_dir)
        frames = self._score_frames(_frame_confusion, pred_dir, jobs, progress)
        sequences = tuple(self._sequence(name, frames[name]) for name in self.sequences)
        metrics = {key: combine(sequences, key) for key in sequences[0].ratios}
        return BenchmarkResult(
            self.benchmark,
            self.split,
            self.version,
            metrics,
            sequences,
            self.num_sequences_in_split,
            self.num_published,
            notes=tuple(self._notes(pred_dir)),
        )

    def _sequence(self, name: str, frames: Sequence[np.ndarray]) -> SequenceResult:
        confusion = np.sum(frames, axis=0)
        intersection, union = (tuple(part.tolist()) for part in intersection_and_union(confusion))
        metrics = {'miou': mean_iou(confusion)}
        ratios = {'miou': (intersection, union)}
        for class_name, iou, both, either in zip(VIP_CLASSES, iou_per_class(confusion), intersection, union):
            metrics[f'iou_{class_name}'] = float(iou)
            ratios[f'iou_{class_name}'] = ((both,), (either,))
        stems = tuple(path.stem for path in self.truth[name])
        return SequenceResult(name, metrics, ratios, stems, {'miou': tuple(mean_iou(frame) for frame in frames)})


@METRICS.register_module()
class VipInstanceMetric(_VipMetric):
    """AP of predicted instances: the mean over the 19 classes and the thresholds .1 to .9 of IoU.

    `ap` is the official number, in which a class without truth counts 0, or makes the mean NaN when it is predicted;
    that cannot happen to the val split with labels propagated from its first frames. `ap_present` leaves such classes
    out: it is what compares a few sequences, and equals `ap` when all classes have truth. `ap@0.5` is the mean over the
    19 classes at one threshold. AP is no ratio of sums over sequences, so it has no bootstrap interval.

    Args:
        data_root: `VIP_Fine`, or the folder that holds it; see `VipDataset`.
        split: 'val' or 'train'.
        sequences: Score only these, in this order; None means all of the split.
        scores: 'file': those of the text files. 'constant': the text files' scores are replaced by 1, so that of all
            predictions of a class those of later frames come first.

    Raises:
        FileNotFoundError: The list or a folder of truth is missing.
        ValueError: A name that is not in the split.
    """

    benchmark = 'vip_instance'
    version = 'vip_instance-1'
    annotation = 'instance'
    suffixes = ('.png', '.txt')

    def __init__(
        self,
        data_root: str | Path,
        split: str = 'val',
        sequences: Sequence[str] | None = None,
        scores: Literal['file', 'constant'] = 'file',
    ) -> None:
        if scores not in ('file', 'constant'):
            raise ValueError(f"scores: expected 'file' or 'constant', came {scores!r}.")
        super().__init__(data_root, split, sequences)
        self.scores = scores

    def evaluate(self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None) -> BenchmarkResult:
        """Score one folder of predictions.

        Args:
            pred_dir: Folder with `<sequence>/<frame>.png`, 8-bit ids 1 .. n of the size of the truth, and
                `<frame>.txt`, whose line i is `class score` of id i, for every annotated frame.
            jobs: Processes; they do not change any number.
            progress: Called with (frames done, frames in all) after every frame.

        Raises:
            FileNotFoundError: A folder or a file is missing.
            ValueError: A PNG of the wrong size or kind, an id without a line, or a line that is not a class of VIP and
                a finite number.
        """
        pred_dir = Path(pred_dir)
        constant = 1.0 if self.scores == 'constant' else None
        score = functools.partial(_frame_matches, constant=constant)
        frames = self._score_frames(score, pred_dir, jobs, progress)
        whole = [frame for name in self.sequences for frame in frames[name]]
        sequences = tuple(
            SequenceResult(name, _ap_metrics(frames[name]), {}, tuple(path.stem for path in self.truth[name]))
            for name in self.sequences
        )
        return BenchmarkResult(
            self.benchmark,
            self.split,
            self.version,
            _ap_metrics(whole),
            sequences,
            self.num_sequences_in_split,
            self.num_published,
            notes=(*self._notes(pred_dir), *self._instance_notes(whole)),
        )

    def _instance_notes(self, frames: Sequence[InstanceMatches]) -> Iterator[str]:
        num_truth = np.sum([frame.num_truth for frame in frames], axis=0)
        absent = [VIP_CLASSES[c] for c in range(1, NUM_CLASSES) if num_truth[c] == 0]
        if absent:
            yield (
                f'no true instance of {", ".join(absent)}: each counts 0 in ap, or makes it NaN when it is predicted, '
                'as in the official tool; see ap_present.'
            )
        dropped = sum(frame.dropped for frame in frames)
        if dropped:
            yield (
                f'{dropped} predicted instances were left out because the text file lists one of their class and frame '
                'that has no pixel, as in the official tool. List the instances that are seen.'
            )
        if self.scores == 'constant':
            yield 'the scores of the predictions were replaced by 1.'


# --------------------------------------------------------------------------------------------- scoring frames
def _frame_confusion(files: _Files) -> np.ndarray:
    truth_path, prediction_path = files
    truth = read_categories(truth_path)
    prediction = read_ids(prediction_path, truth.shape)
    try:
        return confusion_matrix(prediction, truth, NUM_CLASSES)
    except ValueError as error:
        raise ValueError(f'{prediction_path}: {error}. Write the classes of Category_ids.') from error


def _frame_matches(files: _Files, constant: float | None) -> InstanceMatches:
    truth_path, prediction_path = files
    truth = read_instances(truth_path)
    prediction = read_ids(prediction_path, truth.ids.shape)
    predicted = read_scored_instances(prediction_path.with_suffix('.txt'))
    if prediction.max() > len(predicted):
        raise ValueError(
            f'{prediction_path} holds id {int(prediction.max())}, but {prediction_path.stem}.txt has {len(predicted)} '
            'lines. Line i is `class score` of id i; number the ids of a frame from 1 on.'
        )
    if constant is not None:
        predicted = [(class_id, constant) for class_id, _ in predicted]
    return match_instances(prediction, predicted, truth.ids, truth.classes, NUM_CLASSES)


def read_scored_instances(path: Path) -> list[tuple[int, float]]:
    """Return (class, score) of the ids 1, 2, ..."""
    predicted = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        try:
            class_id, score = int(words[0]), float(words[1])
            known = 0 < class_id < NUM_CLASSES and math.isfinite(score) and len(words) == 2
        except (ValueError, IndexError):
            known = False
        if not known:
            raise ValueError(
                f'{path}, line {number}: expected `class score`, a whole number from 1 to {NUM_CLASSES - 1} and a '
                f'finite number, came {line[:80]!r}.'
            )
        predicted.append((class_id, score))
    if len(predicted) > MAX_INSTANCES:
        raise ValueError(f'{path} has {len(predicted)} lines; an 8-bit PNG has {MAX_INSTANCES} ids at most.')
    return predicted


def _ap_metrics(frames: Sequence[InstanceMatches]) -> Mapping[str, float]:
    table = average_precision_table(frames, NUM_CLASSES)
    num_truth = np.sum([frame.num_truth for frame in frames], axis=0)[1:]
    present = table[num_truth > 0]
    metrics = {'ap': float(table.mean()), 'ap_present': float(present.mean()) if len(present) else math.nan}
    for threshold, column in zip(THRESHOLDS, table.T):
        metrics[f'ap@{threshold}'] = float(column.mean())
    for name, row in zip(VIP_CLASSES[1:], table):
        metrics[f'ap_{name}'] = float(row.mean())
    return metrics
