"""What every method offers to the Runner and to propagation."""

from collections.abc import Mapping

import torch
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from mmliir.registry import MODELS
from mmliir.utils.compute import training_format


class FeatureEncoder(BaseModule):
    """Backbone, position map after its stem, projection.

    Args:
        backbone: Config of the backbone: `.stride`, `.out_channels`, `backbone(images)`; to take a position map also
            `.stem_size(images)` and `backbone(images, position_map)`.
        position_encoder: Config of the position encoder, or None.
        projection: Config of the projection, or None to use the backbone's features.

    Raises:
        ValueError: A position encoder with a backbone that has no place for its map.
    """

    def __init__(self, backbone: dict, position_encoder: dict | None = None, projection: dict | None = None):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.position_encoder = None if position_encoder is None else MODELS.build(position_encoder)
        if position_encoder is not None and not hasattr(self.backbone, 'stem_size'):
            raise ValueError(
                f'{type(self.backbone).__name__} takes no position map: set position_encoder=None, or use a backbone '
                'that adds one behind its stem (CorrespondenceResNet18)'
            )
        self.projection = None if projection is None else MODELS.build(projection)
        wanted = getattr(self.projection, 'in_channels', self.backbone.out_channels)
        if wanted != self.backbone.out_channels:
            raise ValueError(
                f'model.projection.in_channels is {wanted}, but the backbone has {self.backbone.out_channels} channels'
            )
        #: Layout of weights and of images that are encoded with gradients.
        self.memory_format = training_format(self)
        for part in (self.backbone, self.projection):
            if part is not None:
                part.to(memory_format=self.memory_format)
        self._compiled = None  # see `compile_training`
        self.stride = self.backbone.stride
        self.out_channels = self.backbone.out_channels if projection is None else self.projection.out_channels

    def position_map(self, images: Tensor) -> Tensor | None:
        """(1, stem channels, h, w) map for images of this size; None without a position encoder."""
        if self.position_encoder is None:
            return None
        return self.position_encoder(self.backbone.stem_size(images))

    def forward(self, images: Tensor, position_map: Tensor | None = None) -> Tensor:
        """Encode normalised images.

        Args:
            images: (B, 3, H, W).
            position_map: (1 or B, stem channels, h, w) to use instead of the encoder's own (modulated for bank
                frames). None: the encoder's own.

        Returns:
            (B, out_channels, H / stride, W / stride).
        """
        return self.project(self.backbone_features(images, position_map))

    def backbone_features(self, images: Tensor, position_map: Tensor | None = None) -> Tensor:
        """The features before the projection; arguments as in `forward`."""
        if position_map is None:
            position_map = self.position_map(images)
        layout = self.memory_format if torch.is_grad_enabled() else torch.channels_last
        images = images.contiguous(memory_format=layout)
        # Evaluation brings frames of many sizes, each of which would be compiled anew.
        backbone = self._compiled if self._compiled is not None and self.training else self.backbone
        return backbone(images) if position_map is None else backbone(images, position_map)

    def compile_training(self, settings: Mapping) -> None:
        """From now on run the backbone by compiled code in training mode; weights keep their names.

        Args:
            settings: Arguments of `torch.compile`. Sizes are taken as fixed unless they say otherwise.
        """
        settings = {'dynamic': False, **settings}
        if self.memory_format is torch.contiguous_format and settings.get('backend', 'inductor') == 'inductor':
            # On CPUs inductor makes every convolution channels last, see `training_format`.
            mode = settings.pop('mode', None)
            of_mode = {} if mode is None else torch._inductor.list_mode_options(mode)
            settings['options'] = {**of_mode, 'layout_optimization': False, **(settings.get('options') or {})}
        self._compiled = torch.compile(self.backbone.forward, **settings)

    def __getstate__(self) -> dict:
        """A copy has weights of its own, so that the compiled code of these is not its code."""
        return {**super().__getstate__(), '_compiled': None}

    def project(self, features: Tensor) -> Tensor:
        """Features of the backbone to those that frames are compared by."""
        return features if self.projection is None else self.projection(features)


class BaseCorrespondence(BaseModel):
    """A method: a loss for pairs of frames, and features for propagation.

    Subclasses set `self.encoder` (anything with `.stride` that maps normalised images to features) and implement
    `loss`.

    Args:
        data_preprocessor: Config of the preprocessor; the default is `VideoPreprocessor` for Lab.
    """

    encoder: nn.Module
    #: Prefixes of weights that only training uses: they may be missing from or extra in a checkpoint.
    training_only_prefixes: tuple[str, ...] = ()

    def __init__(self, data_preprocessor: dict | None = None):
        # Built here: MMEngine would look the name up in the scope of the moment, which is ours in a Runner only.
        super().__init__(data_preprocessor=MODELS.build(data_preprocessor or {'type': 'VideoPreprocessor'}))

    @property
    def stride(self) -> int:
        """Input pixels per feature cell."""
        return self.encoder.stride

    @property
    def recipe(self) -> dict:
        """What the meaning of the weights depends on and their names and shapes do not show: plain values.

        It is kept in checkpoints; weights of another recipe are refused.
        """
        preprocessor = self.data_preprocessor
        return {
            'color_space': preprocessor.color_space,
            'mean': [round(value, 6) for value in preprocessor.mean.flatten().tolist()],
            'std': [round(value, 6) for value in preprocessor.std.flatten().tolist()],
        }

    @property
    def device(self) -> torch.device:
        """Where the model lies, one without weights too."""
        return next(iter([*self.parameters(), *self.buffers()])).device

    def forward(self, inputs: Tensor, data_samples: dict | None = None, mode: str = 'tensor'):
        """Called by the Runner on preprocessed batches.

        Args:
            inputs: (B, 2, 3, H, W) normalised [reference, query] for 'loss'; (B, 3, H, W) for 'tensor'.
            data_samples: `video_id` (B,) and `frame_ids`, for 'loss'.
            mode: 'loss' -> dict of losses; 'tensor' -> (B, C, h, w) features.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.encoder(inputs)
        raise ValueError(f"mode must be 'loss' or 'tensor', got {mode!r}: predictions come from mmliir.propagation")

    def start_stage(self) -> None:
        """Called when training starts from loaded weights and does not resume: what follows the weights is set."""

    def compile_training(self, settings: Mapping) -> None:
        """Compile the encoders for training; arguments of `torch.compile`. The first steps then take longer.

        Raises:
            ValueError: The method has no encoder of this package.
        """
        encoders = [module for module in self.modules() if isinstance(module, FeatureEncoder)]
        if not encoders:
            raise ValueError(f'{type(self).__name__} has no FeatureEncoder to compile: set compile=None')
        for encoder in encoders:
            encoder.compile_training(settings)

    def loss(self, inputs: Tensor, data_samples: dict) -> dict[str, Tensor]:
        """Losses of a batch of pairs."""
        raise TypeError(f'{type(self).__name__} is a frozen feature: it has no loss and cannot be trained')

    @torch.no_grad()
    def extract_feature(self, frames: Tensor) -> Tensor:
        """Features of raw frames, as propagation wants them: evaluation mode, no colour channel dropped.

        Args:
            frames: (B, 3, H, W) uint8 RGB on any device.

        Returns:
            (B, C, h, w) float, h = ceil(H / stride).
        """
        training = [module for module in self.modules() if module.training]
        self.eval()
        features = self.encoder(self.data_preprocessor.normalize(frames.to(self.device)))
        for module in training:  # not `train()`: a part that was frozen stays frozen
            module.training = True
        return features
