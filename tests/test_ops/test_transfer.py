"""Copies to a device that the host does not wait for."""

import torch

from mmliir.ops import to_device


class FakeTensor:
    """Notes what is asked of it."""

    def __init__(self, device='cpu', pinned=False):
        self.device, self.pinned, self.non_blocking = torch.device(device), pinned, None

    def pin_memory(self):
        return FakeTensor(self.device, pinned=True)

    def to(self, device, non_blocking=False):
        moved = FakeTensor(device, self.pinned)
        moved.non_blocking = non_blocking
        return moved


def test_to_a_gpu_it_goes_from_page_locked_memory_without_blocking():
    moved = to_device(FakeTensor(), torch.device('cuda', 0))
    assert moved.device == torch.device('cuda', 0) and moved.pinned and moved.non_blocking


def test_from_a_gpu_it_blocks_as_the_host_would_read_what_is_not_there_yet():
    moved = to_device(FakeTensor('cuda:0'), torch.device('cpu'))
    assert moved.device == torch.device('cpu') and not moved.non_blocking


def test_on_the_host_nothing_is_copied_or_pinned():
    tensor = torch.arange(4)
    assert to_device(tensor, torch.device('cpu')) is tensor
