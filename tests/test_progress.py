"""Progress with the time left, on a terminal and where there is none."""

import pytest

from mmliir.utils import progress
from mmliir.utils.progress import ProgressBar


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


def test_lines_come_now_and_then_with_the_time_left(clock, capsys):
    with ProgressBar('generating', 'videos', line_interval=15) as bar:
        bar.update(0, 10)
        for done in (1, 2, 3, 4):
            clock[0] += 10
            bar.update(done, 10, name='training' if done > 2 else None, note=f'loss {done}')
    assert capsys.readouterr().err.splitlines() == [
        'generating: 2/10 videos  loss 2  1:20 left',
        'training: 4/10 videos  loss 4  1:00 left',
    ]


@pytest.mark.parametrize('shown', [False, None])
def test_what_is_not_to_be_shown_says_nothing(clock, capsys, shown):
    with ProgressBar('generating', shown=shown, line_interval=0) as bar:
        clock[0] += 100
        bar.update(1, 2)
        assert not bar.is_due()
    assert capsys.readouterr().err == ''


def test_a_run_that_goes_on_counts_its_own_pace(clock, capsys):
    with ProgressBar('training', 'steps', line_interval=5) as bar:
        bar.update(100, 200)  # done by an earlier run, in no time
        clock[0] += 50
        bar.update(150, 200)
    assert capsys.readouterr().err == 'training: 150/200 steps  0:50 left\n'
