"""Share the sequences of a benchmark out over the processes of a run."""

import datetime
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

# A rank may wait for the longest sequence of another; only a run that lasts longer than this gives up.
_PATIENCE = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Shard:
    """One process of a run.

    Attributes:
        rank: Its number, from 0.
        ranks: Processes in all.
    """

    rank: int = 0
    ranks: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process scores, prints and writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.ranks > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Each process's value, in order of ranks."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value)
        return values

    def mine(self, sizes: Sequence[int]) -> list[int]:
        """Numbers of the items of this process, so that all have about the same work.

        The largest item that is left goes to the process with the least so far; every process finds the same shares.

        Args:
            sizes: Work of each item, for example its frames.
        """
        loads, owners = [0] * self.ranks, {}
        for number in sorted(range(len(sizes)), key=lambda n: (-sizes[n], n)):
            owner = loads.index(min(loads))
            owners[number] = owner
            loads[owner] += sizes[number]
        return [number for number in range(len(sizes)) if owners[number] == self.rank]


#: A run of one process.
ALONE = Shard()


def current_shard(launcher: str = 'pytorch') -> Shard:
    """This process among those of its run; without a launcher, the only one.

    Joins the process group (gloo: files are shared, no tensor of a model is) unless that is done.

    Args:
        launcher: 'none'; 'pytorch': `torchrun` has set RANK and WORLD_SIZE, and where it has not, the process is alone;
            'slurm': `srun` has set SLURM_PROCID and SLURM_NTASKS; MASTER_ADDR and MASTER_PORT are taken from the
            job where they are not set.
    """
    if launcher == 'none':
        return ALONE
    if dist.is_available() and dist.is_initialized():
        return Shard(dist.get_rank(), dist.get_world_size())
    if launcher == 'slurm':
        _take_over_slurm()
    ranks = int(os.environ.get('WORLD_SIZE', '1'))
    if ranks == 1:
        return ALONE
    dist.init_process_group('gloo', timeout=_PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count())
    return Shard(dist.get_rank(), ranks)


def _take_over_slurm() -> None:
    """Put what Slurm says of this process where PyTorch looks for it."""
    names = {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'}
    absent = [theirs for theirs in names.values() if theirs not in os.environ]
    if absent:
        raise ValueError(f'launcher slurm: {", ".join(absent)} not set; start it with srun, see tools/slurm_test.sh')
    for ours, theirs in names.items():
        os.environ[ours] = os.environ[theirs]
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ['SLURM_NODELIST']
        listed = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
        os.environ['MASTER_ADDR'] = listed.stdout.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
