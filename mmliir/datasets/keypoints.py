"""What the benchmarks of annotated joints share: some images of a folder as frames, and the choice of sequences."""

import difflib
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


def choose_sequences(listed: Sequence[str], wanted: Sequence[str] | None, where: str) -> list[str]:
    """Return the wanted names in their order, or all.

    Args:
        listed: Names that there are.
        wanted: Names to keep; None for all.
        where: What lists them, for the messages.

    Raises:
        ValueError: An unknown name, one named twice, an empty list, or a string for a list.
    """
    if wanted is None:
        return list(listed)
    if isinstance(wanted, str):
        raise ValueError(f'sequences: expected a list of names, came the string {wanted!r}.')
    unknown = [name for name in wanted if name not in listed]
    if unknown:
        close = difflib.get_close_matches(unknown[0], listed, n=1)
        hint = f'; did you mean {close[0]!r}?' if close else f'; there are {len(listed)}, e.g. {listed[0]!r}'
        raise ValueError(f'sequence {unknown[0]!r} is not in {where}{hint}')
    if not wanted:
        raise ValueError('sequences: the list is empty; leave it out (None) for all.')
    if len(set(wanted)) != len(wanted):
        raise ValueError(f'sequences: {next(name for name in wanted if list(wanted).count(name) > 1)!r} stands twice.')
    return list(wanted)


def is_folder_name(name: str) -> bool:
    """Whether a name from a file can be the name of a folder, and of nothing outside it."""
    return bool(name) and name not in ('.', '..') and not set(name) & set('/\\\0')
