"""What propagation calls to encode frames: a model's features, in the precision and the way that were asked for."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mmliir.models.methods import BaseCorrespondence

_logger = logging.getLogger(__name__)

#: (B, 3, H, W) uint8 RGB -> (B, C, h, w) features.
Encode = Callable[[Tensor], Tensor]


def make_encoder(model: BaseCorrespondence, amp: bool, compiled: bool = False) -> Encode:
    """The function that encodes frames.

    Args:
        model: Gives features.
        amp: Compute in bfloat16. Features come out in bfloat16 too; propagation compares them in float32, or multiplies
            them as they are and adds up in float32.
        compiled: See `CompiledEncoder`.

    Returns:
        (B, 3, H, W) uint8 RGB -> (B, C, h, w) features.
    """
    extract = CompiledEncoder(model) if compiled else model.extract_feature
    if not amp:
        return extract

    def encode(frames: Tensor) -> Tensor:
        with torch.autocast(frames.device.type, dtype=torch.bfloat16):
            return extract(frames)

    return encode


class CompiledEncoder:
    """`extract_feature` of a model, compiled by `torch.compile` at the first frame, which takes about a minute.

    On a GPU the launches of a frame are recorded as one CUDA graph for each size of frames. Features differ from those
    of the model in rounding. Where nothing can be compiled (no C++ compiler on a CPU, no Triton on a GPU) the log says
    so once and the model is used as it is.

    Args:
        model: In evaluation mode from here on; must stay where it is.
    """

    def __init__(self, model: BaseCorrespondence) -> None:
        self._model = model.eval()
        self._records_graphs = model.device.type == 'cuda'

        def features(frames: Tensor) -> Tensor:
            return model.encoder(model.data_preprocessor.normalize(frames))

        self._run: Encode | None = torch.compile(
            features, mode='reduce-overhead' if self._records_graphs else 'default'
        )

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        if self._run is None:
            return self._model.extract_feature(frames)
        if self._records_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            found = self._run(frames.to(self._model.device))
        except torch._dynamo.exc.TorchDynamoException as error:
            self._run = None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _logger.warning('the encoder is not compiled, it runs as it is: %s', reason)
            return self._model.extract_feature(frames)
        # The next frame overwrites what a recorded graph returned; propagation keeps features.
        return found.clone() if self._records_graphs else found
