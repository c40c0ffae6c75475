"""Label propagation one frame at a time, in bounded memory.

Shape letters: C channels, R references, K label channels (0 is the background), h w cells, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmliir.ops.coarse_search import coarse_search
from mmliir.ops.window_topk_attend import HardLabels, window_topk_attend
from mmliir.propagation.codecs import DECODE_ELEMENTS, LabelCodec, LabelMap, MaskCodec, PointCodec, PointPlaces
from mmliir.propagation.memory import StepSizes, choose_elements
from mmliir.propagation.references import Reference, reference_frames
from mmliir.propagation.settings import PointSettings, PropagationSettings


@dataclass(frozen=True)
class _Kept:
    """A frame that may be a reference: its feature, and its labels in the form that the codec keeps."""

    feature: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a session, checked; see `PropagationSession`."""

    size: tuple[int, int]
    output_size: tuple[int, int]
    padded_size: tuple[int, int]
    cells: tuple[int, int]


class _Session:
    """The streaming core: features and references, whatever the labels are.

    Memory: the permanent references and the last `max(settings.gaps)` frames are kept, never the whole video.

    Args:
        settings: The protocol.
        stride: Pixels of the encoder's input per cell.
        sizes: Of the frame, the input and the features.
        codec: What the labels are.
        max_elements: Bound on temporaries, see `window_topk_attend`.
        max_memory: Bound in bytes on what is kept and computed, from which `max_elements` is chosen.
    """

    def __init__(
        self,
        settings: PropagationSettings,
        stride: int,
        sizes: _Sizes,
        codec: LabelCodec,
        max_elements: int | None,
        max_memory: int | None,
    ) -> None:
        if max_elements is not None and max_memory is not None:
            raise ValueError('give max_elements or max_memory, not both: the second chooses the first')
        self.settings = settings
        self.stride = stride
        self.size, self.output_size = sizes.size, sizes.output_size
        self._padded_size, self._cells = sizes.padded_size, sizes.cells
        self._codec = codec
        self._max_elements, self._max_memory = max_elements, max_memory
        self._permanent = set(settings.permanent)
        self._reach = max(settings.gaps, default=0)
        self._kept: dict[int, _Kept] = {}
        self._frame = 0

    @property
    def num_frames(self) -> int:
        """Frames stepped so far."""
        return self._frame

    @property
    def kept_frames(self) -> tuple[int, ...]:
        """Numbers of the frames in memory, ascending; frame 0 is the first labelled one."""
        return tuple(sorted(self._kept))

    def references(self) -> tuple[Reference, ...]:
        """The references of the next frame."""
        settings = self.settings
        return reference_frames(
            self._frame, self._permanent, settings.gaps, settings.fill_with_first, settings.permanent_again
        )

    @torch.no_grad()
    def _step(self, feature: Tensor, given: Any) -> Any:
        """Label the next frame, and keep it."""
        feature = self._prepare(feature)
        if self._frame == 0:
            labelled = self._codec.begin(given, feature.device)
            self._fit_memory(feature)
        else:
            self._fit_memory(feature)
            labelled = self._codec.follow(self._attend(feature), given)
        if labelled.is_permanent:
            self._permanent.add(self._frame)
        self._keep(feature, labelled.kept)
        return labelled.output

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
        if not bool(feature.isfinite().all()):
            raise ValueError(
                f'the feature of frame {self._frame} (counted from the first labelled one) holds NaN or infinity: '
                'nothing can be compared with it. Check the model and its weights.'
            )
        return normalise_feature(feature) if self.settings.l2_normalise else feature.detach()

    def _fit_memory(self, feature: Tensor) -> None:
        """Choose `max_elements` for the labels and permanent references that there are by now."""
        if self._max_memory is None:
            return
        settings = self.settings
        wide = None if not settings.window_on_permanent else settings.radius
        permanent = len(self._permanent)
        sizes = StepSizes(
            cells=self._cells,
            channels=feature.shape[0],
            labels=min(self._codec.num_channels, self._codec.channels_at_once(permanent + len(settings.gaps))),
            kept_frames=len(self._permanent) + self._reach + 1,
            radii=(wide,) * permanent + (settings.radius,) * len(settings.gaps),
            hard=self._codec.is_hard,
            topk=settings.topk,
            fits_windows=settings.prior is not None or settings.long_range is not None,
            decoded=min(DECODE_ELEMENTS, self._codec.num_channels * self.output_size[0] * self.output_size[1]),
        )
        threads = torch.get_num_threads() if feature.device.type == 'cpu' else 1
        self._max_elements = choose_elements(sizes, self._max_memory, threads)

    def _attend(self, feature: Tensor) -> Tensor:
        """-> (K, h, w) label field of the frame."""
        settings = self.settings
        references = self.references()
        offsets, value_offsets = self._offsets(feature, references)
        keys = [self._kept[reference.frame].feature.to(feature) for reference in references]
        labels = [self._kept[reference.frame].labels for reference in references]
        channels, at_once = self._codec.num_channels, self._codec.channels_at_once(len(references))
        fields = [
            window_topk_attend(
                feature,
                keys,
                self._values(labels, start, min(start + at_once, channels), feature.device),
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
            for start in range(0, channels, at_once)
        ]
        return fields[0] if len(fields) == 1 else torch.cat(fields)

    def _values(
        self, labels: list[Tensor], start: int, stop: int, device: torch.device
    ) -> list[Tensor] | HardLabels:
        values = self._codec.values(labels, start, stop)
        return values.to(device) if isinstance(values, HardLabels) else [own.to(device) for own in values]

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

    def _keep(self, feature: Tensor, labels: Tensor) -> None:
        self._kept[self._frame] = _Kept(feature, labels)
        self._frame += 1
        for number in list(self._kept):
            if number not in self._permanent and number < self._frame - self._reach:
                del self._kept[number]


class PropagationSession(_Session):
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
        max_memory: In place of it, a bound in bytes on what is kept and computed, see `mmliir.propagation.memory`; a
            step raises ValueError with the smallest possible bound where it cannot be held.
    """

    def __init__(
        self,
        settings: PropagationSettings,
        stride: int,
        size: Sequence[int],
        output_size: Sequence[int] | None = None,
        padded_size: Sequence[int] | None = None,
        max_elements: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        sizes = _check_sizes(stride, size, output_size, padded_size)
        self._masks = MaskCodec(settings, stride, sizes.size, sizes.output_size, sizes.cells)
        super().__init__(settings, stride, sizes, self._masks, max_elements, max_memory)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids seen so far, in the order of the label channels."""
        return tuple(self._masks.ids)

    def step(self, feature: Tensor, label_map: LabelMap | None = None) -> LabelMap:
        """Label the next frame.

        Args:
            feature: (C, h, w) of any floating type, on any device.
            label_map: (H, W) uint8 of `output_size`, 0 = background; None where nothing is given. Needed at the first
                step. More than 255 ids fit in a wider integer type.

        Returns:
            (H, W) ids at `output_size`, an array or a tensor of the type of the first label map.

        Raises:
            ValueError: Sizes do not fit, the first label map is missing or holds no object.
        """
        return self._step(feature, label_map)

    @torch.no_grad()
    def object_scores(self) -> dict[int, float]:
        """How sure the last step was of each object.

        The mean, over the pixels that an id has in the label map, of its share in the label field there: its channel
        over the sum of all channels, the background among them, at the resolution of the label map and before any
        stretch (`settings.min_max`). Computed when asked for, with about the work of decoding once more.

        Returns:
            Id -> 0..1. Every id of the last label map has a score, others have none; ids that were given at that frame
            have 1. Empty before the first step.
        """
        return self._masks.object_scores()


class PointSession(_Session):
    """Steps through one video: features in, places of points out.

    The first step needs the points; their Gaussian labels are propagated as the label fields of objects are, always
    softly, whatever `settings.carry` says. What `settings` says about label maps alone means nothing here: `carry`,
    `encoding`, `upsample`, `output_resize`, `min_max`, `fg_gain`, `keep_late_frames`. A point's places do not depend on
    the other points, to the last bit on a CPU.

    Memory: as in `PropagationSession`, with (N, h, w) float32 labels a frame.

    Args:
        settings: The protocol. Permanent references count from the first step, which is frame 0.
        points: How points are drawn and read, see `PointCodec`.
        stride: Pixels of the encoder's input per cell.
        size: (H, W) of the frame at the encoder's input, in pixels, without padding.
        output_size: (H, W) of the frame, in whose pixels points come in and go out; None means `size`.
        padded_size, max_elements, max_memory: As in `PropagationSession`.
    """

    def __init__(
        self,
        settings: PropagationSettings,
        points: PointSettings,
        stride: int,
        size: Sequence[int],
        output_size: Sequence[int] | None = None,
        padded_size: Sequence[int] | None = None,
        max_elements: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        sizes = _check_sizes(stride, size, output_size, padded_size)
        codec = PointCodec(points, stride, sizes.size, sizes.output_size, sizes.cells)
        super().__init__(settings, stride, sizes, codec, max_elements, max_memory)

    def step(self, feature: Tensor, points: Tensor | np.ndarray | None = None) -> PointPlaces:
        """Find the points in the next frame.

        Args:
            feature: (C, h, w) of any floating type, on any device.
            points: (N, 2), (x, y) in pixels of the frame, at the first step; None at all others.

        Returns:
            Places and confidence, on the CPU. At the first step the points as they were given, with confidence 1; those
            that are too far outside the frame to be drawn are NaN with confidence 0, there and later.

        Raises:
            ValueError: Sizes do not fit, or points are missing at the first step, not finite, or given later.
        """
        return self._step(feature, points)


def normalise_feature(feature: Tensor) -> Tensor:
    """(C, h, w) to unit length at every cell, float64 for float64 and float32 for all others, without a gradient."""
    dtype = torch.float64 if feature.dtype == torch.float64 else torch.float32
    return F.normalize(feature.detach().to(dtype), dim=0)


def _check_sizes(stride: int, size: Sequence[int], output_size, padded_size) -> _Sizes:
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f'stride must be a whole number of pixels per cell, 1 or more, got {stride!r}')
    size = _size('size', size)
    output_size = size if output_size is None else _size('output_size', output_size)
    padded_size = size if padded_size is None else _size('padded_size', padded_size)
    if padded_size[0] < size[0] or padded_size[1] < size[1]:
        raise ValueError(f'padded_size {padded_size} is smaller than size {size}')
    return _Sizes(size, output_size, padded_size, tuple(-(-pixels // stride) for pixels in padded_size))


def _size(name: str, size: Sequence[int]) -> tuple[int, int]:
    size = tuple(int(value) for value in size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'{name} must be (H, W) in pixels, both 1 or more, got {size}')
    return size


def _text(size: Sequence[int]) -> str:
    return 'x'.join(str(value) for value in size)
