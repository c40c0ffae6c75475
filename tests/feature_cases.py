"""Small networks of other libraries, for the tests of features: random weights, no downloads."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn
from torchvision_stand_in import stand_in

from mmliir.registry import MODELS

VIT = {
    'model_type': 'vit', 'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 3, 'intermediate_size': 48,
    'image_size': 32, 'patch_size': 8,
}  # fmt: skip
DINOV2 = {**VIT, 'model_type': 'dinov2', 'image_size': 28, 'patch_size': 7}
REGISTERS = {**VIT, 'model_type': 'dinov2_with_registers', 'num_register_tokens': 4}
STAGES = {'hidden_sizes': [8, 16, 24, 32], 'depths': [1, 1, 2, 1]}
RESNET = {**STAGES, 'model_type': 'resnet', 'embedding_size': 8, 'layer_type': 'basic'}
CONVNEXT = {**STAGES, 'model_type': 'convnext'}
SWIN = {'model_type': 'swin', 'embed_dim': 8, 'depths': [1, 1, 2, 1], 'num_heads': [1, 2, 2, 4], 'window_size': 4}


def build(kind: str, **options):
    """A backbone in evaluation mode; skips where its library is not installed."""
    need = {'TimmBackbone': 'timm', 'HuggingFaceBackbone': 'transformers', 'TorchvisionBackbone': 'torchvision'}[kind]
    allow(need)
    torch.manual_seed(0)
    backbone = MODELS.build({'type': kind, **options}).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones hide what the last convolution of a block does
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return backbone


def allow(name: str) -> None:
    """Skip where a library is not installed; let it load beside a PyTorch of another build."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f'{name} is not installed')
    if name == 'transformers' and importlib.util.find_spec('torchvision') is None:
        return
    if stand_in() == 'modules' and name == 'torchvision':
        pytest.skip('torchvision is not installed')


def images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """(count, 3, height, width) normalised."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
