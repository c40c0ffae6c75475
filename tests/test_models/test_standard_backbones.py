"""ResNet and ViT as they are published: sizes, parameters, what they refuse. That they compute what others compute is
proven in tests/test_convert.py."""

import pytest
import torch

from mmliir.models.backbones import ResNet, VisionTransformer
from mmliir.models.backbones.vision_transformer import resize_position_grid
from mmliir.registry import MODELS


@pytest.mark.parametrize(
    'depth, parameters',
    # torchvision's counts, 11,689,512, 21,797,672 and 25,557,032, without the classifier
    [(18, 11_689_512 - 513_000), (34, 21_797_672 - 513_000), (50, 25_557_032 - 2_049_000)],
)
def test_a_whole_resnet_has_the_published_number_of_parameters(depth, parameters):
    backbone = ResNet(depth)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert (backbone.stride, backbone.out_channels) == (32, 512 if depth < 50 else 2048)


@pytest.mark.parametrize('patch, parameters', [(16, 21_665_664), (8, 21_670_272)])
def test_a_small_vit_has_dinos_number_of_parameters(patch, parameters):
    backbone = VisionTransformer(patch_size=patch, position_grid=(224 // patch, 224 // patch))
    assert sum(p.numel() for p in backbone.parameters()) == parameters


@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize(
    'strides, out_stage, stride, width', [((1, 2, 1, 1), 3, 8, 4), ((1, 2, 2, 2), 3, 16, 4), ((1, 2, 1, 1), 2, 8, 2)]
)
def test_a_resnet_cut_behind_a_stage_rounds_sizes_up(padding_mode, depth, strides, out_stage, stride, width):
    backbone = ResNet(depth, strides, out_stage, padding_mode, base_channels=4).eval()
    assert backbone.stride == stride and not hasattr(backbone, f'layer{out_stage + 1}')
    channels = 4 * width * (1 if depth == 18 else 4)
    for height, width_in_pixels in ((33, 50), (17, 64)):
        size = (-(-height // stride), -(-width_in_pixels // stride))
        assert backbone(torch.randn(2, 3, height, width_in_pixels)).shape == (2, channels, *size)


def test_a_reflected_border_keeps_a_constant_image_constant():
    images = torch.ones(1, 3, 40, 48)
    spreads = []
    for mode in ('reflect', 'zeros'):
        torch.manual_seed(0)
        features = ResNet(18, (1, 2, 1, 1), 3, mode, base_channels=8).eval()(images)
        spreads.append((features - features[:, :, :1, :1]).abs().max() / features.abs().max())
    assert spreads[0] < 1e-5 and spreads[1] > 1e-2


@pytest.mark.parametrize('backbone', [ResNet(18, (1, 2, 1, 1), 3, base_channels=8), VisionTransformer(8, 24, 2, 3)])
def test_a_batch_of_two_is_two_batches_of_one(backbone):
    backbone.eval()
    images = torch.randn(2, 3, 32, 48)
    both = torch.cat([backbone(images[:1]), backbone(images[1:])])
    torch.testing.assert_close(backbone(images), both)


def test_patches_come_out_where_they_lie():
    """Without blocks a token is its own patch: changing one patch changes one cell."""
    backbone = VisionTransformer(8, 12, 0, 3, position_grid=(3, 4)).eval()
    images = torch.randn(1, 3, 24, 32)
    changed = images.clone()
    changed[:, :, 8:16, 24:32] += 1
    difference = (backbone(changed) - backbone(images)).abs().amax(1)[0] > 1e-6
    assert difference.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize('how', ['dino', 'timm'])
@pytest.mark.parametrize('size', [(60, 104), (14, 14), (7, 9), (28, 1)])
def test_positions_come_to_every_grid(how, size):
    grid = torch.randn(1, 5, 14, 14)
    resized = resize_position_grid(grid, size, how)
    assert resized.shape == (1, 5, *size)
    assert (resized is grid) == (size == (14, 14))
    torch.testing.assert_close(resize_position_grid(torch.ones(1, 1, 14, 14), size, how), torch.ones(1, 1, *size))


def test_every_whole_grid_up_to_480p_is_reached_by_the_scale_of_dino():
    grid = torch.zeros(1, 1, 28, 28)
    for side in range(1, 108):
        assert resize_position_grid(grid, (side, 3), 'dino').shape == (1, 1, side, 3)


@pytest.mark.parametrize(
    'settings, said',
    [
        (dict(type='ResNet', depth=20), 'depth must be one of 18, 34, 50'),
        (dict(type='ResNet', strides=(1, 2)), 'four whole numbers'),
        (dict(type='ResNet', out_stage=5), 'out_stage must be 1, 2, 3 or 4'),
        (dict(type='ResNet', padding_mode='circular'), "must be 'zeros' or 'reflect'"),
        (dict(type='VisionTransformer', channels=100, heads=6), 'multiple of heads'),
        (dict(type='VisionTransformer', position_resize='bilinear'), "must be 'dino' or 'timm'"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        MODELS.build(settings)


def test_sizes_that_cannot_be_encoded_are_refused():
    with pytest.raises(ValueError, match=r'40x50, but patches are 8x8'):
        VisionTransformer(8, 12, 1, 3)(torch.zeros(1, 3, 40, 50))
    with pytest.raises(ValueError, match=r'8x50 are too small to be reflected'):
        ResNet(18, (1, 2, 1, 1), 3, 'reflect', base_channels=4)(torch.zeros(1, 3, 8, 50))


@pytest.mark.parametrize('backbone', [dict(type='ResNet'), dict(type='VisionTransformer')])
def test_a_position_encoder_needs_a_backbone_that_takes_its_map(backbone):
    encoder = dict(type='LearnedPositionEncoder1d', channels=64)
    with pytest.raises(ValueError, match='takes no position map'):
        MODELS.build(dict(type='FrozenFeature', backbone=backbone, position_encoder=encoder))


def test_a_frozen_feature_has_nothing_to_train():
    model = MODELS.build(dict(type='FrozenFeature', backbone=dict(type='ResNet', base_channels=4)))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(TypeError, match='cannot be trained'):
        model(torch.zeros(1, 2, 3, 64, 64), mode='loss')
