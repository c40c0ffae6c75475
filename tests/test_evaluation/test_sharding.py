"""Shares of a run's processes."""

import pytest

from mmliir.evaluation.sharding import ALONE, Shard, current_shard


@pytest.mark.parametrize('ranks', [1, 2, 3, 8])
def test_every_item_has_one_owner_and_shares_are_even(ranks):
    sizes = [50, 90, 40, 90, 90, 50, 49, 80, 43, 1]
    shares = [Shard(rank, ranks).mine(sizes) for rank in range(ranks)]
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    loads = [sum(sizes[number] for number in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes)
    assert all(share == sorted(share) for share in shares)


def test_more_processes_than_items_leave_some_without_work():
    assert [Shard(rank, 3).mine([7]) for rank in range(3)] == [[0], [], []]


def test_a_process_that_nobody_launched_is_alone(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    assert current_shard('pytorch') is ALONE and current_shard('none') is ALONE
    assert ALONE.is_main and ALONE.gather('value') == ['value']
    ALONE.wait()


def test_slurm_without_srun_says_so(monkeypatch):
    for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match='SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID not set; start it with srun'):
        current_shard('slurm')
