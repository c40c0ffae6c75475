"""Other videos' features as negatives (LIIR section 3.2): on the features of the reconstruction, or a branch apart."""

import torch
import torch.distributed as dist
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmliir.models.heads import ReconstructionHead
from mmliir.models.memory import FeatureBank, MomentumEncoder
from mmliir.models.methods.mast import EncodedPair
from mmliir.registry import MODELS

_SOURCES = ('reference', 'query', 'both')


@MODELS.register_module()
class InterVideoTerm(BaseModule):
    """Negatives join the soft-max of the reconstruction itself (Eqs. 4 and 5, the text read literally).

    After a step, the momentum encoder moves, encodes the step's frames with modulated positions, and they enter the
    bank. No gradient flows into negatives.

    Args:
        encoder: The encoder that learns; the method passes it.
        bank: Settings of `FeatureBank`.
        momentum: Of the momentum encoder; 0 takes the online weights ("off", liir.md A10).
        momentum_norm: Its batch norms, 'own' or 'copy', see `MomentumEncoder`.
        momentum_scope: What is averaged, 'encoder' or 'projection', see `MomentumEncoder`.
        modulation: Config of the modulation of the position map for bank frames, or None for the plain map.
        source: Which frames of a pair enter the bank: 'reference', 'query' or 'both' (liir.md A12).
    """

    def __init__(
        self,
        encoder: nn.Module,
        bank: dict,
        momentum: float = 0.999,
        modulation: dict | None = None,
        source: str = 'reference',
        momentum_norm: str = 'own',
        momentum_scope: str = 'encoder',
    ):
        super().__init__()
        _check_source(source)
        self.bank = FeatureBank(**bank)
        self.momentum_encoder = MomentumEncoder(encoder, momentum, momentum_norm, momentum_scope)
        self.modulation = None if modulation is None else MODELS.build(modulation)
        self.source = source
        self.pending: tuple[Tensor, Tensor] | None = None  # images and video ids to enqueue after the step

    def losses(
        self,
        pair: EncodedPair,
        affinity: Tensor,
        video_ids: Tensor,
        head: ReconstructionHead,
        stride: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The reconstruction through the affinity of Eq. 4.

        Args:
            pair: The step's frames, features and logits.
            affinity: (B, P, h, w) soft-max of Eq. 1.
            video_ids: (B,) long.
            head: Of the method.
            stride: Pixels per cell.
            generator: Of this step's draws.

        Returns:
            `loss_reconstruction` and `negative_mass`, the share of the soft-max that the negatives take.
        """
        images = _of_source(self.source, pair.reference_images, pair.query_images)
        self.pending = (images, video_ids.repeat(len(images) // len(video_ids)))
        query, temperature = head.similarity_features(pair.query)
        negatives = self.bank.logsumexp(query, video_ids, temperature, generator, head.bank_border)
        mixed = affinity if negatives is None else head.affinity(pair.logits, negatives)
        return {
            'loss_reconstruction': head.reconstruction_loss(mixed, pair.reference_color, pair.query_color, stride),
            'negative_mass': _mass(affinity, mixed),
        }

    @torch.no_grad()
    def update(self, encoder: nn.Module, head: ReconstructionHead, generator: torch.Generator) -> None:
        """After an optimizer step: move the momentum encoder, encode and enqueue the pending frames.

        Every rank enqueues the frames of all ranks in the order one process would: the banks stay identical.

        Args:
            encoder: The encoder that learns.
            head: Of the method.
            generator: Of this step's draws.
        """
        if self.pending is None:
            return
        (images, video_ids), self.pending = self.pending, None
        self.momentum_encoder.update(encoder)
        momentum = self.momentum_encoder.encoder
        features, _ = head.similarity_features(momentum(images, self._modulated_map(momentum, images, generator)))
        self.bank.enqueue(gather_in_global_order(features), gather_in_global_order(video_ids), generator)

    def _modulated_map(self, encoder: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor | None:
        position_map = encoder.position_map(images)
        if position_map is None or self.modulation is None:
            return None
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        # drawn for the global batch, of which this rank holds every `ranks`-th sample
        return self.modulation(position_map, len(images) * ranks, generator)[rank::ranks]

    def start(self, encoder: nn.Module) -> None:
        """At the start of a stage the momentum encoder is the encoder (liir.md section 5.2)."""
        self.momentum_encoder.copy_from(encoder)


@MODELS.register_module()
class InterVideoBranch(BaseModule):
    """A second, coarser reconstruction on features of its own carries the negatives (LIIR_pytorch, the 72.2 model).

    A projection of the backbone's features (there: stride 8, 128 channels) has a momentum copy. The online side is the
    query; the copy's features of the reference frame are the keys, and enter the bank after the step. Only the query
    side learns. The method's own reconstruction keeps the soft-max of Eq. 1 (liir.md section 2.8).

    Args:
        encoder: The encoder that learns; the method passes it.
        projection: Config of the projection from the backbone's features.
        reconstruction_head: Config of the branch's head; the weight of its loss is the weight of the branch.
        bank: Settings of `FeatureBank`, or None: the coarse reconstruction without negatives.
        momentum: Of the projection's copy; 0 takes the online weights.
        source: Which frames of a pair enter the bank: 'reference', 'query' or 'both' (liir.md A12).
    """

    def __init__(
        self,
        encoder: nn.Module,
        projection: dict,
        reconstruction_head: dict,
        bank: dict | None = None,
        momentum: float = 0.999,
        source: str = 'reference',
    ):
        super().__init__()
        _check_source(source)
        self.source = source
        self.projection = MODELS.build(projection)
        if self.projection.in_channels != encoder.backbone.out_channels:
            raise ValueError(
                f'model.inter.projection.in_channels is {self.projection.in_channels}, but the backbone has '
                f'{encoder.backbone.out_channels} channels'
            )
        self.reconstruction_head = MODELS.build(reconstruction_head)
        self.momentum_encoder = MomentumEncoder(self.projection, momentum)
        self.bank = None if bank is None else FeatureBank(**bank)
        self.pending: tuple[Tensor, Tensor] | None = None  # keys and video ids to enqueue after the step

    def losses(
        self,
        pair: EncodedPair,
        affinity: Tensor,
        video_ids: Tensor,
        head: ReconstructionHead,
        stride: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Both reconstructions; arguments as in `InterVideoTerm.losses`.

        Returns:
            `loss_reconstruction` (Eqs. 1 to 3), `loss_reconstruction_inter` (Eqs. 4 and 5, of the branch) and
            `negative_mass`, the share of the branch's soft-max that the negatives take.
        """
        own = self.reconstruction_head
        query, temperature = own.similarity_features(self._project(self.projection, pair.query_backbone))
        with torch.no_grad():
            keys = self._keys(pair.reference_backbone)
            entering = keys if self.source == 'reference' else _of_source(
                self.source, keys, self._keys(pair.query_backbone)
            )
        self.pending = (entering, video_ids.repeat(len(entering) // len(video_ids)))
        logits = own.logits(query, keys)
        plain = mixed = own.affinity(logits)
        if self.bank is not None:
            negatives = self.bank.logsumexp(query, video_ids, temperature, generator, own.bank_border)
            mixed = plain if negatives is None else own.affinity(logits, negatives)
        colors = (pair.reference_color, pair.query_color)
        return {
            'loss_reconstruction': head.reconstruction_loss(affinity, *colors, stride),
            'loss_reconstruction_inter': own.reconstruction_loss(mixed, *colors, stride * self.projection.stride),
            'negative_mass': _mass(plain, mixed),
        }

    def _keys(self, backbone: Tensor) -> Tensor:
        """Similarity features of the momentum copy."""
        return self.reconstruction_head.similarity_features(self._project(self.momentum_encoder.encoder, backbone))[0]

    def _project(self, projection: nn.Module, features: Tensor) -> Tensor:
        """Apply a projection in the precision of its weights: the losses run outside autocast."""
        return projection(features.to(next(projection.parameters()).dtype))

    @torch.no_grad()
    def update(self, encoder: nn.Module, head: ReconstructionHead, generator: torch.Generator) -> None:
        """After an optimizer step: move the projection's copy, enqueue the step's keys; as `InterVideoTerm.update`."""
        if self.pending is None:
            return
        (keys, video_ids), self.pending = self.pending, None
        self.momentum_encoder.update(self.projection)
        if self.bank is not None:
            self.bank.enqueue(gather_in_global_order(keys), gather_in_global_order(video_ids), generator)

    def start(self, encoder: nn.Module) -> None:
        """At the start of a stage the copy is the projection (liir.md section 5.2)."""
        self.momentum_encoder.copy_from(self.projection)


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


def _check_source(source: str) -> None:
    if source not in _SOURCES:
        raise ValueError(f'source must be one of {", ".join(_SOURCES)}, got {source!r}')


def _of_source(source: str, reference: Tensor, query: Tensor) -> Tensor:
    """What enters the bank of a batch of pairs, without gradient."""
    if source == 'both':
        return torch.cat([reference, query]).detach()
    return (reference if source == 'reference' else query).detach()


def _mass(affinity: Tensor, mixed: Tensor) -> Tensor:
    """Mean share of the soft-max that is not the window's any more."""
    return (affinity.sum(dim=1) - mixed.sum(dim=1)).detach().mean()
