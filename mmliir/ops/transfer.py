"""From host to device without waiting."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, while the host goes on.

    A plain `.to(device)` waits until a GPU has finished all that was asked of it before. The copy is from page-locked
    memory, which PyTorch's allocator keeps until it is done.

    Args:
        tensor: Any shape and type. One that lies on a device already is moved as by `.to`.
        device: Where to.
    """
    if tensor.device.type != 'cpu':
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == 'cuda' else tensor).to(device, non_blocking=True)
