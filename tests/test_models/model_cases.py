"""Small models and an independent, slow LIIR loss that the model tests share."""

import copy
import math

import numpy as np
import torch
from torch import nn

import mmliir.models  # noqa: F401  (registers the parts)
from mmliir.registry import MODELS
from mmliir.testing import reference

BANK = dict(num_frames=3, points_per_frame=2, sample='step', dtype=torch.float64)
ALL_PARTS = dict(
    type='LIIR',
    backbone=dict(type='CorrespondenceResNet18', base_channels=4),
    position_encoder=dict(type='LearnedPositionEncoder1d', channels=4, size=(8, 8)),
    projection=dict(type='ConvProjection', in_channels=16, out_channels=6),
    reconstruction_head=dict(
        type='ReconstructionHead', radius=1, temperature='sqrt_channels', loss=dict(type='ReconstructionLoss')
    ),
    inter=dict(type='InterVideoTerm', bank=BANK, momentum=0.9, modulation=dict(type='PositionShift')),
    compactness=dict(type='CompactnessPriorLoss'),
)


def build(seed: int = 0, dtype: torch.dtype = torch.float64, **changes):
    """The tiny LIIR with some top-level parts replaced, and no weight left at zero or one."""
    torch.manual_seed(seed)
    model = MODELS.build({**copy.deepcopy(ALL_PARTS), **changes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'bn' in name or 'downsample.1' in name or 'position_map' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    if getattr(model, 'inter', None) is not None:
        model.start_stage()
    return model.to(dtype)


def pairs(batch: int = 2, size: int = 16, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(B, 2, 3, H, W) normalised colours: smooth enough that a match exists."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch * 2, 3, size // 2, size // 2, generator=generator, dtype=torch.float64) * 2 - 1
    fine = nn.functional.interpolate(coarse, scale_factor=2, mode='bilinear', align_corners=False)
    return fine.reshape(batch, 2, 3, size, size).to(dtype)


def fill_bank(model, video_ids=(7, 8, 9), seed: int = 5) -> None:
    """Put frames of these videos in the bank, features as large as the model's own."""
    generator = torch.Generator().manual_seed(seed)
    channels = model.encoder.out_channels
    features = torch.randn(len(video_ids), channels, 4, 4, generator=generator, dtype=torch.float64)
    model.inter.bank.enqueue(features, torch.tensor(video_ids), generator)


def draws_of_step(model, seed: int):
    """What a step with this seed draws: the hidden channel, and the negatives (None without a filled bank)."""
    generator = torch.Generator().manual_seed(seed)
    channel = 1 + int(torch.randint(0, 2, (1,), generator=generator))
    inter = getattr(model, 'inter', None)
    return channel, None if inter is None else inter.bank.draw(generator)


def slow_affinity(query, key, radius, temperature, border, negatives=None, allowed=None):
    """LIIR Eq. 1, or Eq. 4 with negatives, one scalar at a time: (B, P, h, w) that autograd follows."""
    batch, _, height, width = query.shape
    rows = []
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                exponentials = []
                for yy in range(y - radius, y + radius + 1):
                    for xx in range(x - radius, x + radius + 1):
                        if 0 <= yy < height and 0 <= xx < width:
                            dot = (query[b, :, y, x] * key[b, :, yy, xx]).sum()
                            exponentials.append(torch.exp(dot / temperature))
                        else:
                            exponentials.append(query.new_tensor(1.0 if border == 'zero_logit' else 0.0))
                row = torch.stack(exponentials)
                total = row.sum()
                if negatives is not None:
                    for n in range(len(negatives)):
                        if allowed[b][n]:
                            total = total + torch.exp((query[b, :, y, x] * negatives[n]).sum() / temperature)
                rows.append(row / total)
    return torch.stack(rows).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def slow_reconstruction(affinity, reference_color, radius, stride):
    """LIIR Eqs. 2 and 5 for one channel: first pixel of each block, window sum, bilinear upsampling."""
    batch, _, height, width = affinity.shape
    side = 2 * radius + 1
    full = reference_color.shape[-2:]
    basis = np.eye(height * width).reshape(-1, height, width)
    upsampling = torch.from_numpy(reference.upsample_field(basis, tuple(full), stride, 'mast'))
    upsampling = upsampling.to(affinity.dtype).reshape(height * width, -1)
    out = []
    for b in range(batch):
        cells = []
        for y in range(height):
            for x in range(width):
                value = affinity.new_zeros(())
                for p in range(side * side):
                    yy, xx = y + p // side - radius, x + p % side - radius
                    if 0 <= yy < height and 0 <= xx < width:
                        value = value + affinity[b, p, y, x] * reference_color[b, 0, stride * yy, stride * xx]
                cells.append(value)
        out.append((torch.stack(cells) @ upsampling).reshape(1, *full))
    return torch.stack(out)


def slow_photometric(prediction, target):
    """Eq. 3 as MAST computes it (liir.md section 1.4), from the piecewise formula."""
    distance = (20.0 * (prediction - target)).abs()
    return torch.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean()


def slow_losses(model, inputs, video_ids, seed: int) -> dict:
    """All losses of the tiny LIIR (Eqs. 1 to 5, 7, 8) from its encoder's features, by loops."""
    channel, negatives = draws_of_step(model, seed)
    seen = inputs.clone()
    for kept in range(3):
        seen[:, :, kept] = 0.0 if kept == channel else 1.5 * inputs[:, :, kept]
    features = model.encoder(torch.cat([seen[:, 0], seen[:, 1]]))
    key, query = features[: len(inputs)], features[len(inputs) :]
    head = model.reconstruction_head
    temperature = math.sqrt(features.shape[1])
    affinity = slow_affinity(query, key, head.radius, temperature, head.border)
    mixed = affinity
    if negatives is not None:
        allowed = [[int(own) != int(other) for other in negatives.video_ids] for own in video_ids]
        mixed = slow_affinity(query, key, head.radius, temperature, head.border, negatives.features, allowed)
    colors = inputs[:, :, channel : channel + 1]
    prediction = slow_reconstruction(mixed, colors[:, 0], head.radius, model.stride)
    losses = {'loss_reconstruction': slow_photometric(prediction, colors[:, 1])}
    if getattr(model, 'compactness', None) is not None:
        prior = reference.fit_mixture(affinity.detach(), head.radius, 2, 'moments')
        losses['loss_compact'] = slow_photometric(affinity, torch.from_numpy(prior))
    if getattr(model, 'inter', None) is not None:
        losses['negative_mass'] = (1.0 - mixed.sum(dim=1)).mean()
    return losses
