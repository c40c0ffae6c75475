"""What a sequence's predictions look like on disk, for each kind of benchmark.

A writer says which files a finished sequence has, and makes them one after the other: what a file holds is propagated,
then encoded, then written. The first may fail because of the sequence (its frames, its labels), which ends the
sequence; the last because of the disk, which ends the run. Encoding may happen in another thread.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from mmliir.datasets.masks import label_map_png
from mmliir.evaluation.tracks import TRACKS_NAME
from mmliir.propagation import Protocol as PropagationProtocol
from mmliir.propagation import propagate_points, propagate_video
from mmliir.structures import PointSample, VideoSample
from mmliir.utils.files import write_bytes_atomic
from mmliir.utils.pipeline import NO_OVERLAP, Overlap, map_ahead

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PredictedFile:
    """One file of a sequence's predictions.

    Attributes:
        name: In the sequence's folder.
        content: Encodes it; depends on nothing that changes later.
        durable: Wait for the disk, see `write_bytes_atomic`.
    """

    name: str
    content: Callable[[], bytes]
    durable: bool = False


def write_files(folder: Path, files: Iterable[PredictedFile], overlap: Overlap = NO_OVERLAP) -> None:
    """Write files into a folder, in order; with `overlap.writers`, threads encode them while `files` goes on.

    Nothing is written after a file that cannot be. An error of `files` comes when all files before it are written.
    """
    encoded = map_ahead(lambda file: (file, file.content()), files, overlap.writers, overlap.ahead)
    with contextlib.closing(encoded):
        for file, content in encoded:
            write_bytes_atomic(folder / file.name, content, file.durable)


class SequenceWriter(Protocol):
    """How the predictions of one kind of benchmark are made and stored."""

    def files(self, sample: Any) -> tuple[str, ...]:
        """Names of the files that a finished sequence has."""

    def produce(
        self,
        sample: Any,
        encode: Encode,
        protocol: PropagationProtocol,
        stride: int,
        device: str | torch.device,
        advance: Callable[[], None],
        max_memory: int | None = None,
    ) -> Iterator[PredictedFile]:
        """Propagate, and give each file; `advance` is called once a frame. `max_memory` bounds the bytes
        of the propagation, see `PropagationSession`.

        Raises:
            ValueError, OSError: The sequence cannot be read or propagated.
        """


class MaskWriter:
    """`<frame>.png`: indexed PNG, pixel value = id, at the size of the frame (DAVIS, YouTube-VOS, VIP)."""

    def files(self, sample: VideoSample) -> tuple[str, ...]:
        names = sample.frame_names if sample.export_names is None else sample.export_names
        return tuple(f'{name}.png' for name in names)

    def produce(self, sample, encode, protocol, stride, device, advance, max_memory=None) -> Iterator[PredictedFile]:
        maps = propagate_video(sample.frames, encode, sample.given_labels, protocol, stride, device, max_memory)
        wanted = set(self.files(sample))
        for frame_name, label_map in zip(sample.frame_names, maps, strict=True):
            name = f'{frame_name}.png'
            if name in wanted:
                yield PredictedFile(name, partial(label_map_png, label_map, name))
            advance()


class PointWriter:
    """`tracks.npz`, all numbers plain arrays: `queries` (N, 3) of (t, x, y), `tracks` (N, T, 2) of (x, y), in pixels of
    the frames, NaN where a point was not followed; `confidence` (N, T); `visible` (N, T) bool."""

    def files(self, sample: PointSample) -> tuple[str, ...]:
        return (TRACKS_NAME,)

    def produce(self, sample, encode, protocol, stride, device, advance, max_memory=None) -> Iterator[PredictedFile]:
        found = propagate_points(
            sample.frames, encode, sample.queries, protocol, stride, device, sample.both_ways, advance, max_memory
        )
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            queries=sample.queries,
            tracks=found.tracks.astype(np.float32),
            confidence=found.confidence.astype(np.float32),
            visible=found.visible,
        )
        yield PredictedFile(TRACKS_NAME, buffer.getvalue, durable=True)


class InstanceWriter:
    """`<frame>.png` and `<frame>.txt`, as the evaluators of VIP's instances read them.

    The ids of a frame's PNG are 1 .. n, the instances that are seen in it in order of their ids in the sample; line i
    of the text file is `class score` of id i. Instances that are seen nowhere in a frame are in neither file: the
    official tools drop other instances for one that is listed and has no pixel. A frame without any has an empty text
    file.

    Args:
        scores: 'probability': the mean soft probability of the instance's pixels, `object_scores()` of the iterator
            that `propagate_video` returns. 'constant': 1 for all.
    """

    def __init__(self, scores: Literal['probability', 'constant'] = 'probability') -> None:
        if scores not in ('probability', 'constant'):
            raise ValueError(f"scores: expected 'probability' or 'constant', came {scores!r}.")
        self.scores = scores

    def files(self, sample: VideoSample) -> tuple[str, ...]:
        return tuple(f'{name}{suffix}' for name in sample.frame_names for suffix in ('.png', '.txt'))

    def produce(self, sample, encode, protocol, stride, device, advance, max_memory=None) -> Iterator[PredictedFile]:
        if sample.classes is None:
            raise ValueError(f'{sample.name} has no classes of its ids, which an instance data set gives')
        maps = propagate_video(sample.frames, encode, sample.given_labels, protocol, stride, device, max_memory)
        for name, label_map in zip(sample.frame_names, maps, strict=True):
            seen = [int(i) for i in np.unique(label_map) if i]
            # A frame before the first labels shows nothing, and nothing is asked about it.
            use_scores = self.scores == 'probability' and seen
            scores = maps.object_scores() if use_scores else dict.fromkeys(seen, 1.0)
            renumbered = _renumber(label_map, seen)
            text = ''.join(f'{sample.classes[i]} {scores[i]:.9g}\n' for i in seen)
            yield PredictedFile(f'{name}.png', partial(label_map_png, renumbered, f'{name}.png'))
            yield PredictedFile(f'{name}.txt', text.encode)
            advance()


def _renumber(label_map: np.ndarray, ids: list[int]) -> np.ndarray:
    """(H, W) uint8 with the listed ids as 1, 2, ...; all others 0."""
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[ids] = np.arange(1, len(ids) + 1)
    return numbers[label_map]


#: A data set says its kind: what it asks for, and so what is written.
WRITERS: dict[str, SequenceWriter] = {
    'masks': MaskWriter(),
    'instances': InstanceWriter(),
    'points': PointWriter(),
}
