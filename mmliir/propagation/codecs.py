"""Label maps of ids, or points, to label fields on cells, and back.

A codec is the part of a session that knows what its labels are: see `LabelCodec`.

Shape letters: K label channels (channel 0 is the background of a label map), R references, N points, h w cells,
H W pixels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops.resize import resize_label_map, upsample_field
from mmliir.ops.window_topk_attend import HardLabels
from mmliir.propagation.settings import PointSettings, PropagationSettings
from mmliir.propagation.winners import largest_channel

LabelMap = Tensor | np.ndarray

# Pixels of upsampled channels that exist at a time: hundreds of objects at full size would take gigabytes.
DECODE_ELEMENTS = 1 << 24
# From this many channels on, each is upsampled only where it can win, see `mmliir.propagation.winners`.
_MANY_CHANNELS = 16
# Values of all references that are read out at a time, of points; more points mean another pass over the affinity.
_VALUE_ELEMENTS = 1 << 26
# Points' channels come in groups of this many, so that what a point gets does not depend on how many others there
# are: matrix products take another path, with other rounding, for fewer than about a dozen columns.
_CHANNEL_GROUP = 16
# Upsampled values that should be equal, beyond the outermost cells, differ by rounding.
_TIE = 1e-5
# Beyond this many sigmas a Gaussian is not drawn from outside the frame.
_REACH = 3.0


@dataclass(frozen=True)
class Labelled:
    """What a codec makes of a frame.

    Attributes:
        output: What the session returns for it.
        kept: The labels as they are kept while the frame is a reference.
        is_permanent: Whether the frame is to stay a reference.
    """

    output: Any
    kept: Tensor
    is_permanent: bool = False


class LabelCodec(Protocol):
    """What a session asks of its labels; it keeps what belongs to one video, such as the ids seen so far."""

    num_channels: int
    #: One channel number a cell is kept, see `HardLabels`.
    is_hard: bool

    def begin(self, given: Any, device: torch.device) -> Labelled:
        """The first frame, from what is given for it."""

    def follow(self, field: Tensor, given: Any) -> Labelled:
        """A later frame, from its label field (K, h, w) and from what is given for it, None for nothing."""

    def values(self, kept: Sequence[Tensor], start: int, stop: int) -> list[Tensor] | HardLabels:
        """Channels start..stop of the label fields of R references, (stop - start, h, w) each, from what was kept."""

    def channels_at_once(self, num_references: int) -> int:
        """How many channels to read out in one pass over the affinity."""


class MaskCodec:
    """Label maps of ids: the codec of `PropagationSession`.

    Args:
        settings: The protocol; read are `carry`, `encoding`, `upsample`, `output_resize`, `min_max`, `grid`,
            `fg_gain` and `keep_late_frames`.
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, without padding.
        output_size: (H, W) of the label maps that come in and go out.
        cells: (h, w).
    """

    def __init__(
        self,
        settings: PropagationSettings,
        stride: int,
        size: tuple[int, int],
        output_size: tuple[int, int],
        cells: tuple[int, int],
    ) -> None:
        self.settings, self.stride = settings, stride
        self.size, self.output_size, self.cells = size, output_size, cells
        self.ids: list[int] = []
        self._as_numpy = False
        self._dtype = torch.uint8
        self._device = torch.device('cpu')
        self._last: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)

    @property
    def num_channels(self) -> int:
        return len(self.ids) + 1

    @property
    def is_hard(self) -> bool:
        return self.settings.carry == 'hard' and self.settings.encoding != 'bilinear'

    def channels_at_once(self, num_references: int) -> int:
        return self.num_channels

    def begin(self, given: LabelMap | None, device: torch.device) -> Labelled:
        label_map = None if given is None else self._read(given, device, is_first=True)
        if label_map is None:
            raise ValueError('the first step needs a label map: there is nothing to propagate yet')
        self.ids = object_ids(label_map)
        if not self.ids:
            raise ValueError('the first label map holds no object: every pixel is 0 (background)')
        self._last = (None, None, label_map)
        return Labelled(self._convert(label_map), self._encode(label_map))

    def follow(self, field: Tensor, given: LabelMap | None) -> Labelled:
        """Decode the field, put a late label map over it, and encode what is carried on."""
        settings = self.settings
        label_map = None if given is None else self._read(given, field.device)
        winner = decode_field(field, **self._how())
        output = to_ids(winner, self.ids, self._dtype)
        is_late = label_map is not None and bool((label_map != 0).any())
        self._last = (field, winner, label_map if is_late else None)
        if is_late:
            self.ids += [value for value in object_ids(label_map) if value not in self.ids]
            output = torch.where(label_map != 0, label_map.to(self._dtype), output)
        if settings.carry == 'hard':
            kept = self._encode(output)
        elif is_late:
            late = self._encode_soft(label_map)
            kept = _grow(field, self.num_channels) * late[:1]
            kept[1:] += late[1:]
        else:
            kept = field
        return Labelled(self._convert(output), kept, is_late and settings.keep_late_frames)

    def values(self, kept: Sequence[Tensor], start: int, stop: int) -> list[Tensor] | HardLabels:
        """Objects that a frame did not know yet have nothing in it. All channels of hard labels at once."""
        if kept[0].dim() == 2:
            # Frames of before the 256th object have a narrower type.
            return HardLabels(torch.stack([own.int() for own in kept]), self.num_channels, self.settings.fg_gain)
        values = [_grow(field, self.num_channels) for field in kept]
        if self.settings.fg_gain != 1:
            values = [torch.cat([field[:1], field[1:] * self.settings.fg_gain]) for field in values]
        return [field[start:stop] for field in values]

    def object_scores(self) -> dict[int, float]:
        """See `PropagationSession.object_scores`."""
        field, winner, given = self._last
        given_ids = [] if given is None else object_ids(given)
        scores = {}
        if field is not None:
            if given is not None:  # what is given hides what was predicted there
                winner = torch.where(given != 0, 0, winner)
            scores = winner_scores(field, winner, **self._how())
            scores = {self.ids[channel - 1]: score for channel, score in scores.items() if channel > 0}
        return scores | dict.fromkeys(given_ids, 1.0)

    def _how(self) -> dict[str, Any]:
        """Arguments of `decode_field` that stay the same."""
        settings = self.settings
        return {
            'stride': self.stride,
            'size': self.size,
            'output_size': self.output_size,
            'upsample': settings.upsample,
            'output_resize': settings.output_resize,
            'min_max': settings.min_max,
            'grid': settings.grid,
        }

    def _read(self, label_map: LabelMap, device: torch.device, is_first: bool = False) -> Tensor:
        tensor = torch.as_tensor(label_map)
        if (
            tensor.dim() != 2
            or tensor.is_floating_point()
            or tensor.is_complex()
            or tensor.dtype == torch.bool
        ):
            raise ValueError(
                f'a label map must be (H, W) of whole numbers, got {tensor.dtype} {tuple(tensor.shape)}'
            )
        if tuple(tensor.shape) != self.output_size:
            raise ValueError(
                f'the label map is {_text(tensor.shape)}, the frame is {_text(self.output_size)} '
                '(height x width). Resize it by nearest neighbour, for example with '
                'mmliir.ops.resize_label_map.'
            )
        ids = tensor.long()  # PyTorch cannot compare the wider unsigned types
        if ids.numel() and ids.min() < 0:
            raise ValueError(f'ids must be 0 or more, got {int(ids.min())} in a label map')
        if is_first:
            self._as_numpy = isinstance(label_map, np.ndarray)
            self._dtype, self._device = tensor.dtype, tensor.device
        elif ids.max() > torch.iinfo(self._dtype).max:
            raise ValueError(f'id {int(ids.max())} does not fit in {self._dtype}, the type of the first label map')
        return ids.to(device)

    def _encode(self, label_map: Tensor) -> Tensor:
        """A label map in the form that is kept: (h, w) channel numbers or (K, h, w) field."""
        settings = self.settings
        if settings.carry == 'soft' or settings.encoding == 'bilinear':
            return self._encode_soft(label_map)
        channels = to_channels(self._at_input(label_map), self.ids)
        cells = encode_cells(channels, settings.encoding, self.stride, self.cells, settings.grid)
        return cells.to(torch.uint8 if len(self.ids) < 256 else torch.int32).clone()

    def _encode_soft(self, label_map: Tensor) -> Tensor:
        settings = self.settings
        return encode_label_map(
            self._at_input(label_map), self.ids, settings.encoding, self.stride, self.cells, grid=settings.grid
        )

    def _at_input(self, label_map: Tensor) -> Tensor:
        at_once = self.settings.grid != 'blocks' and self.settings.encoding != 'subsample'
        if at_once or tuple(label_map.shape) == self.size:
            return label_map
        return resize_label_map(label_map, self.size)

    def _convert(self, output: Tensor) -> LabelMap:
        output = output.to(self._dtype)
        return output.cpu().numpy().copy() if self._as_numpy else output.to(self._device, copy=True)


@dataclass(frozen=True)
class PointPlaces:
    """Where points are in one frame.

    Attributes:
        places: (N, 2) float64, (x, y) in pixels of the frame; NaN where nothing of a point is left.
        confidence: (N,) float64, 0..1; 0 there.
    """

    places: Tensor
    confidence: Tensor


class PointCodec:
    """Points: Gaussian labels in a channel each, carried as they are; the codec of `PointSession`.

    Where a cell lies: with c a cell's number along an axis, s the stride and r the frame's pixels per pixel of the
    encoder's input,
    * 'subsample' takes a drawn map's value where the input's pixel s * c is, and 'resize' where s * c + (s - 1) / 2 is,
      bilinearly; pixels of the frame and of the input have their centres in common: x_frame = (x_input + 0.5) r - 0.5;
    * bilinear upsampling, to the frame or to the input, puts cell c on the input's place s * c + (s - 1) / 2;
    * 'cells', for drawing and for reading, is the plain scaling of UVC and CRW: cell c is the frame's place c * s * r.
    So 'subsample' read at the frame or the input comes out (s - 1) / 2 pixels of the input too far to the right and
    below (fgvc.md section 3.1), which `settings.unbias` takes back; it takes back what any other pair makes, too.

    A point outside the frame has that part of its Gaussian drawn that falls inside. One that is more than 3 sigma
    outside, or that leaves no trace on the cells, has an empty channel: it is nowhere, in every frame.

    Confidence: the most of a point's channel that lies in 3 x 3 neighbouring cells, over the most that did in the first
    frame, at most 1. A read-out is a mean of earlier labels, so this shrinks with the share of the affinity that goes
    to places without the point, as it does when something else covers it, and where the label spreads. It is of the
    field itself, before `settings.min_max`. On generated scenes with occlusions it tells seen from hidden points better
    than the largest value alone, the channel's sum, the likeness of the features of both places, or a look back from
    the place found to the first frame.

    Args:
        settings: How points are drawn and read.
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, without padding.
        output_size: (H, W) of the frame, in whose pixels points come in and go out.
        cells: (h, w).
    """

    def __init__(
        self,
        settings: PointSettings,
        stride: int,
        size: tuple[int, int],
        output_size: tuple[int, int],
        cells: tuple[int, int],
    ) -> None:
        self.settings, self.stride = settings, stride
        self.size, self.output_size, self.cells = size, output_size, cells
        self.num_channels = 0
        self.is_hard = False
        self._num_points = 0
        self._first_mass = torch.zeros(0)

    def channels_at_once(self, num_references: int) -> int:
        groups = _VALUE_ELEMENTS // (_CHANNEL_GROUP * num_references * self.cells[0] * self.cells[1])
        return _CHANNEL_GROUP * max(1, groups)

    def begin(self, given: Tensor | np.ndarray | None, device: torch.device) -> Labelled:
        if given is None:
            raise ValueError('the first step needs points: there is nothing to follow yet')
        points = torch.as_tensor(given).to('cpu', torch.float64)
        field = self.encode(points)
        self._num_points = points.shape[0]
        missing = -field.shape[0] % _CHANNEL_GROUP
        self.num_channels = field.shape[0] + missing
        field = torch.cat([field, field.new_zeros((missing, *self.cells))]).to(device, torch.float32)
        self._first_mass = local_mass(field)[: self._num_points]
        drawn = self._first_mass.cpu() > 0
        return Labelled(PointPlaces(torch.where(drawn[:, None], points, torch.nan), drawn.double()), field)

    def follow(self, field: Tensor, given: Tensor | np.ndarray | None) -> Labelled:
        if given is not None:
            raise ValueError('points are given at the first step only: points of a later frame need another session')
        return Labelled(self.decode(field), field)

    def values(self, kept: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        return [field[start:stop] for field in kept]

    def encode(self, points: Tensor) -> Tensor:
        """Points to a label field.

        Args:
            points: (N, 2) float, (x, y) in pixels of the frame; finite.

        Returns:
            (N, h, w) float64, or (N + 1, h, w) with `settings.background`: the last channel is 1 where no point is.
            That is where no point is drawn (UVC), or with draw='exact', which ends nowhere, where none is nearer than 3
            sigma. Nothing is read from it.

        Raises:
            ValueError: Not (N, 2), or not finite.
        """
        points = torch.as_tensor(points, dtype=torch.float64)
        if points.dim() != 2 or points.shape[1] != 2 or points.shape[0] == 0:
            raise ValueError(f'points must be (N, 2), one or more of (x, y), got {tuple(points.shape)}')
        if not bool(points.isfinite().all()):
            raise ValueError('points must be finite numbers of pixels')
        along_x, along_y = (self._draw_axis(points[:, axis], 1 - axis) for axis in (0, 1))
        field = along_y[:, :, None] * along_x[:, None, :]  # a Gaussian, and bilinear reading, factor into the axes
        if not self.settings.background:
            return field
        limit = 0.0 if self.settings.draw == 'stamp' else math.exp(-(_REACH**2) / 2)
        return torch.cat([field, (field.amax(dim=0) <= limit).double()[None]])

    def decode(self, field: Tensor) -> PointPlaces:
        """Label field to places: the mean of the places of the `decode_topk` highest values, weighted by the values.

        Args:
            field: (K, h, w), the points' channels first.
        """
        settings, count = self.settings, self._num_points
        pixels = {'frame': self.output_size, 'input': self.size, 'cells': self._seen_cells()}[settings.decoded_at]
        # Whole groups: what bilinear upsampling rounds depends on the number of channels, too.
        step = _CHANNEL_GROUP * max(1, DECODE_ELEMENTS // (_CHANNEL_GROUP * pixels[0] * pixels[1]))
        places, masses = [], []
        for start in range(0, count, step):
            values = field[start : start + step]
            masses.append(local_mass(values))
            if settings.decoded_at != 'cells':
                values = self._upsample(values, pixels)
            values = values[:, : pixels[0], : pixels[1]]
            places.append(weighted_place(stretch(values) if settings.min_max else values, settings.decode_topk))
        confidence = (torch.cat(masses)[:count] / self._first_mass.clamp_min(1e-30)).clamp_(0, 1)
        places = self._to_frame(torch.cat(places)[:count].cpu())
        return PointPlaces(places, torch.where(places[:, 0].isnan(), 0, confidence.double().cpu()))

    def _draw_axis(self, position: Tensor, axis: int) -> Tensor:
        """The Gaussians of N points along one axis (0: y, 1: x), as they are on the cells: (N, h or w)."""
        settings, stride = self.settings, self.stride
        frame, own, cells = self.output_size[axis], self.size[axis], self.cells[axis]
        numbers = torch.arange(cells, dtype=torch.float64)
        if settings.drawn_at == 'cells':
            drawn = _gaussians(position * own / frame / stride, cells, settings)
            return drawn * (numbers * stride < own)
        pixels = frame if settings.drawn_at == 'frame' else own
        if settings.drawn_at == 'input':
            position = (position + 0.5) * own / frame - 0.5
        drawn = _gaussians(position, pixels, settings)
        at_input = numbers * stride + (0 if settings.reduce == 'subsample' else (stride - 1) / 2)
        read_at = (at_input + 0.5) * pixels / own - 0.5
        low = read_at.clamp(0, pixels - 1).floor()
        share = read_at.clamp(0, pixels - 1) - low
        low = low.long()
        read = drawn[:, low] * (1 - share) + drawn[:, (low + 1).clamp_max(pixels - 1)] * share
        return read * (read_at < pixels - 0.5)  # cells of the padding have no point

    def _upsample(self, field: Tensor, pixels: tuple[int, int]) -> Tensor:
        """(N, h, w) to at least (N, H, W) values at pixels of the frame or of the input."""
        if all(n * self.stride == own for n, own in zip(self.cells, self.size, strict=True)):
            return F.interpolate(field[None], size=pixels, mode='bilinear', align_corners=False)[0]
        scale = tuple(self.stride * out / own for out, own in zip(pixels, self.size, strict=True))
        return F.interpolate(field[None], scale_factor=scale, mode='bilinear', align_corners=False)[0]

    def _seen_cells(self) -> tuple[int, int]:
        """The cells that begin inside the frame: those of the padding hold no place."""
        return tuple(-(-pixels // self.stride) for pixels in self.size)

    def _to_frame(self, places: Tensor) -> Tensor:
        """(N, 2) at `decoded_at` -> pixels of the frame."""
        settings, stride = self.settings, self.stride
        ratio = torch.tensor([self.output_size[1] / self.size[1], self.output_size[0] / self.size[0]])
        ratio = ratio.to(places.dtype)
        if settings.decoded_at == 'cells':
            places = places * stride * ratio
        elif settings.decoded_at == 'input':
            places = (places + 0.5) * ratio - 0.5
        if not settings.unbias:
            return places
        # The frame's places of cell 0, as it is drawn and as it is read.
        zero = {'cells': torch.zeros(2), 'first': 0.5 * ratio - 0.5, 'center': stride / 2 * ratio - 0.5}
        reduced = 'first' if settings.reduce == 'subsample' else 'center'
        drawn = zero['cells' if settings.drawn_at == 'cells' else reduced]
        return places - (zero['cells' if settings.decoded_at == 'cells' else 'center'] - drawn)


def weighted_place(values: Tensor, topk: int) -> Tensor:
    """The mean of the places of the highest values, weighted by the values (UVC, VFS, FGVC).

    Args:
        values: (N, H, W), 0 or more.
        topk: How many; all, where there are fewer. Of values that tie at the last place, all; those
            that differ by 1e-5 of it tie, so that rounding chooses nothing.

    Returns:
        (N, 2) float64, (x, y); NaN where all values are 0.
    """
    lowest = values.flatten(1).topk(min(topk, values[0].numel()), dim=1).values[:, -1]
    best = torch.where(values >= lowest[:, None, None] * (1 - _TIE), values, 0)
    sums = []
    for axis in (2, 1):
        along = best.sum(dim=3 - axis, dtype=torch.float64)
        sums.append(along @ torch.arange(values.shape[axis], dtype=torch.float64, device=values.device))
    return torch.stack(sums, dim=1) / best.sum(dim=(1, 2), dtype=torch.float64)[:, None]


def local_mass(field: Tensor) -> Tensor:
    """The most of each channel of (N, h, w) that lies in 3 x 3 neighbouring cells, (N,)."""
    return 9 * F.avg_pool2d(field[None], 3, stride=1, padding=1)[0].amax(dim=(1, 2))


def _gaussians(centres: Tensor, pixels: int, settings: PointSettings) -> Tensor:
    """(N,) centres to (N, pixels) Gaussians of height 1 along an axis."""
    sigma = settings.sigma
    numbers = torch.arange(pixels, dtype=torch.float64)
    if settings.draw == 'exact':
        reached = (centres >= -_REACH * sigma) & (centres <= pixels - 1 + _REACH * sigma)
        away = numbers - centres[:, None]
        return torch.exp(-(away**2) / (2 * sigma**2)) * reached[:, None]
    # The painter of VFS, UVC and CRW: a stamp of whole pixels from int(x - 3 sigma) to before int(x + 3 sigma + 1),
    # with its peak at number (6 sigma + 1) // 2 of it. int() cuts towards zero.
    first, last = (centres - 3 * sigma).trunc(), (centres + 3 * sigma + 1).trunc()
    away = numbers - first[:, None] - (6 * sigma + 1) // 2
    inside = (numbers >= first[:, None]) & (numbers < last[:, None])
    return torch.exp(-(away**2) / (2 * sigma**2)) * inside

def object_ids(label_map: Tensor) -> list[int]:
    """The ids other than 0 in a label map, ascending; gaps stay gaps."""
    return [value for value in label_map.unique().tolist() if value != 0]


def to_channels(label_map: Tensor, ids: Sequence[int]) -> Tensor:
    """Ids to channel numbers: 0 is the background, n + 1 stands for `ids[n]`.

    Args:
        label_map: (H, W) of any integer type.
        ids: The objects' ids; what is not among them becomes background.

    Returns:
        (H, W) long.
    """
    channels = torch.zeros_like(label_map, dtype=torch.long)
    if len(ids) == 0:
        return channels
    order = torch.tensor(ids, dtype=torch.long, device=label_map.device)
    sorted_ids, position = order.sort()
    found = torch.searchsorted(sorted_ids, label_map.long()).clamp_(max=len(ids) - 1)
    return torch.where(sorted_ids[found] == label_map.long(), position[found] + 1, channels)


def to_ids(channels: Tensor, ids: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Inverse of `to_channels`: (H, W) channel numbers to ids of the type `dtype`."""
    return torch.tensor([0, *ids], device=channels.device)[channels].to(dtype)


def encode_cells(
    channels: Tensor,
    encoding: Literal['subsample', 'nearest'],
    stride: int,
    size: tuple,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Channel numbers at pixels to channel numbers at cells.

    Args:
        channels: (H, W) long, at the size of the encoder's input; of any size where it is resized under a `grid` other
            than 'blocks'.
        encoding: 'subsample' takes pixel (stride * y, stride * x), 'nearest' the pixel at the centre of the
            block.
        stride: Pixels per cell.
        size: (h, w) cells; as 'blocks' they cover (h * stride, w * stride) pixels, and what the map lacks there is
            background.
        grid: See `PropagationSettings`.

    Returns:
        (h, w) long.
    """
    if encoding == 'subsample':
        return _pad(channels, stride, size)[::stride, ::stride]
    return resize_label_map(_pad(channels, stride, size) if grid == 'blocks' else channels, size)


def encode_label_map(
    label_map: Tensor,
    ids: Sequence[int],
    encoding: Literal['subsample', 'nearest', 'bilinear'],
    stride: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Label map to label field.

    Args:
        label_map: (H, W) of any integer type; as in `encode_cells`.
        ids: The objects' ids, one channel each; other values count as background.
        encoding: See `PropagationSettings.encoding`.
        stride: Pixels per cell.
        size: (h, w) cells.
        dtype: Type of the field.
        grid: See `PropagationSettings`.

    Returns:
        (K, h, w) with K = len(ids) + 1; channels sum to 1 at every cell.
    """
    channels = to_channels(label_map, ids)
    if encoding != 'bilinear':
        return one_hot(encode_cells(channels, encoding, stride, size, grid), len(ids) + 1, dtype)
    if grid == 'blocks':
        channels = _pad(channels, stride, size)
    return torch.stack(
        [
            F.interpolate(
                (channels == k).to(dtype)[None, None], size=size, mode='bilinear', align_corners=grid == 'corners'
            )[0, 0]
            for k in range(len(ids) + 1)
        ]
    )


def one_hot(cells: Tensor, num_channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channel numbers (..., h, w) to (..., K, h, w)."""
    shape = (*cells.shape[:-2], num_channels, *cells.shape[-2:])
    return torch.zeros(shape, dtype=dtype, device=cells.device).scatter_(-3, cells.long().unsqueeze(-3), 1)


def decode_field(
    field: Tensor,
    stride: int,
    size: tuple[int, int],
    output_size: tuple[int, int],
    upsample: Literal['mast', 'exact', 'nearest'] = 'mast',
    output_resize: Literal['field', 'labels'] = 'field',
    min_max: bool = False,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> Tensor:
    """Label field to the number of the largest channel at every pixel.

    Args:
        field: (K, h, w).
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, without padding.
        output_size: (H, W) of the result.
        upsample, output_resize, min_max, grid: See `PropagationSettings`.

    Returns:
        (H, W) long, the first of equal channels. Channels are upsampled a few at a time.
    """
    winner = None
    if field.shape[0] >= _MANY_CHANNELS and not min_max and field.device.type == 'cpu':
        winner = _largest_of_many(field, stride, size, output_size, upsample, output_resize, grid)
    if winner is None:
        winner = _largest(field, stride, size, output_size, upsample, output_resize, min_max, grid)
    return resize_label_map(winner, output_size) if output_size != tuple(winner.shape) else winner


def _largest(field, stride, size, output_size, upsample, output_resize, min_max, grid) -> Tensor:
    """The number of the largest channel at pixels of the input or of the result."""
    best = winner = None
    for start, values in _at_pixels(field, stride, size, output_size, upsample, output_resize, grid):
        if min_max:
            values = stretch(values)
        highest, index = values.max(dim=0)
        if best is None:
            best, winner = highest, index
        else:
            better = highest > best
            best, winner = torch.where(better, highest, best), torch.where(better, index + start, winner)
    return winner


def _largest_of_many(field, stride, size, output_size, upsample, output_resize, grid) -> Tensor | None:
    """As `_largest` gives it without a stretch; None where channels must be upsampled whole."""
    pixels, covered, upsample = _places(field, stride, size, output_size, upsample, output_resize, grid)
    if upsample == 'exact' or (pixels != output_size and output_resize == 'field'):
        return None
    low, high = field.aminmax()
    if not (low >= 0 and high.isfinite()):
        return None
    cells = [
        [_nearest_cell(p, n, all_pixels, upsample) for p in range(wanted)]
        for n, all_pixels, wanted in zip(field.shape[1:], covered, pixels, strict=True)
    ]
    return largest_channel(
        field,
        lambda own: upsample_field(own, covered, stride, upsample)[:, : pixels[0], : pixels[1]],
        *cells,
        planes_at_once=max(1, DECODE_ELEMENTS // (covered[0] * covered[1])),
    )


def _nearest_cell(pixel: int, cells: int, pixels: int, upsample: str) -> int:
    """The cell next to a pixel along one axis, where `pixels` are upsampled from `cells`."""
    if upsample == 'corners':
        return int(pixel * (cells - 1) / max(1, pixels - 1) + 0.5)
    place = pixel if upsample == 'nearest' else pixel + 0.5
    return min(int(place * cells / pixels), cells - 1)


def winner_scores(
    field: Tensor,
    winner: Tensor,
    stride: int,
    size: tuple[int, int],
    output_size: tuple[int, int],
    upsample: Literal['mast', 'exact', 'nearest'] = 'mast',
    output_resize: Literal['field', 'labels'] = 'field',
    min_max: bool = False,
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks',
) -> dict[int, float]:
    """How sure the field is of each channel: the mean of its share in all channels, over the pixels that it has.

    Args:
        field: (K, h, w), 0 or more.
        winner: (H, W) long of `output_size`, the number of the channel that has each pixel.
        stride, size, output_size, upsample, output_resize, grid: As in `decode_field`.
        min_max: Means nothing here: shares are those before the stretch.

    Returns:
        Channel -> 0..1, for the channels that have a pixel.
    """
    total = own = None
    for start, values in _at_pixels(field, stride, size, output_size, upsample, output_resize, grid):
        if tuple(values.shape[1:]) != output_size:  # nearest neighbour: the pixels that the label map shows
            values = resize_label_map(values, output_size)
        inside = (winner >= start) & (winner < start + values.shape[0])
        picked = values.gather(0, (winner - start).clamp(0, values.shape[0] - 1)[None])[0] * inside
        total = values.sum(dim=0) if total is None else total + values.sum(dim=0)
        own = picked if own is None else own + picked
    share = (own.double() / total.double().clamp_min(1e-12)).clamp_(0, 1).flatten()
    sums = share.new_zeros(field.shape[0]).scatter_add_(0, winner.flatten(), share)
    counts = torch.bincount(winner.flatten(), minlength=field.shape[0])
    return {k: float(sums[k] / counts[k]) for k in counts.nonzero().flatten().tolist()}


def _at_pixels(
    field: Tensor, stride: int, size: tuple, output_size: tuple, upsample: str, output_resize: str, grid: str
) -> Iterator[tuple[int, Tensor]]:
    """A few channels of the field at a time at pixels of the input or of the result, and the number of the first."""
    pixels, covered, upsample = _places(field, stride, size, output_size, upsample, output_resize, grid)
    step = max(1, DECODE_ELEMENTS // (covered[0] * covered[1]))
    for start in range(0, field.shape[0], step):
        values = upsample_field(field[start : start + step], covered, stride, upsample)[
            :, : pixels[0], : pixels[1]
        ]
        if pixels != output_size and output_resize == 'field':
            values = F.interpolate(values[None], size=output_size, mode='bilinear', align_corners=False)[0]
        yield start, values


def _places(
    field: Tensor, stride: int, size: tuple, output_size: tuple, upsample: str, output_resize: str, grid: str
) -> tuple[tuple[int, int], tuple[int, int], str]:
    """The pixels at which channels are compared, or from which they are resized; the pixels that the cells cover; and
    how to upsample to those."""
    if grid == 'corners':
        upsample = 'corners'
    pixels = size
    covered = (field.shape[1] * stride, field.shape[2] * stride)
    if grid != 'blocks':
        pixels = covered = output_size if output_resize == 'field' else size
    elif output_size != size and output_resize == 'field' and upsample != 'exact':
        covered = tuple(round(c * out / own) for c, out, own in zip(covered, output_size, size, strict=True))
        pixels = output_size
    return pixels, covered, upsample


def stretch(field: Tensor) -> Tensor:
    """Stretch each channel of (K, H, W) to 0..1; a channel without a positive value becomes 0."""
    low, high = field.amin(dim=(1, 2), keepdim=True), field.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > 0, (field - low) / (high - low).clamp_min(1e-12), torch.zeros_like(field))


def _pad(channels: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Background on the right and below, up to the pixels that the cells cover."""
    height, width = channels.shape
    return F.pad(channels, [0, size[1] * stride - width, 0, size[0] * stride - height])


def _grow(field: Tensor, channels: int) -> Tensor:
    return field if field.shape[0] == channels else F.pad(field, [0, 0, 0, 0, 0, channels - field.shape[0]])


def _text(size: Sequence[int]) -> str:
    return 'x'.join(str(value) for value in size)
