"""Features of frames of other videos: the negatives of LIIR's inter-video reconstruction.

Shape letters: N stored frames, C channels, h w cells, Q bank entries, B batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmliir.ops import drawn_negatives_logsumexp, negatives_logsumexp, to_device, window_negatives_logsumexp


@dataclass(frozen=True)
class Negatives:
    """Entries drawn from the bank: `features` (Q, C) and the `video_ids` (Q,) they come from."""

    features: Tensor
    video_ids: Tensor


class FeatureBank:
    """First-in-first-out store of the last frames' features, with the video each came from.

    A plain object on purpose: as a module buffer it would be broadcast by DistributedDataParallel in every forward.
    The memory-bank hook saves it in checkpoints through `state_dict`.

    Args:
        num_frames: Capacity in frames; 1,440 in the paper.
        points_per_frame: Entries that a query is compared with in each stored frame; 4 in the paper. Not used by
            'window'.
        sample: Which entries (liir.md A9).
            'step' keeps whole maps and draws other points at every step, shared by all queries: the default reading;
            'query' draws other points at every step and for every query location (the text read literally: thousands
            of times as many reads);
            'enqueue' draws the points once, when a frame enters, and keeps only them: 1,000 times smaller;
            'window' keeps whole maps and takes the window around the query's location (the recipe behind 72.2).
        window_radius: For 'window', in cells: 3 is 7 x 7.
        replace_own_video: A new frame takes the place of an earlier one of its own video, so that the bank holds one
            frame a video (liir.md A13). False: first in, first out.
        wait_until_full: Give no negatives before the bank has been filled once (LIIR_pytorch). False: use what there
            is.
        dtype: Type in which features are kept.
    """

    def __init__(
        self,
        num_frames: int = 1440,
        points_per_frame: int = 4,
        sample: str = 'step',
        window_radius: int = 3,
        replace_own_video: bool = False,
        wait_until_full: bool = False,
        dtype: torch.dtype | str = torch.bfloat16,
    ):
        if num_frames < 1 or points_per_frame < 1:
            raise ValueError(
                f'the bank needs at least one frame and one point, got {num_frames} frames x {points_per_frame} points'
            )
        if sample not in ('step', 'query', 'enqueue', 'window'):
            raise ValueError(f"sample must be 'step', 'query', 'enqueue' or 'window', got {sample!r}")
        if window_radius < 0:
            raise ValueError(f'window_radius must be 0 or more cells, got {window_radius}')
        self.num_frames = num_frames
        self.points_per_frame = points_per_frame
        self.sample = sample
        self.window_radius = window_radius
        self.replace_own_video = replace_own_video
        self.wait_until_full = wait_until_full
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.features: Tensor | None = None  # (N, C, cells), allocated when the first frames arrive
        self.video_ids: Tensor | None = None  # (N,)
        self.next_slot = 0
        self.filled = 0

    def logsumexp(
        self,
        query: Tensor,
        video_ids: Tensor,
        temperature: float,
        generator: torch.Generator,
        border: str = 'mask',
    ) -> Tensor | None:
        """Log-sum-exp of the queries' similarity to entries of other videos (the second sum of LIIR Eq. 4).

        Args:
            query: (B, C, h, w) similarity features.
            video_ids: (B,) of the queries: entries of the same video take no part.
            temperature: Divides the products.
            generator: Of this step's draws.
            border: For 'window', see `mmliir.ops.window_negatives_logsumexp`.

        Returns:
            (B, h, w), -inf for queries without negatives; None while the bank is empty, or not yet full where it has to
            be.
        """
        if self.filled == 0 or (self.wait_until_full and self.filled < self.num_frames):
            return None
        ids = self.video_ids[: self.filled]
        if self.sample in ('step', 'enqueue'):
            negatives = self.draw(generator)
            allowed = negatives.video_ids[None] != video_ids[:, None].to(ids.device)
            return negatives_logsumexp(query, negatives.features, allowed, temperature)
        allowed = ids[None] != video_ids[:, None].to(ids.device)
        stored = self.features[: self.filled]
        if stored.shape[1:] != (query.shape[1], query.shape[2] * query.shape[3]):
            raise ValueError(
                f"the bank's maps are (channels, cells) = {tuple(stored.shape[1:])}, the query is "
                f'{tuple(query.shape[1:])}: train with one image size'
            )
        maps = stored.unflatten(2, query.shape[2:])
        if self.sample == 'window':
            return window_negatives_logsumexp(query, maps, allowed, self.window_radius, temperature, border)
        draw = _DrawForEachQuery(generator, self.points_per_frame, query.shape[2] * query.shape[3])
        return drawn_negatives_logsumexp(query, maps, draw, self.points_per_frame, allowed, temperature)

    def enqueue(self, features: Tensor, video_ids: Tensor, generator: torch.Generator) -> None:
        """Store a batch of frames, replacing the oldest.

        Args:
            features: (B, C, h, w).
            video_ids: (B,) long.
            generator: CPU generator, of which only `sample='enqueue'` draws.
        """
        if features.dim() != 4 or video_ids.shape != (features.shape[0],):
            raise ValueError(
                f'features must be (B, C, h, w) and video_ids (B,), got {tuple(features.shape)}, '
                f'{tuple(video_ids.shape)}'
            )
        flat_BCc = features.detach().flatten(2).to(self.dtype)
        if self.sample == 'enqueue':
            flat_BCc = _gather_cells(flat_BCc, self._draw_cells(flat_BCc, generator))
        if self.features is None:
            self.features = flat_BCc.new_empty(self.num_frames, *flat_BCc.shape[1:])
            self.video_ids = video_ids.new_full((self.num_frames,), -1)
        if self.features.shape[1:] != flat_BCc.shape[1:]:
            raise ValueError(
                f'the bank holds maps of (channels, cells) = {tuple(self.features.shape[1:])}, '
                f'got {tuple(flat_BCc.shape[1:])}: train with one image size'
            )
        if self.replace_own_video:
            self._replace(flat_BCc, video_ids)
            return
        for start in range(0, len(flat_BCc), self.num_frames):
            chunk, ids = flat_BCc[start : start + self.num_frames], video_ids[start : start + self.num_frames]
            slots = (self.next_slot + torch.arange(len(chunk), device=chunk.device)) % self.num_frames
            self.features[slots] = chunk
            self.video_ids[slots] = ids
            self._advance(len(chunk))

    def _replace(self, frames_BCc: Tensor, video_ids: Tensor) -> None:
        """Put each frame where one of its own video is, else in the oldest slot. Reads the ids: one wait for a GPU."""
        ids = torch.cat([self.video_ids[: self.filled], video_ids]).tolist()
        held, new = ids[: self.filled], ids[self.filled :]
        held += [-1] * (self.num_frames - self.filled)
        for place, video in enumerate(new):
            known = video in held[: self.filled]
            slot = held.index(video) if known else self.next_slot
            held[slot] = video
            self.features[slot] = frames_BCc[place]
            self.video_ids[slot] = video_ids[place]
            if not known:
                self._advance(1)

    def _advance(self, frames: int) -> None:
        """The oldest slots have been written."""
        self.next_slot = (self.next_slot + frames) % self.num_frames
        self.filled = min(self.num_frames, self.filled + frames)

    def draw(self, generator: torch.Generator) -> Negatives | None:
        """Draw `points_per_frame` entries from every stored frame, the same for all queries of the step.

        For 'step' and 'enqueue'.

        Returns:
            Q = filled * points_per_frame entries; None while the bank is empty.
        """
        if self.filled == 0:
            return None
        stored = self.features[: self.filled]
        if self.sample == 'step':
            stored = _gather_cells(stored, self._draw_cells(stored, generator))
        features = stored.transpose(1, 2).reshape(-1, stored.shape[1])
        return Negatives(features, self.video_ids[: self.filled].repeat_interleave(stored.shape[2]))

    def state_dict(self) -> dict:
        """Content as tensors and numbers, oldest slot order kept; loads with `weights_only=True`."""
        if self.features is None:
            return {'next_slot': 0, 'filled': 0, 'sample': self.sample}
        return {
            'features': self.features[: self.filled].clone(),
            'video_ids': self.video_ids[: self.filled].clone(),
            'next_slot': self.next_slot,
            'filled': self.filled,
            'sample': self.sample,
        }

    def load_state_dict(self, state: dict, device: torch.device | str = 'cpu') -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: The saved bank has more frames than this one, or keeps something else of them.
        """
        if state.get('sample', self.sample) != self.sample:
            raise ValueError(
                f"the checkpoint's bank was filled with sample {state['sample']!r}, this config has {self.sample!r}: "
                'resume with the config that wrote it'
            )
        if state['filled'] > self.num_frames:
            raise ValueError(
                f'the checkpoint holds a bank of {state["filled"]} frames, this config allows {self.num_frames}: '
                'resume with the config that wrote it'
            )
        self.next_slot, self.filled = int(state['next_slot']), int(state['filled'])
        if self.filled == 0:
            self.features = self.video_ids = None
            return
        features, ids = state['features'].to(device, self.dtype), state['video_ids'].to(device)
        if self.filled < self.num_frames:  # a full bank of fewer frames: oldest first, then there is room behind
            features, ids = features.roll(-self.next_slot, dims=0), ids.roll(-self.next_slot, dims=0)
            self.next_slot = self.filled
        self.features = features.new_empty(self.num_frames, *features.shape[1:])
        self.video_ids = ids.new_full((self.num_frames,), -1)
        self.features[: self.filled] = features
        self.video_ids[: self.filled] = ids

    def _draw_cells(self, maps_NCc: Tensor, generator: torch.Generator) -> Tensor:
        """(N, points) random cell numbers; all cells where a frame has no more than that."""
        frames, cells = maps_NCc.shape[0], maps_NCc.shape[2]
        if cells <= self.points_per_frame:
            return torch.arange(cells, device=maps_NCc.device).expand(frames, cells)
        drawn = torch.randint(0, cells, (frames, self.points_per_frame), generator=generator)
        return to_device(drawn, maps_NCc.device)


class _DrawForEachQuery:
    """Cells of stored frames, drawn for every query location: `draw(start, stop)` of `drawn_negatives_logsumexp`.

    A frame's cells are a function of one number, drawn here, and of its slot: any two calls agree on them, whatever
    other frames they ask for, and so do all ranks.
    """

    def __init__(self, generator: torch.Generator, points: int, locations: int) -> None:
        self._seed = int(torch.randint(0, 1 << 62, (), generator=generator))
        self._points, self._locations = points, locations

    def __call__(self, start: int, stop: int) -> Tensor:
        """(stop - start, points, locations) long, on the CPU."""
        generator = torch.Generator()
        cells = torch.empty(stop - start, self._points, self._locations, dtype=torch.long)
        for slot, own in enumerate(cells, start):
            torch.randint(0, self._locations, own.shape, generator=generator.manual_seed(self._seed + slot), out=own)
        return cells


def _gather_cells(maps_NCc: Tensor, cells_Np: Tensor) -> Tensor:
    """(N, C, cells) and (N, p) -> (N, C, p)."""
    return maps_NCc.gather(2, cells_Np[:, None].expand(-1, maps_NCc.shape[1], -1))
