"""Work that is spread over processes and comes back in order."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Progress = Callable[[int, int], None]
Item = TypeVar('Item')
Result = TypeVar('Result')


@contextlib.contextmanager
def in_order(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int, items_a_message: int = 8
) -> Iterator[Iterator[Result]]:
    """Give `work(item)` for each item, in order, computed by `jobs` processes (by this one alone when it is 1).

    Args:
        work: A function that can be pickled, whose result depends on the item alone.
        items: Small things: they travel to the processes.
        jobs: Processes; never more than items.
        items_a_message: How many travel at a time: 1 where an item is a second's work.

    Raises:
        ValueError: A process died; or what `work` raises, at the item it belongs to.
    """
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, got {jobs}.')
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield map(work, items)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=_context())
    try:
        yield _results(pool, work, items, items_a_message)
    finally:
        pool.shutdown(cancel_futures=True)


def counted(results: Iterator[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    """Pass results on and report (done, total) after each."""
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result


def _results(pool: ProcessPoolExecutor, work, items, items_a_message: int) -> Iterator:
    try:
        yield from pool.map(work, items, chunksize=items_a_message)
    except BrokenProcessPool as error:
        raise ValueError(
            f'a scoring process ended before its work was done ({error}): out of memory? Score with --jobs 1.'
        ) from error


def _context() -> multiprocessing.context.BaseContext:
    """Fork where the system can, as PyTorch's data loaders do: a new interpreter would import for seconds first."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context('fork' if 'fork' in methods else None)
