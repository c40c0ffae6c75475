"""A video to follow points through: its frames, and where each point is asked for."""

from dataclasses import dataclass

import numpy as np

from mmliir.structures.video_sample import FrameSequence


@dataclass(frozen=True)
class PointSample:
    """One video of a benchmark of points or keypoints.

    Attributes:
        name: Video name; predictions go to a folder of this name.
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB.
        frame_names: T stems, for people.
        queries: (N, 3) float64, (t, x, y): the frame in which each point is given, and where, in pixels of that frame;
            centres of pixels lie at integers, 0-based. All finite.
        both_ways: Follow each point to the frames before its own too (TAP-Vid `strided`); False leaves them out.
    """

    name: str
    frames: FrameSequence
    frame_names: tuple[str, ...]
    queries: np.ndarray
    both_ways: bool = False
