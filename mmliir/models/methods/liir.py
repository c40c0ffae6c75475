"""LIIR: locality-aware inter- and intra-video reconstruction (Li et al., CVPR 2022)."""

import torch
from torch import Tensor

from mmliir.models.methods.mast import MAST
from mmliir.registry import MODELS


@MODELS.register_module()
class LIIR(MAST):
    """MAST plus position encoding, inter-video negatives and the compactness prior; a part that is off is None.

    Args:
        backbone: Config of the backbone.
        reconstruction_head: Config of the head.
        projection: Config of the projection, or None.
        position_encoder: Config of the position encoder, or None.
        inter: Config of the inter-video part, `InterVideoTerm` or `InterVideoBranch`, or None: intra-video only.
        compactness: Config of the compactness-prior loss, or None.
        data_preprocessor: Config of the preprocessor.
        target: As in `MAST`.
    """

    training_only_prefixes = ('inter.',)

    def __init__(
        self,
        backbone: dict,
        reconstruction_head: dict,
        projection: dict | None = None,
        position_encoder: dict | None = None,
        inter: dict | None = None,
        compactness: dict | None = None,
        data_preprocessor: dict | None = None,
        target: str = 'dropped',
    ):
        super().__init__(backbone, reconstruction_head, projection, position_encoder, data_preprocessor, target)
        self.inter = None if inter is None else MODELS.build(inter, default_args={'encoder': self.encoder})
        self.compactness = None if compactness is None else MODELS.build(compactness)

    def loss(self, inputs: Tensor, data_samples: dict) -> dict[str, Tensor]:
        """Losses of a batch of pairs.

        Args:
            inputs: (B, 2, 3, H, W) normalised Lab, [reference, query].
            data_samples: `video_id` (B,) long.

        Returns:
            `loss_reconstruction` (Eq. 3), and what the inter-video part returns when it is on; `loss_compact` (Eq. 8)
            when that part is on.
        """
        pair = self.encode_pair(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            head = self.reconstruction_head
            affinity = head.affinity(pair.logits)
            if self.inter is None:
                outputs = {'loss_reconstruction': self.reconstruction(affinity, pair)}
            else:
                video_ids = data_samples['video_id']
                outputs = self.inter.losses(pair, affinity, video_ids, head, self.stride, self.generator)
            if self.compactness is not None:
                outputs['loss_compact'] = self.compactness(affinity, head.radius, head.valid(pair.logits))
        return outputs

    def update_memory(self) -> None:
        """After an optimizer step: momentum update, and the step's frames enter the bank."""
        if self.inter is not None:
            self.inter.update(self.encoder, self.reconstruction_head, self.generator)

    def start_stage(self) -> None:
        """Called when training starts from loaded weights and does not resume."""
        if self.inter is not None:
            self.inter.start(self.encoder)
