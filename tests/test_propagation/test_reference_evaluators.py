"""The algorithms that ours is timed against are right: each equals the loop over cells."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmliir.datasets import FrameFolder, read_label_map
from mmliir.models import VideoPreprocessor
from mmliir.models.backbones import VisionTransformer
from mmliir.ops import MixturePrior
from mmliir.propagation import get_protocol, propagate_video
from mmliir.testing import reference_dino
from mmliir.testing import reference_evaluators as evaluators
from mmliir.testing.reference_propagation import attend_loop
from mmliir.testing.synthetic import generate_video


def _inputs(height, width, references):
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, height, width), (references, 4, height, width), (references, 3, height, width))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_crw_has_no_window_on_the_first_reference_and_a_circle_on_the_others():
    inputs = _inputs(11, 12, 3)  # more than one chunk of queries
    mask = evaluators.crw_mask(11, 12, 3)
    expected = attend_loop(*inputs, [None, 3, 3], shape='circle', temperature=0.2, topk=4)
    step = evaluators.crw_step(*inputs, mask, temperature=0.2, topk=4)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('unfold_keys', [True, False])
@pytest.mark.parametrize('rows', [2, 7])
@pytest.mark.parametrize('prior', [None, MixturePrior(2, 'moments', keep_mass=True), MixturePrior(2, 'fixed', 0.1)])
def test_mast_lets_zeros_outside_the_frame_take_part(rows, prior, unfold_keys):
    query, keys, values = _inputs(7, 6, 2)
    query *= 0.3  # peaks inside the frame: several cells outside would tie
    keys += query
    expected = attend_loop(query, keys, values, [2, 2], temperature=0.5, border='zero_logit', prior=prior)
    step = evaluators.mast_step(query, keys, values, 2, 0.5, rows, prior, unfold_keys)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('rows', [2, 7])
@pytest.mark.parametrize('prior', [None, MixturePrior(2, 'moments', keep_mass=True)])
def test_mast_samples_far_references_between_their_cells(rows, prior):
    query, keys, values = _inputs(7, 6, 3)
    query *= 0.3
    keys += query
    generator = torch.Generator().manual_seed(4)
    offsets = [None, *(torch.rand(2, 2, 7, 6, generator=generator) * 6 - 3)]
    settings = {'temperature': 0.5, 'border': 'zero_logit', 'prior': prior, 'offsets': offsets}
    expected = attend_loop(query, keys, values, [2] * 3, **settings)
    step = evaluators.mast_step(query, keys, values, 2, 0.5, rows, prior, offsets=offsets)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_dino_multiplies_exponentials_with_a_square_mask():
    inputs = _inputs(6, 7, 3)
    mask = evaluators.dino_mask(6, 7, 2, references=3)
    expected = attend_loop(*inputs, [2, 2, 2], temperature=0.5, topk=5)
    step = evaluators.dino_step(*inputs, mask, temperature=0.5, topk=5)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_vfs_masks_every_reference_by_a_square_and_keeps_exactly_k():
    inputs = _inputs(6, 7, 3)  # more than one chunk of queries
    mask = evaluators.vfs_mask(6, 7, 3)
    expected = attend_loop(*inputs, [3, 3, 3], temperature=0.5, topk=5, topk_ties='share')
    step = evaluators.vfs_step(*inputs, mask, temperature=0.5, topk=5)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-4, atol=1e-5)


MEAN, STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


def _patch_colours(images):
    """(1, 3, H, W) normalised -> the 16 means of every 8 x 8 patch."""
    return F.pixel_unshuffle(F.avg_pool2d(images, 2), 4)


def _dino_both_ways(frames, mask, encode, short_side, patch):
    """Label maps by DINO's loop restated and by ours, from the same frames."""
    normalize = VideoPreprocessor(color_space='rgb', mean=MEAN, std=STD).normalize
    with torch.no_grad():
        theirs = reference_dino.dino_video(frames, mask, encode, MEAN, STD, patch, short_side)
        protocol = get_protocol('dino').at_short_side(short_side)
        ours = propagate_video(frames, lambda images: encode(normalize(images)), {0: mask}, protocol, patch)
    return theirs, list(ours)


@pytest.mark.parametrize('size', [(150, 213), (213, 150), (161, 241)])
def test_label_maps_of_dino_are_the_same_from_frames_to_files(size):
    video = generate_video(4, 11, size, name='v')
    theirs, ours = _dino_both_ways(video.frames, video.label_maps[0], _patch_colours, 128, 8)
    assert len(np.unique(theirs[-1])) > 1
    for number, (expected, label_map) in enumerate(zip(theirs, ours, strict=True)):
        assert np.array_equal(expected, label_map), number


@pytest.mark.real
@pytest.mark.parametrize('sequence', ['blackswan', 'car-shadow'])
def test_label_maps_of_dino_are_the_same_on_real_video(sequence, data_root):
    folder = data_root / 'davis2016'
    frames = [frame for _, frame in zip(range(9), FrameFolder(folder / 'JPEGImages' / '480p' / sequence))]
    first = min((folder / 'Annotations' / '480p' / sequence).glob('*.png'))
    mask = (read_label_map(first).ids > 0).astype(np.uint8)
    torch.manual_seed(0)
    encoder = VisionTransformer(16, channels=192, depth=2, heads=3).eval()
    theirs, ours = _dino_both_ways(frames, mask, encoder, 480, 16)
    assert np.array_equal(np.stack(theirs), np.stack(ours))
