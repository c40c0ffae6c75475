"""An evaluation as a page that a person can judge: scores, where it fails, what that looks like, how it was made.

A data set may have, besides what `mmliir.evaluation.tasks` asks for,

    truth_labels(name) -> Mapping[int, Callable[[], ndarray]]     # frame number -> reads a label map, (H, W) uint8
    truth_points(name) -> (tracks (N, T, 2), visible (N, T))      # true places of `sample(name).queries`, as (x, y)

A data set of kind 'instances' gives classes, because ids of predictions are counted anew in each frame. Without them
the pictures show the predictions alone.
"""

import functools
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmliir.datasets.listing import label_map_path
from mmliir.datasets.masks import read_label_map
from mmliir.datasets.vip import class_map
from mmliir.evaluation.metrics.results import BenchmarkResult, SequenceResult
from mmliir.evaluation.metrics.vip import read_scored_instances
from mmliir.evaluation.protocol import ProtocolCard
from mmliir.evaluation.report import MAX_BYTES, Report, ScoreRow, ScoreTable, WrittenReport, write_report
from mmliir.evaluation.summary import Summary, make_summary
from mmliir.evaluation.tables import score_text, worst_first
from mmliir.evaluation.tracks import TRACKS_NAME, read_tracks
from mmliir.evaluation.wording import coverage_text, incompleteness, interval_text, metric_label
from mmliir.structures import PointSample, VideoSample
from mmliir.visualization import (
    overlay_labels,
    overlay_points,
    require_video_writer,
    resize_to_width,
    write_video,
)

#: Pictures and sequences shown as videos of a page with one benchmark; several share what is not much more.
NUM_PICTURES = 6
MAX_PER_SEQUENCE = 2
VIDEO_HEIGHT, VIDEO_FRAMES, VIDEO_FPS = 240, 60, 10
_MAX_CHARTS = 30
_MAX_FIRST = 10_000
_MAX_BARS = 40
_CELL_WIDTH = 800
# Frames much narrower than this are drawn enlarged.
_SMALL_WIDTH = 480


@dataclass(frozen=True)
class EvaluatedRun:
    """One benchmark under one protocol, scored.

    Attributes:
        result: Its scores.
        card: What they depend on; None where it is not known.
        dataset: Gives frames, and truth where it can; None shows no pictures.
        pred_dir: The predictions that were scored; None shows no pictures.
    """

    result: BenchmarkResult
    card: ProtocolCard | Mapping[str, Any] | None = None
    dataset: Any = None
    pred_dir: str | Path | None = None

    @property
    def protocol(self) -> str:
        """Name of the protocol, '' where it is not known."""
        return self._of_card('protocol')

    @property
    def model(self) -> str:
        """Name of the model, '' where it is not known."""
        return self._of_card('model')

    def _of_card(self, key: str) -> str:
        card = self.card.to_dict() if isinstance(self.card, ProtocolCard) else self.card or {}
        return str(card.get(key, ''))


def write_evaluation_report(
    path: str | Path,
    runs: Sequence[EvaluatedRun],
    title: str | None = None,
    commands: Sequence[str] | None = None,
    environment: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
    warnings: Sequence[str] = (),
) -> WrittenReport:
    """Write the page of an evaluation: one self-contained HTML file.

    Equal runs give equal bytes, with the same video encoder.

    Args:
        path: File to write, `.html`.
        runs: One or more; with more, the page begins with all headline scores and has a part for each.
        title: None makes one of the model and the benchmark.
        commands: What makes it again.
        environment: Name -> version.
        notes: More that a reader should know.
        max_bytes: Greatest size of the file.
        warnings: What stands before the scores, besides what the runs themselves lack.

    Raises:
        FileNotFoundError: A folder of predictions that is not there.
        ValueError: No run, or a report that is too big without pictures.
    """
    if not runs:
        raise ValueError('a report needs one evaluated run at least')
    for run in runs:
        if run.pred_dir is not None and not Path(run.pred_dir).is_dir():
            raise FileNotFoundError(f'folder of predictions not found at {run.pred_dir}; predict, then report')
    notes = list(notes)
    try:
        require_video_writer()
        with_video = True
    except ImportError as error:
        with_video = False
        notes.append(f'No video in this report. {error}')
    budget = _share(len(runs), with_video)
    with tempfile.TemporaryDirectory(prefix='mmliir_report_') as folder:
        parts = [
            _describe(run, pictures, videos, Path(folder) / str(number))
            for number, (run, (pictures, videos)) in enumerate(zip(runs, budget, strict=True))
        ]
        common = dict(commands=commands, environment=environment)
        if len(runs) == 1:
            common['warnings'] = [*(parts[0].warnings or ()), *warnings] or None
            report = _replaced(parts[0], title, notes, common)
        else:
            report = Report(
                title=title or _common_title(runs),
                subtitle='Every score with half its 95 % interval over sequences.',
                warnings=[*(_warnings(runs) or ()), *warnings] or None,
                tables=[_overview(runs)],
                parts=parts,
                notes=notes or None,
                **common,
            )
        return write_report(path, report, max_bytes)


def worst_frames(
    result: BenchmarkResult, count: int, per_sequence: int = MAX_PER_SEQUENCE
) -> list[tuple[str, str, dict[str, float]]]:
    """The frames with the lowest scores.

    Args:
        result: With curves, or without.
        count: How many at most.
        per_sequence: How many at most of one sequence. They lie a tenth of the sequence apart at least: neighbours
            look the same.

    Returns:
        (sequence, frame name, curve -> fraction) of each, lowest mean over its curves first; ties in the order of the
        sequences and frames. Empty where there are no curves.
    """
    found = []
    for order, row in enumerate(result.sequences):
        curves = [curve for curve in row.curves.values() if len(curve) == len(row.frames)]
        for number in range(len(row.frames)):
            values = [curve[number] for curve in curves if math.isfinite(curve[number])]
            if values:
                found.append((sum(values) / len(values), order, number))
    chosen: list[tuple[int, int]] = []
    for _, order, number in sorted(found):
        if len(chosen) >= count:
            break
        near = [other for other_order, other in chosen if other_order == order]
        apart = len(result.sequences[order].frames) / 10
        if len(near) < per_sequence and all(abs(other - number) >= apart for other in near):
            chosen.append((order, number))
    rows = ((result.sequences[order], number) for order, number in chosen)
    return [
        (
            row.name,
            row.frames[number],
            {key: curve[number] for key, curve in row.curves.items() if number < len(curve)},
        )
        for row, number in rows
    ]


# --- one run ---------------------------------------------------------------------------------------------------------


def _share(num_runs: int, with_video: bool) -> list[tuple[int, tuple[str, ...]]]:
    """(number of pictures, which sequences as videos) of each run: few runs get many, later ones of many none."""
    if num_runs == 1:
        return [(NUM_PICTURES, ('worst', 'median') if with_video else ())]
    pictures = max(1, 2 * NUM_PICTURES // num_runs) if num_runs <= 4 * NUM_PICTURES else 0
    return [(min(pictures, 4), ('worst',) if with_video and number < 4 else ()) for number in range(num_runs)]


def _describe(run: EvaluatedRun, num_pictures: int, videos: Sequence[str], folder: Path) -> Report:
    result = run.result
    summary = make_summary(result, run.card)
    view, notes = _View.of(run), list(result.notes)
    pictures: list[tuple[str, list[tuple[str, np.ndarray]]]] = []
    clips: list[tuple[str, Path]] = []
    if view is not None:
        pictures, lost = _worst_pictures(view, result, num_pictures)
        notes += lost
        clips, lost = _clips(view, result, videos, folder)
        notes += lost
    charts, note = _charts(result)
    notes += [note] if note else []
    entry = summary.intervals.get(result.headline)
    if entry is not None and entry.note:
        notes.append(f'{metric_label(result.headline)}: {entry.note}.')
    return Report(
        title=_title(run),
        subtitle=f'{coverage_text(result)} of {result.benchmark} {result.split}; metric {result.metric_version}.',
        warnings=_warnings([run]),
        summary_rows=[_score_row(summary)] if result.sequences else None,
        videos=clips or None,
        tables=_tables(result, summary),
        over_time=charts or None,
        pictures=pictures or None,
        pictures_title='Worst frames',
        card=summary.card,
        notes=notes or None,
    )


def _title(run: EvaluatedRun) -> str:
    parts = [f'{run.result.benchmark} {run.result.split}', run.protocol]
    return ', '.join(part for part in parts if part)


def _common_title(runs: Sequence[EvaluatedRun]) -> str:
    models = list(dict.fromkeys(run.model for run in runs if run.model))
    return f'Evaluation of {", ".join(models)}' if models else 'Evaluation'


def _replaced(part: Report, title: str | None, notes: Sequence[str], common: Mapping[str, Any]) -> Report:
    model = (part.card or {}).get('model')
    title = title or (f'{model}: {part.title}' if model else part.title)
    notes = [*(part.notes or ()), *notes]
    return Report(**{**vars(part), 'title': title, 'notes': notes or None, **common})


def _warnings(runs: Sequence[EvaluatedRun]) -> list[str] | None:
    """A sentence for each run that is not whole; of several, one for all that are only not the published list."""
    lacking = {text: run.result for run in runs if (text := incompleteness(run.result))}
    partial = [result for result in lacking.values() if not result.missing]
    if len(partial) < 2:
        return list(lacking) or None
    shown = dict.fromkeys(f'{coverage_text(result)} of {result.benchmark} {result.split}' for result in partial)
    merged = f'Not what published scores are means over: {"; ".join(shown)}. Do not compare with them.'
    return [*(text for text, result in lacking.items() if result.missing), merged]


def _score_row(summary: Summary) -> ScoreRow:
    """The headline and at most three more metrics that are fractions."""
    result = summary.result
    names = [
        name for name, value in result.metrics.items() if 'decay' not in name and (math.isnan(value) or 0 <= value <= 1)
    ]
    entry = summary.intervals.get(result.headline)
    note = coverage_text(result)
    if entry is not None and math.isfinite(entry.low):
        note = f'95 % interval {interval_text(entry)}; {note}'
    name = str((summary.card or {}).get('model') or result.benchmark)
    scores = {metric_label(key): result.metrics[key] for key in _headline_first(names)[:4]}
    interval = (entry.low, entry.high) if entry is not None and names[:1] == [result.headline] else None
    return ScoreRow(name, scores, note, highlight=True, interval=interval) if scores else None


def _headline_first(names: Sequence[str]) -> list[str]:
    """Means before recalls: what is compared stands first."""
    return sorted(names, key=lambda name: (names.index(name) > 0, 'recall' in name))


def _tables(result: BenchmarkResult, summary: Summary) -> list[ScoreTable]:
    tables = []
    if result.missing:
        rows = tuple((name, reason) for name, reason in result.missing)
        tables.append(ScoreTable(f'Missing sequences: {len(rows)}', ('sequence', 'reason'), rows))
    metrics = list(result.metrics)
    labels = [metric_label(name) for name in metrics]
    rows = worst_first(result)
    if rows:
        note = 'Lowest first.'
        if len(rows) > _MAX_BARS:
            note += f' Bars of the {_MAX_BARS} lowest of {len(rows)}; the table has all.'
        tables.append(
            ScoreTable(
                'Sequences',
                ('sequence', *labels),
                tuple((row.name, *(row.metrics.get(name) for name in metrics)) for row in rows),
                bars=_bars(result, labels),
                note=note,
                max_bars=_MAX_BARS,
            )
        )
    rows = tuple(
        (
            metric_label(name),
            value,
            *((entry.low, entry.high) if (entry := summary.intervals.get(name)) else (None, None)),
        )
        for name, value in result.metrics.items()
    )
    tables.append(
        ScoreTable(
            'Data set',
            ('metric', 'value', '95 % from', 'to'),
            rows,
            note=f'Over {coverage_text(result)}. Percentile bootstrap over sequences: what other sequences of the same '
            'kind would change. It does not cover seeds or training, and is too narrow with fewer than 20 sequences.',
        )
    )
    return tables


def _bars(result: BenchmarkResult, labels: Sequence[str]) -> tuple[str, ...] | None:
    """The headline, with J and F beside it where they are; None where a value is no fraction (bars would lie)."""
    names = [result.headline, *(name for name in ('j_mean', 'f_mean') if name in result.metrics)]
    names = [name for name in dict.fromkeys(names) if len(result.sequences) <= 12 or name == result.headline]
    values = [row.metrics.get(name, math.nan) for row in result.sequences for name in names]
    if any(value < 0 or value > 1 for value in values if math.isfinite(value)):
        return None
    return tuple(metric_label(name) for name in names)


def _charts(result: BenchmarkResult) -> tuple[dict[str, dict[str, list[float]]], str]:
    """Curves of the sequences, the worst first; and a note where not all are shown."""
    rows = [row for row in worst_first(result) if any(row.curves.values())]
    charts = {
        row.name: {metric_label(key): _from_first_frame(row, curve) for key, curve in row.curves.items()}
        for row in rows[:_MAX_CHARTS]
    }
    note = f'Scores over time of the {_MAX_CHARTS} worst of {len(rows)} sequences.' if len(rows) > _MAX_CHARTS else ''
    return charts, note


def _from_first_frame(row: SequenceResult, curve: Sequence[float]) -> list[float]:
    """The curve with gaps before it, so that it stands over the numbers in the names of its frames, as captions do."""
    numbers = [int(name) if name.isdecimal() else -1 for name in row.frames]
    consecutive = numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False
    first = numbers[0] if consecutive and 0 <= numbers[0] <= _MAX_FIRST else 0
    return [math.nan] * first + list(curve)


def _overview(runs: Sequence[EvaluatedRun]) -> ScoreTable:
    """A row a benchmark and model, a column a protocol."""
    models = list(dict.fromkeys(run.model for run in runs))
    protocols = list(dict.fromkeys(run.protocol for run in runs))
    rows: dict[tuple, dict[str, str]] = {}
    for run in runs:
        result = run.result
        key = (run.model, f'{result.benchmark} {result.split}', metric_label(result.headline), coverage_text(result))
        row = rows.setdefault(key, {})
        row[run.protocol] = ' / '.join(filter(None, (row.get(run.protocol), score_text(result))))
    skip = 1 if len(models) == 1 else 0
    names = (protocol or 'protocol not known' for protocol in protocols)
    # 'n of N' stands last: on a phone the scores come first.
    return ScoreTable(
        'Benchmarks',
        (*('model', 'benchmark', 'metric')[skip:], *names, 'n of N'),
        tuple((*key[skip:3], *(row.get(protocol) for protocol in protocols), key[3]) for key, row in rows.items()),
        note='In per cent. * some sequences could not be scored.' if any(run.result.missing for run in runs) else None,
    )


# --- pictures --------------------------------------------------------------------------------------------------------


class _View(ABC):
    """Frames, predictions and truth of a run, drawn; `side` is the truth where there is one."""

    def __init__(self, dataset: Any, pred_dir: Path) -> None:
        self.dataset, self.pred_dir = dataset, pred_dir

    @staticmethod
    def of(run: EvaluatedRun) -> '_View | None':
        kinds = {'masks': _MaskView, 'instances': _InstanceView, 'points': _PointView}
        if run.dataset is None or run.pred_dir is None or getattr(run.dataset, 'kind', None) not in kinds:
            return None
        return kinds[run.dataset.kind](run.dataset, Path(run.pred_dir))

    @abstractmethod
    def open(self, name: str) -> '_Drawer':
        """Raises ValueError or OSError where the sequence cannot be read."""


@dataclass(frozen=True)
class _Drawer:
    """Draws frame n of a sequence, at a height in pixels or as it is.

    Attributes:
        sample: The sequence.
        prediction: (n, height or None) -> (H, W, 3).
        truth: Likewise; None where there is no truth. A frame without truth is drawn as it is.
        truth_name: What stands over it.
    """

    sample: VideoSample | PointSample
    prediction: Callable[[int, int | None], np.ndarray]
    truth: Callable[[int, int | None], np.ndarray] | None
    truth_name: str = 'truth'


class _MaskView(_View):
    def open(self, name: str) -> _Drawer:
        sample = self.dataset.sample(name)
        read_truth = getattr(self.dataset, 'truth_labels', None)
        truth = None if read_truth is None else read_truth(name)
        truth_name = 'truth'
        if truth is None and sample.given_labels:
            truth, truth_name = sample.given_labels, 'given labels'
        draw_truth = None if truth is None else functools.partial(self._draw_known, sample, truth)
        return _Drawer(sample, functools.partial(self._draw_prediction, sample), draw_truth, truth_name)

    def _draw_prediction(self, sample: VideoSample, number: int, height: int | None) -> np.ndarray:
        path = label_map_path(self.pred_dir / sample.name, sample.frame_names[number])
        # Frames that are given or not scored may have no prediction.
        labels = self._read(path) if path.is_file() else None
        return _overlay(sample.frames[number], labels, height)

    def _read(self, path: Path) -> np.ndarray:
        return read_label_map(path).ids

    def _draw_known(
        self, sample: VideoSample, truth: Mapping[int, Callable], number: int, height: int | None
    ) -> np.ndarray:
        labels = truth[number]() if number in truth else None
        return _overlay(sample.frames[number], labels, height)


class _InstanceView(_MaskView):
    """Instances in the colours of their classes."""

    def _read(self, path: Path) -> np.ndarray:
        found = read_scored_instances(path.with_suffix('.txt'))
        return class_map(read_label_map(path).ids, {number: row[0] for number, row in enumerate(found, start=1)})


class _PointView(_View):
    def open(self, name: str) -> _Drawer:
        sample = self.dataset.sample(name)
        found = read_tracks(self.pred_dir / name / TRACKS_NAME)
        shape = (len(sample.queries), len(sample.frames))
        if found['visible'].shape != shape:
            raise ValueError(
                f'{name}: {TRACKS_NAME} has {found["visible"].shape} points and frames, the data set {shape}; '
                'predict again'
            )
        read_truth = getattr(self.dataset, 'truth_points', None)
        truth = None if read_truth is None else read_truth(name)
        return _Drawer(
            sample,
            functools.partial(self._draw, sample, (found['tracks'], found['visible']), truth),
            None if truth is None else functools.partial(self._draw, sample, truth, None),
        )

    def _draw(self, sample: PointSample, tracks, truth, number: int, height: int | None) -> np.ndarray:
        frame = sample.frames[number]
        small = _resized(frame, height)
        scale = np.array([small.shape[1] / frame.shape[1], small.shape[0] / frame.shape[0]])

        def at(places: np.ndarray) -> np.ndarray:
            return (np.asarray(places)[:, number] + 0.5) * scale - 0.5

        points, visible = at(tracks[0]), np.asarray(tracks[1])[:, number]
        if truth is None:
            return overlay_points(small, points, visible)
        return overlay_points(small, points, visible, at(truth[0]), np.asarray(truth[1])[:, number])


def _resized(frame: np.ndarray, height: int | None) -> np.ndarray:
    """Small enough for a video; or, without a height, large enough for a picture."""
    if height is None:
        factor = max(1, round(_SMALL_WIDTH / frame.shape[1]))
        return frame.repeat(factor, 0).repeat(factor, 1) if factor > 1 else frame
    if frame.shape[0] <= height:
        return frame
    return resize_to_width(frame, max(2, round(frame.shape[1] * height / frame.shape[0])))


def _overlay(frame: np.ndarray, labels: np.ndarray | None, height: int | None) -> np.ndarray:
    small = _resized(frame, height)
    if labels is None:
        return small
    if labels.shape != frame.shape[:2]:
        raise ValueError(f'a label map is {labels.shape}, its frame {frame.shape[:2]}')
    if small is not frame:
        size = (small.shape[1], small.shape[0])
        labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    return overlay_labels(small, labels)


def _worst_pictures(
    view: _View, result: BenchmarkResult, count: int
) -> tuple[list[tuple[str, list[tuple[str, np.ndarray]]]], list[str]]:
    """(caption, picture) of the worst frames, prediction beside truth; and what could not be drawn."""
    wanted = worst_frames(result, count)
    if not wanted and result.sequences:
        # No scores of frames: three quarters through the worst sequences, where errors have added up.
        wanted = [(row.name, '', {}) for row in worst_first(result)[: max(1, count // 2)]] if count else []
    pictures, lost = [], []
    for name, frame, scores in wanted:
        try:
            drawer = view.open(name)
            names = list(drawer.sample.frame_names)
            number = names.index(frame) if frame else min(len(names) - 1, 3 * len(names) // 4)
            cells = [('prediction', drawer.prediction(number, None))]
            if drawer.truth is not None and drawer.truth_name == 'truth':
                cells.append(('truth', drawer.truth(number, None)))
        except (OSError, ValueError) as error:
            lost.append(f'No picture of {name}: {error}')
            continue
        said = ', '.join(f'{metric_label(key)} {100 * value:.1f}' for key, value in scores.items() if value == value)
        row = next(row for row in result.sequences if row.name == name)
        said = said or f'{metric_label(result.headline)} of the sequence {_score(row, result)}'
        # More pixels than a column of the page is wide would only be bytes.
        cells = [(label, resize_to_width(cell, min(cell.shape[1], _CELL_WIDTH))) for label, cell in cells]
        pictures.append((f'{name}, frame {names[number]}: {said}', cells))
    return pictures, lost


def _score(row: SequenceResult, result: BenchmarkResult) -> str:
    value = row.metrics.get(result.headline, math.nan)
    return '–' if math.isnan(value) else f'{100 * value:.1f}'


def _clips(
    view: _View, result: BenchmarkResult, which: Sequence[str], folder: Path
) -> tuple[list[tuple[str, Path]], list[str]]:
    """(caption, file) of the sequences shown as videos; and what could not be drawn."""
    rows = worst_first(result)
    rows = [row for row in rows if not math.isnan(row.metrics.get(result.headline, math.nan))] or rows
    places = {'worst': 0, 'median': (len(rows) - 1) // 2}
    chosen = {}
    for word in which if rows else ():
        chosen.setdefault(rows[places[word]].name, (word, rows[places[word]]))
    clips, lost = [], []
    for number, (name, (word, row)) in enumerate(chosen.items()):
        try:
            drawer = view.open(name)
            # A name of ours: the sequence's may be no name of a file.
            path = write_video(folder / f'video_{number}.mp4', _clip_frames(drawer), VIDEO_FPS, reproducible=True)
        except (OSError, ValueError) as error:
            lost.append(f'No video of {name}: {error}')
            continue
        score = f'{metric_label(result.headline)} {_score(row, result)}'
        right = '' if drawer.truth is None else f'; right: {drawer.truth_name}'
        clips.append((f'{name}, the {word} sequence: {score}. Left: prediction{right}.', path))
    return clips, lost


def _clip_frames(drawer: _Drawer) -> Iterator[np.ndarray]:
    """At most `VIDEO_FRAMES` frames of a sequence, evenly taken: prediction beside truth."""
    count = len(drawer.sample.frames)
    for number in np.unique(np.linspace(0, count - 1, min(count, VIDEO_FRAMES)).round().astype(int)):
        panels = [drawer.prediction(int(number), VIDEO_HEIGHT)]
        if drawer.truth is not None:
            # Where only the first labels are known, they stand still beside the predictions.
            shown = int(number) if drawer.truth_name == 'truth' else min(drawer.sample.given_labels)
            panels.append(drawer.truth(shown, VIDEO_HEIGHT))
        height = min(panel.shape[0] for panel in panels)
        gap = np.full((height, 6, 3), 24, dtype=np.uint8)
        row = [part for panel in panels for part in (panel[:height], gap)][:-1]
        yield np.concatenate(row, axis=1)
