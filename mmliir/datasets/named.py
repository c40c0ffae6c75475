"""The form that the data set of every benchmark shares: sequences with names, made when they are asked for."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmliir.structures import PointSample, VideoSample


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
