"""PCK on BADJA, by each of the three published evaluations.

A joint is right where it is nearer to the truth than alpha times the square root of the animal's area in that frame.
Only annotated frames count, and in them the joints that are visible. What differs:

    evaluator       source                                   measured in     first frame  mean over
    'pips'          aharley/pips@a05a120 test_on_badja.py    320 x 512       left out     each video, then videos
    'fgvc'          qianduoduolr/FGVC@2b6bcf0 mmpt/datasets/ 320 x 512       scored       all joints of all videos
                    badja_dataset.py
    'dino_tracker'  AssafSinger94/dino-tracker@5b0f2b0       frames at hand  left out     each video, then videos
                    eval/metrics.py

Corners of the sources that are kept:
    320 x 512 is the whole frame, stretched; masks are taken there by nearest neighbour (the pixel i * H // 320).
    'pips' reads palette masks as colours and counts pixels with some red: of DAVIS-2017's ids, 1, 3, 5, 7, ... The
    rider or the horse of the horsejump videos is not in its area. The others count every pixel that is not 0. Masks of
    DAVIS-2016 have one object, so that there all agree, and the thresholds of 'pips' are larger than published.
    'fgvc' stretches the true joints in an integer array: they are cut to whole pixels of 320 x 512.

The first frame is given: 122 of the 1,632 evaluations are free in 'fgvc'. `pck@<alpha>_given` leaves out the joints
that are not visible in the first frame, so that no tracker can be given them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmliir.components import METRICS
from mmliir.datasets.badja import PUBLISHED_ANIMALS, BadjaDataset, BadjaTruth, badja_queries, scale_points
from mmliir.datasets.named import sort_out
from mmliir.evaluation.functional.pck import area_scales, correct_points, point_distances

from .keypoints import KeypointMetric, as_ratio, check_alphas, read_predictions, sequence_result, share
from .results import Ratio, SequenceResult, coverage_notes

# Changes when the same files could give another number.
METRIC_VERSION = 'badja-1'
#: (H, W) that PIPs and FGVC stretch every frame to.
STRETCHED = (320, 512)
#: Of 'dino_tracker', in pixels of the frames at hand.
NEAR_PIXELS = 3.0
#: Thresholds of the evaluations that are given beside the chosen one.
SIDE_ALPHAS = {'pips': (0.2,), 'fgvc': (0.2, 0.1), 'dino_tracker': (0.2,)}


@dataclass(frozen=True)
class _Evaluator:
    """first: the first annotated frame that counts. mean: 'videos' or 'pooled'."""

    first: int
    mean: Literal['videos', 'pooled']


_EVALUATORS = {
    'pips': _Evaluator(1, 'videos'),
    'fgvc': _Evaluator(0, 'pooled'),
    'dino_tracker': _Evaluator(1, 'videos'),
}


@dataclass(frozen=True)
class _Areas:
    """(A,) pixels of the animal in the annotated frames, as each evaluation counts them."""

    pips: np.ndarray
    fgvc: np.ndarray
    dino_tracker: np.ndarray


@dataclass(frozen=True)
class _Measured:
    """One video by one evaluation: (A, N) distances, (A,) scales, (A, N) who counts, of the A frames that count."""

    distances: np.ndarray
    scales: np.ndarray
    counted: np.ndarray
    mean: Literal['videos', 'pooled']

    def ratio(self, alpha: float, counted: np.ndarray | None = None) -> Ratio:
        return self._ratio(self._correct(alpha), self.counted if counted is None else counted)

    def ratio_within(self, pixels: float) -> Ratio:
        return self._ratio(self.distances < pixels, self.counted)

    def curve(self, alpha: float) -> tuple[float, ...]:
        correct = self._correct(alpha) & self.counted
        return tuple(share(*pair) for pair in zip(correct.sum(axis=1), self.counted.sum(axis=1)))

    def _correct(self, alpha: float) -> np.ndarray:
        return correct_points(self.distances, self.scales, alpha, tie='miss')

    def _ratio(self, correct: np.ndarray, counted: np.ndarray) -> Ratio:
        hits, count = float(np.count_nonzero(correct & counted)), float(np.count_nonzero(counted))
        if self.mean == 'pooled' or not count:
            return as_ratio([hits], [count])
        return as_ratio([hits / count], [1.0])


@METRICS.register_module()
class BadjaMetric(KeypointMetric):
    """Scores tracks of an animal's joints against the truth of BADJA.

    Metrics: `pck@<alpha>` by the chosen evaluation; `pck@0.2_given`, the same without the joints that nobody could be
    given; `pck@0.2_<other>` by the other two (of 'fgvc' `pck@0.1_fgvc` too); `pts_within_3px` of 'dino_tracker', in
    pixels of the frames at hand. Fractions.

    Args:
        data_root, frames_root, keep_unwinnable: As for `BadjaDataset`, and as they were when the tracks were made.
        evaluator: Whose rules: see the module's table.
        alphas: Thresholds; the first is the headline.
        sequences: Score only these, in this order; None means all that are on DAVIS.

    Raises:
        FileNotFoundError, ValueError: As `BadjaDataset`; masks are missing; an unknown evaluator; alphas that are none.
    """

    benchmark = 'badja'
    split = 'davis'
    version = METRIC_VERSION
    num_published = len(PUBLISHED_ANIMALS)

    def __init__(
        self,
        data_root: str | Path,
        evaluator: Literal['pips', 'fgvc', 'dino_tracker'] = 'pips',
        alphas: Sequence[float] = (0.2, 0.1, 0.3, 0.4),
        frames_root: str | Path | None = None,
        sequences: Sequence[str] | None = None,
        keep_unwinnable: bool = True,
    ) -> None:
        if evaluator not in _EVALUATORS:
            raise ValueError(f'evaluator: expected one of {", ".join(map(repr, _EVALUATORS))}, came {evaluator!r}.')
        self.evaluator = evaluator
        self.alphas = check_alphas(alphas)
        self.dataset = BadjaDataset(data_root, frames_root, sequences, keep_unwinnable)
        self.data_root = self.dataset.data_root
        self.sequences = tuple(self.dataset.names)
        self.num_sequences_in_split = self.dataset.num_sequences_in_split
        self._masks, self.broken = sort_out(self.sequences, self.dataset.mask_paths)

    def score_sequence(self, pred_dir: Path, name: str) -> tuple[SequenceResult, Mapping[str, object]]:
        truth = self.dataset.truth(name)
        tracks = read_predictions(pred_dir, name, badja_queries(truth), truth.num_frames)
        prediction = tracks[:, truth.frames].transpose(1, 0, 2)
        areas = _measure_areas(self._masks[name], truth.frame_size)
        measured = {key: _measure(key, prediction, truth, areas) for key in _EVALUATORS}
        own = measured[self.evaluator]
        ratios = {f'pck@{alpha:g}': own.ratio(alpha) for alpha in self.alphas}
        given = own.counted & truth.visible[0][truth.queried]
        ratios[f'pck@{self.alphas[0]:g}_given'] = own.ratio(self.alphas[0], given)
        for other in (key for key in _EVALUATORS if key != self.evaluator):
            ratios |= {f'pck@{alpha:g}_{other}': measured[other].ratio(alpha) for alpha in SIDE_ALPHAS[other]}
        ratios['pts_within_3px'] = measured['dino_tracker'].ratio_within(NEAR_PIXELS)
        frames = tuple(path.stem for path in self._masks[name][_EVALUATORS[self.evaluator].first :])
        curves = {f'pck@{alpha:g}': own.curve(alpha) for alpha in self.alphas[:2]}
        facts = {
            'evaluations': int(np.count_nonzero(own.counted)),
            'not given': int(np.count_nonzero(own.counted & ~given)),
            'lost': int(np.count_nonzero(own.counted & ~np.isfinite(prediction).all(axis=2)[-len(own.counted) :])),
            'size': truth.frame_size,
            'red only': bool((areas.pips != areas.fgvc).any()),
        }
        return sequence_result(name, ratios, frames, curves), facts

    def list_notes(self, facts: Sequence[Mapping[str, object]]) -> list[str]:
        total = {key: sum(row[key] for row in facts) for key in ('evaluations', 'not given', 'lost')}
        sizes = sorted({f'{width}x{height}' for height, width in (row['size'] for row in facts)})
        first = 'left out' if _EVALUATORS[self.evaluator].first else 'scored (it is given)'
        notes = [
            f"Evaluation of '{self.evaluator}': the first frame is {first}; frames at hand are {', '.join(sizes)}.",
        ]
        folders = sorted({'/'.join(paths[0].parts[-5:-2]) for paths in self._masks.values()})
        notes.append(f'Thresholds are of the masks in {", ".join(folders)}.')
        notes += coverage_notes(
            len(self.sequences), self.num_sequences_in_split, self.num_published, 'BADJA', 'video', 'files of joints'
        )
        extra = [name for name in self.sequences if name not in PUBLISHED_ANIMALS]
        if extra:
            notes.append(f'Published scores are not over {", ".join(extra)}: not comparable.')
        if total['not given']:
            notes.append(
                f'{total["not given"]} of {total["evaluations"]} evaluations are of joints that are not visible in the '
                'first frame, and so cannot be followed; `_given` leaves them out.'
            )
        if total['lost']:
            notes.append(f'{total["lost"]} predictions are NaN: they count as wrong.')
        mixed = [name for name, row in zip(self.sequences, facts) if row['red only']]
        if mixed:
            notes.append(f"'pips' measures a part of the object in {', '.join(mixed)}: ids whose colour has some red.")
        return notes


def _measure(evaluator: str, prediction: np.ndarray, truth: BadjaTruth, areas: _Areas) -> _Measured:
    rule = _EVALUATORS[evaluator]
    visible = truth.visible[:, truth.queried]
    annotated = truth.joints[:, truth.queried]
    places = scale_points(annotated, truth.annotation_size, truth.frame_size)
    to_stretched = np.array([STRETCHED[1] / truth.frame_size[1], STRETCHED[0] / truth.frame_size[0]])
    if evaluator == 'pips':
        distances = point_distances(prediction, places, tuple(to_stretched))
    elif evaluator == 'fgvc':
        full_height, full_width = truth.annotation_size
        whole = np.trunc(annotated * (STRETCHED[1] / full_width, STRETCHED[0] / full_height))
        distances = point_distances(scale_points(prediction, truth.frame_size, STRETCHED), whole)
    else:
        distances = point_distances(prediction, places)
    scored = slice(rule.first, None)
    return _Measured(distances[scored], area_scales(getattr(areas, evaluator))[scored], visible[scored], rule.mean)


def _measure_areas(paths: Sequence[Path], frame_size: tuple[int, int]) -> _Areas:
    rows = []
    for path in paths:
        anything, red = _read_mask(path)
        rows.append(
            (
                np.count_nonzero(_nearest(red, STRETCHED)),
                np.count_nonzero(_nearest(anything, STRETCHED)),
                np.count_nonzero(_nearest(anything, frame_size)),
            )
        )
    return _Areas(*(np.array(column, np.float64) for column in zip(*rows)))


def _read_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool twice: pixels that are not 0, and pixels whose colour has some red."""
    try:
        with Image.open(path) as image:
            if image.mode not in ('P', 'L', '1', 'RGB', 'RGBA'):
                raise ValueError(f'{path}: a mask is an 8-bit image, this one is of the mode {image.mode}.')
            colours = np.asarray(image.convert('RGB'))
            values = colours.max(axis=2) if image.mode in ('RGB', 'RGBA') else np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f'{path} is damaged, or no image ({error}). Copy it again.') from error
    return values > 0, colours[..., 0] > 0


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as OpenCV and PyTorch do with 'nearest'."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape))
    return mask[rows][:, columns]
