"""Predictions and truths, made from seeds, whose official scores are stored in `tests/golden/vip_official.json`."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from mmliir.testing.synthetic_vip import VipVideo, generate_vip_videos

SIZE = (24, 32)


@dataclass(frozen=True)
class Frame:
    """One frame of a case: classes of truth (255 = void) and prediction; ids, classes and scores of instances."""

    video: str
    stem: str
    true_categories: np.ndarray
    categories: np.ndarray
    true_instances: np.ndarray
    true_classes: dict[int, int]
    instances: np.ndarray
    predicted: tuple[tuple[int, float], ...]


def blobs(rng: np.random.Generator, num_ids: int, size=SIZE) -> np.ndarray:
    """(H, W) uint8: overlapping rectangles of ids 1 .. num_ids."""
    ids = np.zeros(size, np.uint8)
    for i in range(1, num_ids + 1):
        h, w = rng.integers(3, 10, 2)
        y, x = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
        ids[y : y + h, x : x + w] = i
    return ids


def compact(ids: np.ndarray, listed: list) -> tuple[np.ndarray, tuple]:
    """Renumber to the ids that are seen, and keep their entries."""
    seen = [int(i) for i in np.unique(ids) if i]
    numbers = np.zeros(256, np.uint8)
    numbers[seen] = np.arange(1, len(seen) + 1)
    return numbers[ids], tuple(listed[i - 1] for i in seen)


def random_frame(rng, stem: str, vanished: bool = False, classes: int = 20, levels: int = 0) -> Frame:
    """Truth of random rectangles; the prediction is the truth with other rectangles drawn into it."""
    num = int(rng.integers(4, 13))
    true_instances = blobs(rng, num)
    true_classes = {i: int(rng.integers(1, classes)) for i in range(1, num + 1)}
    of_id = np.array([0] + list(true_classes.values()), np.uint8)
    true_categories = of_id[true_instances]
    noise = blobs(rng, 6)
    categories = np.where(noise > 3, rng.integers(0, classes), true_categories).astype(np.uint8)
    true_categories[:2, :5] = 255
    instances = np.where(noise == 1, num + 1, true_instances)
    instances = np.where(noise == 2, num + 2, instances)
    instances = np.where(noise == 3, 0, instances).astype(np.uint8)
    listed = [(c if rng.random() < 0.85 else int(rng.integers(1, classes))) for c in true_classes.values()]
    listed += [int(rng.integers(1, classes)), true_classes[1]]
    scores = rng.permutation(1000)[: len(listed)] / 1000 + rng.random()
    if levels:
        scores = np.floor(scores * levels) / levels
    pairs = [(c, float(s)) for c, s in zip(listed, scores)]
    if not vanished:
        instances, pairs = compact(instances, pairs)
    return Frame('v', stem, true_categories, categories, true_instances, true_classes, instances, tuple(pairs))


def duplicates(frame: Frame) -> Frame:
    """Every true instance is predicted twice, by its left and its right part; classes are right."""
    columns = np.arange(SIZE[1])[None] % 7 < 4
    top = len(frame.true_classes)
    ids = np.where(frame.true_instances == 0, 0, np.where(columns, frame.true_instances, frame.true_instances + top))
    listed = [(c, 0.3 + 0.01 * i) for i, c in enumerate([*frame.true_classes.values()] * 2)]
    instances, predicted = compact(ids.astype(np.uint8), listed)
    return replace(frame, instances=instances, predicted=predicted)


def synthetic(video: VipVideo, shift: int) -> list[Frame]:
    """A tracker that lags: the truth moved right by `shift` pixels a frame."""
    frames = []
    for t, stem in enumerate(video.frame_names):
        moved = np.roll(video.instances[t], shift * t, axis=1)
        listed = [(video.classes[i + 1], 1 / (2 + t + 0.01 * i)) for i in range(len(video.classes))]
        instances, predicted = compact(moved, listed)
        categories = np.roll(np.where(video.categories[t] == 255, 0, video.categories[t]), shift * t, axis=1)
        frames.append(
            Frame(
                video.name, stem, video.categories[t], categories.astype(np.uint8), video.instances[t], video.classes,
                instances, predicted,
            )
        )  # fmt: skip
    return frames


def cases() -> dict[str, list[Frame]]:
    """Name -> frames of each case."""
    def frames(seed, count, **settings):
        rng = np.random.default_rng(seed)
        return [random_frame(rng, f'{1 + 25 * t:012d}', **settings) for t in range(count)]

    videos = generate_vip_videos(3)
    empty = [
        replace(frame, instances=np.zeros(SIZE, np.uint8), predicted=(), categories=np.zeros(SIZE, np.uint8))
        for frame in frames(5, 6)
    ]
    return {
        'random': frames(1, 40),
        'vanished': frames(2, 30, vanished=True),
        'equal-scores': frames(3, 30, levels=3),
        'few-classes': frames(4, 4, classes=6),
        'nothing-predicted': empty,
        'sometimes-nothing': [*frames(6, 8), *(replace(f, stem='e' + f.stem) for f in empty)],
        'twice': [duplicates(frame) for frame in frames(7, 20)],
        'perfect': [frame for video in videos for frame in synthetic(video, 0)],
        'lagging': [frame for video in videos for frame in synthetic(video, 1)],
        'predicted-without-truth': [
            replace(frame, true_classes={i: 1 + c % 5 for i, c in frame.true_classes.items()}) for frame in frames(8, 6)
        ],
    }


def fingerprint(frames: list[Frame]) -> str:
    """SHA-256 of everything in a case."""
    digest = hashlib.sha256()
    for f in frames:
        for array in (f.true_categories, f.categories, f.true_instances, f.instances):
            digest.update(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
        digest.update(repr((f.video, f.stem, sorted(f.true_classes.items()), f.predicted)).encode())
    return digest.hexdigest()
