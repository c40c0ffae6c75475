"""Every choice of a propagation protocol, as frozen and checked values."""

import math
from dataclasses import dataclass
from typing import Literal

from mmliir.ops.window_topk_attend import MixturePrior

__all__ = ['InputSettings', 'LongRangeSearch', 'MixturePrior', 'PointSettings', 'PropagationSettings']

_CHOICES = {
    'shape': ('square', 'circle', 'disc'),
    'topk_ties': ('keep', 'share'),
    'topk_scope': ('joint', 'per_reference'),
    'normalise': ('softmax', 'softmax_then_topk'),
    'border': ('mask', 'zero_logit'),
    'carry': ('hard', 'soft'),
    'encoding': ('subsample', 'nearest', 'bilinear'),
    'grid': ('blocks', 'frame', 'corners'),
    'upsample': ('mast', 'exact', 'nearest'),
    'output_resize': ('field', 'labels'),
}


@dataclass(frozen=True)
class LongRangeSearch:
    """Search references that are far away in time in two steps (MAST; liir.md section 6.2).

    First a soft-max over a wide window of every d-th cell says how far each cell has moved, on the mean; then the
    plain window is laid around that place, between the cells. Both steps treat cells outside the frame as
    `PropagationSettings.border` says, and the first divides by the same temperature.

    Attributes:
        min_distance: References more than this many frames before the frame are searched in two steps.
        max_dilation: Largest d; a reference D frames before has d = min(max_dilation, D // min_distance + 1).
        coarse_radius: Radius of the wide window in steps of d cells: it reaches d * coarse_radius cells.
        labels_from_last: Read the labels of all such references where the latest of them is searched, while each
            is compared in its own place: a mistake in the released MAST, kept for parity.
        align_corners_mismatch: Sample such references a little beside the place that was found, at
            p * w / (w - 1) - 0.5 in place of p along each axis: a mistake of the released MAST on torch 1.3 and
            later, kept for parity. See `mmliir.ops.window_topk_attend`; needs `border='zero_logit'`.
    """

    min_distance: int = 15
    max_dilation: int = 4
    coarse_radius: int = 12
    labels_from_last: bool = False
    align_corners_mismatch: bool = False

    def __post_init__(self) -> None:
        for name, unit in (('min_distance', 'frames'), ('max_dilation', 'cells'), ('coarse_radius', 'steps')):
            value = getattr(self, name)
            if not _is_int(value) or value < 1:
                raise ValueError(f'{name} must be a whole number of {unit}, 1 or more, got {value!r}')
        for name in ('labels_from_last', 'align_corners_mismatch'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} must be True or False, got {getattr(self, name)!r}')

    def dilation(self, distance: int) -> int | None:
        """Cells between neighbours of the wide window for a reference this many frames before; None: one step."""
        if distance <= self.min_distance:
            return None
        return min(self.max_dilation, distance // self.min_distance + 1)


@dataclass(frozen=True)
class PropagationSettings:
    """How labels go from reference frames to the next frame.

    Attributes:
        permanent: Absolute numbers of the frames that stay references for the whole video, counted from the
            first labelled frame, which is 0.
        gaps: Distances to the recent reference frames. (1, 3, 5) are t-1, t-3 and t-5; `tuple(range(1, 21))`
            are the 20 last frames.
        fill_with_first: Before enough frames have passed, repeat frame 0 in place of the missing ones (CRW).
        permanent_again: A permanent frame that is also a recent one is a reference twice (VFS, FGVC): its cells
            compete twice for the places of the top k. Under `fill_with_first` it always is.
        keep_late_frames: A later frame with given labels becomes a permanent reference too (YouTube-VOS).
        radius: Window radius in cells; None compares with the whole frame.
        shape: 'square', 'circle' for the cells nearer than the radius, 'disc' for those up to it (DINOv3).
        window_on_permanent: False compares with the whole of a permanent reference, without a window (CRW).
        long_range: Search references far away in time in two steps, coarse and wide, then fine (MAST); None uses the
            plain window on them too.
        topk: Keep the k most similar reference cells; None keeps all.
        topk_ties: Cells that tie with the k-th: 'keep' keeps them all (DINO, UVC), 'share' lets them share the places
            that are left, which for a frame that is a reference several times equals keeping exactly k (CRW, VFS).
        topk_scope: 'joint' over all references, or 'per_reference', whose read-outs are averaged (UVC).
        normalise: 'softmax' over the kept cells, or 'softmax_then_topk' (UVC).
        temperature: Divides the similarities; 'sqrt_channels' is the square root of the number of feature
            channels.
        l2_normalise: Compare features of unit length (cosine similarity).
        border: Window cells outside the frame: 'mask' leaves them out, 'zero_logit' gives them logit 0 and no
            label.
        prior: Replace affinities by fitted Gaussian mixtures (LIIR); None is off.
        carry: 'hard' carries the arg-max at pixels on, 'soft' the label field on cells.
        encoding: Label map to cells. 'subsample' takes pixel (stride * y, stride * x), 'nearest' the pixel at
            the centre of the cell's block, 'bilinear' interpolates each object's mask.
        grid: Where the cells lie on a frame whose sides are no multiples of the stride. 'blocks': each covers
            stride x stride pixels of the input, and the last ones reach over its edge (LIIR, which pads). 'frame': they
            are spread over the frame, whatever its size; labels that are resized go from their own size to the cells
            and from the cells to theirs at once (MAST, CRW, VFS, DINO, UVC). 'corners': likewise, with the outermost
            cells on the outermost pixels (HVC).
        upsample: Cells to pixels, bilinearly. 'mast' puts cell i on pixel `stride*i + (stride-1)/2`, 'exact'
            on `stride*i`; see `mmliir.ops.upsample_field`. 'nearest' gives each pixel its cell (DINOv3).
        output_resize: Where the result has another size than the encoder's input: 'field' upsamples the field
            to the size of the result before the arg-max, 'labels' resizes the arg-max by nearest neighbour
            (DINO).
        min_max: Stretch each object's channel to 0..1 before the arg-max.
        fg_gain: Factor on all channels but the background when they are read out (1.05 in the recipe of
            LIIR_pytorch).
    """

    permanent: tuple[int, ...] = (0, 5)
    gaps: tuple[int, ...] = (1, 3, 5)
    fill_with_first: bool = False
    permanent_again: bool = False
    keep_late_frames: bool = True
    radius: int | None = 12
    shape: Literal['square', 'circle', 'disc'] = 'square'
    window_on_permanent: bool = True
    long_range: LongRangeSearch | None = None
    topk: int | None = None
    topk_ties: Literal['keep', 'share'] = 'keep'
    topk_scope: Literal['joint', 'per_reference'] = 'joint'
    normalise: Literal['softmax', 'softmax_then_topk'] = 'softmax'
    temperature: float | Literal['sqrt_channels'] = 'sqrt_channels'
    l2_normalise: bool = False
    border: Literal['mask', 'zero_logit'] = 'mask'
    prior: MixturePrior | None = None
    carry: Literal['hard', 'soft'] = 'hard'
    encoding: Literal['subsample', 'nearest', 'bilinear'] = 'subsample'
    grid: Literal['blocks', 'frame', 'corners'] = 'blocks'
    upsample: Literal['mast', 'exact', 'nearest'] = 'mast'
    output_resize: Literal['field', 'labels'] = 'field'
    min_max: bool = False
    fg_gain: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} must be one of {", ".join(allowed)}, got {getattr(self, name)!r}')
        for name, least in (('permanent', 0), ('gaps', 1)):
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name), least))
        if not self.gaps and 0 not in self.permanent:
            raise ValueError(
                'there would be no reference at all: put 0 into permanent or give at least one gap'
            )
        if 1 not in self.gaps and 0 not in self.permanent:
            raise ValueError(
                f'frame 1 would have no reference with permanent={self.permanent} and gaps={self.gaps}'
            )
        if self.radius is not None and (not _is_int(self.radius) or self.radius < 0):
            raise ValueError(
                f'radius must be a whole number of cells, 0 or more, or None, got {self.radius!r}'
            )
        if self.topk is not None and (not _is_int(self.topk) or self.topk < 1):
            raise ValueError(f'topk must be a whole number, 1 or more, or None for all, got {self.topk!r}')
        if self.temperature != 'sqrt_channels' and not _is_positive(self.temperature):
            raise ValueError(
                f"temperature must be a number above 0 or 'sqrt_channels', got {self.temperature!r}"
            )
        if self.grid != 'blocks' and self.upsample == 'exact':
            raise ValueError(
                "upsample='exact' puts cells on every stride-th pixel, grid="
                f"{self.grid!r} elsewhere: give grid='blocks'"
            )
        if self.grid == 'corners' and (self.encoding, self.upsample) != ('bilinear', 'mast'):
            raise ValueError(
                "grid='corners' is a way to interpolate: give encoding='bilinear' and upsample='mast', got "
                f'{self.encoding!r} and {self.upsample!r}'
            )
        if not _is_positive(self.fg_gain):
            raise ValueError(f'fg_gain must be a number above 0, got {self.fg_gain!r}')
        if self.prior is not None and not isinstance(self.prior, MixturePrior):
            raise ValueError(f'prior must be a MixturePrior or None, got {self.prior!r}')
        if self.prior is not None and (self.radius is None or not self.window_on_permanent):
            raise ValueError(
                'a prior needs a window on every reference: give a radius and window_on_permanent=True'
            )

        if self.long_range is not None and not isinstance(self.long_range, LongRangeSearch):
            raise ValueError(f'long_range must be a LongRangeSearch or None, got {self.long_range!r}')
        if self.long_range is not None and (self.radius is None or not self.window_on_permanent):
            raise ValueError(
                'long_range moves the window of a reference and needs one on every reference: give a radius and '
                'window_on_permanent=True, or long_range=None'
            )
        if self.long_range is not None and self.long_range.align_corners_mismatch and self.border != 'zero_logit':
            raise ValueError(
                "align_corners_mismatch is the mistake of a program that pads with zeros: give border='zero_logit', "
                f'got {self.border!r}, or switch it off'
            )

    def resolve_temperature(self, channels: int) -> float:
        """The temperature for features of this many channels."""
        return math.sqrt(channels) if self.temperature == 'sqrt_channels' else float(self.temperature)


@dataclass(frozen=True)
class PointSettings:
    """How points become a label field, and how a label field becomes points.

    A point is a Gaussian of height 1 in a channel of its own.

    Attributes:
        sigma: Width of the Gaussian, in the pixels of `drawn_at`.
        drawn_at: Where the Gaussian is drawn: 'frame' in pixels of the frame as it is stored (VFS, Spa-then-Temp: 4),
            'input' in pixels of the encoder's input (FGVC on TAP-Vid: 6), 'cells' on the cells (CRW and UVC: 0.5).
        draw: 'exact' centres the Gaussian on the point itself and lets it fade out (FGVC); 'stamp' is the painter of
            VFS, UVC and CRW, a square of 6 sigma + 1 whole pixels around a whole pixel: up to one pixel to the left of
            the point and above it where 3 sigma is whole, else at the nearest one.
        reduce: A drawn map to cells: 'resize' bilinearly (VFS), 'subsample' takes pixel (stride * y, stride * x)
            (FGVC). Means nothing for 'cells'.
        background: A channel more, 1 where no point is (UVC).
        min_max: Stretch each channel to 0..1 before it is read (UVC).
        decoded_at: Where the place is read: 'frame', 'input' or 'cells', after bilinear upsampling to it.
        decode_topk: The place is the mean of this many highest values' places, weighted by the values.
        unbias: Take back the shift of (stride - 1) / 2 pixels that 'subsample' and centred upsampling make together.
        visible_above: A point counts as visible where its confidence (see `PointCodec`) is this or more. No source says
            when; the default was chosen on generated scenes with occlusions.
    """

    sigma: float = 4.0
    drawn_at: Literal['frame', 'input', 'cells'] = 'frame'
    draw: Literal['exact', 'stamp'] = 'exact'
    reduce: Literal['resize', 'subsample'] = 'resize'
    background: bool = False
    min_max: bool = False
    decoded_at: Literal['frame', 'input', 'cells'] = 'frame'
    decode_topk: int = 5
    unbias: bool = False
    visible_above: float = 0.1

    def __post_init__(self) -> None:
        for name, allowed in (
            ('drawn_at', ('frame', 'input', 'cells')),
            ('draw', ('exact', 'stamp')),
            ('reduce', ('resize', 'subsample')),
            ('decoded_at', ('frame', 'input', 'cells')),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} must be one of {", ".join(allowed)}, got {getattr(self, name)!r}')
        if not _is_positive(self.sigma):
            raise ValueError(f'sigma must be a number of pixels above 0, got {self.sigma!r}')
        if not _is_int(self.decode_topk) or self.decode_topk < 1:
            raise ValueError(f'decode_topk must be a whole number, 1 or more, got {self.decode_topk!r}')
        if not isinstance(self.visible_above, int | float) or not 0 <= self.visible_above <= 1:
            raise ValueError(f'visible_above must be a number from 0 to 1, got {self.visible_above!r}')
        for name in ('background', 'min_max', 'unbias'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} must be True or False, got {getattr(self, name)!r}')


@dataclass(frozen=True)
class InputSettings:
    """The size at which frames enter the encoder. Results come back at the frame's own size.

    Attributes:
        short_side: Resize so that the shorter side has this many pixels, ratio kept; None keeps the native
            size.
        size: (H, W) to resize to, whatever the ratio; excludes `short_side`.
        multiple_of: The sides become multiples of this, in pixels; 1 leaves them alone.
        fit: How. 'pad' adds grey pixels on the right and below, and their cells count like others (LIIR:
            zeros after normalisation, Lab (50, 0, 0); here RGB 119, which is that grey up to rounding).
            'floor_long_side' shrinks the longer side to the next smaller multiple (DINO), 'ceil' enlarges both sides to
            the next larger one (DINOv3); both change the ratio a little.
        resize: By which filter. 'averaged' is bilinear and averages over the pixels where it shrinks, as PIL does;
            'opencv' is `cv2.resize` of the 8-bit frame, bilinear without averaging, to the grey level.
    """

    short_side: int | None = None
    size: tuple[int, int] | None = None
    multiple_of: int = 1
    fit: Literal['pad', 'floor_long_side', 'ceil'] = 'pad'
    resize: Literal['averaged', 'opencv'] = 'averaged'

    def __post_init__(self) -> None:
        if self.resize not in ('averaged', 'opencv'):
            raise ValueError(f'resize must be averaged or opencv, got {self.resize!r}')
        if self.fit not in ('pad', 'floor_long_side', 'ceil'):
            raise ValueError(f'fit must be one of pad, floor_long_side, ceil, got {self.fit!r}')
        if self.size is not None and self.short_side is not None:
            raise ValueError('give short_side or size, not both')
        if self.size is not None:
            object.__setattr__(self, 'size', _whole_numbers('size', self.size, 1))
            if len(self.size) != 2:
                raise ValueError(f'size must be (H, W), got {self.size!r}')
        for name in ('short_side', 'multiple_of'):
            value = getattr(self, name)
            if (value is not None or name == 'multiple_of') and (not _is_int(value) or value < 1):
                raise ValueError(f'{name} must be a whole number of pixels, 1 or more, got {value!r}')

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of an (H, W) frame after resizing, before padding."""
        given = (height, width)
        if self.size is not None:
            height, width = self.size
        elif self.short_side is not None:
            scale = self.short_side / min(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        unit = self.multiple_of
        if self.fit == 'ceil':
            if self.size is None and self.short_side is not None:
                short = -(-self.short_side // unit) * unit
                height, width = (-(-side * short // min(given)) for side in given)
            return -(-height // unit) * unit, -(-width // unit) * unit
        if self.fit == 'floor_long_side':
            if self.size is None and self.short_side is not None:
                # of the exact ratio: a side of 831.6 pixels becomes 768, and not 832
                long = self.short_side * max(given) // min(given)
                height, width = (long, self.short_side) if given[0] > given[1] else (self.short_side, long)
            if width >= height:
                width = max(unit, width // unit * unit)
            else:
                height = max(unit, height // unit * unit)
        return height, width

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size of a resized (H, W) frame after padding: what the encoder sees."""
        if self.fit != 'pad':
            return height, width
        unit = self.multiple_of
        return -(-height // unit) * unit, -(-width // unit) * unit


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )


def _whole_numbers(name: str, values: object, least: int) -> tuple[int, ...]:
    if isinstance(values, str) or not hasattr(values, '__iter__'):
        raise ValueError(f'{name} must be a sequence of whole numbers, got {values!r}')
    values = tuple(values)
    for value in values:
        if not _is_int(value) or value < least:
            raise ValueError(f'{name} must hold whole numbers, {least} or more, got {value!r} in {values!r}')
    if name != 'size' and len(set(values)) != len(values):
        raise ValueError(f'{name} holds a number twice: {values!r}')
    return values
