"""Networks of other libraries, and of the user, as backbones."""

from mmliir.models.backbones.adapters.base import AdapterBackbone
from mmliir.models.backbones.adapters.file import FileBackbone
from mmliir.models.backbones.adapters.hub import HubBackbone
from mmliir.models.backbones.adapters.huggingface import HuggingFaceBackbone
from mmliir.models.backbones.adapters.timm_models import TimmBackbone
from mmliir.models.backbones.adapters.torchvision_models import TorchvisionBackbone

__all__ = [
    'AdapterBackbone',
    'FileBackbone',
    'HubBackbone',
    'HuggingFaceBackbone',
    'TimmBackbone',
    'TorchvisionBackbone',
]
