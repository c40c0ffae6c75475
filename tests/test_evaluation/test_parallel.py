import os

import pytest

from mmliir.evaluation.metrics.parallel import in_order


def _where(number: int) -> tuple[int, int]:
    return number, os.getpid()


def _refuse(number: int) -> int:
    if number == 11:
        raise ValueError('number 11')
    return number


def _die(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def test_order_is_kept_and_the_work_is_done_elsewhere():
    with in_order(_where, range(40), 2) as results:
        results = list(results)
    assert [number for number, _ in results] == list(range(40))
    assert os.getpid() not in {process for _, process in results}
    with in_order(_where, range(3), 1) as results:
        assert list(results) == [(number, os.getpid()) for number in range(3)]


@pytest.mark.parametrize('jobs', [1, 2])
def test_an_error_arrives_as_it_was_raised(jobs):
    with pytest.raises(ValueError, match='number 11'), in_order(_refuse, range(40), jobs) as results:
        list(results)


def test_a_process_that_dies_stops_the_work():
    with pytest.raises(ValueError, match='ended before its work was done'), in_order(_die, range(40), 2) as results:
        list(results)
