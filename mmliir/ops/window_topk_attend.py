"""Read values from reference frames: similarity, selection, soft-max and read-out in one pass.

Shape letters: C channels, R references, K value channels, h w cells, P window cells, s tile side, M = s * s
cells of a tile, N keys that a tile can reach (over all references of one group), n tiles of a block, Q corners
of the sampling places of one window.

The query grid is cut into s x s tiles. One matrix product compares a tile with the (s + 2 radius)^2 keys that
it can reach in every reference; a bias of -inf, the same for every tile, takes out what lies outside a cell's
own window; a second product reads the values out. Where a tile reaches as many places as the frame has cells,
the product is with the whole frame and what no window holds is taken out of it. Blocks of a few tiles are
finished one after the other, so neither unfolded keys nor the whole affinity ever exist, and a block stays in
the cache. On a CPU each thread takes whole blocks: threads that share every small operation would wait for each
other thousands of times a frame.

A window may also lie around a displaced centre between the cells of a reference. Bilinear sampling commutes with
the dot product, so its logits are mixed from those at whole cells, which one product of the tile with the box of
cells that its windows reach gives; the read-out is the transpose: weights are spread over the corners of their
place, then multiplied with the box. Where the places of a window are not one cell apart
(`align_corners_mismatch`), each axis is mixed by a small matrix instead: a line for a place, a column for a cell.

All this is PyTorch and runs on every device. On a CPU most calls are served by compiled code instead
(`native/attend.cpp`, which explains itself), two to thirteen times as fast in a quarter of the memory or less;
`_Attend` decides. For CUDA there is a fused kernel (`triton_kernels.py`), which `backend='triton'` asks for.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops import native, triton_attend
from mmliir.ops.coords import coordinate_grid
from mmliir.ops.gaussian_mixture import VARIANCE_FLOOR, check_mixture_settings, fit_mixture_rows
from mmliir.ops.local_window import Shape, window_offsets

TILE_SIDE = 8
# Logits in a block. On a CPU a block should stay in the second-level cache: 480p at stride 4 with 5
# references takes 0.3 s at 2^19 and 1.2 s at 2^23. On a GPU a block should be large enough to keep it busy.
CPU_BLOCK = 1 << 19
CPU_MAX_ELEMENTS = 1 << 22
GPU_MAX_ELEMENTS = 1 << 26
# Of the compiled code: query rows that are finished at a time, and the k up to which a sorted list of the best keys
# of each cell is cheap to keep.
NATIVE_BAND = 16
NATIVE_MAX_TOPK = 256
# Of one-hot labels: channels that exist as values at a time. One product reads that many out well, and results with
# fewer channels have the bits that values give.
LABEL_CHUNK = 64


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
        width: Full width at half maximum of a bump of 'fixed', in cells.
        variance_floor: Added to both variances by 'moments', in cells^2.
    """

    num_mixtures: int = 2
    estimator: Literal['moments', 'fixed'] = 'moments'
    threshold: float | None = None
    keep_mass: bool = False
    width: float = 1.0
    variance_floor: float = VARIANCE_FLOOR

    def __post_init__(self) -> None:
        check_mixture_settings(self.num_mixtures, self.estimator, self.width, self.variance_floor)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(
                f'threshold is a probability, 0..1, or None for every window; got {self.threshold!r}'
            )


@dataclass(frozen=True)
class HardLabels:
    """One channel a cell, in place of one-hot values: hundreds of channels cost what one does.

    Attributes:
        labels: (R, h, w) of any integer type, the channel of each reference cell, 0 .. num_channels - 1; -1: none.
        num_channels: K.
        gain: The value that a cell has in its channel, where that is not channel 0; in channel 0 it has 1.
    """

    labels: Tensor
    num_channels: int
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.labels.dim() != 3 or self.labels.is_floating_point() or self.labels.dtype == torch.bool:
            raise ValueError(
                f'labels must be (R, h, w) channel numbers, got {self.labels.dtype} {tuple(self.labels.shape)}'
            )
        if self.labels.numel() and not -1 <= self.labels.min() <= self.labels.max() < self.num_channels:
            raise ValueError(
                f'labels must be -1 .. {self.num_channels - 1} for {self.num_channels} channels, got '
                f'{int(self.labels.min())} .. {int(self.labels.max())}'
            )

    @property
    def shape(self) -> torch.Size:
        """(R, K, h, w), that of the values it stands for."""
        references, height, width = self.labels.shape
        return torch.Size((references, self.num_channels, height, width))

    def __getitem__(self, references: slice | list[int]) -> 'HardLabels':
        return HardLabels(self.labels[references], self.num_channels, self.gain)

    def to(self, device: torch.device | str) -> 'HardLabels':
        return HardLabels(self.labels.to(device), self.num_channels, self.gain)


@torch.no_grad()
def window_topk_attend(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor] | HardLabels,
    radius: Sequence[int | None],
    *,
    shape: Shape = 'square',
    temperature: float = 1.0,
    topk: int | None = None,
    topk_ties: Literal['keep', 'share'] = 'keep',
    topk_scope: Literal['joint', 'per_reference'] = 'joint',
    normalise: Literal['softmax', 'softmax_then_topk'] = 'softmax',
    border: Literal['mask', 'zero_logit'] = 'mask',
    prior: MixturePrior | None = None,
    offsets: Sequence[Tensor | None] | None = None,
    value_offsets: Sequence[Tensor | None] | None = None,
    align_corners_mismatch: bool = False,
    max_elements: int | None = None,
    backend: Literal['auto', 'torch', 'native', 'triton'] = 'auto',
) -> Tensor:
    """Read each query cell's values from the windows around it in the reference frames. No gradient.

    Args:
        query: (C, h, w) features of the frame to be labelled.
        keys: (R, C, h, w) features of the reference frames, same dtype and device; or R times (C, h, w), which
            compiled code reads where they lie, without a copy.
        values: (R, K, h, w) values of the reference cells, or R times (K, h, w), as `keys`; or `HardLabels`, which
            stand for one-hot values and are never laid out as such as a whole. The result is the same. Where values
            are not finite, what cells read that reach them differs between back ends.
        radius: R window radii in cells, one a reference; None compares with the whole reference frame.
        shape: 'square', 'circle' for the cells nearer than the radius, 'disc' for those up to it (see
            `window_offsets`).
        temperature: Divides the dot products.
        topk: Keep the k most similar keys of a cell; None keeps all. A k above the number of keys keeps all.
        topk_ties: Keys that tie with the k-th. 'keep' keeps them all (DINO, UVC). 'share' lets them share the places
            that the better ones leave, equal parts each. Where a frame is a reference several times, this is what a
            selection of exactly k gives (CRW, VFS: `torch.topk`), as its copies carry the same labels. Neither depends
            on the order of the keys.
        topk_scope: 'joint' selects and normalises over all references together. 'per_reference' does it in
            each reference alone and takes the mean of the R read-outs (UVC).
        normalise: 'softmax' over the kept keys. 'softmax_then_topk': over all keys in scope; the weights of
            the kept ones are then used as they are and sum to less than 1 (UVC).
        border: Window cells outside the frame: 'mask' leaves them out; 'zero_logit' keeps them with logit 0
            and value 0, so that they take part of the mass (MAST and LIIR, liir.md section 2.1).
        prior: Replace windows of the affinity by a fitted mixture, per reference and cell (liir.md section
            2.7); the sums are not normalised again. None: off. Needs a window on every reference. Under
            'mask' and in a round window a mixture is fitted and normalised over the cells that take part only.
        offsets: R times None, or the (2, h, w) displacement (dx, dy) in cells of each query cell's window in that
            reference (see `coarse_search`): its keys and values are sampled bilinearly at i + offset(i) + v for
            every v of the window. Outside the frame 'zero_logit' samples zeros; 'mask' leaves out the places more
            than half a cell outside and repeats the border cells for the others. None: no reference has one.
        value_offsets: Like `offsets`, but for the values alone, in the same references; the keys stay at `offsets`
            (the released MAST reads the labels of one reference at the offset of another). None: as `offsets`.
        align_corners_mismatch: Sample the displaced references where `grid_sample(align_corners=False)` lands when
            it is fed places that were normalised for align_corners=True (the released MAST on torch 1.3 and later;
            liir.md section 6.2): what should be read at place p, 0..w - 1, is read at p * w / (w - 1) - 0.5, and
            likewise in y. On an axis of one cell, which that normalisation divides by zero, p is read at p. Needs
            `border='zero_logit'`, as `grid_sample` pads with zeros.
        max_elements: Upper bound on the logits that exist at a time (one query cell's at least). None chooses
            by the device. The result does not depend on it, apart from rounding. 'native' and 'triton' do not read
            it: they need a few megabytes a thread, and nothing beside the result.
        backend: 'native' is compiled code for float32 (and half precision) on a CPU, several times as fast, see
            `mmliir.ops.native`; 'triton' is a fused kernel for CUDA, see `mmliir.ops.triton_attend`; 'torch' runs
            everywhere; 'auto' takes the one for the device where it can serve. Results agree apart from rounding.
            'native' cannot serve float64, other devices, features that are not finite, `topk` together with a `prior`
            or displaced references, and a machine without a compiler. 'triton' cannot serve float64, other devices,
            displaced references, features or values that are not finite, any `prior`, a `topk` above 64, and a
            machine without Triton.

    Returns:
        (K, h, w), float64 for float64 features and float32 for all others: half-precision inputs are
        compared, normalised and read out in float32.

    Raises:
        ValueError: Shapes do not fit, a setting is out of range, or the `backend` that was asked for cannot serve.
    """
    _check(query, keys, values, radius, temperature, topk, border, prior, max_elements)
    if backend not in ('auto', 'torch', 'native', 'triton'):
        raise ValueError(f"backend must be 'auto', 'torch', 'native' or 'triton', got {backend!r}")
    if shape not in native.SHAPES:
        raise ValueError(f'shape must be one of {", ".join(native.SHAPES)}, got {shape!r}')
    if align_corners_mismatch and (offsets is None or border != 'zero_logit'):
        raise ValueError(
            'align_corners_mismatch says where a program that pads with zeros samples displaced references: give '
            f"offsets and border='zero_logit', got border={border!r}"
        )
    displaced = _check_offsets(offsets, value_offsets, radius, query, border)
    if topk_scope not in ('joint', 'per_reference'):
        raise ValueError(f"topk_scope must be 'joint' or 'per_reference', got {topk_scope!r}")
    if topk_ties not in ('keep', 'share'):
        raise ValueError(f"topk_ties must be 'keep' or 'share', got {topk_ties!r}")
    if normalise not in ('softmax', 'softmax_then_topk'):
        raise ValueError(f"normalise must be 'softmax' or 'softmax_then_topk', got {normalise!r}")
    settings = (shape, temperature, topk, topk_ties, normalise, border, prior, align_corners_mismatch, max_elements)
    with torch.autocast(query.device.type, enabled=False):
        if backend == 'triton':
            try:
                if isinstance(values, HardLabels):
                    raise native.Unavailable('it reads values, not hard labels')
                return _in_scope(_TritonAttend(*settings), topk_scope, query, keys, values, radius, displaced)
            except native.Unavailable as reason:
                raise ValueError(f"backend='triton' cannot serve: {reason}. Use backend='auto'") from None
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        query = query.to(dtype)
        values = values.to(query.device) if isinstance(values, HardLabels) else _to_dtype(values, dtype)
        keys = _to_dtype(keys, dtype)
        if topk is None:
            query = query / temperature
            settings = (shape, 1.0, topk, topk_ties, 'softmax', *settings[5:])
        attend = _TorchAttend(*settings) if backend == 'torch' else _Attend(*settings, only_native=backend == 'native')
        return _in_scope(attend, topk_scope, query, keys, values, radius, displaced)


def fastest_backend(device: torch.device | str) -> Literal['native', 'torch']:
    """The back end that 'auto' asks first for float32 tensors on a device; results of the two differ by rounding.

    A rule and no measurement, so that a run repeats: compiled code was faster in every case at every vector width that
    was run (docs/performance.md).
    """
    if torch.device(device).type != 'cpu':
        return 'torch'
    try:
        native.library()
    except native.Unavailable:
        return 'torch'
    return 'native'


def _in_scope(attend, topk_scope: str, query, keys, values, radius: Sequence, displaced: Sequence) -> Tensor:
    """`attend` over all references together, or the mean of what it reads in each alone."""
    if topk_scope == 'joint':
        return attend(query, keys, values, radius, displaced)
    singles = [
        attend(query, keys[r : r + 1], values[r : r + 1], radius[r : r + 1], displaced[r : r + 1])
        for r in range(len(radius))
    ]
    return torch.stack(singles).mean(dim=0)


@dataclass(frozen=True)
class _TorchAttend:
    """The settings of one call; see `window_topk_attend`."""

    shape: str
    temperature: float  # 1: the query is divided already; with top-k it is not, as rounding would break ties
    topk: int | None
    topk_ties: str
    normalise: str
    border: str
    prior: MixturePrior | None
    mismatch: bool
    max_elements: int | None

    def __call__(
        self,
        query_Chw: Tensor,
        keys_RChw: Tensor,
        values_RKhw: Tensor | Sequence[Tensor] | HardLabels,
        radius: Sequence,
        displaced: Sequence,
    ) -> Tensor:
        """`keys_RChw`: one tensor or R of them. `displaced`: R times None, or the (2, h, w) offsets of the keys and of
        the values."""
        height, width = query_Chw.shape[1:]
        if not isinstance(keys_RChw, Tensor):
            keys_RChw = torch.stack(keys_RChw)
        if not isinstance(values_RKhw, Tensor | HardLabels):
            values_RKhw = torch.stack(values_RKhw)
        tiles, block, places = self._plan(query_Chw, radius, displaced)
        channels, readout = values_RKhw.shape[1], _ReadValues()
        if isinstance(values_RKhw, HardLabels):
            readout = _ReadLabels(channels, values_RKhw.gain)
            # One map takes the place of the values: 0 stands for no channel, as the padding has it.
            values_RKhw = (values_RKhw.labels[:, None] + 1).to(query_Chw.dtype)
        groups = []
        in_place = [r for r, own in enumerate(places) if own is None]
        for group_radius in sorted({radius[r] for r in in_place}, key=lambda r: -1 if r is None else r):
            member = [r for r in in_place if radius[r] == group_radius]
            own_keys, own_values = keys_RChw, values_RKhw
            if len(member) < len(radius):
                own_keys, own_values = keys_RChw[member], values_RKhw[member]
            if group_radius is None:
                groups.append(_WholeFrame(own_keys, own_values, readout))
            elif self._is_dense(group_radius, tiles.side, height * width):
                groups.append(_MaskedFrame(own_keys, own_values, readout, group_radius, self.shape, tiles))
            else:
                groups.append(_Windowed(own_keys, own_values, readout, group_radius, self.shape, self.border, tiles))
        kind = _Mismatched if self.mismatch else _Displaced
        groups += [
            kind(keys_RChw[r], values_RKhw[r], readout, *own, radius[r], self.shape, self.border)
            for r, own in enumerate(places)
            if own is not None
        ]
        query_yxMC = tiles.split(query_Chw)
        # The extra channel multiplies the keys' validity channel: 0 inside the frame, -inf outside it.
        query_yxMC = torch.cat([query_yxMC, query_yxMC.new_ones((*query_yxMC.shape[:3], 1))], dim=3)
        inside_yxM = tiles.split(query_Chw.new_ones((1, height, width), dtype=torch.bool))[..., 0]
        out_yxMK = values_RKhw.new_empty((tiles.rows, tiles.columns, tiles.side**2, channels))

        def attend_block(row: int, start: int) -> None:
            stop = min(start + block, tiles.columns)
            query_nMC = query_yxMC[row, start:stop]
            logits = [group.logits(query_nMC, row, start, stop) for group in groups]
            inside = inside_yxM[row, start:stop, :, None]
            out_yxMK[row, start:stop] = self._read(logits, groups, (row, start, stop), inside)

        blocks = [(row, start) for row in range(tiles.rows) for start in range(0, tiles.columns, block)]
        _for_each(attend_block, blocks, query_Chw.device)
        return tiles.join(out_yxMK, height, width)

    def _plan(self, query_Chw: Tensor, radius: Sequence, displaced: Sequence) -> tuple['_Tiles', int, list]:
        """The tile side and the number of tiles of a block that keep the logits below the bound, and for each
        displaced reference where its keys and its values lie."""
        height, width = query_Chw.shape[1:]
        on_cpu = query_Chw.device.type == 'cpu'
        limit = self.max_elements or (CPU_MAX_ELEMENTS if on_cpu else GPU_MAX_ELEMENTS)
        for side in (TILE_SIDE, TILE_SIDE // 2, TILE_SIDE // 4, 1):
            side = min(side, max(height, width))
            tiles = _Tiles(side, -(-height // side), -(-width // side))
            places = [_both_places(own, r, tiles, self.mismatch) for own, r in zip(displaced, radius, strict=True)]
            keys = sum(
                (height * width if r is None or self._is_dense(r, side, height * width) else (side + 2 * r) ** 2)
                if own is None
                else max(own[0].largest_box, own[1].largest_box, (2 * r + 2) ** 2)
                for own, r in zip(places, radius, strict=True)
            )
            if side * side * keys <= limit:
                break
        target = min(limit, CPU_BLOCK) if on_cpu else limit
        return tiles, max(1, min(target // (side * side * keys), tiles.columns)), places

    def _is_dense(self, radius: int, side: int, cells: int) -> bool:
        """Whether a tile is compared with the whole frame, and what no window holds is taken out: that is less work
        where the tile and its surroundings have as many places as the frame has cells."""
        return self.border == 'mask' and self.prior is None and (side + 2 * radius) ** 2 >= cells

    def _read(
        self, logits_nMN: list[Tensor], groups: list, where: tuple[int, int, int], inside_nM1: Tensor
    ) -> Tensor:
        """Select, normalise and read out one block: -> (n, M, K); `inside_nM1` says which cells lie in the frame."""
        total = None
        if self.normalise == 'softmax_then_topk':
            total = _logsumexp([x / self.temperature for x in logits_nMN])
        if self.topk is not None:
            sparse = self._read_sparse(logits_nMN, groups, where, total, inside_nM1)
            if not isinstance(sparse, _Ties):
                return sparse
            self._select(logits_nMN, sparse.smallest_kept)
        if total is None and len(logits_nMN) == 1:
            weights_nMN = [torch.softmax(logits_nMN[0], dim=-1)]
        elif total is None and isinstance(groups[-1], _Displaced):
            # Up to three times as fast as the branch below, whose exp is slow where it underflows. Windows in place
            # keep that one, so that their results stay what they were to the last bit.
            joint_nMN = torch.softmax(torch.cat(logits_nMN, dim=-1), dim=-1)
            weights_nMN = [x.contiguous() for x in joint_nMN.split([x.shape[-1] for x in logits_nMN], dim=-1)]
        else:
            total = _logsumexp(logits_nMN) if total is None else total
            weights_nMN = [x.sub_(total).exp_() for x in logits_nMN]
        if self.prior is not None:
            for group, weights in zip(groups, weights_nMN, strict=True):
                group.replace_by_mixture(weights, self.prior, *where)
        parts = [group.read(weights, *where) for group, weights in zip(groups, weights_nMN, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def _select(self, logits_nMN: list[Tensor], smallest_kept: Tensor) -> None:
        """Take out, in place, the keys below the k-th place, divide the others by the temperature, and under 'share'
        let those at that place have their part of what the better ones leave."""
        if self.topk_ties == 'keep':
            for x in logits_nMN:
                x.masked_fill_(x < smallest_kept, -torch.inf).div_(self.temperature)
            return
        better = sum((x > smallest_kept).sum(dim=-1, keepdim=True) for x in logits_nMN)
        tied = [x == smallest_kept for x in logits_nMN]
        places = (self.topk - better).to(smallest_kept)
        share = (places / sum(own.sum(dim=-1, keepdim=True) for own in tied).clamp_min(1)).clamp_max(1).log()
        for x, own in zip(logits_nMN, tied, strict=True):
            x.masked_fill_(x < smallest_kept, -torch.inf).div_(self.temperature).add_(own * share)

    def _read_sparse(self, logits_nMN, groups, where, total, inside_nM1):
        """Gather the k kept values of each cell; where keys tie at the k-th place, say so instead.

        A pair that shares it, as a frame that is a reference twice makes, is among the k + 2 best and needs no more.
        """
        taken = self.topk + (2 if self.topk_ties == 'share' else 1)
        found = [x.topk(min(taken, x.shape[-1]), dim=-1) for x in logits_nMN]
        best = torch.cat([x.values for x in found], dim=-1)
        smallest_kept = best.new_full((*best.shape[:-1], 1), -torch.inf)
        ties = False
        if best.shape[-1] > self.topk:
            ranked = best.topk(min(taken, best.shape[-1]), dim=-1).values
            smallest_kept, next_one = ranked[..., self.topk - 1, None], ranked[..., -1, None]
            # Cells that only fill up a tile have the same logit everywhere; nobody reads them.
            ties = bool(((smallest_kept == next_one) & smallest_kept.isfinite() & inside_nM1).any())
        if ties or self.prior is not None:
            return _Ties(smallest_kept)
        self._select([best], smallest_kept)
        weights = torch.softmax(best, dim=-1) if total is None else best.sub_(total).exp_()
        parts = []
        for group, picked in zip(groups, found, strict=True):
            own, weights = weights.tensor_split([picked.indices.shape[-1]], dim=-1)
            parts.append(group.read_kept(own, picked.indices, *where))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class _Attend(_TorchAttend):
    """Compiled code where it can serve, else PyTorch, or an error when `only_native`."""

    only_native: bool = False

    def __call__(
        self,
        query_Chw: Tensor,
        keys_RChw: Tensor | Sequence[Tensor],
        values_RKhw: Tensor | Sequence[Tensor] | HardLabels,
        radius: Sequence,
        displaced: Sequence,
    ) -> Tensor:
        try:
            self._check_native(query_Chw, radius, displaced)
            return self._run_native(native.library(), query_Chw, list(keys_RChw), values_RKhw, radius, displaced)
        except native.Unavailable as reason:
            if self.only_native:
                raise ValueError(f"backend='native' cannot serve: {reason}. Use backend='auto'") from None
        return super().__call__(query_Chw, keys_RChw, values_RKhw, radius, displaced)

    def _check_native(self, query_Chw: Tensor, radius: Sequence, displaced: Sequence) -> None:
        cells = self._count_keys(query_Chw, radius)
        if query_Chw.device.type != 'cpu':
            raise native.Unavailable(f'it runs on a CPU, the features are on {query_Chw.device}')
        if query_Chw.dtype != torch.float32:
            raise native.Unavailable(f'it computes in float32, the features are {query_Chw.dtype}')
        if self.topk is not None and any(own is not None for own in displaced):
            raise native.Unavailable('it does not select the topk of displaced references (offsets)')
        if cells >= 2**31:
            raise native.Unavailable(f'it counts keys in 32 bits, there are {cells}')
        if self.topk is not None and NATIVE_MAX_TOPK < self.topk < cells:
            raise native.Unavailable(f'it keeps at most {NATIVE_MAX_TOPK} keys, topk is {self.topk}')
        if self.prior is not None:
            if self.topk is not None:
                raise native.Unavailable('it does not fit a prior to the kept keys of topk')
            least = min((2 * own + 1) ** 2 for own in radius)
            if self.prior.num_mixtures > min(native.MAX_COMPONENTS, least):
                raise native.Unavailable(
                    f'it fits at most {native.MAX_COMPONENTS} components and no more than a window has cells, '
                    f'num_mixtures is {self.prior.num_mixtures}'
                )

    def _count_keys(self, query_Chw: Tensor, radius: Sequence) -> int:
        """An upper bound on the keys of one query cell, and on the number of cells of all references."""
        frame = query_Chw.shape[1] * query_Chw.shape[2]
        if self.border == 'mask':
            return frame * len(radius)
        return sum(max(frame, 0 if own is None else (2 * own + 1) ** 2) for own in radius)

    def _run_native(
        self,
        code: ctypes.CDLL,
        query_Chw: Tensor,
        keys: list[Tensor],
        values_RKhw: Tensor | Sequence[Tensor] | HardLabels,
        radius: Sequence,
        displaced: Sequence,
    ) -> Tensor:
        query, keys = query_Chw.contiguous(), [own.contiguous() for own in keys]
        references, (channels, height, width) = len(keys), query.shape
        if isinstance(values_RKhw, HardLabels):
            values = None
            labels, scales = _labels_and_scales(values_RKhw)
            out = query.new_zeros(values_RKhw.shape[1:])  # the values of kept keys are added to it
        else:
            values = [own.contiguous() for own in values_RKhw]
            out = query.new_empty(values[0].shape)
            labels, scales = (None, None) if self.topk is not None else _single_labels(code, values)
        prior = MixturePrior() if self.prior is None else self.prior
        pointers = ctypes.c_void_p * references
        key_pointers = pointers(*(own.data_ptr() for own in keys))
        value_pointers = None if values is None else pointers(*(own.data_ptr() for own in values))
        key_offsets, value_offsets = self._displacements(displaced)
        offset_pointers, value_offset_pointers = (
            pointers(*(None if own is None else own.data_ptr() for own in offsets))
            for offsets in (key_offsets, value_offsets)
        )
        # A cell farther away is outside the frame, and then takes part under 'zero_logit' alone.
        farthest = height + width if self.border == 'mask' else 2**31 - 1
        radii = (ctypes.c_int32 * references)(*(-1 if own is None else min(own, farthest) for own in radius))
        job = native.AttendJob(
            query.data_ptr(), ctypes.addressof(key_pointers),
            None if value_pointers is None else ctypes.addressof(value_pointers),
            None if labels is None else labels.data_ptr(), None if scales is None else scales.data_ptr(),
            ctypes.addressof(radii), ctypes.addressof(offset_pointers), ctypes.addressof(value_offset_pointers),
            out.data_ptr(),
            channels, height, width, references, out.shape[0], native.SHAPES.index(self.shape),
            self.border == 'zero_logit', min(self.topk or 0, self._count_keys(query, radius)),
            self.topk_ties == 'share', self.normalise == 'softmax_then_topk', self.temperature,
            0 if self.prior is None else prior.num_mixtures, prior.estimator == 'fixed', prior.keep_mass,
            -1.0 if prior.threshold is None else prior.threshold, prior.width, prior.variance_floor,
            self.mismatch,
        )  # fmt: skip
        codes = []

        def attend_rows(start: int, stop: int) -> None:
            codes.append(code.mmliir_attend(ctypes.byref(job), start, stop))

        step = _rows_of_a_band(height)
        _for_each(attend_rows, [(start, start + step) for start in range(0, height, step)], query.device)
        if native.NO_MEMORY in codes:
            raise MemoryError(f'no memory for a band of {step} x {width} cells in window_topk_attend')
        if native.NOT_FINITE in codes:
            raise native.Unavailable('the features hold NaN or infinity')
        return out

    def _displacements(self, displaced: Sequence) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """R times None or (2, h, w), to where the windows of the keys and of the values lie; one and the same tensor
        where they are the same."""

        def placed(offsets: Tensor) -> Tensor:
            return (_mismatched_centres(offsets) if self.mismatch else offsets).contiguous()

        of_keys = [None if own is None else placed(own[0]) for own in displaced]
        of_values = [
            keys if own is None or own[1] is own[0] else placed(own[1])
            for keys, own in zip(of_keys, displaced, strict=True)
        ]
        return of_keys, of_values


@dataclass(frozen=True)
class _TritonAttend(_TorchAttend):
    """The fused kernel for CUDA, or `Unavailable`. Features keep their dtype and the query is not divided: the kernel
    multiplies half precision as it is."""

    def __call__(
        self,
        query_Chw: Tensor,
        keys_RChw: Tensor | Sequence[Tensor],
        values_RKhw: Tensor,
        radius: Sequence,
        displaced: Sequence,
    ) -> Tensor:
        if any(own is not None for own in displaced):
            raise native.Unavailable('it does not sample displaced references (offsets)')
        if self.prior is not None:
            raise native.Unavailable('it does not fit a prior')
        job = triton_attend.TritonJob(
            self.shape, self.temperature, self.topk, self.topk_ties == 'share',
            self.normalise == 'softmax_then_topk', self.border == 'zero_logit',
        )  # fmt: skip
        return triton_attend.attend(job, query_Chw, list(keys_RChw), values_RKhw, radius)


def _rows_of_a_band(height: int) -> int:
    """Query rows that a thread takes at a time: few enough that every thread has work, many enough that the keys
    around them, which each band copies, are not copied often."""
    share = -(-height // (2 * torch.get_num_threads()))
    return min(NATIVE_BAND, -(-share // native.TILE_SIDE) * native.TILE_SIDE)


def _labels_and_scales(values: HardLabels) -> tuple[Tensor, Tensor]:
    """As `_single_labels` gives them."""
    labels = values.labels.to(torch.int32).contiguous()
    scales = torch.where(labels > 0, values.gain, 1.0) if values.gain != 1 else torch.ones(labels.shape)
    return labels, scales.to(torch.float32)


def _single_labels(code: ctypes.CDLL, values_RKhw: list[Tensor]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """(R, h, w) the channel and the value of each cell, where no cell has values in two channels; else None twice.

    One-hot labels of hundreds of objects are then read out at the cost of one.
    """
    references, (channels, height, width) = len(values_RKhw), values_RKhw[0].shape
    labels = torch.empty((references, height, width), dtype=torch.int32)
    scales = torch.empty((references, height, width))
    single = []

    def find(r: int) -> None:
        single.append(
            code.mmliir_single_labels(
                values_RKhw[r].data_ptr(), channels, height * width, labels[r].data_ptr(), scales[r].data_ptr()
            )
        )

    _for_each(find, [(r,) for r in range(references)], labels.device)
    return (labels, scales) if all(single) else (None, None)


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


@dataclass(frozen=True)
class _Places:
    """Where the displaced windows of one reference lie. Last axes are (x, y).

    Attributes:
        low: (rows, columns, M, 2) long, the cell at or before the centre of each query cell's window.
        fraction: (rows, columns, M, 2), how far the centre lies behind it, 0..1.
        first: (rows, columns, 2) long, on the CPU: the first cell that a tile's windows reach, counted on the
            reference with a ring of one cell around it, which stands for all that is outside.
        extent: (rows, columns, 2) long, on the CPU: how many cells they reach on each axis.
    """

    low: Tensor
    fraction: Tensor
    first: Tensor
    extent: Tensor

    @property
    def largest_box(self) -> int:
        """An upper bound on the cells that the windows of one tile reach."""
        return int(self.extent.amax(dim=(0, 1)).prod())


def _both_places(
    own: tuple | None, radius: int | None, tiles: _Tiles, mismatch: bool
) -> tuple[_Places, _Places] | None:
    """Places of the keys and of the values from the offsets of both."""
    if own is None:
        return None
    keys = _find_places(own[0], radius, tiles, mismatch)
    return keys, keys if own[1] is own[0] else _find_places(own[1], radius, tiles, mismatch)


def _find_places(offsets_2hw: Tensor, radius: int, tiles: _Tiles, mismatch: bool) -> _Places:
    height, width = offsets_2hw.shape[1:]
    if mismatch:
        offsets_2hw = _mismatched_centres(offsets_2hw)
        radius = torch.tensor([-(-radius * n // max(1, n - 1)) for n in (width, height)], device=offsets_2hw.device)
    whole = offsets_2hw.floor()
    cells = coordinate_grid(tiles.rows * tiles.side, tiles.columns * tiles.side, whole.dtype, whole.device)
    cells[:height, :width] += whole.permute(1, 2, 0)
    # A centre farther out than this has no cell of the frame in its window.
    size = torch.tensor([width, height], device=whole.device)
    low = tiles.split(cells.permute(2, 0, 1)).minimum(size + radius + 1).clamp_min(-radius - 2).long()
    first = (low.amin(dim=2) - radius).clamp_min(-1).minimum(size)
    last = (low.amax(dim=2) + radius + 1).clamp_min(-1).minimum(size)
    return _Places(low, tiles.split(offsets_2hw - whole), (first + 1).cpu(), (last - first + 1).cpu())


def _mismatched_centres(offsets_2hw: Tensor) -> Tensor:
    """Offsets to where `align_corners_mismatch` reads i + offset(i)."""
    height, width = offsets_2hw.shape[1:]
    grid = coordinate_grid(height, width, offsets_2hw.dtype, offsets_2hw.device)
    axes = zip(offsets_2hw, grid.unbind(dim=2), (width, height), strict=True)
    # p * n / (n - 1) - 0.5 - i with p = i + offset; i and n alone give less than a cell, so no digits cancel.
    return torch.stack([x if n == 1 else x * (n / (n - 1)) + (i / (n - 1) - 0.5) for x, i, n in axes])


class _WholeFrame:
    """References that are compared cell by cell with the whole frame."""

    def __init__(self, keys_RChw: Tensor, values_RKhw: Tensor, readout: '_ReadValues | _ReadLabels') -> None:
        self._readout = readout
        self._keys_CN = keys_RChw.permute(1, 0, 2, 3).reshape(keys_RChw.shape[1], -1)
        self._values_KN = values_RKhw.permute(1, 0, 2, 3).reshape(values_RKhw.shape[1], -1)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        return query_nMC[..., :-1] @ self._keys_CN

    def read(self, weights_nMN: Tensor, row: int, start: int, stop: int) -> Tensor:
        return self._readout.read(weights_nMN, self._values(start, stop))

    def read_kept(self, weights_nMk: Tensor, index_nMk: Tensor, row: int, start: int, stop: int) -> Tensor:
        return self._readout.read_kept(weights_nMk, index_nMk, self._values(start, stop))

    def _values(self, start: int, stop: int) -> Tensor:
        return self._values_KN.expand(stop - start, -1, -1)


class _MaskedFrame(_WholeFrame):
    """References with one and the same window radius, so wide that the whole frame is compared and then masked."""

    def __init__(
        self,
        keys_RChw: Tensor,
        values_RKhw: Tensor,
        readout: '_ReadValues | _ReadLabels',
        radius: int,
        shape: str,
        tiles: _Tiles,
    ) -> None:
        super().__init__(keys_RChw, values_RKhw, readout)
        height, width = keys_RChw.shape[2:]
        rows, columns = tiles.rows * tiles.side, tiles.columns * tiles.side
        self._tiles, self._references, self._corner = tiles, keys_RChw.shape[0], (rows - 1, columns - 1)
        # Whether a key (dy, dx) away is outside the window, from -(rows - 1) and -(columns - 1) on.
        reach = min(radius, rows + columns)  # farther away there is no cell, whatever the shape
        offsets = window_offsets(reach, shape, device=keys_RChw.device)
        x, y = (offsets + offsets.new_tensor([columns - 1, rows - 1])).unbind(dim=1)
        there = (x >= 0) & (x < columns + width - 1) & (y >= 0) & (y < rows + height - 1)
        outside = torch.ones((rows + height - 1, columns + width - 1), dtype=torch.bool, device=keys_RChw.device)
        outside[y[there], x[there]] = False
        self._outside_yxhw = outside.unfold(0, height, 1).unfold(1, width, 1)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        side, device = self._tiles.side, query_nMC.device
        y = row * side + torch.arange(side, device=device)[None, :, None]
        x = torch.arange(start * side, stop * side, device=device).view(-1, 1, side)
        outside = self._outside_yxhw[self._corner[0] - y, self._corner[1] - x]  # (n, side, side, h, w)
        logits_nMN = super().logits(query_nMC, row, start, stop)
        by_reference = logits_nMN.view(stop - start, side * side, self._references, -1)
        by_reference.masked_fill_(outside.view(stop - start, side * side, 1, -1), -torch.inf)
        return logits_nMN


class _Windowed:
    """References with one and the same window radius."""

    def __init__(
        self,
        keys_RChw: Tensor,
        values_RKhw: Tensor,
        readout: '_ReadValues | _ReadLabels',
        radius: int,
        shape: str,
        border: str,
        tiles: _Tiles,
    ) -> None:
        self._readout = readout
        self._radius, self._tiles, self._references = radius, tiles, keys_RChw.shape[0]
        self._halo = tiles.side + 2 * radius
        inside = self._pad(keys_RChw.new_ones((1, 1, *keys_RChw.shape[2:])))
        validity = inside.new_zeros(inside.shape)
        if border == 'mask':
            validity = validity.masked_fill_(inside == 0, -torch.inf)
        keys = self._pad(keys_RChw.permute(1, 0, 2, 3), extra=validity)
        self._key_halos = self._halos(keys)
        self._value_halos = self._halos(self._pad(values_RKhw.permute(1, 0, 2, 3)))
        takes_part = _window_shape(radius, shape, keys.device)
        bias = keys.new_full((tiles.side**2, self._halo**2), -torch.inf)
        self._windows(bias, references=1).masked_fill_(takes_part, 0.0)
        self._bias = bias[:, None, :].expand(-1, self._references, -1).reshape(bias.shape[0], -1)
        self._valid = None  # which cells of each window take part in a mixture; None: all
        if border == 'mask' or shape != 'square':
            counted = (
                inside[0, 0] > 0 if border == 'mask' else torch.ones_like(inside[0, 0], dtype=torch.bool)
            )
            self._valid = (counted, takes_part)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        return torch.baddbmm(self._bias, query_nMC, self._gather(self._key_halos, row, start, stop))

    def read(self, weights_nMN: Tensor, row: int, start: int, stop: int) -> Tensor:
        return self._readout.read(weights_nMN, self._gather(self._value_halos, row, start, stop))

    def read_kept(self, weights_nMk: Tensor, index_nMk: Tensor, row: int, start: int, stop: int) -> Tensor:
        return self._readout.read_kept(weights_nMk, index_nMk, self._gather(self._value_halos, row, start, stop))

    def replace_by_mixture(
        self, weights_nMN: Tensor, prior: MixturePrior, row: int, start: int, stop: int
    ) -> None:
        """Overwrite, in place, the windows that the prior's threshold selects."""
        windows = self._windows(weights_nMN, self._references)
        rows_NP = windows.reshape(-1, (2 * self._radius + 1) ** 2)
        valid_NP = self._valid_rows(row, start, stop, windows.shape)
        replaced_NP = _with_mixtures(rows_NP, self._radius, prior, valid_NP)
        if replaced_NP is not None:
            windows.copy_(replaced_NP.view(windows.shape))

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


class _Displaced:
    """One reference whose windows lie around displaced centres, between its cells."""

    def __init__(
        self,
        keys_Chw: Tensor,
        values_Khw: Tensor,
        readout: '_ReadValues | _ReadLabels',
        key_places: _Places,
        value_places: _Places,
        radius: int,
        shape: str,
        border: str,
    ) -> None:
        self._readout = readout
        self._radius, self._size = radius, keys_Chw.shape[1:]
        self._key_places, self._value_places = key_places, value_places
        # One ring stands for all cells outside: zeros, or the border cells again.
        ring = 'constant' if border == 'zero_logit' else 'replicate'
        self._keys = F.pad(keys_Chw[None], [1] * 4, mode=ring)[0]
        self._values = F.pad(values_Khw[None], [1] * 4, mode=ring)[0]
        self._masked = border == 'mask'
        self._takes_part = None if shape == 'square' else _window_shape(radius, shape, keys_Chw.device)

    def logits(self, query_nMC: Tensor, row: int, start: int, stop: int) -> Tensor:
        logits = self._compare(query_nMC[..., :-1], (row, start, stop))
        valid = self._valid((row, start, stop))
        if valid is not None:
            logits.masked_fill_(~valid, -torch.inf)
        return logits.flatten(2)

    def _compare(self, query_nMC: Tensor, where: tuple[int, int, int]) -> Tensor:
        """-> (n, M, window, window), the products with the keys sampled at the places of the windows."""
        keys_nCN, index_nMQ = self._corners(self._keys, self._key_places, where)
        corners = torch.matmul(query_nMC, keys_nCN).gather(2, index_nMQ)
        corners = corners.view(*index_nMQ.shape[:2], 2 * self._radius + 2, 2 * self._radius + 2)
        fraction_x, fraction_y = self._fractions(self._key_places, where)
        lines = torch.lerp(corners[..., :-1, :], corners[..., 1:, :], fraction_y)
        return torch.lerp(lines[..., :-1], lines[..., 1:], fraction_x)

    def read(self, weights_nMN: Tensor, row: int, start: int, stop: int) -> Tensor:
        where = (row, start, stop)
        values_nKN, index_nMQ = self._corners(self._values, self._value_places, where)
        fraction_x, fraction_y = self._fractions(self._value_places, where)
        windows = weights_nMN.view(*index_nMQ.shape[:2], 2 * self._radius + 1, 2 * self._radius + 1)
        columns = F.pad(windows * (1 - fraction_x), [0, 1])
        columns[..., 1:] += windows * fraction_x
        corners = F.pad(columns * (1 - fraction_y), [0, 0, 0, 1])
        corners[..., 1:, :] += columns * fraction_y
        # Several corners may fall on one cell of the ring.
        spread = weights_nMN.new_zeros((*index_nMQ.shape[:2], values_nKN.shape[2]))
        spread.scatter_add_(2, index_nMQ, corners.flatten(2))
        return self._readout.read(spread, values_nKN)

    def read_kept(self, weights_nMk: Tensor, index_nMk: Tensor, row: int, start: int, stop: int) -> Tensor:
        dense = weights_nMk.new_zeros((*index_nMk.shape[:2], (2 * self._radius + 1) ** 2))
        return self.read(dense.scatter_(2, index_nMk, weights_nMk), row, start, stop)

    def replace_by_mixture(
        self, weights_nMN: Tensor, prior: MixturePrior, row: int, start: int, stop: int
    ) -> None:
        """Overwrite, in place, the windows that the prior's threshold selects."""
        rows_NP = weights_nMN.reshape(-1, weights_nMN.shape[2])
        valid = self._valid((row, start, stop))
        if valid is not None:
            shape = (*weights_nMN.shape[:2], *valid.shape[-2:])
            valid = None if bool(valid.all()) else valid.expand(shape).reshape(rows_NP.shape)
        replaced_NP = _with_mixtures(rows_NP, self._radius, prior, valid)
        if replaced_NP is not None:
            weights_nMN.copy_(replaced_NP.view(weights_nMN.shape))

    def _corners(self, maps_Chw: Tensor, places: _Places, where: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """The cells that each tile's windows reach, (n, C, N), and the place among them of every corner, (n, M, Q)."""
        row, start, stop = where
        boxes, first = self._boxes(maps_Chw, places, where)
        height, width = maps_Chw.shape[1:]
        reach = torch.arange(-self._radius, self._radius + 2, device=maps_Chw.device)
        low = places.low[row, start:stop]
        x = (low[..., 0, None] + reach + 1).clamp_(0, width - 1) - first[:, None, None, 0]
        y = (low[..., 1, None] + reach + 1).clamp_(0, height - 1) - first[:, None, None, 1]
        index = y[..., :, None] * boxes.shape[3] + x[..., None, :]
        return boxes.flatten(2), index.flatten(2)

    def _boxes(self, maps_Chw: Tensor, places: _Places, where: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """The cells that each tile's windows reach, (n, C, height, width), and the first of them on the ringed map,
        (n, 2) (x, y); the boxes of a block have the size of the largest."""
        row, start, stop = where
        size = places.extent[row, start:stop].amax(dim=0)
        box_width, box_height = size.tolist()
        first = places.first[row, start:stop].minimum(torch.tensor(maps_Chw.shape[:0:-1]) - size)
        boxes = maps_Chw.unfold(1, box_height, 1).unfold(2, box_width, 1).permute(1, 2, 0, 3, 4)
        return torch.stack([boxes[y, x] for x, y in first.tolist()]), first.to(maps_Chw.device)

    def _fractions(self, places: _Places, where: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Of x and y, each (n, M, 1, 1)."""
        row, start, stop = where
        return places.fraction[row, start:stop, :, :, None, None].unbind(dim=2)

    def _valid(self, where: tuple[int, int, int]) -> Tensor | None:
        """Which places of each window take part: (n, M, window, window) or without the first two; None: all."""
        if not self._masked:
            return self._takes_part
        row, start, stop = where
        places, limits = self._key_places, (self._size[1], self._size[0])
        reach = torch.arange(-self._radius, self._radius + 1, device=places.low.device)
        inside = []
        for axis, limit in enumerate(limits):
            low = places.low[row, start:stop, :, axis, None] + reach
            fraction = places.fraction[row, start:stop, :, axis, None]
            inside.append((low + fraction >= -0.5) & (low + fraction <= limit - 0.5))
        valid = inside[1][..., :, None] & inside[0][..., None, :]
        return valid if self._takes_part is None else valid & self._takes_part


class _Mismatched(_Displaced):
    """A displaced reference that is sampled as `align_corners_mismatch` says.

    A window's places are w / (w - 1) cells apart, so they share neither fractions nor corners.
    """

    def _compare(self, query_nMC: Tensor, where: tuple[int, int, int]) -> Tensor:
        boxes_nCyx, share_y, share_x = self._shares(self._keys, self._key_places, where)
        at_cells = torch.matmul(query_nMC, boxes_nCyx.flatten(2))
        at_cells = at_cells.view(*at_cells.shape[:2], *boxes_nCyx.shape[2:])
        return torch.matmul(torch.matmul(share_y, at_cells), share_x.transpose(-1, -2))

    def read(self, weights_nMN: Tensor, row: int, start: int, stop: int) -> Tensor:
        boxes_nKyx, share_y, share_x = self._shares(self._values, self._value_places, (row, start, stop))
        windows = weights_nMN.view(*weights_nMN.shape[:2], 2 * self._radius + 1, 2 * self._radius + 1)
        spread = torch.matmul(share_y.transpose(-1, -2), torch.matmul(windows, share_x))
        return self._readout.read(spread.flatten(2), boxes_nKyx.flatten(2))

    def _shares(
        self, maps_Chw: Tensor, places: _Places, where: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes of `_boxes`, and for y and x, each (n, M, window, height or width), the share that each of their
        lines has in each place of a window: 1 where it is the place, 0 from one cell away, linear between."""
        row, start, stop = where
        boxes, first = self._boxes(maps_Chw, places, where)
        reach = torch.arange(-self._radius, self._radius + 1, dtype=maps_Chw.dtype, device=maps_Chw.device)
        shares = []
        for axis, cells in ((1, boxes.shape[2]), (0, boxes.shape[3])):
            size = self._size[1 - axis]
            low = places.low[row, start:stop, :, axis] + 1 - first[:, None, axis]
            place = (low + places.fraction[row, start:stop, :, axis])[..., None] + reach * (size / max(1, size - 1))
            away = place[..., None] - torch.arange(cells, device=maps_Chw.device)
            shares.append((1 - away.abs_()).clamp_min_(0))
        return boxes, *shares


def _window_shape(radius: int, shape: str, device: torch.device) -> Tensor:
    """(2 radius + 1, 2 radius + 1) bool: the cells of the window."""
    side = 2 * radius + 1
    takes_part = torch.zeros((side, side), dtype=torch.bool, device=device)
    offsets = window_offsets(radius, shape, device=device) + radius
    takes_part[offsets[:, 1], offsets[:, 0]] = True
    return takes_part


def _with_mixtures(rows_NP: Tensor, radius: int, prior: MixturePrior, valid_NP: Tensor | None) -> Tensor | None:
    """A copy of the windows with those that the prior's threshold selects replaced; None where it selects none."""
    if prior.threshold is None:
        return _fit(rows_NP, radius, prior, valid_NP)
    index = (rows_NP.amax(dim=1) > prior.threshold).nonzero()[:, 0]
    if index.numel() == 0:
        return None
    fitted_NP = _fit(rows_NP[index], radius, prior, None if valid_NP is None else valid_NP[index])
    return rows_NP.index_copy(0, index, fitted_NP)


def _fit(rows_NP: Tensor, radius: int, prior: MixturePrior, valid_NP: Tensor | None) -> Tensor:
    fitted_NP = fit_mixture_rows(
        rows_NP, radius, prior.num_mixtures, prior.estimator, valid_NP, prior.width, prior.variance_floor
    )
    return fitted_NP.mul_(rows_NP.sum(dim=1, keepdim=True)) if prior.keep_mass else fitted_NP


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


class _ReadValues:
    """Weighted sums of values."""

    def read(self, weights_nMN: Tensor, values_nKN: Tensor) -> Tensor:
        """-> (n, M, K)"""
        return torch.matmul(weights_nMN, values_nKN.transpose(-1, -2))

    def read_kept(self, weights_nMk: Tensor, index_nMk: Tensor, values_nKN: Tensor) -> Tensor:
        """Of the values at the kept keys: -> (n, M, K)."""
        blocks, cells, kept = index_nMk.shape
        index = index_nMk.reshape(blocks, 1, cells * kept).expand(-1, values_nKN.shape[1], -1)
        picked_nKMk = values_nKN.gather(2, index).view(blocks, -1, cells, kept)
        return (picked_nKMk * weights_nMk[:, None]).sum(dim=-1).transpose(1, 2)


@dataclass(frozen=True)
class _ReadLabels:
    """Weighted sums of the one-hot values that one map of channel numbers + 1 stands for; see `HardLabels`."""

    channels: int
    gain: float

    def read(self, weights_nMN: Tensor, labels_n1N: Tensor) -> Tensor:
        parts = [torch.matmul(weights_nMN, values.transpose(-1, -2)) for values in self._one_hot(labels_n1N)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def read_kept(self, weights_nMk: Tensor, index_nMk: Tensor, labels_n1N: Tensor) -> Tensor:
        blocks, cells, kept = index_nMk.shape
        picked = labels_n1N.gather(2, index_nMk.reshape(blocks, 1, cells * kept))
        parts = [
            (values.view(blocks, -1, cells, kept) * weights_nMk[:, None]).sum(dim=-1).transpose(1, 2)
            for values in self._one_hot(picked)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _one_hot(self, labels_n1N: Tensor) -> Iterator[Tensor]:
        """(n, some channels, N) at a time."""
        for start in range(0, self.channels, LABEL_CHUNK):
            stop = min(start + LABEL_CHUNK, self.channels)
            numbers = torch.arange(start + 1, stop + 1, dtype=labels_n1N.dtype, device=labels_n1N.device)
            values = (labels_n1N == numbers[:, None]).to(labels_n1N.dtype)
            if self.gain != 1:
                values[:, int(start == 0) :] *= self.gain
            yield values


def _logsumexp(logits_nMN: list[Tensor]) -> Tensor:
    """-> (n, M, 1) over all groups."""
    each = [x.logsumexp(dim=-1, keepdim=True) for x in logits_nMN]
    return each[0] if len(each) == 1 else torch.cat(each, dim=-1).logsumexp(dim=-1, keepdim=True)


def _to_dtype(maps: Tensor | Sequence[Tensor], dtype: torch.dtype) -> Tensor | list[Tensor]:
    return maps.to(dtype) if isinstance(maps, Tensor) else [own.to(dtype) for own in maps]


def _check(query, keys, values, radius, temperature, topk, border, prior, max_elements) -> None:
    if not isinstance(query, Tensor) or not all(isinstance(own, Tensor) for own in keys):
        raise ValueError(f'query and keys must be tensors, got {type(query).__name__} and {type(keys).__name__}')
    shapes = [tuple(own.shape) for own in keys]
    if query.dim() != 3 or any(shape != query.shape for shape in shapes):
        given = tuple(keys.shape) if isinstance(keys, Tensor) else shapes
        raise ValueError(f'query must be (C, h, w) and keys (R, C, h, w), got {tuple(query.shape)} and {given}')
    if isinstance(values, Tensor | HardLabels):
        sizes = tuple(values.shape)
    else:
        each = {tuple(own.shape) for own in values}
        sizes = (len(values), *each.pop()) if len(each) == 1 else tuple(each)
    if len(sizes) != 4 or sizes[0] != len(keys) or sizes[2:] != tuple(query.shape[1:]):
        raise ValueError(f'values must be (R, K, h, w) for keys {(len(keys), *query.shape)}, got {sizes}')
    if min(query.shape) < 1 or min(sizes) < 1:
        raise ValueError(f'nothing to compare: query {tuple(query.shape)}, values {sizes}')
    if not isinstance(radius, Sequence):
        raise ValueError(f'radius must hold one value for each of {len(keys)} references, got {radius!r}')
    if len(radius) != len(keys):
        raise ValueError(f'radius must hold one value for each of {len(keys)} references, got {len(radius)}')
    for value in radius:
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f'each radius must be None or a whole number of cells, 0 or more, got {value!r}')
    if not temperature > 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')
    if topk is not None and (not isinstance(topk, int) or topk < 1):
        raise ValueError(f'topk must be a whole number, 1 or more, or None for all keys, got {topk}')
    if border not in ('mask', 'zero_logit'):
        raise ValueError(f"border must be 'mask' or 'zero_logit', got {border!r}")
    if prior is not None and any(value is None for value in radius):
        raise ValueError('a prior needs a window on every reference, got a radius of None')
    if max_elements is not None and max_elements < 1:
        raise ValueError(f'max_elements must be 1 or more, or None, got {max_elements}')


def _check_offsets(
    offsets: Sequence | None, value_offsets: Sequence | None, radius: Sequence, query_Chw: Tensor, border: str
) -> list[tuple[Tensor, Tensor] | None]:
    """-> R times None, or the offsets of the keys and of the values in the type that the rest is computed in."""
    if offsets is None:
        if value_offsets is not None:
            raise ValueError('value_offsets say where the values of displaced references are read: give offsets too')
        return [None] * len(radius)
    value_offsets = offsets if value_offsets is None else value_offsets
    displaced = []
    for name, given in (('offsets', offsets), ('value_offsets', value_offsets)):
        if len(given) != len(radius):
            raise ValueError(f'{name} must hold one entry for each of {len(radius)} references, got {len(given)}')
        for own in given:
            if own is None:
                continue
            if tuple(own.shape) != (2, *query_Chw.shape[1:]):
                raise ValueError(
                    f'each of {name} must be None or (2, h, w) = {(2, *query_Chw.shape[1:])}, got {tuple(own.shape)}'
                )
            if not bool(own.isfinite().all()):
                raise ValueError(f'{name} must be finite, got NaN or infinity: look for it in the features')
    dtype = torch.float64 if query_Chw.dtype == torch.float64 else torch.float32
    for own, of_values, reach in zip(offsets, value_offsets, radius, strict=True):
        if (own is None) != (of_values is None):
            raise ValueError('offsets and value_offsets must be given for the same references')
        if own is not None and reach is None:
            raise ValueError('offsets displace a window: give a radius to every reference that has them')
        if own is None:
            displaced.append(None)
            continue
        of_keys = own.to(query_Chw.device, dtype)
        if border == 'mask' and not _lead_inside(of_keys):
            raise ValueError(
                "under border='mask' i + offset(i) must lie in the frame, as the window might hold nothing; clamp the "
                "offsets or use border='zero_logit'"
            )
        displaced.append((of_keys, of_keys if of_values is own else of_values.to(query_Chw.device, dtype)))
    return displaced


def _lead_inside(offsets_2hw: Tensor) -> bool:
    """Whether every cell is displaced to a place at most half a cell outside the frame."""
    height, width = offsets_2hw.shape[1:]
    grid = coordinate_grid(height, width, offsets_2hw.dtype, offsets_2hw.device).permute(2, 0, 1)
    x, y = grid + offsets_2hw
    return bool(((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).all())
