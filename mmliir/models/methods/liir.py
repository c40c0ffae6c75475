"""LIIR: locality-aware inter- and intra-video reconstruction (Li et al., CVPR 2022)."""

import torch
import torch.distributed as dist
from mmengine.model import BaseModule
from torch import Tensor

from mmliir.models.memory import FeatureBank, MomentumEncoder
from mmliir.models.methods.mast import MAST
from mmliir.ops import negatives_logsumexp
from mmliir.registry import MODELS


class InterVideoTerm(BaseModule):
    """Other videos' features as negatives (LIIR section 3.2, Eqs. 4 and 5).

    Args:
        online: The encoder that learns.
        bank: Settings of `FeatureBank`.
        momentum: Of the momentum encoder.
        modulation: Config of the modulation of the position map for bank frames, or None for the plain map.
    """

    def __init__(self, online: torch.nn.Module, bank: dict, momentum: float = 0.999, modulation: dict | None = None):
        super().__init__()
        self.bank = FeatureBank(**bank)
        self.momentum_encoder = MomentumEncoder(online, momentum)
        self.modulation = None if modulation is None else MODELS.build(modulation)
        self.pending: tuple[Tensor, Tensor] | None = None  # images and video ids to enqueue after the step

    def logsumexp(
        self, query: Tensor, temperature: float, video_ids: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """Log-sum-exp of the queries' similarity to entries of other videos.

        Args:
            query: (B, C, h, w) similarity features.
            temperature: Divides the products.
            video_ids: (B,) of the queries.
            generator: Of this step's draws.

        Returns:
            (B, h, w), -inf for queries without negatives; None while the bank is empty.
        """
        negatives = self.bank.draw(generator)
        if negatives is None:
            return None
        allowed = negatives.video_ids[None] != video_ids[:, None].to(negatives.video_ids.device)
        return negatives_logsumexp(query, negatives.features.to(query.dtype), allowed, temperature)

    @torch.no_grad()
    def update(self, online: torch.nn.Module, similarity_features, generator: torch.Generator) -> None:
        """Move the momentum encoder, encode the pending frames with modulated positions, enqueue them.

        Every rank enqueues the frames of all ranks in the order one process would: the banks stay identical.

        Args:
            online: The encoder that learns.
            similarity_features: Function from features to those that dot products are taken of.
            generator: Of this step's draws.
        """
        if self.pending is None:
            return
        images, video_ids = self.pending
        self.pending = None
        self.momentum_encoder.update(online)
        encoder = self.momentum_encoder.encoder
        features = encoder(images, self._modulated_map(encoder, images, generator))
        features, video_ids = gather_in_global_order(similarity_features(features)), gather_in_global_order(video_ids)
        self.bank.enqueue(features, video_ids, generator)

    def _modulated_map(self, encoder, images: Tensor, generator: torch.Generator) -> Tensor | None:
        position_map = encoder.position_map(images)
        if position_map is None or self.modulation is None:
            return None
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        # drawn for the global batch, of which this rank holds every `ranks`-th sample
        return self.modulation(position_map, len(images) * ranks, generator)[rank::ranks]


def gather_in_global_order(tensor: Tensor) -> Tensor:
    """Concatenate equal-sized batches of all ranks so that sample i of rank r comes at `i * ranks + r`.

    Samplers give rank r every `ranks`-th sample of a global batch; this undoes it. Without a process group the input
    itself comes back.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


@MODELS.register_module()
class LIIR(MAST):
    """MAST plus position encoding, inter-video negatives and the compactness prior; a part that is off is None.

    Args:
        backbone: Config of the backbone.
        reconstruction_head: Config of the head.
        projection: Config of the projection, or None.
        position_encoder: Config of the position encoder, or None.
        inter: Settings of `InterVideoTerm` (`bank`, `momentum`, `modulation`), or None: intra-video only.
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
        self.inter = None if inter is None else InterVideoTerm(self.encoder, **inter)
        self.compactness = None if compactness is None else MODELS.build(compactness)

    def loss(self, inputs: Tensor, data_samples: dict) -> dict[str, Tensor]:
        """Losses of a batch of pairs.

        Args:
            inputs: (B, 2, 3, H, W) normalised Lab, [reference, query].
            data_samples: `video_id` (B,) long.

        Returns:
            `loss_reconstruction` (Eq. 3 on Eq. 5, or on Eq. 2 without negatives); `loss_compact` (Eq. 8) when that
            part is on; `negative_mass`, the share of the soft-max that the negatives take, when the inter-video term
            is on.
        """
        pair = self.encode_pair(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            affinity = self.reconstruction_head.affinity(pair.logits)
            outputs = {}
            mixed = affinity
            if self.inter is not None:
                mixed = self._with_negatives(pair, data_samples['video_id'], affinity)
                outputs['negative_mass'] = (affinity.sum(dim=1) - mixed.sum(dim=1)).detach().mean()
            outputs['loss_reconstruction'] = self.reconstruction(mixed, pair)
            if self.compactness is not None:
                head = self.reconstruction_head
                outputs['loss_compact'] = self.compactness(affinity, head.radius, head.valid(pair.logits))
        return outputs

    def _with_negatives(self, pair, video_ids: Tensor, affinity: Tensor) -> Tensor:
        """The affinity of Eq. 4; remembers the reference frames for the bank."""
        self.inter.pending = (pair.reference_images.detach(), video_ids)
        query, temperature = self.reconstruction_head.similarity_features(pair.query)
        negatives = self.inter.logsumexp(query, temperature, video_ids, self.generator)
        return affinity if negatives is None else self.reconstruction_head.affinity(pair.logits, negatives)

    def update_memory(self) -> None:
        """After an optimizer step: momentum update, and the step's reference frames enter the bank."""
        if self.inter is not None:
            self.inter.update(self.encoder, self._similarity_features, self.generator)

    def _similarity_features(self, features: Tensor) -> Tensor:
        return self.reconstruction_head.similarity_features(features)[0]

    def after_weights_loaded(self, missing: set[str]) -> None:
        """Start the momentum encoder from the encoder when a checkpoint (of stage 1) did not hold it."""
        if self.inter is not None and any(name.startswith('inter.momentum_encoder.') for name in missing):
            self.inter.momentum_encoder.copy_from(self.encoder)
