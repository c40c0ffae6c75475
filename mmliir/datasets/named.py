"""The form that the data set of every benchmark shares: sequences with names, made when they are asked for."""

import difflib
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from mmliir.structures import PointSample, VideoSample

Found = TypeVar('Found')

# Bytes of a name on the usual file systems.
_LONGEST_NAME = 255


class NamedSamples(Sequence):
    """Sequences by name or number; a subclass sets `data_root` and `names`, and makes a sample.

    Attributes:
        data_root: Where the data are.
        names: Of the sequences, in order.
        broken: Those of `names` that cannot be used -> why, as far as it is known before anything is read; `sample`
            raises for them, and for what turns out while reading.
    """

    data_root: Path
    names: list[str]
    broken: Mapping[str, str] = MappingProxyType({})

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


def refuse_broken(broken: Mapping[str, str], name: str) -> None:
    """Raise `ValueError` with the reason where a sequence is among the broken ones."""
    if name in broken:
        raise ValueError(broken[name])


def sort_out(names: Iterable[str], look: Callable[[str], Found]) -> tuple[dict[str, Found], dict[str, str]]:
    """Look at each sequence; one that cannot be used does not stop the others.

    Args:
        names: Of the sequences.
        look: Name -> what is known of it; raises `ValueError` or `OSError` where it cannot be used.

    Returns:
        (name -> what `look` returned, name -> why not).

    Raises:
        ValueError, OSError: No sequence is left; the error of the first.
    """
    found: dict[str, Found] = {}
    errors: dict[str, Exception] = {}
    for name in names:
        try:
            found[name] = look(name)
        except (ValueError, OSError) as error:
            errors[name] = error
    if errors and not found:
        raise next(iter(errors.values()))
    return found, {name: str(error) for name, error in errors.items()}


def without_files(what: str, paths: Mapping[str, Path], exists: Callable[[Path], bool], where: str) -> dict[str, str]:
    """Sequence -> which file or folder it lacks.

    Args:
        what: Of which data set and kind, for the messages: 'DAVIS frames'.
        paths: Sequence -> its file or folder.
        exists: Path -> whether it is there.
        where: What lists the sequences, and what to do: the end of the messages.

    Raises:
        FileNotFoundError: None is there.
    """
    missing = {name: path for name, path in paths.items() if not exists(path)}
    if missing and len(missing) == len(paths):
        first, path = next(iter(missing.items()))
        raise FileNotFoundError(
            f'{what} not found at {path.parent} ({len(paths)} missing of {len(paths)}, the first is {first!r}): {where}'
        )
    return {name: f'{what} not found at {path}: {where}' for name, path in missing.items()}


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
