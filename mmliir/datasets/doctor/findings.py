"""What a look at a data set gives: findings, and what can be evaluated all the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmliir.utils.files import shown_path

Level = Literal['ok', 'note', 'problem']
Progress = Callable[[int, int], None]
#: Examples that a finding names.
MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
        level: 'problem': sequences are lost, or a score would be wrong. 'note': good to know, harmless. 'ok'.
        text: What, and what to do.
        count: How many files or sequences it is about; 0 where it is about the data set.
        examples: The first few of them, paths below the folder of the data set where they are files.
    """

    level: Level
    text: str
    count: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ', ...' if self.count > len(self.examples) else ''
        shown = f': {", ".join(self.examples)}{more}' if self.examples else ''
        return f'{self.text}{f" ({self.count})" if self.count > 1 else ""}{shown}'


@dataclass(frozen=True)
class Evaluable:
    """What a benchmark can be evaluated on.

    Attributes:
        benchmark: As `mmliir eval --on` knows it; of training videos their folder.
        usable: Sequences that are whole.
        listed: Sequences that the data set's own list names, usable or not.
        published: Sequences that published scores are means over; None where there is no such number.
        unit: What the sequences are called.
    """

    benchmark: str
    usable: tuple[str, ...]
    listed: int
    published: int | None
    unit: str = 'sequences'

    @property
    def is_complete(self) -> bool:
        return len(self.usable) == self.listed > 0 and self.published in (None, len(self.usable))

    def __str__(self) -> str:
        count = len(self.usable)
        if self.published is None:
            return f'{self.benchmark}: {count:,} of {self.listed:,} {self.unit}'
        rest = '' if self.listed == self.published else f'; the list has {self.listed:,}'
        return f'{self.benchmark}: {count:,} of the {self.published:,} published {self.unit}{rest}'


@dataclass(frozen=True)
class Diagnosis:
    """The state of a data set.

    Attributes:
        name: As in the catalog.
        title: For people.
        folder: Where it was looked at.
        findings: Problems first.
        evaluable: A row a benchmark.
        training: A row a set of videos to train on.
    """

    name: str
    title: str
    folder: Path
    findings: tuple[Finding, ...]
    evaluable: tuple[Evaluable, ...]
    training: tuple[Evaluable, ...] = ()

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == 'problem')

    @property
    def state(self) -> Literal['complete', 'usable', 'unusable']:
        """'complete': no problem, every published sequence there. 'usable': something can be evaluated or learnt."""
        rows = (*self.evaluable, *self.training)
        if not any(row.usable for row in rows):
            return 'unusable'
        whole = not self.problems and all(row.is_complete for row in rows)
        return 'complete' if whole else 'usable'

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            'name': self.name,
            'folder': str(self.folder),
            'state': self.state,
            'benchmarks': {
                row.benchmark: {
                    'usable': list(row.usable),
                    'num_usable': len(row.usable),
                    'num_listed': row.listed,
                    'num_published': row.published,
                }
                for row in self.evaluable
            },
            'training': {
                row.benchmark: {'num_usable': len(row.usable), 'num_published': row.published} for row in self.training
            },
            'findings': [
                {
                    'level': finding.level,
                    'text': finding.text,
                    'count': finding.count,
                    'examples': list(finding.examples),
                }
                for finding in self.findings
            ],
        }


class Notebook:
    """Findings as they are made; those of the same level and text become one.

    Args:
        folder: Of the data set; paths are written below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[tuple[Level, str], list[str]] = {}

    def add(self, level: Level, text: str, about: str | Path | Sequence[str | Path] = ()) -> None:
        """Note something, about one file or sequence, several, or (nothing given) the data set."""
        about = [about] if isinstance(about, (str, Path)) else list(about)
        self._found.setdefault((level, text), []).extend(map(self.shown, about))

    def shown(self, what: str | Path) -> str:
        """A path as people read it: below the folder of the data set, bytes that are no UTF-8 as `\\xNN`."""
        if isinstance(what, str):
            return shown_path(what)
        try:
            return shown_path(what.relative_to(self.folder).as_posix() or '.')
        except ValueError:
            return shown_path(what.as_posix())

    def findings(self) -> tuple[Finding, ...]:
        """All, problems first, else in the order in which they were made."""
        order = {'problem': 0, 'note': 1, 'ok': 2}
        found = [
            Finding(level, text, len(names), tuple(names[:MOST_EXAMPLES]))
            for (level, text), names in self._found.items()
        ]
        return tuple(sorted(found, key=lambda finding: order[finding.level]))


def evaluable_rows(
    usable: Mapping[str, Sequence[str]], listed: Mapping[str, int], published: Mapping[str, int | None]
) -> tuple[Evaluable, ...]:
    """Return a row for each benchmark of `published`; what `usable` and `listed` do not name has none."""
    return tuple(
        Evaluable(name, tuple(usable.get(name, ())), listed.get(name, 0), number) for name, number in published.items()
    )
