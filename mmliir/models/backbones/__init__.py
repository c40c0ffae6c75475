"""Encoders from images to feature maps."""

from mmliir.models.backbones.adapters import (
    FileBackbone,
    HubBackbone,
    HuggingFaceBackbone,
    TimmBackbone,
    TorchvisionBackbone,
)
from mmliir.models.backbones.resnet import CorrespondenceResNet18
from mmliir.models.backbones.standard_resnet import ResNet
from mmliir.models.backbones.vision_transformer import VisionTransformer

__all__ = [
    'CorrespondenceResNet18',
    'FileBackbone',
    'HubBackbone',
    'HuggingFaceBackbone',
    'ResNet',
    'TimmBackbone',
    'TorchvisionBackbone',
    'VisionTransformer',
]
