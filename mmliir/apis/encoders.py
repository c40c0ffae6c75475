"""What propagation calls to encode frames: a model's features, in the precision and the way that were asked for."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mmliir.models.methods import BaseCorrespondence
from mmliir.utils.compute import Precision, computing_in

_logger = logging.getLogger(__name__)

#: (B, 3, H, W) uint8 RGB -> (B, C, h, w) features.
Encode = Callable[[Tensor], Tensor]


def make_encoder(model: BaseCorrespondence, precision: Precision, compiled: bool = False) -> Encode:
    """The function that encodes frames.

    Args:
        model: Gives features.
        precision: 'bfloat16' or 'float32'. Features in bfloat16 are compared in float32, or multiplied as they are and
            added up in float32.
        compiled: See `CompiledEncoder` and `settle_compile`.

    Returns:
        (B, 3, H, W) uint8 RGB -> (B, C, h, w) features.
    """
    extract = CompiledEncoder(model) if compiled else model.extract_feature
    if precision == 'float32':
        return extract

    def encode(frames: Tensor) -> Tensor:
        with computing_in(precision, frames.device.type):
            return extract(frames)

    return encode


def settle_compile(asked: bool, device: torch.device) -> bool:
    """Whether the encoder is compiled: when it was asked for, and something can be.

    Without a C++ compiler on a CPU, or Triton on a GPU, the log says so once and the encoder runs as it is. Known
    before anything is computed, so that the run card says what serves.
    """
    if not asked:
        return False
    reason = _why_nothing_compiles(device.type)
    if reason:
        _logger.warning('the encoder is not compiled, it runs as it is: %s', reason)
    return not reason


@functools.cache
def _why_nothing_compiles(device_type: str) -> str:
    """'' where a small function can be compiled."""
    try:
        torch.compile(_add_one)(torch.zeros(8, device=device_type))
    except torch._dynamo.exc.TorchDynamoException as error:
        return _first_line(error)
    return ''


def _add_one(values: Tensor) -> Tensor:
    return values + 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CompiledEncoder:
    """`extract_feature` of a model, compiled by `torch.compile` at the first frame, which takes about a minute.

    On a GPU the launches of a frame are recorded as one CUDA graph for each size of frames. Features differ from those
    of the model in rounding.

    Args:
        model: In evaluation mode from here on; must stay where it is.

    Raises:
        ValueError: When it is called, and this model cannot be compiled.
    """

    def __init__(self, model: BaseCorrespondence) -> None:
        self._model = model.eval()
        self._records_graphs = model.device.type == 'cuda'

        def features(frames: Tensor) -> Tensor:
            return model.encoder(model.data_preprocessor.normalize(frames))

        self._run: Encode = torch.compile(features, mode='reduce-overhead' if self._records_graphs else 'default')

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        if self._records_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            found = self._run(frames.to(self._model.device))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ValueError(f'this encoder cannot be compiled, leave --compile out: {_first_line(error)}') from error
        # The next frame overwrites what a recorded graph returned; propagation keeps features.
        return found.clone() if self._records_graphs else found
