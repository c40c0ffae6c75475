"""Layers that the standard library of layers does not have in the form needed here."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all ranks, on any device and back end.

    `torch.nn.SyncBatchNorm` works on GPUs only; this one lets gloo ranks on CPUs compute the statistics, outputs and
    gradients that one process would compute on the global batch. Without a process group it is `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); every rank must hold the same number of samples and pixels."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        dtype = x.dtype
        x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
        ranks = dist.get_world_size()
        mean = all_reduce(x.mean(dim=(0, 2, 3))) / ranks
        centred = x - mean[None, :, None, None]
        variance = all_reduce(centred.square().mean(dim=(0, 2, 3))) / ranks
        count = ranks * x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
            unbiased = variance.detach() * (count / max(1, count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight / torch.sqrt(variance + self.eps)
        return (centred * scale[None, :, None, None] + self.bias[None, :, None, None]).to(dtype)


def build_norm(name: str, channels: int) -> nn.BatchNorm2d:
    """A batch normalisation by name: 'BN' (per process) or 'SyncBN' (over all ranks)."""
    if name == 'BN':
        return nn.BatchNorm2d(channels)
    if name == 'SyncBN':
        return SyncBatchNorm2d(channels)
    raise ValueError(f"norm must be 'BN' or 'SyncBN', got {name!r}")
