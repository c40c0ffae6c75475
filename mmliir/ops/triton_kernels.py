"""The Triton kernel behind `mmliir.ops.triton_attend`. Importing this module needs Triton; nobody else imports it.

One program finishes one tile of query cells (M = TILE_Y * TILE_X) and one block of value channels. It walks over the
references and over the keys that the tile can reach in each, BLOCK_N at a time, so neither unfolded keys nor the
affinity ever exist. Without top-k it keeps a running soft-max and its read-out. With top-k it walks twice: the first
time it keeps each cell's best keys in a sorted list, the second time it reads the values of the keys that are no
smaller than the k-th. Both times the products come out of the same instructions, as the walk is a loop around them:
computed by two pieces of code, the k-th key might be found one rounding below itself.

Query cells that only fill up a tile stand on the frame's last row or column, so every cell has a key.
"""

import triton
import triton.language as tl
from triton import knobs

#: The best keys of a cell that are kept; a block of keys must not be smaller.
MAX_TOPK = 64
INTERPRETED: bool = knobs.runtime.interpret


def _config(tile_y: int, tile_x: int, keys: int, channels: int, warps: int, stages: int) -> triton.Config:
    sizes = {'TILE_Y': tile_y, 'TILE_X': tile_x, 'BLOCK_N': keys, 'BLOCK_C': channels}
    return triton.Config(sizes, num_warps=warps, num_stages=stages)


# Small tiles reach fewer keys beside their windows and fill a GPU with few cells; large ones load each key less often.
CONFIGS = [
    _config(4, 4, 64, 32, 2, 2),
    _config(4, 8, 64, 32, 4, 2),
    _config(8, 8, 64, 32, 8, 2),
]


@triton.autotune(
    # What runs once in the interpreter would be timed there for minutes.
    configs=CONFIGS[:1] if INTERPRETED else CONFIGS,
    key=['channels', 'reach', 'BEST', 'BLOCK_K', 'OVER_ALL'],
    cache_results=True,
)
@triton.jit(do_not_specialize=['references', 'value_channels', 'topk', 'reach'])
def attend_kernel(
    query,  # (C, h, w)
    table,  # (R, 2) int64: address of (C, h, w) keys like the query, radius in cells or -1 for the whole frame
    values,  # (R, K, h, w)
    out,  # (K, h, w) float32
    broken,  # (1,) int32: becomes 1 where a product or a result is NaN or infinite
    temperature,
    channels,
    height,
    width,
    references,
    value_channels,
    topk,
    reach,  # about the widest radius: of interest to the autotuner alone
    SHAPE: tl.constexpr,  # 0 square, 1 circle, 2 disc
    ZERO_LOGIT: tl.constexpr,  # window cells outside the frame take part with logit 0 and value 0
    BEST: tl.constexpr,  # 0: no top-k; else a power of 2, at least topk
    SHARE: tl.constexpr,  # ties share the places that better keys leave
    OVER_ALL: tl.constexpr,  # the kept keys keep their weights of a soft-max over all keys
    BLOCK_K: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,  # of float32 products
):
    INF: tl.constexpr = float('inf')
    CELLS: tl.constexpr = TILE_Y * TILE_X
    SWEEPS: tl.constexpr = 2 if BEST else 1
    frame = height * width
    columns = tl.cdiv(width, TILE_X)
    top = tl.program_id(0) // columns * TILE_Y
    left = tl.program_id(0) % columns * TILE_X
    bottom = tl.minimum(top + TILE_Y, height) - 1
    right = tl.minimum(left + TILE_X, width) - 1
    cell = tl.arange(0, CELLS)
    own_y = top + cell // TILE_X
    own_x = left + cell % TILE_X
    y = tl.minimum(own_y, bottom)
    x = tl.minimum(own_x, right)
    own_at = y * width + x
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)

    peak = tl.full((CELLS,), -INF, tl.float32)  # largest logit so far
    total = tl.zeros((CELLS,), tl.float32)  # sum of the weights that normalise
    read = tl.zeros((CELLS, BLOCK_K), tl.float32)
    bad = tl.zeros((CELLS,), tl.int32)
    if BEST:
        best = tl.full((CELLS, BEST), -INF, tl.float32)
        rank = tl.arange(0, BEST)[None, :]
        kth = tl.full((CELLS,), -INF, tl.float32)
        tied = tl.zeros((CELLS,), tl.float32)  # keys that equal the k-th; means nothing while that is -inf
        share = tl.full((CELLS,), 1, tl.float32)

    for sweep in range(SWEEPS):
        if BEST and SHARE:
            if sweep == 1:
                better = tl.sum((best > kth[:, None]).to(tl.float32), axis=1)
                share = tl.minimum((topk - better) / tl.maximum(tied, 1), 1)
        own_values = values
        for r in range(references):
            keys = tl.load(table + 2 * r).to(query.dtype)
            own_radius = tl.load(table + 2 * r + 1).to(tl.int32)
            radius = tl.where(own_radius < 0, height + width, own_radius)
            y_first = top - radius
            x_first = left - radius
            y_last = bottom + radius
            x_last = right + radius
            if not ZERO_LOGIT or own_radius < 0:
                y_first = tl.maximum(y_first, 0)
                x_first = tl.maximum(x_first, 0)
                y_last = tl.minimum(y_last, height - 1)
                x_last = tl.minimum(x_last, width - 1)
            box_width = x_last - x_first + 1
            box = (y_last - y_first + 1) * box_width
            for start in range(0, box, BLOCK_N):
                n = start + tl.arange(0, BLOCK_N)
                key_y = y_first + n // box_width
                key_x = x_first + n % box_width
                in_frame = (n < box) & (key_y >= 0) & (key_y < height) & (key_x >= 0) & (key_x < width)
                at = key_y * width + key_x
                logits = tl.zeros((CELLS, BLOCK_N), tl.float32)
                for first in range(0, channels, BLOCK_C):
                    c = first + tl.arange(0, BLOCK_C)
                    query_part = tl.load(
                        query + c[None, :] * frame + own_at[:, None], mask=c[None, :] < channels, other=0
                    )
                    key_part = tl.load(
                        keys + c[:, None] * frame + at[None, :],
                        mask=(c[:, None] < channels) & in_frame[None, :],
                        other=0,
                    )
                    logits = tl.dot(query_part, key_part, logits, input_precision=PRECISION)

                dy = tl.abs(key_y[None, :] - y[:, None])
                dx = tl.abs(key_x[None, :] - x[:, None])
                if SHAPE == 0:
                    near = tl.maximum(dy, dx) <= radius
                elif SHAPE == 1:
                    near = (dy * dy + dx * dx < radius * radius) | (dy + dx == 0)
                else:
                    near = dy * dy + dx * dx <= radius * radius
                if ZERO_LOGIT:
                    near = near & (n < box)[None, :]
                else:
                    near = near & in_frame[None, :]
                bad = tl.maximum(bad, tl.max((near & ~(tl.abs(logits) < INF)).to(tl.int32), axis=1))
                logits = tl.where(near, logits, -INF)

                if not BEST or sweep == 0:
                    highest = tl.max(logits, axis=1)
                    before = peak
                    peak = tl.maximum(peak, highest)
                    if not BEST or OVER_ALL:
                        level = tl.where(peak == -INF, 0, peak)
                        shrink = tl.exp((before - level) / temperature)
                        weights = tl.exp((logits - level[:, None]) / temperature)
                        total = total * shrink + tl.sum(weights, axis=1)
                        if not BEST:
                            value_part = tl.load(
                                own_values + k[None, :] * frame + at[:, None],
                                mask=in_frame[:, None] & (k[None, :] < value_channels),
                                other=0,
                            )
                            read = read * shrink[:, None]
                            read = tl.dot(weights, value_part.to(tl.float32), read, input_precision=PRECISION)
                    if BEST:
                        changes = highest > kth
                        if SHARE:  # ties are counted
                            changes = highest >= kth
                        if tl.max(changes.to(tl.int32), axis=0) > 0:
                            both = tl.join(best, tl.topk(logits, BEST))
                            merged = tl.topk(tl.reshape(both, (CELLS, 2 * BEST)), BEST)
                            raised = tl.sum(tl.where(rank == topk - 1, merged, 0), axis=1)
                            if SHARE:
                                # Every earlier key above the former k-th is in the former list.
                                earlier = tl.sum((best == raised[:, None]).to(tl.float32), axis=1)
                                tied = tl.where(raised > kth, earlier, tied)
                                tied += tl.sum((logits == raised[:, None]).to(tl.float32), axis=1)
                            best = merged
                            kth = raised
                else:
                    kept = near & (logits >= kth[:, None])
                    weights = tl.where(kept, tl.exp((logits - peak[:, None]) / temperature), 0)
                    if SHARE:
                        weights = tl.where(logits == kth[:, None], weights * share[:, None], weights)
                    if not OVER_ALL:
                        total += tl.sum(weights, axis=1)
                    if tl.max(tl.max(kept.to(tl.int32), axis=1), axis=0) > 0:
                        value_part = tl.load(
                            own_values + k[None, :] * frame + at[:, None],
                            mask=in_frame[:, None] & (k[None, :] < value_channels),
                            other=0,
                        )
                        read = tl.dot(weights, value_part.to(tl.float32), read, input_precision=PRECISION)
            own_values += value_channels * frame  # each step fits in 32 bits, all of them might not

    read = read / total[:, None]
    inside = (own_y < height) & (own_x < width)
    tl.store(out + k[None, :] * frame + own_at[:, None], read, mask=inside[:, None] & (k[None, :] < value_channels))
    bad = tl.maximum(bad, tl.max((~(tl.abs(read) < INF)).to(tl.int32), axis=1))
    if tl.max(bad, axis=0) > 0:
        tl.store(broken, 1)
