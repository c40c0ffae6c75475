"""What the benchmarks of annotated joints share: some images of a folder as frames."""

from collections.abc import Sequence
from pathlib import Path

from mmliir.datasets.frames import FrameFolder


class FrameFiles(FrameFolder):
    """Some images of one folder, in the order given.

    Args:
        paths: T image files, T >= 1, all of one size.

    Attributes:
        name, paths, frame_names, frame_size: As of a `FrameFolder`.

    Raises:
        ValueError: No path.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise ValueError('frames: expected at least one image file, came none.')
        super().__init__(paths[0].parent)
        self.paths = list(paths)
