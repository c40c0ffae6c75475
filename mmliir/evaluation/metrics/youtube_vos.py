"""YouTube-VOS: J and F of objects of seen and of unseen categories, on videos whose truth is at hand.

Xu et al., "YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark", arXiv 1809.03327: the score is the mean of
J and F over seen and over unseen categories, four numbers. J and F are those of DAVIS (`functional.region`).

The server's code is not public. What is inferred here, from how DAVIS does it: an object is scored on every annotated
frame after the one that gives it, up to and with the last; where it has vanished an empty prediction counts 1; its
value is the mean over these frames, and each of the four numbers is the mean over objects. Frames before an object is
given do not count for it.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmliir.components import METRICS
from mmliir.datasets.listing import label_map_path
from mmliir.datasets.named import sort_out
from mmliir.datasets.png import read_ids
from mmliir.datasets.sources import HOLDOUT_SHARE, holdout_names
from mmliir.datasets.youtube_vos import HOLDOUT, YouTubeVosDataset
from mmliir.evaluation.functional.region import object_measures

from .parallel import Progress, counted, in_order
from .results import BenchmarkResult, Ratio, SequenceResult, combine, coverage_notes, refuse_unscorable

METRIC_VERSION = 'youtube_vos-1'
#: The four numbers, in the order of the groups of 'overall'.
GROUPS = ('j_seen', 'j_unseen', 'f_seen', 'f_unseen')


@METRICS.register_module()
class YouTubeVosMetric:
    """Scores predictions of the held-out training videos of YouTube-VOS.

    Seen are the categories of the training videos that are not held out, by train/meta.json. In the official training
    set every category has many videos, so the hold-out has no unseen one: then `overall` is the mean of J and F of the
    seen alone, and a note says so.

    Args:
        data_root: Folder of the year, or the one above it; see `YouTubeVosDataset`.
        year: 2018 or 2019.
        split: 'train_holdout'. The truth of 'valid' and 'test' is not public.
        sequences: Score only these; None for all.
        holdout_share: See `YouTubeVosDataset`.

    Raises:
        FileNotFoundError: A folder or meta.json is missing.
        ValueError: A split without truth, or an unknown video.
    """

    version = METRIC_VERSION
    num_published: int | None = None  # nobody publishes scores of the hold-out

    def __init__(
        self,
        data_root: str | Path,
        year: int = 2018,
        split: str = HOLDOUT,
        sequences: Sequence[str] | None = None,
        holdout_share: float = HOLDOUT_SHARE,
    ) -> None:
        if split != HOLDOUT:
            raise ValueError(
                f'the truth of YouTube-VOS {split} is not public, so it has no score here. Predict it, and make the '
                f'archive for the server with `mmliir submit`; {HOLDOUT!r} is the split to score on.'
            )
        data = YouTubeVosDataset(data_root, year, split, 'sampled', sequences, holdout_share)
        held_out = set(holdout_names(data.meta, holdout_share))
        self.data_root, self.year, self.split = data.data_root, year, split
        self.sequences = tuple(data.names)
        self.num_sequences_in_split = data.num_sequences_in_split
        self.truth, self.broken = sort_out(self.sequences, data.annotation_paths)
        self.seen = frozenset(
            entry.category for name, objects in data.meta.items() if name not in held_out for entry in objects.values()
        )
        self._categories = {
            name: {number: entry.category for number, entry in data.meta[name].items()} for name in self.sequences
        }

    @property
    def benchmark(self) -> str:
        """'youtube_vos2018' or 'youtube_vos2019'."""
        return f'youtube_vos{self.year}'

    def missing(self, pred_dir: str | Path) -> dict[str, str]:
        """Return video -> why it cannot be scored, for those of which a file is absent; nothing is read."""
        found = dict(self.broken)
        for name, truth in self.truth.items():
            folder, wanted = Path(pred_dir) / name, truth[1:]
            absent = [file.name for path in wanted if not (file := label_map_path(folder, path.stem)).is_file()]
            if not folder.is_dir():
                found[name] = 'no predictions'
            elif absent:
                found[name] = f'{len(absent)} of {len(wanted)} scored frames have no prediction, e.g. {absent[0]}'
        return found

    def evaluate(self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None) -> BenchmarkResult:
        """Score one folder of predictions.

        Args:
            pred_dir: `<video>/<frame>.png` for every annotated frame but the first, 8-bit, one channel, the pixel value
                is the id, of the size of the annotation.
            jobs: Processes; they do not change any number.
            progress: Called with (videos done, videos in all).

        Raises:
            FileNotFoundError: A folder or a frame is missing.
            ValueError: A prediction of the wrong size or kind, or with an id the video does not have.
        """
        pred_dir = Path(pred_dir)
        if jobs < 1:
            raise ValueError(f'jobs must be at least 1, got {jobs}.')
        if not pred_dir.is_dir():
            raise FileNotFoundError(f'Prediction folder not found: {pred_dir}. Expected <video>/<frame>.png in it.')
        refuse_unscorable(self.broken)
        missing = self.missing(pred_dir)
        if missing:
            name, reason = next(iter(missing.items()))
            raise FileNotFoundError(
                f'{pred_dir}: {len(missing)} of the {len(self.sequences)} videos of {self.benchmark} {self.split} '
                f'cannot be scored; the first is {name}: {reason}. Predict them too, or name the videos to score.'
            )
        items = [
            _Video(name, tuple(self.truth[name]), pred_dir / name, frozenset(self._categories[name]))
            for name in self.sequences
        ]
        with in_order(_score_video, items, jobs, items_a_message=1) as videos:
            scored = list(counted(videos, len(items), progress))
        sequences = tuple(self._sequence(video) for video in scored)
        metrics = {name: combine(sequences, name) for name in ('overall', *GROUPS)}
        return BenchmarkResult(
            self.benchmark,
            self.split,
            METRIC_VERSION,
            metrics,
            sequences,
            self.num_sequences_in_split,
            self.num_published,
            notes=tuple(self._notes(scored, metrics)),
        )

    def _sequence(self, video: '_VideoScores') -> SequenceResult:
        categories = self._categories[video.name]
        sums, counts = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0.0)
        for object_id, curve in video.curves.items():
            kind = 'seen' if categories[object_id] in self.seen else 'unseen'
            for measure, value in zip('jf', np.mean(curve, axis=0), strict=True):
                sums[f'{measure}_{kind}'] += float(value)
                counts[f'{measure}_{kind}'] += 1.0
        ratios: dict[str, Ratio] = {
            'overall': (tuple(sums[group] for group in GROUPS), tuple(counts[group] for group in GROUPS))
        }
        ratios |= {group: ((sums[group],), (counts[group],)) for group in GROUPS}
        alone = SequenceResult(video.name, {}, ratios)
        return SequenceResult(
            video.name,
            {metric: combine([alone], metric) for metric in ratios},
            ratios,
            video.frames,
            {name: tuple(values) for name, values in zip('jf', video.frame_means().tolist(), strict=True)},
        )

    def _notes(self, scored: Sequence['_VideoScores'], metrics: dict[str, float]) -> Iterator[str]:
        yield (
            f'{HOLDOUT}: training videos that were set aside, in place of the validation set, whose truth is not '
            'public; not comparable with published scores.'
        )
        yield from coverage_notes(
            len(self.sequences), self.num_sequences_in_split, None, self.benchmark, 'video', f'list {self.split}'
        )
        for kind in ('seen', 'unseen'):
            if math.isnan(metrics[f'j_{kind}']):
                yield f'no object of an {kind} category: overall is the mean over the other two numbers.'
        for video in scored:
            unscored = sorted(set(self._categories[video.name]) - set(video.curves))
            if unscored:
                yield (
                    f'{video.name}: objects {", ".join(map(str, unscored))} of meta.json are in no annotation, or '
                    'in the last alone: not scored.'
                )


@dataclasses.dataclass(frozen=True)
class _Video:
    """What a process needs to score one video."""

    name: str
    truth: tuple[Path, ...]
    predictions: Path
    ids: frozenset[int]


@dataclasses.dataclass(frozen=True)
class _VideoScores:
    """Object -> (frames it is scored on, 2) of J and F; they are the last ones of `frames`."""

    name: str
    frames: tuple[str, ...]
    curves: dict[int, np.ndarray]

    def frame_means(self) -> np.ndarray:
        """Return (2, frames), the mean over the objects that a frame scores."""
        sums, counts = np.zeros((2, len(self.frames))), np.zeros(len(self.frames))
        for curve in self.curves.values():
            sums[:, -len(curve) :] += curve.T
            counts[-len(curve) :] += 1
        return sums / counts


def _score_video(video: _Video) -> _VideoScores:
    given: list[int] = []
    frames: list[str] = []
    rows: dict[int, list[np.ndarray]] = {}
    for path in video.truth:
        truth = read_ids(path)
        shown = set(_ids_of(truth))
        without = sorted(shown - video.ids)
        if without:
            raise ValueError(f'{path} shows object {without[0]}, which meta.json does not list for {video.name!r}.')
        if given:
            frames.append(path.stem)
            prediction = _read_prediction(video, path.stem, truth.shape)
            for object_id, pair in zip(given, object_measures(prediction, truth, given).T, strict=True):
                rows.setdefault(object_id, []).append(pair)
        given += sorted(shown - set(given))
    return _VideoScores(video.name, tuple(frames), {number: np.stack(pairs) for number, pairs in sorted(rows.items())})


def _read_prediction(video: _Video, stem: str, size: tuple[int, int]) -> np.ndarray:
    path = label_map_path(video.predictions, stem)
    prediction = read_ids(path, size)
    unknown = sorted(set(_ids_of(prediction)) - video.ids)
    if unknown:
        raise ValueError(
            f'{path} holds object ids {", ".join(map(str, unknown[:5]))}, but meta.json lists for {video.name!r} '
            f'{", ".join(map(str, sorted(video.ids)))}. Write the ids of the annotations.'
        )
    return prediction


def _ids_of(label_map: np.ndarray) -> list[int]:
    """Return the ids of (H, W) uint8 without the background (`np.unique` sorts all pixels)."""
    return [number for number in np.flatnonzero(np.bincount(label_map.ravel())).tolist() if number]
