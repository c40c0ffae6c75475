"""Where objects that were given are in no label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Absence:
    """A run of frames in which an object has no pixel, after it was given.

    Attributes:
        object_id: The object.
        first: Name of the first frame without it.
        last: Name of the last one.
        num_frames: From the one to the other.
        to_the_end: It does not come back: `last` is the last frame of the video.
    """

    object_id: int
    first: str
    last: str
    num_frames: int
    to_the_end: bool


def present_ids(label_map: np.ndarray) -> frozenset[int]:
    """The ids of an (H, W) uint8 label map, without the background."""
    return frozenset(np.flatnonzero(np.bincount(label_map.ravel(), minlength=1)).tolist()) - {0}


def find_absences(
    present: Sequence[frozenset[int]], given: Mapping[int, frozenset[int]], frame_names: Sequence[str]
) -> tuple[Absence, ...]:
    """Find the frames in which objects are lost.

    Args:
        present: The ids in each of the T label maps.
        given: Frame number -> ids that were given there.
        frame_names: T names.

    Returns:
        In order of the first frame, then of the ids.
    """
    start: dict[int, int] = {}
    for number, ids in sorted(given.items()):
        start |= {object_id: start.get(object_id, number) for object_id in ids}
    found = []
    for object_id, begin in start.items():
        seen = [number for number in range(begin, len(present)) if object_id in present[number]]
        for one, other in zip([begin - 1, *seen], [*seen, len(present)], strict=True):
            if other - one > 1:
                names = frame_names[one + 1], frame_names[other - 1]
                found.append((one, Absence(object_id, *names, other - one - 1, other == len(present))))
    return tuple(absence for _, absence in sorted(found, key=lambda pair: (pair[0], pair[1].object_id)))
