"""Is a data set whole, and what can be evaluated if it is not? See `diagnose`."""

from collections.abc import Callable
from pathlib import Path

from mmliir.datasets.catalog import CATALOG, find_data
from mmliir.datasets.doctor.findings import Diagnosis, Evaluable, Finding, Notebook, Progress, evaluable_rows
from mmliir.datasets.doctor.masks import check_davis, check_vip, check_youtube_vos
from mmliir.datasets.doctor.points import check_badja, check_jhmdb, check_tapvid

__all__ = ['Diagnosis', 'Evaluable', 'Finding', 'diagnose']

_Check = Callable[[Notebook, Path, bool, Progress], tuple[Evaluable, ...]]


def diagnose(name: str, folder: str | Path, full: bool = False, progress: Progress | None = None) -> Diagnosis:
    """Look at a data set; nothing in it is changed or executed, and no fault in it ends the look.

    Args:
        name: Of the data set, a key of `CATALOG`.
        folder: Of the data set, or one that holds it under a usual name (`find_data`).
        full: Decode every image. Otherwise the header of every image is read, and the first and the last image of
            every sequence are decoded.
        progress: Called with (done, total) sequences.

    Returns:
        What was found. Folders that cannot be read, links in a circle and the like are findings.

    Raises:
        ValueError: No data set of this name.
        FileNotFoundError: The data set is not in the folder.
    """
    if name not in CATALOG:
        raise ValueError(f'unknown data set {name!r}; there are {", ".join(CATALOG)}')
    found = find_data(name, folder)
    book = Notebook(found)
    try:
        rows = _CHECKS[name](book, found, full, progress or (lambda done, total: None))
    except OSError as error:
        book.add('problem', f'the look ended early: {error}')
        rows = evaluable_rows({}, {}, CATALOG[name].benchmarks)
    evaluable = tuple(row for row in rows if row.benchmark in CATALOG[name].benchmarks)
    training = tuple(row for row in rows if row not in evaluable)
    return Diagnosis(name, CATALOG[name].title, found, book.findings(), evaluable, training)


def _davis(year: int) -> _Check:
    return lambda book, folder, full, progress: check_davis(book, folder, year, full, progress)


def _youtube_vos(year: int) -> _Check:
    return lambda book, folder, full, progress: check_youtube_vos(book, folder, year, full, progress)


def _tapvid(name: str) -> _Check:
    return lambda book, folder, full, progress: check_tapvid(book, folder, name, full, progress)


_CHECKS: dict[str, _Check] = {
    'davis2016': _davis(2016),
    'davis2017': _davis(2017),
    'youtube_vos2018': _youtube_vos(2018),
    'youtube_vos2019': _youtube_vos(2019),
    'vip': check_vip,
    'jhmdb': check_jhmdb,
    'badja': check_badja,
    **{name: _tapvid(name) for name in ('tapvid_davis', 'tapvid_rgb_stacking', 'tapvid_kinetics', 'robotap')},
}
