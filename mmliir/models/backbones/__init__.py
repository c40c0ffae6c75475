"""Encoders from images to feature maps."""

from mmliir.models.backbones.resnet import CorrespondenceResNet18

__all__ = ['CorrespondenceResNet18']
