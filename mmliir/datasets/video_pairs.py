"""Pairs of frames to train on."""

from collections.abc import Sequence

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Dataset

from mmliir.datasets.pictures import BrokenMediaError
from mmliir.datasets.samplers import PairIndex
from mmliir.datasets.sources import VideoSource
from mmliir.registry import DATASETS, TRANSFORMS

_WARNING = 30


@DATASETS.register_module()
class VideoPairDataset(Dataset):
    """Reads the pairs that a `PairSampler` names.

    `dataset[PairIndex(video, reference, query, seed)]` is what the last transform returns; with `PackClip`

        dict(inputs=(2, 3, H, W) uint8 [reference, query],
             data_samples=dict(video_id=int, frame_ids=(int, int)))

    which `collate_fn=dict(type='default_collate')` makes into inputs (B, 2, 3, H, W), video_id (B,) long and
    frame_ids two (B,) long. Nothing depends on the worker that reads, on the epoch or on the process.

    A frame that turns out to be damaged when it is read: with the source's on_broken='stop' it raises. With 'skip' a
    pair of another video, chosen by the item's seed, takes its place; each such video is named once by each worker,
    and more of them than the source tolerates stop the run.

    Args:
        source: Source, or its config.
        pipeline: Transforms of `mmliir.datasets.transforms`, or their configs, in order.

    Attributes:
        num_frames: Stored frames of each video.
        frame_step: Native frames from one stored frame to the next.
    """

    metainfo: dict = {}  # MMEngine asks for it and warns without

    def __init__(self, source: VideoSource | dict, pipeline: Sequence) -> None:
        self.source = DATASETS.build(source) if isinstance(source, dict) else source
        self.pipeline = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline]
        self.num_frames = tuple(self.source.num_frames(video) for video in range(len(self.source)))
        self.frame_step = self.source.frame_step
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        """Number of videos; the number of pairs belongs to the sampler."""
        return len(self.source)

    def __getitem__(self, index: PairIndex) -> dict:
        if not isinstance(index, PairIndex):
            raise TypeError(
                f"VideoPairDataset: expected a PairIndex, came {index!r}. Use sampler=dict(type='PairSampler')."
            )
        rng = np.random.default_rng(index.seed)
        video, frames, numbers = self._read(index)
        clip = dict(frames=frames, video_id=video, frame_ids=numbers)
        for transform in self.pipeline:
            clip = transform(clip, rng)
        return clip

    def _read(self, index: PairIndex) -> tuple[int, list[np.ndarray], tuple[int, int]]:
        video, numbers = index.video, (index.reference, index.query)
        substitutes = np.random.default_rng([index.seed & 0xFFFFFFFF, index.seed >> 32, 1])
        tried = set()  # of this item: what else this worker has found must not change its choice
        while True:
            try:
                return video, [self.source.read(video, number) for number in numbers], numbers
            except (BrokenMediaError, OSError) as error:  # OSError: a link that leads nowhere, no permission
                self._note_damage(video, error)
            tried.add(video)
            gap = index.query - index.reference
            fitting = [v for v, length in enumerate(self.num_frames) if length > gap and v not in tried]
            if not fitting:
                raise BrokenMediaError(f'no whole video of more than {gap} frames is left to take the place of another')
            video = int(substitutes.choice(fitting))
            start = int(substitutes.integers(self.num_frames[video] - gap))
            numbers = (start, start + gap)

    def _note_damage(self, video: int, error: Exception) -> None:
        if video not in self._damaged:
            self._damaged.add(video)
            total = len(self._damaged) + len(self.source.broken)
            if not self.source.tolerates(total):
                raise BrokenMediaError(
                    f'{total} training videos are broken, more than on_broken={self.source.on_broken!r}, '
                    f'max_broken={self.source.max_broken} allows; the last: {error}'
                ) from error
            print_log(f'SKIPPED: damaged training video no. {total}: {error}', 'current', _WARNING)
