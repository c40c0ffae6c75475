"""TAP-Vid and RoboTAP scores of a folder of predicted tracks.

The formulas are those of `compute_tapvid_metrics` (google-deepmind/tapnet), see `functional.tapvid`; the data set's
value is the mean over its videos.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmliir.components import METRICS
from mmliir.datasets.tapvid import QueryMode, Subset, TapVidDataset, TapVidTruth, pixels_to_raster
from mmliir.evaluation.functional.tapvid import SIDE, Aggregate, pts_within_over_time, tapvid_counts, tapvid_scores
from mmliir.evaluation.tracks import TRACKS_NAME, read_tracks
from mmliir.utils.words import number_of

from .keypoints import missing_tracks, refuse_missing
from .parallel import Progress
from .results import BenchmarkResult, SequenceResult, combine, coverage_notes

# Changes when the same files could give another number.
METRIC_VERSION = 'tapvid-1'
#: Videos that published scores are means over. Kinetics: 1189 in papers; the benchmark's README says 1000.
PUBLISHED_VIDEOS = {'davis': 30, 'kinetics': 1189, 'rgb_stacking': 50, 'robotap': 265}
# Pixels that a stored query may differ from the truth's: less than any resizing or other choice of queries makes.
_QUERY_TOLERANCE = 1e-3


@METRICS.register_module()
class TapVidMetric:
    """Scores `<video>/tracks.npz` (see `mmliir.evaluation.writers`) against the truth of one part of TAP-Vid.

    The data set's value of a measure is the unweighted mean over the videos for which it is known (a video with no
    visible point after its queries says nothing about positions).

    Args:
        data_root: As for `TapVidDataset`.
        subset: Likewise.
        query_mode: Likewise; 'first' and 'strided' are two tables of the benchmark, not to be compared.
        aggregate: Inside a video: 'pooled' is the benchmark, 'track' FGVC's mean over queries; see `tapvid_scores`.
        resize: (H, W) if the frames that were followed were resized by the data set; None otherwise.
        sequences: Score only these, in this order; None for all.

    Raises:
        FileNotFoundError, ValueError: As `TapVidDataset`; or an unknown `aggregate`.
    """

    def __init__(
        self,
        data_root: str | Path,
        subset: Subset = 'davis',
        query_mode: QueryMode = 'first',
        aggregate: Aggregate = 'pooled',
        resize: tuple[int, int] | None = None,
        sequences: Sequence[str] | None = None,
    ) -> None:
        if aggregate not in ('pooled', 'track'):
            raise ValueError(f"aggregate must be 'pooled' or 'track', got {aggregate!r}.")
        self.dataset = TapVidDataset(str(data_root), subset, query_mode, resize, sequences)
        self.data_root, self.broken = self.dataset.data_root, self.dataset.broken
        self.aggregate = aggregate
        self.sequences = tuple(self.dataset.names)
        self.num_sequences_in_split = self.dataset.num_in_files
        self.num_published: int | None = PUBLISHED_VIDEOS[subset]
        self.benchmark = 'robotap' if subset == 'robotap' else f'tapvid_{subset}'
        self.split = query_mode
        self.version = METRIC_VERSION if aggregate == 'pooled' else f'{METRIC_VERSION}-{aggregate}'

    def missing(self, pred_dir: str | Path) -> dict[str, str]:
        """Return video -> why it cannot be scored, of those without predictions."""
        return missing_tracks(pred_dir, self.sequences)

    def evaluate(self, pred_dir: str | Path, jobs: int = 1, progress: Progress | None = None) -> BenchmarkResult:
        """Score one folder of predictions.

        Args:
            pred_dir: Folder with `<video>/tracks.npz`.
            jobs: One thread does it all: the time goes into reading files.
            progress: Called with (videos done, videos in all).

        Raises:
            FileNotFoundError: A video has no predictions.
            ValueError: Predictions that are damaged, of another number of queries or frames, or for other queries.
        """
        if jobs < 1:
            raise ValueError(f'jobs must be at least 1, got {jobs}.')
        refuse_missing(pred_dir, self.sequences, f'videos of {self.benchmark}')
        rows, num_tracks, num_left_out = [], 0, 0
        for done, name in enumerate(self.sequences, start=1):
            truth = self.dataset.truth(name)
            rows.append(self._score(name, truth, Path(pred_dir) / name / TRACKS_NAME))
            num_tracks += truth.num_tracks
            num_left_out += truth.num_tracks - len(np.unique(truth.track))
            if progress is not None:
                progress(done, len(self.sequences))
        return BenchmarkResult(
            benchmark=self.benchmark,
            split=self.split,
            metric_version=self.version,
            metrics={metric: combine(rows, metric) for metric in rows[0].metrics},
            sequences=tuple(rows),
            num_sequences_in_split=self.num_sequences_in_split,
            num_published=self.num_published,
            notes=tuple(self._notes(rows, num_tracks, num_left_out)),
        )

    def _score(self, name: str, truth: TapVidTruth, path: Path) -> SequenceResult:
        found = read_tracks(path)
        _check_prediction(found, truth, path)
        tracks = SIDE * pixels_to_raster(found['tracks'].astype(np.float64), truth.frame_size)
        frames = truth.queries[:, 0].astype(np.int64)
        places = frames, SIDE * truth.points, truth.visible, tracks
        counts = tapvid_counts(*places, found['visible'], self.dataset.query_mode)
        scores = tapvid_scores(counts, self.aggregate)
        ratios = {
            metric: ((0.0,), (0.0,)) if math.isnan(value) else ((value,), (1.0,)) for metric, value in scores.items()
        }
        curve = pts_within_over_time(*places, self.dataset.query_mode)
        names = tuple(f'{number:05d}' for number in range(len(curve)))
        return SequenceResult(name, scores, ratios, names, {'pts_within': tuple(curve.tolist())})

    def _notes(self, rows: list[SequenceResult], num_tracks: int, num_left_out: int) -> list[str]:
        notes = coverage_notes(
            len(self.sequences), self.num_sequences_in_split, self.num_published, self.benchmark, 'video', 'files'
        )
        if self.aggregate != 'pooled':
            notes.append("Means over tracks inside a video (FGVC's rule): not comparable with the benchmark's table.")
        if num_left_out:
            notes.append(f'{num_left_out} of {num_tracks} tracks are visible in no frame that gives a query; left out.')
        unknown = [row.name for row in rows if math.isnan(row.metrics['pts_within'])]
        if unknown:
            notes.append(
                f'{number_of(len(unknown), "video")} without a visible point after the queries, counting for nothing '
                f'in pts_within: {", ".join(unknown[:5])}{", ..." if len(unknown) > 5 else ""}.'
            )
        return notes


def _check_prediction(found: dict[str, np.ndarray], truth: TapVidTruth, path: Path) -> None:
    """Predictions must be of these queries, in this order, in pixels of frames of this size."""
    if found['visible'].shape != truth.visible.shape:
        (points, frames), (true_points, true_frames) = found['visible'].shape, truth.visible.shape
        raise ValueError(
            f'{path} holds {points} queries in {frames} frames, the truth {true_points} in {true_frames}: made with '
            'another query_mode or from other data. Predict again.'
        )
    for name, kinds in (('queries', 'fiu'), ('tracks', 'fiu'), ('visible', 'b')):
        if found[name].dtype.kind not in kinds:
            raise ValueError(f'{path}: {name} has the dtype {found[name].dtype}: see mmliir.evaluation.writers.')
    off = np.abs(found['queries'] - truth.queries).max(axis=1, initial=0)
    wrong = np.nonzero(~(off <= _QUERY_TOLERANCE))[0]
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f'{path}: query {row} is (t, x, y) = {np.round(found["queries"][row], 3).tolist()}, the truth '
            f'{np.round(truth.queries[row], 3).tolist()} ({len(wrong)} such): made with another query_mode, another '
            '`resize`, or from other data. Predict again.'
        )
