"""Read values from reference frames: similarity, selection, soft-max and read-out in one pass.

Shape letters: C channels, R references, K value channels, h w cells, P window cells, s tile side, M = s * s
cells of a tile, N keys that a tile can reach (over all references of one group), n tiles of a block.

The query grid is cut into s x s tiles. One matrix product compares a tile with the (s + 2 radius)^2 keys that
it can reach in every reference; a bias of -inf, the same for every tile, takes out what lies outside a cell's
own window; a second product reads the values out. Blocks of a few tiles are finished one after the other, so
neither unfolded keys nor the whole affinity ever exist, and a block stays in the cache. On a CPU each thread
takes whole blocks: threads that share every small operation would wait for each other thousands of times a
frame.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmliir.ops.gaussian_mixture import fit_mixture_rows
from mmliir.ops.local_window import window_offsets

TILE_SIDE = 8
# Logits in a block. On a CPU a block should stay in the second-level cache: 480p at stride 4 with 5
# references takes 0.3 s at 2^19 and 1.2 s at 2^23. On a GPU a block should be large enough to keep it busy.
CPU_BLOCK = 1 << 19
CPU_MAX_ELEMENTS = 1 << 22
GPU_MAX_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class MixturePrior:
    """Replace a cell's affinity over one reference by a mixture of Gaussians fitted to it (LIIR Eq. 7).

    Attributes:
        num_mixtures: Components; LIIR uses 2.
        estimator: 'moments' or 'fixed', see `mmliir.ops.fit_mixture`.
        threshold: A window is replaced where its largest probability is above this value. None: every window.
        keep_mass: Scale each fitted mixture to the mass of the window that it replaces, so that a reference
            keeps the share of the vote that the joint soft-max gave it. False: the mixture as fitted, so that
            every replaced reference votes with about the same weight (1 for 'moments', 1.27 for 'fixed').
    """

    num_mixtures: int = 2
    estimator: Literal['moments', 'fixed'] = 'moments'
    threshold: float | None = None
    keep_mass: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.num_mixtures, int) or self.num_mixtures < 1:
            raise ValueError(f'num_mixtures must be a whole number, 1 or more, got {self.num_mixtures!r}')
        if self.estimator not in ('moments', 'fixed'):
            raise ValueError(f"estimator must be 'moments' or 'fixed', got {self.estimator!r}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(
                f'threshold is a probability, 0..1, or None for every window; got {self.threshold!r}'
            )


@torch.no_grad()
def window_topk_attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    radius: Sequence[int | None],
    *,
    shape: Literal['square', 'circle'] = 'square',
    temperature: float = 1.0,
    topk: int | None = None,
    topk_scope: Literal['joint', 'per_reference'] = 'joint',
    normalise: Literal['softmax', 'softmax_then_topk'] = 'softmax',
    border: Literal['mask', 'zero_logit'] = 'mask',
    prior: MixturePrior | None = None,
    max_elements: int | None = None,
) -> Tensor:
    """Read each query cell's values from the windows around it in the reference frames. No gradient.

    Args:
        query: (C, h, w) features of the frame to be labelled.
        keys: (R, C, h, w) features of the reference frames, same dtype and device.
        values: (R, K, h, w) values of the reference cells, for example one-hot labels.
        radius: R window radii in cells, one a reference; None compares with the whole reference frame.
        shape: 'square', or 'circle' for the cells nearer than the radius (see `window_offsets`).
        temperature: Divides the dot products.
        topk: Keep the k most similar keys of a cell; None keeps all. Keys that tie with the k-th are all
            kept, so the result does not depend on the order of the keys. A k above the number of keys keeps
            all.
        topk_scope: 'joint' selects and normalises over all references together. 'per_reference' does it in
            each reference alone and takes the mean of the R read-outs (UVC).
        normalise: 'softmax' over the kept keys. 'softmax_then_topk': over all keys in scope; the weights of
            the kept ones are then used as they are and sum to less than 1 (UVC).
        border: Window cells outside the frame: 'mask' leaves them out; 'zero_logit' keeps them with logit 0
            and value 0, so that they take part of the mass (MAST and LIIR, liir.md section 2.1).
        prior: Replace windows of the affinity by a fitted mixture, per reference and cell (liir.md section
            2.7); the sums are not normalised again. None: off. Needs a window on every reference. Under
            'mask' and under 'circle' a mixture is fitted and normalised over the cells that take part only.
        max_elements: Upper bound on the logits that exist at a time (one query cell's at least). None chooses
            by the device. The result does not depend on it, apart from rounding.

    Returns:
        (K, h, w), float64 for float64 features and float32 for all others: half-precision inputs are
        compared, normalised and read out in float32.

    Raises:
        ValueError: Shapes do not fit, or a setting is out of range.
    """
    _check(query, keys, values, radius, temperature, topk, border, prior, max_elements)
    if topk_scope not in ('joint', 'per_reference'):
        raise ValueError(f"topk_scope must be 'joint' or 'per_reference', got {topk_scope!r}")
    if normalise not in ('softmax', 'softmax_then_topk'):
        raise ValueError(f"normalise must be 'softmax' or 'softmax_then_topk', got {normalise!r}")
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    query, keys, values = query.to(dtype), keys.to(dtype), values.to(dtype)
    if topk is None:
        query, temperature, normalise = query / temperature, 1.0, 'softmax'
    attend = _Attend(shape, temperature, topk, normalise, border, prior, max_elements)
    with torch.autocast(query.device.type, enabled=False):
        if topk_scope == 'joint':
            return attend(query, keys, values, radius)
        singles = [
            attend(query, keys[r : r + 1], values[r : r + 1], radius[r : r + 1]) for r in range(len(radius))
        ]
        return torch.stack(singles).mean(dim=0)


@dataclass(frozen=True)
class _Attend:
    """The settings of one call; see `window_topk_attend`."""

    shape: str
    temperature: float  # 1: the query is divided already; with top-k it is not, as rounding would break ties
    topk: int | None
    normalise: str
    border: str
    prior: MixturePrior | None
    max_elements: int | None

    def __call__(self, query_Chw: Tensor, keys_RChw: Tensor, values_RKhw: Tensor, radius: Sequence) -> Tensor:
        height, width = query_Chw.shape[1:]
        tiles, block = self._plan(query_Chw, radius)
        groups = []
        for group_radius in sorted(set(radius), key=lambda r: -1 if r is None else r):
            member = [r for r, value in enumerate(radius) if value == group_radius]
            own_keys, own_values = keys_RChw, values_RKhw
            if len(member) < len(radius):
                own_keys, own_values = keys_RChw[member], values_RKhw[member]
            if group_radius is None:
                groups.append(_WholeFrame(own_keys, own_values))
            else:
                groups.append(_Windowed(own_keys, own_values, group_radius, self.shape, self.border, tiles))
        query_yxMC = tiles.split(query_Chw)
        # The extra channel multiplies the keys' validity channel: 0 inside the frame, -inf outside it.
        query_yxMC = torch.cat([query_yxMC, query_yxMC.new_ones((*query_yxMC.shape[:3], 1))], dim=3)
        channels = values_RKhw.shape[1]
        out_yxMK = values_RKhw.new_empty((tiles.rows, tiles.columns, tiles.side**2, channels))

        def attend_block(row: int, start: int) -> None:
            stop = min(start + block, tiles.columns)
            query_nMC = query_yxMC[row, start:stop]
            logits = [group.logits(query_nMC, row, start, stop) for group in groups]
            out_yxMK[row, start:stop] = self._read(logits, groups, (row, start, stop))

        blocks = [(row, start) for row in range(tiles.rows) for start in range(0, tiles.columns, block)]
        _for_each(attend_block, blocks, query_Chw.device)
        return tiles.join(out_yxMK, height, width)

    def _plan(self, query_Chw: Tensor, radius: Sequence) -> tuple['_Tiles', int]:
        """The tile side and the number of tiles of a block that keep the logits below the bound."""
        height, width = query_Chw.shape[1:]
        on_cpu = query_Chw.device.type == 'cpu'
        limit = self.max_elements or (CPU_MAX_ELEMENTS if on_cpu else GPU_MAX_ELEMENTS)
        for side in (TILE_SIDE, TILE_SIDE // 2, TILE_SIDE // 4, 1):
            side = min(side, max(height, width))
            keys = sum(height * width if r is None else (side + 2 * r) ** 2 for r in radius)
            if side * side * keys <= limit:
                break
        tiles = _Tiles(side, -(-height // side), -(-width // side))
        target = min(limit, CPU_BLOCK) if on_cpu else limit
        return tiles, max(1, min(target // (side * side * keys), tiles.columns))

    def _read(self, logits_nMN: list[Tensor], groups: list, where: tuple[int, int, int]) -> Tensor:
        """Select, normalise and read out one block: -> (n, M, K)."""
        total = None
        if self.normalise == 'softmax_then_topk':
            total = _logsumexp([x / self.temperature for x in logits_nMN])
        if self.topk is not None:
            sparse = self._read_sparse(logits_nMN, groups, where, total)
            if not isinstance(sparse, _Ties):
                return sparse
            for x in logits_nMN:
                x.masked_fill_(x < sparse.smallest_kept, -torch.inf).div_(self.temperature)
        if total is None and len(logits_nMN) == 1:
            weights_nMN = [torch.softmax(logits_nMN[0], dim=-1)]
        else:
            total = _logsumexp(logits_nMN) if total is None else total
            weights_nMN = [x.sub_(total).exp_() for x in logits_nMN]
        if self.prior is not None:
            for group, weights in zip(groups, weights_nMN, strict=True):
                group.replace_by_mixture(weights, self.prior, *where)
        parts = [
            torch.matmul(weights, group.values(*where).transpose(-1, -2))
            for group, weights in zip(groups, weights_nMN, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def _read_sparse(self, logits_nMN, groups, where, total):
        """Gather the k kept values of each cell; where keys tie at the k-th place, say so instead."""
        found = [x.topk(min(self.topk + 1, x.shape[-1]), dim=-1) for x in logits_nMN]
        best = torch.cat([x.values for x in found], dim=-1)
        smallest_kept = best.new_full((*best.shape[:-1], 1), -torch.inf)
        ties = False
        if best.shape[-1] > self.topk:
            ranked = best.topk(self.topk + 1, dim=-1).values
            smallest_kept, next_one = ranked[..., self.topk - 1, None], ranked[..., self.topk, None]
            ties = bool(((smallest_kept == next_one) & smallest_kept.isfinite()).any())
        if ties or self.prior is not None:
            return _Ties(smallest_kept)
        best = best.masked_fill_(best < smallest_kept, -torch.inf).div_(self.temperature)
        weights = torch.softmax(best, dim=-1) if total is None else best.sub_(total).exp_()
        parts = []
        for group, picked in zip(groups, found, strict=True):
            own, weights = weights.tensor_split([picked.indices.shape[-1]], dim=-1)
            parts.append(_gather_read(own, picked.indices, group.values(*where)))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class _Ties:
    """The block needs the dense read-out; (n, M, 1) the smallest logit that is kept."""

    smallest_kept: Tensor


@dataclass(frozen=True)
class _Tiles:
    """A grid of rows x columns tiles of side x side cells that covers the frame."""

    side: int
    rows: int
    columns: int

    def split(self, query_Chw: Tensor) -> Tensor:
        """(C, h, w) -> (rows, columns, M, C), zero-padded to whole tiles."""
        channels, height, width = query_Chw.shape
        padded = query_Chw.new_zeros((channels, self.rows * self.side, self.columns * self.side))
        padded[:, :height, :width] = query_Chw
        tiles = padded.view(channels, self.rows, self.side, self.columns, self.side).permute(1, 3, 2, 4, 0)
        return tiles.reshape(self.rows, self.columns, self.side**2, channels)

    def join(self, out_yxMK: Tensor, height: int, width: int) -> Tensor:
        """(rows, columns, M, K) -> (K, h, w)."""
        tiles = out_yxMK.view(self.rows, self.columns, self.side, self.side, -1).permute(4, 0, 2, 1, 3)
        whole = tiles.reshape(-1, self.rows * self.side, self.columns * self.side)
        return whole[:, :height, :width].contiguous()


class _WholeFrame:
    """References that are compared cell by cell with the whole frame."""

    def __init__(self, keys_RChw: Tensor, values_RKhw: Tensor) -> None:
        self._keys_CN = keys_RChw.permute(1, 0, 2, 3).reshape(keys_RChw.shape[1], -1)
        self._values_KN = values_RKhw.permute(1, 0, 2, 3).reshape(values_RKhw.shape[1], -1)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        return query_nMC[..., :-1] @ self._keys_CN

    def values(self, row: int, start: int, stop: int) -> Tensor:
        return self._values_KN.expand(stop - start, -1, -1)


class _Windowed:
    """References with one and the same window radius."""

    def __init__(
        self, keys_RChw: Tensor, values_RKhw: Tensor, radius: int, shape: str, border: str, tiles: _Tiles
    ) -> None:
        self._radius, self._tiles, self._references = radius, tiles, keys_RChw.shape[0]
        self._halo = tiles.side + 2 * radius
        inside = self._pad(keys_RChw.new_ones((1, 1, *keys_RChw.shape[2:])))
        validity = inside.new_zeros(inside.shape)
        if border == 'mask':
            validity = validity.masked_fill_(inside == 0, -torch.inf)
        keys = self._pad(keys_RChw.permute(1, 0, 2, 3), extra=validity)
        self._key_halos = self._halos(keys)
        self._value_halos = self._halos(self._pad(values_RKhw.permute(1, 0, 2, 3)))
        side = 2 * radius + 1
        takes_part = torch.zeros((side, side), dtype=torch.bool, device=keys.device)
        offsets = window_offsets(radius, shape, device=keys.device) + radius
        takes_part[offsets[:, 1], offsets[:, 0]] = True
        bias = keys.new_full((tiles.side**2, self._halo**2), -torch.inf)
        self._windows(bias, references=1).masked_fill_(takes_part, 0.0)
        self._bias = bias[:, None, :].expand(-1, self._references, -1).reshape(bias.shape[0], -1)
        self._valid = None  # which cells of each window take part in a mixture; None: all
        if border == 'mask' or shape == 'circle':
            counted = (
                inside[0, 0] > 0 if border == 'mask' else torch.ones_like(inside[0, 0], dtype=torch.bool)
            )
            self._valid = (counted, takes_part)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        return torch.baddbmm(self._bias, query_nMC, self._gather(self._key_halos, row, start, stop))

    def values(self, row: int, start: int, stop: int) -> Tensor:
        return self._gather(self._value_halos, row, start, stop)

    def replace_by_mixture(
        self, weights_nMN: Tensor, prior: MixturePrior, row: int, start: int, stop: int
    ) -> None:
        """Overwrite, in place, the windows that the prior's threshold selects."""
        windows = self._windows(weights_nMN, self._references)
        rows_NP = windows.reshape(-1, (2 * self._radius + 1) ** 2)
        valid_NP = self._valid_rows(row, start, stop, windows.shape)
        if prior.threshold is not None:
            index = (rows_NP.amax(dim=1) > prior.threshold).nonzero()[:, 0]
            if index.numel() == 0:
                return
            valid_NP = None if valid_NP is None else valid_NP[index]
            # A copy: where a tile is one cell, the rows are the windows' own memory.
            rows_NP = rows_NP.index_copy(0, index, self._fit(rows_NP[index], prior, valid_NP))
        else:
            rows_NP = self._fit(rows_NP, prior, valid_NP)
        windows.copy_(rows_NP.view(windows.shape))

    def _fit(self, rows_NP: Tensor, prior: MixturePrior, valid_NP: Tensor | None) -> Tensor:
        fitted_NP = fit_mixture_rows(rows_NP, self._radius, prior.num_mixtures, prior.estimator, valid_NP)
        return fitted_NP.mul_(rows_NP.sum(dim=1, keepdim=True)) if prior.keep_mass else fitted_NP

    def _valid_rows(self, row: int, start: int, stop: int, shape: torch.Size) -> Tensor | None:
        if self._valid is None:
            return None
        counted, takes_part = self._valid
        side, step = self._tiles.side, counted.stride()
        windows = counted.as_strided(
            (stop - start, side, side, 1, *takes_part.shape),
            (side * step[1], step[0], step[1], 0, step[0], step[1]),
            row * side * step[0] + start * side * step[1],
        )
        valid = windows & takes_part
        if bool(valid.all()):
            return None
        return valid.expand(shape).reshape(-1, takes_part.numel())

    def _pad(self, maps_CRhw: Tensor, extra: Tensor | None = None) -> Tensor:
        """(C, R, h, w) -> zero-padded by the radius and to whole tiles; `extra` becomes one more channel."""
        channels, references, height, width = maps_CRhw.shape
        side, radius = self._tiles.side, self._radius
        size = (self._tiles.rows * side + 2 * radius, self._tiles.columns * side + 2 * radius)
        padded = maps_CRhw.new_zeros((channels + (extra is not None), references, *size))
        padded[:channels, :, radius : radius + height, radius : radius + width] = maps_CRhw
        if extra is not None:
            padded[channels:] = extra
        return padded

    def _halos(self, padded_CRhw: Tensor) -> Tensor:
        """A view (rows, columns, C, R, halo, halo) of what each tile reaches."""
        channel, reference, line, cell = padded_CRhw.stride()
        side = self._tiles.side
        return padded_CRhw.as_strided(
            (self._tiles.rows, self._tiles.columns, *padded_CRhw.shape[:2], self._halo, self._halo),
            (side * line, side * cell, channel, reference, line, cell),
        )

    def _gather(self, halos: Tensor, row: int, start: int, stop: int) -> Tensor:
        """-> (n, C, N) of the tiles start..stop of a row."""
        return halos[row, start:stop].reshape(stop - start, halos.shape[2], -1)

    def _windows(self, weights: Tensor, references: int) -> Tensor:
        """A view (n, s, s, R, 2 radius + 1, 2 radius + 1) of each cell's window in contiguous (n, M, N)
        weights."""
        side, halo, window = self._tiles.side, self._halo, 2 * self._radius + 1
        area = references * halo * halo
        return weights.as_strided(
            (weights.numel() // (side * side * area), side, side, references, window, window),
            (side * side * area, side * area + halo, area + 1, halo * halo, halo, 1),
        )


def _for_each(work: Callable[..., None], blocks: Sequence[tuple], device: torch.device) -> None:
    """Call `work(*block)` for every block: one after the other, or on a CPU in as many threads as torch
    uses."""
    threads = min(torch.get_num_threads(), len(blocks)) if device.type == 'cpu' else 1
    if threads == 1:
        for block in blocks:
            work(*block)
        return
    in_inference_mode = torch.is_inference_mode_enabled()

    def run(share: Iterable[tuple]) -> None:  # grad modes belong to a thread
        with torch.inference_mode(in_inference_mode), torch.no_grad():
            for block in share:
                work(*block)

    before = torch.get_num_threads()
    try:
        # Inside a worker an operation uses one thread. The setting is the worker's own, but it is also what
        # threads that start later begin with, therefore it is set back.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(run, [blocks[n :: threads * 4] for n in range(threads * 4)]))
    finally:
        torch.set_num_threads(before)


def _gather_read(weights_nMk: Tensor, index_nMk: Tensor, values_nKN: Tensor) -> Tensor:
    """Weighted sum of the values at the kept keys: -> (n, M, K)."""
    blocks, cells, kept = index_nMk.shape
    index = index_nMk.reshape(blocks, 1, cells * kept).expand(-1, values_nKN.shape[1], -1)
    picked_nKMk = values_nKN.gather(2, index).view(blocks, -1, cells, kept)
    return (picked_nKMk * weights_nMk[:, None]).sum(dim=-1).transpose(1, 2)


def _logsumexp(logits_nMN: list[Tensor]) -> Tensor:
    """-> (n, M, 1) over all groups."""
    each = [x.logsumexp(dim=-1, keepdim=True) for x in logits_nMN]
    return each[0] if len(each) == 1 else torch.cat(each, dim=-1).logsumexp(dim=-1, keepdim=True)


def _check(query, keys, values, radius, temperature, topk, border, prior, max_elements) -> None:
    if query.dim() != 3 or keys.dim() != 4 or keys.shape[1:] != query.shape:
        raise ValueError(
            f'query must be (C, h, w) and keys (R, C, h, w), got {tuple(query.shape)} and {tuple(keys.shape)}'
        )
    if values.dim() != 4 or values.shape[0] != keys.shape[0] or values.shape[2:] != keys.shape[2:]:
        raise ValueError(
            f'values must be (R, K, h, w) for keys {tuple(keys.shape)}, got {tuple(values.shape)}'
        )
    if min(query.shape) < 1 or min(values.shape) < 1:
        raise ValueError(f'nothing to compare: query {tuple(query.shape)}, values {tuple(values.shape)}')
    if len(radius) != keys.shape[0]:
        raise ValueError(
            f'radius must hold one value for each of {keys.shape[0]} references, got {len(radius)}'
        )
    for value in radius:
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f'each radius must be None or a whole number of cells, 0 or more, got {value!r}')
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')
    if topk is not None and topk < 1:
        raise ValueError(f'topk must be 1 or more, or None for all keys, got {topk}')
    if border not in ('mask', 'zero_logit'):
        raise ValueError(f"border must be 'mask' or 'zero_logit', got {border!r}")
    if prior is not None and any(value is None for value in radius):
        raise ValueError('a prior needs a window on every reference, got a radius of None')
    if max_elements is not None and max_elements < 1:
        raise ValueError(f'max_elements must be 1 or more, or None, got {max_elements}')
