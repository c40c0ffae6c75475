"""LIIR in 100 lines: one file, top to bottom, with the toolbox's own functions for the formulas.

    python docs/walkthroughs/liir_in_100_lines.py            # about a minute on one CPU core

It trains a narrow encoder on raw generated frames and propagates a first mask with it, before and after.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmliir.apis.quickstart import SCENES
from mmliir.evaluation.functional import region_similarity
from mmliir.models.backbones import CorrespondenceResNet18
from mmliir.ops import fit_mixture, joint_softmax, negatives_logsumexp, rgb_to_lab, window_logits, window_readout
from mmliir.propagation import get_protocol, propagate_features
from mmliir.testing.synthetic import generate_video, generate_videos

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 240
RADIUS, STRIDE, BATCH, CHANNELS = 6, 4, 8, 32
torch.manual_seed(0)
rng = np.random.default_rng(0)


# 1. Raw video. No labels from here to step 6.
generated = generate_videos(range(16), size=(64, 64), settings=SCENES)
videos = [torch.from_numpy(video.frames).permute(0, 3, 1, 2) for video in generated]


def to_lab(frames: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) uint8 RGB -> Lab, normalised to about [-1, 1]."""
    lab = rgb_to_lab(frames.float() / 255)
    return (lab - torch.tensor([50.0, 0, 0])[:, None, None]) / torch.tensor([50.0, 127, 127])[:, None, None]


# 2. The encoder: ResNet-18 without max-pool, stride 4, a learnt position map after the stem (Eq. 6), a projection.
backbone = CorrespondenceResNet18(base_channels=16)
position_map = nn.Parameter(torch.zeros(1, 16, 32, 32))
projection = nn.Conv2d(backbone.out_channels, CHANNELS, 3, padding=1)
temperature = CHANNELS**0.5


def encode(images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) and (1 or B, 16, H/2, W/2) -> (B, 32, H/4, W/4)."""
    return projection(backbone(images, positions))


def propagate(video) -> np.ndarray:
    """The first frame's labels through the whole video."""
    with torch.no_grad():
        backbone.eval()
        images = to_lab(torch.from_numpy(video.frames).permute(0, 3, 1, 2))
        size = (images.shape[2] // 2, images.shape[3] // 2)
        positions = F.interpolate(position_map, size, mode='bicubic', align_corners=False)
        features = torch.cat([encode(image[None], positions) for image in images])
        backbone.train()
    settings = get_protocol('quick').with_settings({'radius': RADIUS}).settings
    return propagate_features(features, video.label_maps[0], settings, STRIDE)


def score(video) -> float:
    """Mean region similarity J of the objects of the first frame."""
    ours, truth = propagate(video), video.label_maps
    ids = range(1, int(truth[0].max()) + 1)
    return float(np.mean([region_similarity(ours[1:] == k, truth[1:] == k).mean() for k in ids]))


test_videos = [generate_video(seed, size=(64, 96), settings=SCENES) for seed in (900, 901, 902)]
before = np.mean([score(video) for video in test_videos])

# 3. One step of training: hide a colour in both frames, find it again in the other frame.
parameters = [*backbone.parameters(), *projection.parameters(), position_map]
optimizer = torch.optim.Adam(parameters, lr=1e-3)
bank, bank_videos = torch.zeros(0, CHANNELS), torch.zeros(0, dtype=torch.long)
for step in range(STEPS):
    second_stage = step >= STEPS * 3 // 4
    ids = rng.integers(len(videos), size=BATCH)
    starts = rng.integers(20, size=BATCH)
    pairs = to_lab(torch.stack([videos[v][[s, s + 2]] for v, s in zip(ids, starts, strict=True)]))
    channel = int(rng.integers(1, 3))  # a or b, never L
    seen = 1.5 * pairs
    seen[:, :, channel] = 0
    reference, query = encode(seen.transpose(0, 1).flatten(0, 1), position_map).chunk(2)

    # 4. Eq. 1: where does each query cell come from? Eq. 4: other videos' cells compete, but give no colour. They join
    #    in stage 2: among features that know nothing yet they would take nearly all of the soft-max.
    logits = window_logits(query, reference, RADIUS, temperature)
    intra = mixed = joint_softmax([logits])[0]
    if second_stage:
        other = torch.from_numpy(ids)[:, None] != bank_videos[None]
        mixed = joint_softmax([logits], negatives_logsumexp(query, bank, other, temperature))[0]

    # 5. Eqs. 2, 3 and 5: read the hidden colour through the affinity. Eqs. 7 and 8: the affinity should be compact.
    hidden = pairs[:, :, channel : channel + 1]
    predicted = window_readout(mixed, hidden[:, 0, :, ::STRIDE, ::STRIDE], RADIUS)
    predicted = F.interpolate(predicted, hidden.shape[-2:], mode='bilinear', align_corners=False)
    loss = F.smooth_l1_loss(20 * predicted, 20 * hidden[:, 1])
    if second_stage:
        loss = loss + F.smooth_l1_loss(20 * intra, 20 * fit_mixture(intra, RADIUS, num_mixtures=2))
    optimizer.param_groups[0]['lr'] = 1e-4 if second_stage else 1e-3
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    # Bank frames carry a shifted position map, so that position alone cannot tell videos apart (4 cells a frame).
    with torch.no_grad():
        shifted = torch.roll(position_map, (int(rng.integers(32)), int(rng.integers(32))), dims=(2, 3))
        cells = encode(seen[:, 0], shifted).flatten(2)[:, :, rng.integers(256, size=4)]
    bank = torch.cat([bank, cells.transpose(1, 2).reshape(-1, CHANNELS)])[-960:]
    bank_videos = torch.cat([bank_videos, torch.from_numpy(ids).repeat_interleave(4)])[-960:]
    if step % 25 == 0:
        print(f'step {step:4d}  loss {loss:.4f}')

# 6. The same encoder carries the first masks of videos it has never seen.
after = np.mean([score(video) for video in test_videos])
print(f'J of unseen videos: untrained {before:.3f}, trained {after:.3f}')
