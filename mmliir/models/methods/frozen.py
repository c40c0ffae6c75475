"""Features that are not trained."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmliir.models.methods.base import BaseCorrespondence, FeatureEncoder
from mmliir.registry import MODELS


class _BlockMean(nn.Module):
    """Mean colour of each stride x stride block."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.stride, ceil_mode=True, count_include_pad=False)


@MODELS.register_module()
class RawColor(BaseCorrespondence):
    """The colours themselves as a feature: the floor that a learnt feature must beat.

    Args:
        stride: Side of the blocks whose mean colour is taken, in pixels.
        data_preprocessor: Config of the preprocessor: the colour space and its normalisation.
    """

    def __init__(self, stride: int = 8, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        self.encoder = _BlockMean(stride)
        self.register_buffer('device_marker', torch.zeros(1), persistent=False)


@MODELS.register_module()
class FrozenFeature(BaseCorrespondence):
    """An encoder as it is: evaluated with the weights of a checkpoint, never trained.

    Its weights have the names that they have in `MAST` and `LIIR`, so one file serves both.

    Args:
        backbone: Config of the backbone.
        projection: Config of the projection, or None.
        position_encoder: Config of the position encoder, or None.
        data_preprocessor: Config of the preprocessor: the colour space and its normalisation.
    """

    def __init__(
        self,
        backbone: dict,
        projection: dict | None = None,
        position_encoder: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor)
        self.encoder = FeatureEncoder(backbone, position_encoder, projection)
        self.requires_grad_(False)

    @property
    def pretrained(self) -> bool:
        """Whether the backbone brings weights of its own (`hub:`, `file.py:function`): no checkpoint is wanted."""
        return getattr(self.encoder.backbone, 'pretrained', False)

    def translate_weights(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
        """Weights as another library publishes them -> (ours, names that have no place here).

        Ours come back as they are.
        """
        backbone = self.encoder.backbone
        own = self.state_dict()
        if not hasattr(backbone, 'translate_weights') or any(name in own for name in weights):
            return dict(weights), frozenset()
        kept, unused = backbone.translate_weights(weights)
        return {f'encoder.backbone.model.{name}': value for name, value in kept.items()}, unused
