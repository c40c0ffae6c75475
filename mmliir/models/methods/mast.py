"""MAST, the baseline: reconstruct a frame's hidden chroma channel from a neighbouring frame (Lai et al., CVPR 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmliir.models.heads import resolve_temperature
from mmliir.models.methods.base import BaseCorrespondence, FeatureEncoder
from mmliir.models.methods.bottleneck import draw_dropped_channel, drop_channel
from mmliir.registry import MODELS

_TARGET_CHANNELS = {'chroma': slice(1, 3), 'lab': slice(0, 3)}  # 'dropped' is another channel every step


@dataclass(frozen=True)
class EncodedPair:
    """What the losses of one step share.

    Attributes:
        channel: The hidden chroma channel.
        reference_images, query_images: (B, 3, H, W) the frames as the encoder saw them.
        reference_color, query_color: (B, K, H, W) the target channels of both frames as they were, neither hidden nor
            scaled: K = 1 for the hidden one, 2 for both chroma channels, 3 for Lab.
        reference_backbone, query_backbone: (B, C', h, w) features before the projection.
        query: (B, C, h, w) features of the query frames.
        logits: (B, P, h, w) intra-video window logits in float32.
    """

    channel: int
    reference_images: Tensor
    query_images: Tensor
    reference_color: Tensor
    query_color: Tensor
    reference_backbone: Tensor
    query_backbone: Tensor
    query: Tensor
    logits: Tensor


@MODELS.register_module()
class MAST(BaseCorrespondence):
    """Intra-video reconstruction (LIIR Eqs. 1 to 3).

    Args:
        backbone: Config of the backbone.
        reconstruction_head: Config of the head: affinity, read-out, photometric loss.
        projection: Config of the projection after the backbone, or None.
        position_encoder: Config of the position encoder, or None.
        data_preprocessor: Config of the preprocessor.
        target: The colours to reconstruct (liir.md A28): 'dropped', the hidden channel alone (MAST's and LIIR's code);
            'chroma', a and b; 'lab', all three. The loss is the mean over all of them.
    """

    def __init__(
        self,
        backbone: dict,
        reconstruction_head: dict,
        projection: dict | None = None,
        position_encoder: dict | None = None,
        data_preprocessor: dict | None = None,
        target: str = 'dropped',
    ):
        super().__init__(data_preprocessor)
        if target not in ('dropped', *_TARGET_CHANNELS):
            raise ValueError(f"target must be 'dropped', 'chroma' or 'lab', got {target!r}")
        self.target = target
        self.encoder = FeatureEncoder(backbone, position_encoder, projection)
        self.reconstruction_head = MODELS.build(reconstruction_head)
        # Draws of a step (hidden channel, bank points, shifts) come from a generator that the Runner's seed hook sets
        # anew before every step: a resumed run draws what an uninterrupted one would, and ranks agree.
        self.generator = torch.Generator()

    @property
    def recipe(self) -> dict:
        """Colours, and how features are compared: a dot product means another thing at another temperature."""
        head = self.reconstruction_head
        temperature = resolve_temperature(head.temperature, self.encoder.out_channels)
        return {**super().recipe, 'temperature': temperature, 'normalize': head.normalize}

    def seed_step(self, seed: int) -> None:
        """Set the generator of this step's random draws."""
        self.generator.manual_seed(seed)

    def encode_pair(self, inputs: Tensor) -> EncodedPair:
        """Hide a channel, encode both frames in one batch, compare them.

        Args:
            inputs: (B, 2, 3, H, W) normalised Lab, [reference, query].
        """
        if inputs.dim() != 5 or inputs.shape[1:3] != (2, 3):
            raise ValueError(f'inputs must be (B, 2, 3, H, W) pairs of frames, got {tuple(inputs.shape)}')
        channel = draw_dropped_channel(self.generator)
        reference_images, query_images = drop_channel(inputs, channel).unbind(1)
        backbone = self.encoder.backbone_features(torch.cat([reference_images, query_images]))
        reference, query = self.encoder.project(backbone).chunk(2)
        with torch.autocast(inputs.device.type, enabled=False):
            logits = self.reconstruction_head.logits(query, reference)
        shown = _TARGET_CHANNELS.get(self.target, slice(channel, channel + 1))
        reference_color, query_color = inputs[:, :, shown].unbind(1)
        return EncodedPair(
            channel,
            reference_images,
            query_images,
            reference_color,
            query_color,
            *backbone.chunk(2),
            query,
            logits,
        )

    def loss(self, inputs: Tensor, data_samples: dict) -> dict[str, Tensor]:
        """`loss_reconstruction` of a batch of pairs."""
        pair = self.encode_pair(inputs)
        affinity = self.reconstruction_head.affinity(pair.logits)
        return {'loss_reconstruction': self.reconstruction(affinity, pair)}

    def reconstruction(self, affinity: Tensor, pair: EncodedPair) -> Tensor:
        """Photometric loss of the target channels read through an affinity."""
        head = self.reconstruction_head
        return head.reconstruction_loss(affinity, pair.reference_color, pair.query_color, self.stride)
