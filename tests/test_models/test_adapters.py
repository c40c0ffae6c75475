"""Networks of other libraries as backbones: the cells are where they belong, whatever the size of the image.

Tests of a library run where it is installed and are counted as skipped elsewhere; errors are tested everywhere.
"""

import sys

import pytest
import torch
import torch.nn.functional as F
from feature_cases import CONVNEXT, DINOV2, REGISTERS, RESNET, SWIN, VIT, build, images
from torch import nn

from mmliir.models.backbones import ResNet
from mmliir.models.backbones.adapters.base import (
    as_map,
    cells,
    output_of,
    pad_to_cells,
    reach_stride,
    tokens_to_map,
)
from mmliir.registry import MODELS

CASES = {
    # (class, options, stride, channels)
    'hf-vit': ('HuggingFaceBackbone', {'config': VIT}, 8, 24),
    'hf-vit-overlapping': ('HuggingFaceBackbone', {'config': VIT, 'stride': 4}, 4, 24),
    'hf-dinov2': ('HuggingFaceBackbone', {'config': DINOV2}, 7, 24),
    'hf-dinov2-registers': ('HuggingFaceBackbone', {'config': REGISTERS}, 8, 24),
    'hf-dinov2-registers-overlapping': ('HuggingFaceBackbone', {'config': REGISTERS, 'stride': 3}, 3, 24),
    'hf-dinov3': ('HuggingFaceBackbone', {'config': {**REGISTERS, 'model_type': 'dinov3_vit'}}, 8, 24),
    'hf-mae': ('HuggingFaceBackbone', {'config': {**VIT, 'model_type': 'vit_mae'}}, 8, 24),
    'hf-resnet': ('HuggingFaceBackbone', {'config': RESNET}, 8, 24),
    'hf-resnet-stage4-stride16': ('HuggingFaceBackbone', {'config': RESNET, 'layer': 4, 'stride': 16}, 16, 32),
    'hf-convnext': ('HuggingFaceBackbone', {'config': CONVNEXT}, 16, 24),
    'hf-swin': ('HuggingFaceBackbone', {'config': SWIN}, 16, 32),
    'hf-swin-stage2': ('HuggingFaceBackbone', {'config': SWIN, 'layer': 2}, 8, 16),
    'timm-resnet18': ('TimmBackbone', {'name': 'resnet18'}, 8, 256),
    'timm-resnet18-layer2': ('TimmBackbone', {'name': 'resnet18', 'layer': 'layer2', 'stride': 4}, 4, 128),
    'timm-vit': ('TimmBackbone', {'name': 'vit_tiny_patch16_224'}, 16, 192),
    'timm-vit-overlapping': ('TimmBackbone', {'name': 'vit_tiny_patch16_224', 'stride': 8, 'layer': -4}, 8, 192),
    'timm-convnext': ('TimmBackbone', {'name': 'convnext_atto'}, 16, 160),
    'timm-swin': ('TimmBackbone', {'name': 'swin_tiny_patch4_window7_224'}, 16, 384),
    'timm-efficientnet': ('TimmBackbone', {'name': 'efficientnet_b0'}, 16, 112),
    'timm-dinov3': ('TimmBackbone', {'name': 'vit_small_patch16_dinov3', 'layer': 2}, 16, 384),
    'torchvision-resnet18': ('TorchvisionBackbone', {'name': 'resnet18'}, 8, 256),
    'torchvision-vit': ('TorchvisionBackbone', {'name': 'vit_b_16', 'layer': 1}, 16, 768),
    'torchvision-vit-overlapping': ('TorchvisionBackbone', {'name': 'vit_b_32', 'layer': 1, 'stride': 16}, 16, 768),
    'torchvision-convnext': ('TorchvisionBackbone', {'name': 'convnext_tiny'}, 16, 384),
    'torchvision-swin': ('TorchvisionBackbone', {'name': 'swin_t'}, 16, 384),
}


@pytest.mark.parametrize('case', CASES)
def test_every_size_has_a_cell_for_every_pixel_and_a_batch_is_its_images(case):
    kind, options, stride, channels = CASES[case]
    backbone = build(kind, **options)
    assert (backbone.stride, backbone.out_channels) == (stride, channels)
    with torch.no_grad():
        for height, width in ((64, 96), (50, 67)):
            both = images(2, height, width)
            features = backbone(both)
            assert features.shape == (2, channels, -(-height // stride), -(-width // stride))
            torch.testing.assert_close(features, torch.cat([backbone(both[:1]), backbone(both[1:])]))


@pytest.mark.parametrize('config, prefix', [(VIT, 1), (DINOV2, 1), (REGISTERS, 5)], ids=lambda value: str(value)[:40])
def test_cells_are_the_patch_tokens_of_the_last_block_normed_row_by_row(config, prefix):
    backbone = build('HuggingFaceBackbone', config=config)
    patch = config['patch_size']
    batch = images(1, 3 * patch, 5 * patch)
    options = {'interpolate_pos_encoding': True} if config is VIT else {}
    with torch.no_grad():
        tokens = backbone.model(pixel_values=batch, **options).last_hidden_state
        features = backbone(batch)
    assert tokens.shape[1] == prefix + 15
    for row in range(3):
        for column in range(5):
            torch.testing.assert_close(features[0, :, row, column], tokens[0, prefix + 5 * row + column])


def test_layers_of_a_vit_are_its_hidden_states():
    normed, raw = (build('HuggingFaceBackbone', config=DINOV2, layer=2, norm=norm) for norm in (True, False))
    from_end = build('HuggingFaceBackbone', config=DINOV2, layer=-2)
    batch = images(1, 28, 28)
    with torch.no_grad():
        state = raw.model(pixel_values=batch, output_hidden_states=True).hidden_states[2][:, 1:]
        grid = state.transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(raw(batch), grid)
        torch.testing.assert_close(normed(batch), normed.norm(state).transpose(1, 2).unflatten(2, (4, 4)))
        torch.testing.assert_close(from_end(batch), normed(batch))


@pytest.mark.parametrize('kind, options', [
    ('HuggingFaceBackbone', {'config': {**VIT, 'num_hidden_layers': 1}}),
    ('TimmBackbone', {'name': 'vit_tiny_patch16_224', 'layer': 1}),
    ('TorchvisionBackbone', {'name': 'vit_b_16', 'layer': 1}),
])  # fmt: skip
def test_overlapping_patches_agree_with_plain_ones_where_they_coincide(kind, options):
    """With positions and attention taken out, a token is its patch: every second overlapping one is a plain one."""
    plain = build(kind, **options)
    patch = plain.stride
    dense = build(kind, **options, stride=patch // 2)
    dense.load_state_dict(plain.state_dict())
    for backbone in (plain, dense):
        for name, parameter in backbone.named_parameters():
            if 'pos' in name or 'blocks' in name or 'encoder.layers' in name or '.layers.' in name:
                nn.init.zeros_(parameter)
    batch = images(1, 4 * patch, 5 * patch)
    # an overlapping patch starts a quarter of its side before its cell: move the image by that, losing the first patch
    moved = batch[:, :, patch // 4 :, patch // 4 :]
    with torch.no_grad():
        every_second = dense(moved)[:, :, 2::2, 2::2]
        torch.testing.assert_close(every_second, plain(batch)[:, :, 1:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('stride, dilate', [(8, False), (8, True), (16, False)])
def test_a_resnet_of_timm_is_ours_with_its_weights(stride, dilate):
    backbone = build('TimmBackbone', name='resnet18', stride=stride, dilate=dilate)
    ours = ResNet(18, (1, 2, 1 if stride == 8 else 2, 1), 3).eval()
    ours.load_state_dict(backbone.model.state_dict())
    batch = images(1, 50, 67)
    with torch.no_grad():
        same = torch.allclose(backbone(batch), ours(batch), atol=1e-5)
    assert same == (not dilate)


@pytest.mark.parametrize('name', ['resnet18', 'resnet26'])
def test_dilation_is_that_of_timms_output_stride(name):
    backbone = build('TimmBackbone', name=name, layer=4, stride=8, dilate=True)
    import timm

    theirs = timm.create_model(name, num_classes=0, global_pool='', output_stride=8).eval()
    theirs.load_state_dict(backbone.model.state_dict())
    batch = images(1, 64, 80)
    with torch.no_grad():
        torch.testing.assert_close(backbone(batch), theirs(batch), rtol=1e-4, atol=1e-4)


def test_dilation_is_that_of_torchvisions_resnet50():
    backbone = build('TorchvisionBackbone', name='resnet50', layer=4, stride=16, dilate=True)
    import torchvision

    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    theirs.load_state_dict(backbone.model.state_dict(), strict=False)
    batch, kept = images(1, 64, 80), {}
    theirs.layer4.register_forward_hook(lambda module, inputs, output: kept.update(output=output))
    with torch.no_grad():
        theirs(batch)
        torch.testing.assert_close(backbone(batch), kept['output'], rtol=1e-4, atol=1e-4)


def test_a_vit_of_torchvision_is_its_own_forward_pass():
    backbone = build('TorchvisionBackbone', name='vit_b_32')
    kept = {}
    backbone.model.encoder.register_forward_hook(lambda module, inputs, output: kept.update(output=output))
    batch = images(1, 224, 224)
    with torch.no_grad():
        backbone.model(batch)
        torch.testing.assert_close(backbone(batch), tokens_to_map(kept['output'], (7, 7), '', prefix=1))


@pytest.mark.parametrize('kind, options', [
    ('TimmBackbone', {'name': 'resnet18', 'stride': 16}),
    ('TimmBackbone', {'name': 'convnext_atto', 'layer': 2}),
    ('HuggingFaceBackbone', {'config': RESNET}),
    ('HuggingFaceBackbone', {'config': CONVNEXT, 'layer': 2}),
])  # fmt: skip
def test_an_image_moved_by_cells_moves_the_features(kind, options):
    """A black image with a pattern in its middle, whose surroundings reach no border."""
    backbone = build(kind, **options)
    stride = backbone.stride
    pattern = images(1, 24, 24)
    first, second = torch.zeros(1, 3, 416, 416), torch.zeros(1, 3, 416, 416)
    first[:, :, 192:216, 192:216] = pattern
    second[:, :, 192 + stride : 216 + stride, 192 + 2 * stride : 216 + 2 * stride] = pattern
    with torch.no_grad():
        before, after = backbone(first), backbone(second)
    middle = before.shape[-1] // 2
    near = slice(middle - 2, middle + 3)
    moved = after[:, :, middle - 1 : middle + 4, middle : middle + 5]
    torch.testing.assert_close(moved, before[:, :, near, near], rtol=1e-4, atol=1e-4)
    assert (before[:, :, near, near] - after[:, :, near, near]).abs().max() > 1e-3


# What needs no library ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('stride, patch', [(8, 8), (8, None), (7, 14), (4, 16), (3, 8), (5, 6)])
@pytest.mark.parametrize('size', [(1, 30), (24, 33), (64, 48)])
def test_padded_patches_make_a_cell_for_every_pixel_and_lie_around_it(stride, patch, size):
    kernel = patch or stride
    ramp = torch.arange(float(size[1])).expand(1, 3, *size)
    padded = pad_to_cells(ramp, stride, patch)
    patches = F.unfold(padded, kernel, stride=stride)
    assert patches.shape[2] == cells(size, stride)[0] * cells(size, stride)[1]
    columns = F.avg_pool2d(padded, kernel, stride)[0, 0, 0]
    inside = torch.arange(len(columns)) * stride + (stride - 1) / 2  # centres of the cells' blocks
    full = (inside - kernel / 2 >= 0) & (inside + kernel / 2 <= size[1] - 1)
    assert ((columns - inside)[full].abs() <= 0.5).all()  # half a pixel where patch - stride is odd


def test_tokens_come_to_cells_row_by_row_behind_the_prefix():
    tokens = torch.arange(3 + 6.0).view(1, 9, 1)
    assert tokens_to_map(tokens, (2, 3), 'x', prefix=3)[0, 0].tolist() == [[3, 4, 5], [6, 7, 8]]
    with pytest.raises(ValueError, match='x returned 9 tokens for 2 x 3 cells and 1 class or register tokens'):
        tokens_to_map(tokens, (2, 3), 'x', prefix=1)
    with pytest.raises(ValueError, match='9 tokens for 4 x 3 cells'):
        tokens_to_map(tokens, (4, 3), 'x')


def test_channels_last_outputs_and_first_entries_come_to_maps():
    output = torch.randn(2, 5, 3, 4)
    assert torch.equal(as_map((output.permute(0, 2, 3, 1), None), (3, 4), 'x'), output)
    assert torch.equal(as_map([output], (3, 4), 'x'), output)
    with pytest.raises(ValueError, match='x returned a dict, expected a tensor'):
        as_map({}, (3, 4), 'x')


def test_a_part_is_all_that_is_run():
    ran = []
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    network[2].register_forward_hook(lambda *args: ran.append(1))
    assert output_of(network[1], network, images(1, 4, 4), 'x').shape == (1, 4, 4, 4)
    assert not ran and not network[1]._forward_hooks
    with pytest.raises(ValueError, match='not run by the network'):
        output_of(nn.Identity(), network, images(1, 4, 4), 'x')


def test_strides_that_a_resnet_cannot_have_are_refused():
    network = ResNet(18, base_channels=4)
    stages = [network.layer1, network.layer2, network.layer3]
    with pytest.raises(ValueError, match='stride must be one of 4, 8, 16, got 5'):
        reach_stride(stages, [4, 8, 16], 5, False, 'x')
    with pytest.raises(ValueError, match='stride must be one of 4, 8, 16, got 32'):
        reach_stride(stages, [4, 8, 16], 32, False, 'x')


@pytest.mark.parametrize('kind, options, expected', [
    ('TimmBackbone', {'name': 'resnet81'}, "has no model 'resnet81'; did you mean"),
    ('TimmBackbone', {'name': 'convnext_atto', 'stride': 8}, 'layer stages.2 has stride 16, and only those of'),
    ('TimmBackbone', {'name': 'resnet18', 'layer': 5}, 'layer must be a stage from 1 to 4'),
    ('TimmBackbone', {'name': 'resnet18', 'layer': 'layer9'}, "has no layer 'layer9'; it has layer1, layer2"),
    ('TimmBackbone', {'name': 'vit_tiny_patch16_224', 'stride': 17}, 'stride must be 1 to 16'),
    ('TorchvisionBackbone', {'name': 'resnet81'}, "has no classification model 'resnet81'; did you mean"),
    ('HuggingFaceBackbone', {'config': {'model_type': 'none'}}, "model_type 'none', which transformers .* not know"),
    ('HuggingFaceBackbone', {'config': {'model_type': 'x', 'auto_map': {}}}, 'code that comes with a model is never'),
    ('HuggingFaceBackbone', {'config': {'model_type': 'clip'}}, 'is a model of images and text'),
    ('HuggingFaceBackbone', {'config': {'model_type': 'bert'}}, 'takes input_ids, not images'),
    ('HuggingFaceBackbone', {'config': VIT, 'layer': 4}, 'layer must be a block from 1 to 3'),
    ('HuggingFaceBackbone', {'config': VIT, 'layer': 'nowhere'}, "has no layer 'nowhere'; it has embeddings"),
    ('HuggingFaceBackbone', {'config': CONVNEXT, 'stride': 8}, 'this layer has stride 16'),
])  # fmt: skip
def test_what_cannot_be_built_is_named(kind, options, expected):
    with pytest.raises(ValueError, match=expected):
        build(kind, **options)


@pytest.mark.parametrize('kind, library, install, options', [
    ('TimmBackbone', 'timm', r'--no-deps timm', {'name': 'resnet18'}),
    ('TorchvisionBackbone', 'torchvision', '--no-deps torchvision', {'name': 'resnet18'}),
    ('HuggingFaceBackbone', 'transformers', r"'mmliir\[hf\]'", {'config': VIT}),
])  # fmt: skip
def test_a_library_that_is_missing_says_how_to_install_it(monkeypatch, kind, library, install, options):
    for name in [name for name in sys.modules if name.split('.')[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as Python does for what cannot be imported
    with pytest.raises(ImportError, match=f'{library} is needed: pip install {install}'):
        MODELS.build({'type': kind, **options})


def test_a_library_without_its_own_needs_names_them(monkeypatch, tmp_path):
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / '__init__.py').write_text('import torchvision_that_is_missing\n')
    for name in [name for name in sys.modules if name.split('.')[0] == 'timm']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r'timm needs torchvision_that_is_missing, which is missing: pip install'):
        MODELS.build({'type': 'TimmBackbone', 'name': 'resnet18'})


@pytest.mark.parametrize('kind, library, text', [
    ('TimmBackbone', 'timm', 'import torchvision'),
    ('TorchvisionBackbone', 'torchvision', ''),
])  # fmt: skip
def test_a_torchvision_of_another_build_is_said_to_be_one(monkeypatch, tmp_path, kind, library, text):
    (tmp_path / library).mkdir()
    (tmp_path / library / '__init__.py').write_text(text)
    (tmp_path / 'torchvision').mkdir(exist_ok=True)
    failure = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / 'torchvision' / '__init__.py').write_text(failure)
    for name in [name for name in sys.modules if name.split('.')[0] in ('timm', 'torchvision')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match='torchvision is installed but does not load beside this PyTorch .*nms does'):
        MODELS.build({'type': kind, 'name': 'resnet18'})
