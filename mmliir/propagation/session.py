"""Label propagation one frame at a time, in bounded memory.

Shape letters: C channels, R references, K label channels (0 is the background), h w cells, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops.coarse_search import coarse_search
from mmliir.ops.resize import resize_label_map
from mmliir.ops.window_topk_attend import window_topk_attend
from mmliir.propagation.codecs import (
    decode_field,
    encode_cells,
    encode_label_map,
    object_ids,
    one_hot,
    to_channels,
    to_ids,
)
from mmliir.propagation.references import Reference, reference_frames
from mmliir.propagation.settings import PropagationSettings

LabelMap = Tensor | np.ndarray


@dataclass(frozen=True)
class _Kept:
    """A frame that may be a reference: its feature, and its labels as (h, w) channel numbers or (K, h, w)
    field."""

    feature: Tensor
    labels: Tensor


class PropagationSession:
    """Steps through one video: features in, label maps out.

    The first step needs a label map and returns it; each later step returns the labels that the reference
    frames give to the frame. A label map given at a later step is an annotation of objects that enter late:
    it overwrites the prediction where it is not 0, its new ids join the objects, and, unless
    `settings.keep_late_frames` is False, its frame becomes a permanent reference.

    Memory: the permanent references and the last `max(settings.gaps)` frames are kept, never the whole video.
    A frame is kept as its feature and either one channel number a cell (hard labels) or its label field (soft
    labels).

    Args:
        settings: The protocol.
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, in pixels, without padding.
        output_size: (H, W) of the label maps that come in and go out; None means `size`.
        padded_size: (H, W) of what the encoder saw, when the frame was padded on the right and below; None
            means `size`. Features must have ceil(H / stride) x ceil(W / stride) cells of it.
        max_elements: Bound on temporaries, see `window_topk_attend`.
    """

    def __init__(
        self,
        settings: PropagationSettings,
        stride: int,
        size: Sequence[int],
        output_size: Sequence[int] | None = None,
        padded_size: Sequence[int] | None = None,
        max_elements: int | None = None,
    ) -> None:
        if not isinstance(stride, int) or stride < 1:
            raise ValueError(f'stride must be a whole number of pixels per cell, 1 or more, got {stride!r}')
        self.settings = settings
        self.stride = stride
        self.size = _size('size', size)
        self.output_size = self.size if output_size is None else _size('output_size', output_size)
        self._padded_size = self.size if padded_size is None else _size('padded_size', padded_size)
        if self._padded_size[0] < self.size[0] or self._padded_size[1] < self.size[1]:
            raise ValueError(f'padded_size {self._padded_size} is smaller than size {self.size}')
        self._cells = tuple(-(-pixels // stride) for pixels in self._padded_size)
        self._max_elements = max_elements
        self._permanent = set(settings.permanent)
        self._reach = max(settings.gaps, default=0)
        self._ids: list[int] = []
        self._kept: dict[int, _Kept] = {}
        self._frame = 0
        self._as_numpy = False
        self._dtype = torch.uint8
        self._device = torch.device('cpu')

    @property
    def num_frames(self) -> int:
        """Frames stepped so far."""
        return self._frame

    @property
    def kept_frames(self) -> tuple[int, ...]:
        """Numbers of the frames in memory, ascending; frame 0 is the first labelled one."""
        return tuple(sorted(self._kept))

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids seen so far, in the order of the label channels."""
        return tuple(self._ids)

    def references(self) -> tuple[Reference, ...]:
        """The references of the next frame."""
        settings = self.settings
        return reference_frames(
            self._frame, self._permanent, settings.gaps, settings.fill_with_first, settings.permanent_again
        )

    @torch.no_grad()
    def step(self, feature: Tensor, label_map: LabelMap | None = None) -> LabelMap:
        """Label the next frame.

        Args:
            feature: (C, h, w) of any floating type, on any device.
            label_map: (H, W) uint8 of `output_size`, 0 = background; None where nothing is given. Needed at
            the first
                step. More than 255 ids fit in a wider integer type.

        Returns:
            (H, W) ids at `output_size`, an array or a tensor of the type of the first label map.

        Raises:
            ValueError: Sizes do not fit, the first label map is missing or holds no object.
        """
        feature = self._prepare(feature)
        given = None if label_map is None else self._read_label_map(label_map, feature.device)
        if self._frame == 0:
            output = self._first(given)
            labels = self._encode(output)
        else:
            field = self._attend(feature)
            output, labels = self._label(field, given)
        self._keep(feature, labels)
        return self._convert(output)

    def _prepare(self, feature: Tensor) -> Tensor:
        if feature.dim() != 3 or not feature.is_floating_point():
            raise ValueError(
                f'feature must be a floating (C, h, w), got {feature.dtype} {tuple(feature.shape)}'
            )
        if tuple(feature.shape[1:]) != self._cells:
            raise ValueError(
                f'a frame of {_text(self._padded_size)} pixels at stride {self.stride} has '
                f'{_text(self._cells)} cells, but the feature has {_text(feature.shape[1:])}. Check the '
                'stride and the size of the session.'
            )
        if self._kept and next(iter(self._kept.values())).feature.shape[0] != feature.shape[0]:
            channels = next(iter(self._kept.values())).feature.shape[0]
            raise ValueError(f'earlier frames had {channels} channels, this one has {feature.shape[0]}')
        feature = feature.detach()
        if self.settings.l2_normalise:
            dtype = torch.float64 if feature.dtype == torch.float64 else torch.float32
            feature = F.normalize(feature.to(dtype), dim=0)
        return feature

    def _read_label_map(self, label_map: LabelMap, device: torch.device) -> Tensor:
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
        if self._frame == 0:
            self._as_numpy = isinstance(label_map, np.ndarray)
            self._dtype, self._device = tensor.dtype, tensor.device
        elif ids.max() > torch.iinfo(self._dtype).max:
            raise ValueError(f'id {int(ids.max())} does not fit in {self._dtype}, the type of the first label map')
        return ids.to(device)

    def _first(self, given: Tensor | None) -> Tensor:
        if given is None:
            raise ValueError('the first step needs a label map: there is nothing to propagate yet')
        self._ids = object_ids(given)
        if not self._ids:
            raise ValueError('the first label map holds no object: every pixel is 0 (background)')
        return given

    def _attend(self, feature: Tensor) -> Tensor:
        """-> (K, h, w) label field of the frame."""
        settings = self.settings
        references = self.references()
        offsets, value_offsets = self._offsets(feature, references)
        values = self._values([self._kept[reference.frame].labels for reference in references])
        if settings.fg_gain != 1:
            values[:, 1:] *= settings.fg_gain
        return window_topk_attend(
            feature,
            torch.stack([self._kept[reference.frame].feature.to(feature) for reference in references]),
            values.to(feature.device),
            [
                None if reference.permanent and not settings.window_on_permanent else settings.radius
                for reference in references
            ],
            shape=settings.shape,
            temperature=settings.resolve_temperature(feature.shape[0]),
            topk=settings.topk,
            topk_ties=settings.topk_ties,
            topk_scope=settings.topk_scope,
            normalise=settings.normalise,
            border=settings.border,
            prior=settings.prior,
            offsets=offsets,
            value_offsets=value_offsets,
            align_corners_mismatch=settings.long_range is not None and settings.long_range.align_corners_mismatch,
            max_elements=self._max_elements,
        )

    def _offsets(self, feature: Tensor, references: Sequence[Reference]) -> tuple[list | None, list | None]:
        """Where the windows of far references lie: for the keys, and where it differs, for the labels."""
        settings = self.settings
        search = settings.long_range
        if search is None:
            return None, None
        found = {}
        for number in {reference.frame for reference in references}:
            dilation = search.dilation(self._frame - number)
            if dilation is not None:
                found[number] = coarse_search(
                    feature,
                    self._kept[number].feature.to(feature),
                    search.coarse_radius,
                    dilation,
                    temperature=settings.resolve_temperature(feature.shape[0]),
                    border=settings.border,
                    max_elements=self._max_elements,
                )
        offsets = [found.get(reference.frame) for reference in references]
        if not found or not search.labels_from_last:
            return offsets, None
        return offsets, [None if own is None else found[max(found)] for own in offsets]

    def _values(self, labels: list[Tensor]) -> Tensor:
        """Kept labels as (R, K, h, w); objects that a frame did not know yet have nothing in it."""
        channels = len(self._ids) + 1
        if labels[0].dim() == 2:
            return one_hot(torch.stack(labels), channels)
        return torch.stack([_grow(field, channels) for field in labels])

    def _label(self, field: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Decode the field, put a late label map over it, and encode what is carried on."""
        settings = self.settings
        winner = decode_field(
            field,
            self.stride,
            self.size,
            self.output_size,
            settings.upsample,
            settings.output_resize,
            settings.min_max,
            settings.grid,
        )
        output = to_ids(winner, self._ids, self._dtype)
        is_late = given is not None and bool((given != 0).any())
        if is_late:
            self._ids += [value for value in object_ids(given) if value not in self._ids]
            output = torch.where(given != 0, given.to(self._dtype), output)
            if settings.keep_late_frames:
                self._permanent.add(self._frame)
        if settings.carry == 'hard':
            return output, self._encode(output)
        if is_late:
            late = self._encode_soft(given)
            field = _grow(field, len(self._ids) + 1) * late[:1]
            field[1:] += late[1:]
        return output, field

    def _encode(self, label_map: Tensor) -> Tensor:
        """A label map in the form that is kept: (h, w) channel numbers or (K, h, w) field."""
        settings = self.settings
        if settings.carry == 'soft' or settings.encoding == 'bilinear':
            return self._encode_soft(label_map)
        channels = to_channels(self._at_input(label_map), self._ids)
        cells = encode_cells(channels, settings.encoding, self.stride, self._cells, settings.grid)
        return cells.to(torch.uint8 if len(self._ids) < 256 else torch.int32).clone()

    def _encode_soft(self, label_map: Tensor) -> Tensor:
        settings = self.settings
        return encode_label_map(
            self._at_input(label_map), self._ids, settings.encoding, self.stride, self._cells, grid=settings.grid
        )

    def _at_input(self, label_map: Tensor) -> Tensor:
        at_once = self.settings.grid != 'blocks' and self.settings.encoding != 'subsample'
        if at_once or tuple(label_map.shape) == self.size:
            return label_map
        return resize_label_map(label_map, self.size)

    def _keep(self, feature: Tensor, labels: Tensor) -> None:
        self._kept[self._frame] = _Kept(feature, labels)
        self._frame += 1
        for number in list(self._kept):
            if number not in self._permanent and number < self._frame - self._reach:
                del self._kept[number]

    def _convert(self, output: Tensor) -> LabelMap:
        output = output.to(self._dtype)
        return output.cpu().numpy().copy() if self._as_numpy else output.to(self._device, copy=True)


def _grow(field: Tensor, channels: int) -> Tensor:
    return field if field.shape[0] == channels else F.pad(field, [0, 0, 0, 0, 0, channels - field.shape[0]])


def _size(name: str, size: Sequence[int]) -> tuple[int, int]:
    size = tuple(int(value) for value in size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'{name} must be (H, W) in pixels, both 1 or more, got {size}')
    return size


def _text(size: Sequence[int]) -> str:
    return 'x'.join(str(value) for value in size)
