"""Work that overlaps: what is wanted next is made in threads while the caller works, in order and bounded."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')

#: Environment variable: '1' overlaps on every device, '0' on none.
OVERLAP_VARIABLE = 'MMLIIR_OVERLAP'
_END = object()


@dataclass(frozen=True)
class Overlap:
    """What of a video runs beside the caller's thread.

    Attributes:
        readers: Threads that read frames, where several can at a time, else one does; 0: the caller does.
        writers: Threads that encode files; 0: the caller does. Files take their names in the caller's thread, in order.
        ahead: Frames that are read before they are wanted, and files that wait to be written.
    """

    readers: int = 0
    writers: int = 0
    ahead: int = 0


NO_OVERLAP = Overlap()
#: At 480p a JPEG takes a thread 2.5 ms and a PNG 1.8 ms: one of each would be at its limit at 300 frames a second.
_BESIDE_A_GPU = Overlap(readers=2, writers=2, ahead=6)


def overlap_for(device: object) -> Overlap:
    """How much overlaps where this device computes: on a GPU reading and writing do, on a CPU nothing does.

    A CPU that encodes has no time to spare: threads would take it from the encoder. `MMLIIR_OVERLAP` overrules.

    Args:
        device: 'cpu', 'cuda', 'cuda:1' or a `torch.device`.

    Raises:
        ValueError: `MMLIIR_OVERLAP` is neither 0 nor 1.
    """
    asked = os.environ.get(OVERLAP_VARIABLE, '')
    if asked not in ('', '0', '1'):
        raise ValueError(f'{OVERLAP_VARIABLE} is {asked!r}: expected 0 or 1')
    wanted = str(device).startswith('cuda') if asked == '' else asked == '1'
    return _BESIDE_A_GPU if wanted else NO_OVERLAP


def map_ahead(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """`map(function, items)` with the function in threads, `ahead` items before its result is taken.

    The items are pulled in the caller's thread, the results are those of `map`, in order. An error stands where it
    would have stood: that of an item or of its result comes when all results before it have been taken. Whatever ends
    the iteration (an error, `close`, an interrupt) ends the threads: work that has begun is waited for, the rest is
    given up.

    Args:
        function: Called once an item, in any order and several at a time, `workers` at most.
        items: Pulled `ahead` further than they are taken.
        workers: Threads; 0: no threads, and nothing ahead.
        ahead: Results that wait, at most.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix='mmliir')
    try:
        for pending in ahead_of((pool.submit(function, item) for item in items), ahead):
            yield pending.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ahead_of(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, pulled from their source `count` items early; an error of the source comes at its own place."""
    source, waiting = iter(items), deque()
    while True:
        try:
            item = next(source, _END)
        except Exception:  # whatever it is: raised below, at its own place; an interruption is not held back
            while waiting:
                yield waiting.popleft()
            raise
        if item is _END:
            break
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
