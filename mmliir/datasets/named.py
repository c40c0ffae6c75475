"""The form that the data set of every benchmark shares: sequences with names, made when they are asked for."""

import difflib
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmliir.structures import PointSample, VideoSample

# Bytes of a name on the usual file systems.
_LONGEST_NAME = 255


class NamedSamples(Sequence):
    """Sequences by name or number; a subclass sets `data_root` and `names`, and makes a sample."""

    data_root: Path
    names: list[str]

    @abstractmethod
    def sample(self, name: str) -> VideoSample | PointSample:
        """Return one sequence by name. Frames and labels are read when they are asked for."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> VideoSample | PointSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f'sequence {index} of {len(self)} in {self.data_root}')
        return self.sample(self.names[index])

    def __iter__(self) -> Iterator[VideoSample | PointSample]:
        return map(self.sample, self.names)


def choose_sequences(
    listed: Sequence[str], wanted: Sequence[str] | None, where: str | os.PathLike, what: str = 'sequence'
) -> list[str]:
    """Return the wanted names in their order, or all.

    Args:
        listed: Names that there are.
        wanted: Names to keep; None for all.
        where: What lists them, for the messages.
        what: What one of them is, for the messages.

    Raises:
        ValueError: An unknown name, one named twice, an empty list, or a string for a list.
    """
    if wanted is None:
        return list(listed)
    if isinstance(wanted, str):
        raise ValueError(f'sequences: expected a list of names, came the string {wanted!r}.')
    unknown = [name for name in wanted if name not in listed]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), listed, n=1)
        hint = f'; did you mean {close[0]!r}?' if close else f'; there are {len(listed)}, e.g. {listed[0]!r}'
        raise ValueError(f'{what} {unknown[0]!r} is not in {where}{hint}')
    if not wanted:
        raise ValueError('sequences: expected a list of names, or None for all, came an empty list.')
    if len(set(wanted)) != len(wanted):
        raise ValueError(f'sequences: a name is there twice: {", ".join(wanted)}.')
    return list(wanted)


def is_folder_name(name: str) -> bool:
    """Whether a name from a file can be the name of a folder, and of nothing outside it."""
    if name in ('', '.', '..') or re.search(r'[/\\\x00-\x1f\x7f]', name):
        return False
    try:
        return len(os.fsencode(name)) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
