"""mmliir/utils/pipeline.py: what overlaps comes in order, is bounded, and fails where it would have failed."""

import threading
import time

import pytest

from mmliir.utils.pipeline import NO_OVERLAP, OVERLAP_VARIABLE, ahead_of, map_ahead, overlap_for


def _threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith('mmliir')]


def _source(count, log, fails_at=None, error=None):
    for number in range(count):
        if number == fails_at:
            raise error
        log.append(number)
        yield number


@pytest.mark.parametrize('workers,ahead', [(0, 0), (1, 1), (1, 4), (3, 5)])
def test_results_come_in_order_however_long_each_takes(workers, ahead):
    def slow_when_even(number):
        time.sleep(0.01 if number % 2 == 0 else 0.0)
        return 10 * number

    assert list(map_ahead(slow_when_even, range(12), workers, ahead)) == [10 * number for number in range(12)]
    assert not _threads()


def test_nothing_is_pulled_further_ahead_than_allowed():
    log = []
    given = map_ahead(lambda number: number, _source(20, log), 2, 3)
    for number in range(5):
        assert next(given) == number
        assert log == list(range(number + 4))  # this one and three more
    given.close()
    assert not _threads()


def test_without_workers_an_item_is_pulled_when_it_is_asked_for():
    log = []
    given = map_ahead(lambda number: number, _source(20, log), 0, 3)
    assert next(given) == 0 and log == [0]


@pytest.mark.parametrize('workers', [0, 2])
def test_an_error_of_the_source_comes_after_the_results_before_it(workers):
    error = ValueError('frame 6 is broken')
    taken = []
    with pytest.raises(ValueError, match='frame 6 is broken') as caught:
        for result in map_ahead(lambda number: number, _source(9, [], 6, error), workers, 4):
            taken.append(result)
    assert taken == list(range(6)) and caught.value is error
    assert not _threads()


@pytest.mark.parametrize('workers', [0, 2])
def test_an_error_of_the_function_comes_at_its_item_and_ends_the_rest(workers):
    def refuse_three(number):
        if number == 3:
            raise OSError('no space left')
        return number

    taken = []
    with pytest.raises(OSError, match='no space left'):
        for result in map_ahead(refuse_three, range(100), workers, 4):
            taken.append(result)
    assert taken == [0, 1, 2] and not _threads()


def test_the_earlier_of_two_errors_is_the_one_that_is_raised():
    def refuse_three(number):
        if number == 3:
            raise OSError('file 3')
        return number

    with pytest.raises(OSError, match='file 3'):
        list(map_ahead(refuse_three, _source(9, [], 5, ValueError('frame 5')), 2, 6))


@pytest.mark.parametrize('where', ['source', 'consumer'])
def test_an_interrupt_leaves_no_thread_and_gives_up_what_is_pending(where):
    done = []

    def note(number):
        time.sleep(0.02)
        done.append(number)

    source = _source(9, [], 6, KeyboardInterrupt()) if where == 'source' else range(100)

    def consume():
        for number, _ in enumerate(map_ahead(note, source, 1, 50)):
            if where == 'consumer' and number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not _threads() and len(done) < 60


def test_the_work_runs_in_other_threads_and_at_the_same_time():
    both = threading.Barrier(2, timeout=5)
    names = set()

    def meet(number):
        both.wait()
        names.add(threading.current_thread().name)

    list(map_ahead(meet, range(4), 2, 3))
    assert len(names) == 2 and threading.current_thread().name not in names


@pytest.mark.parametrize('count', [0, 1, 3, 30])
def test_items_are_pulled_ahead_and_all_given(count):
    log = []
    given = ahead_of(_source(12, log), count)
    assert next(given) == 0 and len(log) == min(12, count + 1)
    assert list(given) == list(range(1, 12))


def test_a_gpu_has_overlap_and_a_cpu_none_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv(OVERLAP_VARIABLE, raising=False)
    assert overlap_for('cpu') == NO_OVERLAP and not NO_OVERLAP.readers and not NO_OVERLAP.writers
    on_gpu = overlap_for('cuda:1')
    assert on_gpu.readers and on_gpu.writers and on_gpu.ahead >= on_gpu.writers
    monkeypatch.setenv(OVERLAP_VARIABLE, '1')
    assert overlap_for('cpu') == on_gpu
    monkeypatch.setenv(OVERLAP_VARIABLE, '0')
    assert overlap_for('cuda') == NO_OVERLAP
    monkeypatch.setenv(OVERLAP_VARIABLE, 'yes')
    with pytest.raises(ValueError, match="MMLIIR_OVERLAP is 'yes': expected 0 or 1"):
        overlap_for('cpu')
