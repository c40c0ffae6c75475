"""The encoder of LIIR section 3.3: sizes, parameters, the position map's place, initialisation."""

import pytest
import torch
from model_cases import build, pairs
from torch import nn

from mmliir.models.backbones.resnet import BasicBlock, CorrespondenceResNet18
from mmliir.models.heads import ConvProjection
from mmliir.models.layers import SyncBatchNorm2d, build_norm


def small(**changes):
    torch.manual_seed(0)
    return CorrespondenceResNet18(**{'base_channels': 4, **changes})


def randomize_norms(module):
    """No weight of a norm is left at 0 or 1, so that every path carries signal."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.3)
            nn.init.normal_(layer.bias, 0.0, 0.3)
    return module


def test_paper_encoder_has_5144128_parameters_stride_4_and_256_channels():
    backbone = CorrespondenceResNet18()
    assert sum(p.numel() for p in backbone.parameters()) == 5_144_128
    assert (backbone.stride, backbone.out_channels, backbone.stem_channels) == (4, 256, 64)


def test_default_projection_has_the_mast_post_convolutions_parameters():
    projection = ConvProjection()
    assert sum(p.numel() for p in projection.parameters()) == 256 * 64 * 9 + 64
    assert [type(m) for m in projection.children()] == [nn.Conv2d]  # nothing after it
    assert projection(torch.randn(1, 256, 5, 7)).shape == (1, 64, 5, 7)


def test_projection_refuses_an_even_kernel():
    with pytest.raises(ValueError, match='odd'):
        ConvProjection(8, 4, kernel_size=2)


@pytest.mark.parametrize('size', [(32, 32), (31, 33), (1, 1), (29, 30), (4, 5)])
def test_output_and_stem_sizes_round_up(size):
    backbone = small().eval()
    images = torch.randn(2, 3, *size)
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    assert backbone(images).shape == (2, 16, height, width)
    stem = backbone.stem_size(images)
    assert backbone.conv1(images).shape[2:] == stem == (-(-size[0] // 2), -(-size[1] // 2))
    assert backbone(images, torch.randn(1, 4, *stem)).shape == (2, 16, height, width)


def test_a_zero_position_map_is_no_position_map():
    backbone = randomize_norms(small()).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(backbone(images), backbone(images, torch.zeros(1, 4, 8, 8)))


def test_position_map_is_added_between_the_stems_relu_and_the_first_stage():
    backbone = randomize_norms(small()).eval()
    images, position_map = torch.randn(2, 3, 16, 16), torch.randn(1, 4, 8, 8)
    inputs_of_stage = []
    backbone.layer1.register_forward_hook(
        lambda module, args, output: inputs_of_stage.append(args[0].clone())
    )
    backbone(images, position_map)
    stem = torch.clamp(backbone.bn1(backbone.conv1(images)), min=0)
    torch.testing.assert_close(inputs_of_stage[0], stem + position_map)
    assert (inputs_of_stage[0] < 0).any()  # no ReLU behind the sum


def test_position_map_gets_a_gradient_and_may_differ_by_sample():
    backbone = randomize_norms(small()).eval()
    images = torch.randn(2, 3, 16, 16)
    position_map = torch.randn(2, 4, 8, 8, requires_grad=True)
    both = backbone(images, position_map)
    both[0].sum().backward()
    assert position_map.grad[0].abs().min() >= 0 and position_map.grad[0].abs().max() > 0
    assert torch.equal(position_map.grad[1], torch.zeros_like(position_map.grad[1]))
    for b in range(2):
        torch.testing.assert_close(both[b : b + 1], backbone(images[b : b + 1], position_map[b : b + 1]))


def test_only_the_stem_and_the_second_stage_reduce_the_size():
    backbone = small().eval()
    sizes = []
    for name in ('conv1', 'layer1', 'layer2', 'layer3', 'layer4'):
        getattr(backbone, name).register_forward_hook(lambda m, a, out: sizes.append(tuple(out.shape[1:])))
    backbone(torch.randn(1, 3, 32, 32))
    assert sizes == [(4, 16, 16), (4, 16, 16), (8, 8, 8), (16, 8, 8), (16, 8, 8)]


def test_zero_init_residual_makes_every_block_its_shortcut():
    backbone = small()
    blocks = [module for module in backbone.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 8
    for block in blocks:
        assert torch.equal(block.bn2.weight, torch.zeros_like(block.bn2.weight))
        assert torch.equal(block.bn1.weight, torch.ones_like(block.bn1.weight))
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        shortcut = x if block.downsample is None else block.downsample(x)
        torch.testing.assert_close(block(x), torch.clamp(shortcut, min=0))


def test_initial_convolutions_have_variance_two_over_fan_out():
    backbone = CorrespondenceResNet18(base_channels=32)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            expected = (2.0 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('init', ['normal', 'default'])
@pytest.mark.parametrize('zeroed', [True, False])
def test_where_weights_start_and_whether_residuals_start_at_zero_are_two_choices(init, zeroed):
    backbone = small(init=init, zero_init_residual=zeroed)
    blocks = [module for module in backbone.modules() if isinstance(module, BasicBlock)]
    last = {id(block.bn2) for block in blocks}
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0.0 if zeroed and id(module) in last else 1.0)).all()
            assert not module.bias.any()
    torch.manual_seed(0)
    for name, module in backbone.named_modules():  # PyTorch draws in the order of building
        if isinstance(module, nn.Conv2d):
            fresh = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, bias=False)
            assert torch.equal(module.weight, fresh.weight) is (init == 'default'), name


def test_the_default_start_draws_what_it_always_drew():
    """Trained numbers depend on it: PyTorch's draws while building, then a normal one for every convolution."""
    backbone = small()
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, bias=False)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            deviation = (2.0 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            expected = torch.empty_like(module.weight).normal_(0.0, deviation)
            assert torch.equal(module.weight, expected), name


def test_pytorchs_start_has_variance_one_over_three_fan_in():
    backbone = CorrespondenceResNet18(base_channels=32, init='default')
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            expected = (1.0 / (3 * module.kernel_size[0] ** 2 * module.in_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_wrong_settings_name_themselves():
    with pytest.raises(ValueError, match='four entries'):
        CorrespondenceResNet18(strides=(1, 2, 1))
    with pytest.raises(ValueError, match="'LayerNorm'"):
        CorrespondenceResNet18(norm='LayerNorm')
    with pytest.raises(ValueError, match="'normal' or 'default'.*'kaiming'"):
        CorrespondenceResNet18(init='kaiming')


def test_sync_batch_norm_is_batch_norm_in_one_process():
    torch.manual_seed(0)
    ours, theirs = build_norm('SyncBN', 5), nn.BatchNorm2d(5)
    assert type(ours) is SyncBatchNorm2d and type(build_norm('BN', 5)) is nn.BatchNorm2d
    theirs.load_state_dict(ours.state_dict())
    for step in range(3):
        x = torch.randn(4, 5, 3, 2) * 2 + 1
        x_theirs = x.clone().requires_grad_()
        x_ours = x.requires_grad_()
        weights = torch.randn(4, 5, 3, 2)
        if step == 2:
            ours.eval(), theirs.eval()
        (ours(x_ours) * weights).sum().backward()
        (theirs(x_theirs) * weights).sum().backward()
        assert torch.equal(x_ours.grad, x_theirs.grad)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_encoder_adds_its_own_map_unless_another_is_given():
    model = build().eval()
    images = pairs()[:, 0]
    own = model.encoder.position_map(images)
    torch.testing.assert_close(model.encoder(images), model.encoder(images, own), rtol=0, atol=1e-12)
    other = model.encoder(images, torch.zeros_like(own))
    assert (model.encoder(images) - other).abs().max() > 1e-3
    assert model.encoder.position_map(torch.zeros(1, 3, 21, 30)).shape == (1, 4, 11, 15)
