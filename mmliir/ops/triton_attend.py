"""The back end of `window_topk_attend` for CUDA: one fused kernel, written in Triton (`triton_kernels.py`).

Nothing depends on it: without Triton, without CUDA, with `MMLIIR_TRITON=0`, or where the kernel cannot be built,
PyTorch serves. Triton's interpreter (`TRITON_INTERPRET=1`, set before Triton is imported) runs the same kernel on CPU
tensors, slowly: that is how it is tested where there is no GPU.
"""

import functools
import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from mmliir.ops import native
from mmliir.ops.native import Unavailable

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OLDEST = (3, 6)  # older ones were not tried
MAX_BLOCK_K = 32  # more spill registers; further channels repeat the products
# The kernel counts cells of a reference, and numbers of one reference's features or values, in 32 bits.
_COUNTED = 2**31

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TritonJob:
    """What one launch computes; see `window_topk_attend`.

    Attributes:
        topk: None keeps all keys.
        over_all: `normalise='softmax_then_topk'`.
    """

    shape: str
    temperature: float
    topk: int | None
    share_ties: bool
    over_all: bool
    zero_logit: bool


def kernels() -> ModuleType:
    """`mmliir.ops.triton_kernels`, imported when it is first asked for.

    Raises:
        Unavailable: Triton is switched off, not installed or too old.
    """
    if os.environ.get('MMLIIR_TRITON', '1') == '0':
        raise Unavailable('MMLIIR_TRITON=0 switches Triton off')
    found = _import_kernels()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.lru_cache(maxsize=1)
def _import_kernels() -> ModuleType | str:
    try:
        import triton
    except ImportError as error:
        return f'Triton cannot be imported ({error})'
    version = tuple(int(part) for part in triton.__version__.split('.')[:2])
    if version < OLDEST:
        return f'it needs Triton {OLDEST[0]}.{OLDEST[1]} or later, this is {triton.__version__}'
    from mmliir.ops import triton_kernels

    return triton_kernels


def attend(
    job: TritonJob, query_Chw: Tensor, keys_RChw: Sequence[Tensor], values_RKhw: Tensor, radius: Sequence[int | None]
) -> Tensor:
    """One call of `window_topk_attend` without a prior or displaced references.

    Half-precision features are multiplied as they are, with sums in float32; float32 features are multiplied in
    float32, or in TensorFloat-32 where `torch.backends.cuda.matmul.allow_tf32` lets PyTorch do so.

    Returns:
        (K, h, w) float32.

    Raises:
        Unavailable: The text says why it cannot serve.
    """
    code = kernels()
    if query_Chw.device.type != 'cuda' and not code.INTERPRETED:
        raise Unavailable(f'it runs on CUDA, the features are on {query_Chw.device}')
    if query_Chw.dtype not in DTYPES:
        raise Unavailable(f'it computes in float32, the features are {query_Chw.dtype}')
    if query_Chw.dtype == torch.bfloat16 and code.INTERPRETED:
        raise Unavailable("Triton's interpreter multiplies the bits of bfloat16 as whole numbers")
    channels, height, width = query_Chw.shape
    cells = height * width
    largest = max([cells] + [(2 * own + 1 + 8) ** 2 for own in radius if own is not None and job.zero_logit])
    if max(largest, cells * channels, cells * values_RKhw.shape[1]) >= _COUNTED:
        raise Unavailable('it counts in 32 bits, and a window or the features of a frame have 2^31 numbers or more')
    topk = job.topk
    if topk is not None and topk >= _most_keys(cells, radius, job.zero_logit):
        topk = None  # all are kept
    if topk is not None and topk > code.MAX_TOPK:
        raise Unavailable(f'it keeps at most {code.MAX_TOPK} keys, topk is {topk}')
    if any(own.dtype != query_Chw.dtype or own.device != query_Chw.device for own in (*keys_RChw, query_Chw)):
        raise Unavailable('query and keys differ in dtype or device')
    if _broken_here.get(query_Chw.device):
        raise Unavailable(_broken_here[query_Chw.device])
    return _launch(code, job, topk, query_Chw, keys_RChw, values_RKhw, radius)


def _most_keys(cells: int, radius: Sequence[int | None], zero_logit: bool) -> int:
    """An upper bound on the keys of one query cell."""
    return sum(max(cells, (2 * own + 1) ** 2) if zero_logit and own is not None else cells for own in radius)


# device -> why the kernel cannot be built for it; a build that failed is not tried again.
_broken_here: dict[torch.device, str] = {}


def _launch(
    code: ModuleType,
    job: TritonJob,
    topk: int | None,
    query_Chw: Tensor,
    keys_RChw: Sequence[Tensor],
    values_RKhw: Tensor,
    radius: Sequence[int | None],
) -> Tensor:
    import triton

    device, (channels, height, width) = query_Chw.device, query_Chw.shape
    query, keys, values = query_Chw.contiguous(), [own.contiguous() for own in keys_RChw], values_RKhw.contiguous()
    # A cell farther away is outside the frame, and then takes part under 'zero_logit' alone.
    farthest = _COUNTED - 1 if job.zero_logit else height + width
    radii = [-1 if own is None else min(own, farthest) for own in radius]
    table = torch.tensor([[own.data_ptr(), r] for own, r in zip(keys, radii, strict=True)]).to(device)
    out = torch.empty(values.shape[1:], dtype=torch.float32, device=device)
    broken = torch.zeros(1, dtype=torch.int32, device=device)
    block_k = min(MAX_BLOCK_K, max(16, triton.next_power_of_2(values.shape[1])))

    def grid(sizes: dict) -> tuple[int, int]:
        tiles = triton.cdiv(height, sizes['TILE_Y']) * triton.cdiv(width, sizes['TILE_X'])
        return tiles, triton.cdiv(values.shape[1], block_k)

    # What a machine without a C compiler, with an unknown GPU or with too little shared memory raises.
    cannot_build = (triton.errors.TritonError, OSError, subprocess.SubprocessError, RuntimeError)
    try:
        with torch.cuda.device(device if device.type == 'cuda' else -1):  # -1: no change
            code.attend_kernel[grid](
                query, table, values, out, broken,
                float(job.temperature), channels, height, width, len(keys), values.shape[1], topk or 0,
                min(64, triton.next_power_of_2(max(64 if own < 0 else own for own in radii) + 1)),
                SHAPE=native.SHAPES.index(job.shape), ZERO_LOGIT=job.zero_logit,
                BEST=0 if topk is None else max(2, triton.next_power_of_2(topk)),
                SHARE=job.share_ties and topk is not None, OVER_ALL=job.over_all and topk is not None,
                BLOCK_K=block_k, PRECISION='tf32' if torch.backends.cuda.matmul.allow_tf32 else 'ieee',
            )  # fmt: skip
    except cannot_build as error:
        # Triton says with a plain RuntimeError that there is no C compiler; the others are PyTorch's own.
        if code.INTERPRETED or (isinstance(error, RuntimeError) and 'C compiler' not in str(error)):
            raise
        _broken_here[device] = f'the kernel cannot be built here: {" ".join(str(error).split())[:300]}'
        _logger.info('window_topk_attend runs on PyTorch: %s', _broken_here[device])
        raise Unavailable(_broken_here[device]) from error
    if int(broken):
        raise Unavailable('the features, their products or the values hold NaN or infinity')
    return out
