"""The order in which a training run sees its pairs."""

from collections.abc import Iterator, Mapping, Sized
from typing import NamedTuple

import numpy as np
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmliir.datasets.clip_sampling import LIIR_GAPS, check_gaps, sample_pairs
from mmliir.registry import DATA_SAMPLERS

_PAIRS, _ITEMS = 0, 1  # kinds of random streams made from one seed


class PairIndex(NamedTuple):
    """One item of a training run, complete: what is read and how it is augmented follow from it alone.

    Attributes:
        video: Number of the video in its source.
        reference: The earlier frame.
        query: The later frame.
        seed: Seed of the item's augmentation.
    """

    video: int
    reference: int
    query: int
    seed: int


@DATA_SAMPLERS.register_module()
class PairSampler(Sampler):
    """Yield `PairIndex`es, new pairs each epoch, as a pure function of the seed and the position.

    There is one global order: the pairs of epoch 0, of epoch 1, ... Rank r of W takes items r, r + W, r + 2W, ...
    so that a step of W processes with batch b sees the pairs that one process with batch W * b sees. Workers do not
    matter, and a run that continues does not decode what it has seen:

        sampler.resume_from(iteration * batch_size)     # before iterating

    Args:
        dataset: A `VideoPairDataset`; its `num_frames` and `frame_step` are read.
        gaps: Gap in native frames -> share of the videos; None for LIIR's, {2: .4, 5: .4, 8: .2}.
        seed: Of everything; None for 0. All ranks need the same.
        pairs_per_epoch: Keep this many pairs an epoch; None keeps all.
        infinite: Go on with the next epoch without end (iteration-based training), or stop after the epoch set by
            `set_epoch`; then all ranks yield equally many items and up to W - 1 pairs are left out.
        rank: Of this process; None asks the process group.
        world_size: Number of processes; None asks the process group.
    """

    def __init__(
        self,
        dataset: Sized,
        gaps: Mapping[int, float] | None = None,
        seed: int | None = None,
        pairs_per_epoch: int | None = None,
        infinite: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        group_rank, group_size = get_dist_info()
        self.rank = group_rank if rank is None else rank
        self.world_size = group_size if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f'rank: expected 0 to {self.world_size - 1}, came {self.rank}.')
        self.num_frames = tuple(dataset.num_frames)
        self.frame_step = dataset.frame_step
        self.gaps = check_gaps(gaps or LIIR_GAPS)
        self.seed = seed or 0
        self.pairs_per_epoch = pairs_per_epoch
        self.infinite = infinite
        self.epoch = 0
        self._counted: tuple[tuple[int, int] | None, int] = (None, 0)  # (seed, epoch), and the pairs it has
        self._skip = 0  # items of this rank already seen, from epoch `self.epoch` on
        self._check_pairs()

    def _check_pairs(self) -> None:
        short = sum(length < 2 for length in self.num_frames)
        count = len(self.epoch_pairs(0))
        if count < self.world_size:
            raise ValueError(
                f'{len(self.num_frames)} videos, {short} of them of one frame only, give {count} pairs an epoch: '
                f'expected at least {self.world_size}, one for each process. Add videos or lower the gaps.'
            )
        if short:
            print_log(f'{short} of {len(self.num_frames)} videos have one frame only and give no pair.', 'current', 30)

    def epoch_pairs(self, epoch: int) -> np.ndarray:
        """Return the pairs of an epoch over all ranks, (N, 3) int64: video, reference, query."""
        rng = np.random.default_rng([self.seed, _PAIRS, epoch])
        return sample_pairs(self.num_frames, self.gaps, rng, self.frame_step)[: self.pairs_per_epoch]

    def set_epoch(self, epoch: int) -> None:
        """Start at the first pair of this epoch."""
        self.epoch, self._skip = epoch, 0

    def resume_from(self, num_items_seen: int) -> None:
        """Start behind the first `num_items_seen` items of this rank, counted from the beginning of the run.

        With `infinite=False`, counted from the beginning of the epoch.
        """
        if num_items_seen < 0:
            raise ValueError(f'num_items_seen: expected 0 or more, came {num_items_seen}.')
        if self.infinite:
            self.epoch = 0
        self._skip = num_items_seen

    def __len__(self) -> int:
        """Items of this rank in the current epoch."""
        drawn_with = (self.seed, self.epoch)
        if self._counted[0] != drawn_with:  # MMEngine asks twice a step, and drawing an epoch takes longer than a step
            self._counted = (drawn_with, len(self.epoch_pairs(self.epoch)))
        return self._counted[1] // self.world_size

    def __iter__(self) -> Iterator[PairIndex]:
        if not self.infinite:
            pairs = self.epoch_pairs(self.epoch)
            pairs = pairs[: len(pairs) // self.world_size * self.world_size]
            yield from self._items(self.epoch, pairs, self.rank + self._skip * self.world_size)
            return
        # Position in the current epoch; it may point behind its end.
        epoch, position = self.epoch, self.rank + self._skip * self.world_size
        while True:
            pairs = self.epoch_pairs(epoch)
            for item in self._items(epoch, pairs, position):
                yield item
                position += self.world_size
            position, epoch = position - len(pairs), epoch + 1

    def _items(self, epoch: int, pairs: np.ndarray, start: int) -> Iterator[PairIndex]:
        for position in range(start, len(pairs), self.world_size):
            state = np.random.SeedSequence([self.seed, _ITEMS, epoch, position]).generate_state(1, np.uint64)
            video, reference, query = (int(value) for value in pairs[position])
            yield PairIndex(video, reference, query, int(state[0]))
