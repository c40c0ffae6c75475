"""Which pairs of frames a training epoch consists of."""

from collections.abc import Mapping, Sequence

import numpy as np

# MAST and LIIR: gaps in native frames and how often each is drawn.
LIIR_GAPS = {2: 0.4, 5: 0.4, 8: 0.2}


def check_gaps(gaps: Mapping[int, float]) -> dict[int, float]:
    """Return the gaps with whole numbers as keys, or say what is wrong with them."""
    checked = {}
    for gap, share in gaps.items():
        if not str(gap).isdecimal() or int(gap) < 1 or not share >= 0:
            raise ValueError(f'gaps: expected {{frames >= 1: share >= 0}}, e.g. {LIIR_GAPS}, came {dict(gaps)}.')
        checked[int(gap)] = float(share)
    total = sum(checked.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(
            f'gaps: expected shares that sum to 1, came {checked}, which sum to {total:g}. A config that inherits '
            "merges its gaps into its parent's: write gaps={'_delete_': True, 2: 1.0} to replace them."
        )
    return checked


def sample_pairs(
    num_frames: Sequence[int],
    gaps: Mapping[int, float] | None = None,
    rng: np.random.Generator | None = None,
    frame_step: int = 1,
) -> np.ndarray:
    """Draw the pairs of one epoch.

    For each video a gap and a start below the gap are drawn; the frames start, start + gap, ... are cut into
    consecutive disjoint pairs; the pairs of all videos are shuffled. The reference is the earlier frame.

    Args:
        num_frames: Frames of each video. A video shorter than the gap drawn uses the largest gap it has room for;
            a video of fewer than two frames gives no pair.
        gaps: Gap in native frames -> share of the videos; None for `LIIR_GAPS`.
        rng: All randomness; None for a fixed one.
        frame_step: Native frames from one stored frame to the next (5 for YouTube-VOS at 6 fps). A gap becomes the
            largest number of stored frames that does not exceed it, at least one.

    Returns:
        (N, 3) int64: video, reference, query, the last two in stored frames. The same arguments give the same
        pairs.
    """
    rng = rng or np.random.default_rng(0)
    shares = check_gaps(gaps or LIIR_GAPS)
    drawn = rng.choice(list(shares), size=len(num_frames), p=list(shares.values()))
    offsets = rng.random(len(num_frames))
    pairs = []
    for video, (length, native_gap, offset) in enumerate(zip(num_frames, drawn, offsets, strict=True)):
        if length < 2:
            continue
        gap = min(max(1, int(native_gap) // frame_step), length - 1)
        # Low starts only, so that the whole video is used; a pair must fit behind the start.
        start = int(offset * min(gap, length - gap))
        frames = np.arange(start, length, gap)
        frames = frames[: len(frames) // 2 * 2].reshape(-1, 2)
        pairs.append(np.column_stack([np.full(len(frames), video), frames]))
    if not pairs:
        return np.empty((0, 3), dtype=np.int64)
    return rng.permutation(np.concatenate(pairs).astype(np.int64))
