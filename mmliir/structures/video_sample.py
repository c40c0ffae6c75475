"""A video to propagate labels through: its frames, and the labels that are given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class FrameSequence(Protocol):
    """Frames by number, from a folder, a video file or an array.

    Frame n is the n-th decoded picture. `frames[n]` is (H, W, 3) uint8 RGB. One thread at a time reads frames, unless
    `concurrent` is there and True.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class VideoSample:
    """One sequence of a benchmark, or a user's own video.

    Attributes:
        name: Sequence name; predictions go to a folder of this name.
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB.
        frame_names: T stems; the prediction of frame n is written as `<frame_names[n]>.png`.
        given_labels: Frame number -> function that reads its label map, (H, W) uint8, 0 = background. Frame 0 (or the
            first annotated frame) is always there; later entries are objects that enter late.
        export_names: Stems of the frames whose predictions are stored, in order; None for all. YouTube-VOS is
            propagated through all frames and scored on every 5th.
        classes: Id of `given_labels` -> its class, where the benchmark stores ids that are not classes themselves (VIP
            instances); else None.
    """

    name: str
    frames: FrameSequence
    frame_names: tuple[str, ...]
    given_labels: Mapping[int, Callable[[], np.ndarray]] = field(default_factory=dict)
    export_names: tuple[str, ...] | None = None
    classes: Mapping[int, int] | None = None
