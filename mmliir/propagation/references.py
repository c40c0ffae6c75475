"""Which earlier frames a frame takes its labels from."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A reference frame.

    Attributes:
        frame: Its number.
        permanent: Whether it is one of the frames that are kept for the whole video.
    """

    frame: int
    permanent: bool


def reference_frames(
    frame: int,
    permanent: Iterable[int],
    gaps: Iterable[int],
    fill_with_first: bool = False,
    permanent_again: bool = False,
) -> tuple[Reference, ...]:
    """The reference frames of one frame.

    Args:
        frame: Number of the frame to be labelled; frame 0 is the first labelled one.
        permanent: Absolute numbers of frames that stay references; those not before `frame` do not count yet.
        gaps: Distances to recent frames: 1 is the frame before.
        fill_with_first: Where a gap reaches before frame 0, use frame 0 again, so that the number of
            references is the same from the start (CRW). False: leave it out.
        permanent_again: A permanent frame at the distance of a gap is there twice (VFS, FGVC), as it is under
            `fill_with_first`. False: use every frame at most once.

    Returns:
        Permanent ones first, then recent ones, each in ascending order. With (0, 5) and gaps (1, 3, 5), frame
        1 has {0}, frame 6 has {0, 5, 1, 3}, frame 20 has {0, 5, 15, 17, 19} (MAST and LIIR).
    """
    kept = sorted({number for number in permanent if 0 <= number < frame})
    recent = sorted(frame - gap for gap in gaps)
    if fill_with_first:
        recent = [max(number, 0) for number in recent]
    else:
        recent = [number for number in recent if number >= 0 and (permanent_again or number not in kept)]
    return (*(Reference(n, True) for n in kept), *(Reference(n, False) for n in recent))
