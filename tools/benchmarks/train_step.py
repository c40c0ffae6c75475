#!/usr/bin/env python
"""Time and memory of training steps: what the inter-video part and the compactness prior add, and the share of the
machine's measured matrix rate.

Each variant runs in a process of its own, on random frames, with a full bank; a step is forward, backward, optimizer
and memory update. The fastest of the repeats counts.

examples:
  python tools/benchmarks/train_step.py --size 256 --batch 2
  python tools/benchmarks/train_step.py --size 256 --batch 12 24 --amp --repeats 20
  python tools/benchmarks/train_step.py --config configs/liir_r18_ytvos_compat.py --json step.json
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

#: name -> parts of the model that are off
VARIANTS = {
    'stage 1 (intra)': {'model.inter': None, 'model.compactness': None},
    'without inter': {'model.inter': None},
    'without compactness': {'model.compactness': None},
    'stage 2 (all)': {},
}
MATRIX_SIDE = {'cpu': 2048, 'cuda': 8192}


def main() -> int:
    args = parse_args()
    if args.variant is not None:
        print(json.dumps(measure(args, args.batch[0])))
        return 0
    rows = []
    for batch in args.batch:
        for variant in VARIANTS:
            command = [sys.executable, __file__, '--variant', variant, '--batch', str(batch), '--config', args.config]
            command += ['--size', str(args.size), '--repeats', str(args.repeats), '--device', args.device]
            done = subprocess.run(command + ['--amp'] * args.amp, capture_output=True, text=True)
            if done.returncode:
                print(f'{variant}, batch {batch}: {done.stderr.strip().splitlines()[-1]}', file=sys.stderr)
                return 1
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print_row(rows[-1])
    print_shares(rows)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/liir_r18_ytvos.py')
    parser.add_argument('--size', type=int, default=256, metavar='PIXELS', help='side of the square frames')
    parser.add_argument('--batch', type=int, nargs='+', default=[2], metavar='N', help='pairs a step')
    parser.add_argument('--repeats', type=int, default=3, help='timed steps, after one that warms up')
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    parser.add_argument('--amp', action='store_true', help='convolutions in bfloat16')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows here')
    parser.add_argument('--variant', choices=list(VARIANTS), help=argparse.SUPPRESS)  # one variant, in this process
    return parser.parse_args()


def measure(args: argparse.Namespace, batch: int) -> dict:
    """One variant: seconds a step, peak memory, floating-point operations, share of the matrix rate."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import mmliir.models  # noqa: F401  (registers the parts)
    from mmliir.apis.configs import load_config
    from mmliir.registry import MODELS

    device = args.device if args.device != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as the training does
    cfg = load_config(args.config, VARIANTS[args.variant])
    model = MODELS.build(cfg.model).to(device).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, 2, 3, args.size, args.size), generator=generator, dtype=torch.uint8)
    if model.inter is not None:
        fill_bank(model, frames.to(device), generator)
    ids = torch.arange(batch, device=device)

    def step(number: int) -> None:
        model.seed_step(number)
        inputs = model.data_preprocessor.normalize(frames.to(device))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=args.amp):
            losses = model.loss(inputs, {'video_id': ids})
        sum(value for name, value in losses.items() if name.startswith('loss')).backward()
        optimizer.step()
        with torch.autocast(device, torch.bfloat16, enabled=args.amp):
            model.update_memory()
        if device == 'cuda':
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step(0)
    seconds = min(_timed(lambda number=number: step(number)) for number in range(1, args.repeats + 1))
    rate = matrix_rate(device, args.amp)
    flops = counter.get_total_flops()
    return {
        'variant': args.variant,
        'config': args.config,
        'size': args.size,
        'batch': batch,
        'amp': args.amp,
        'device': torch.cuda.get_device_name() if device == 'cuda' else f'cpu, {torch.get_num_threads()} threads',
        'torch': torch.__version__,
        'seconds': seconds,
        'tflop': flops / 1e12,
        'tflop_per_s': flops / seconds / 1e12,
        'matrix_tflop_per_s': rate / 1e12,
        'share': flops / seconds / rate,
        'peak_gib': peak_memory(device) / 2**30,
    }


def fill_bank(model, frames, generator) -> None:
    """Let one step put its frames in the bank, then repeat them until it is full, each as a video of its own."""
    import torch

    bank = model.inter.bank
    model.seed_step(0)
    with torch.no_grad():
        ids = torch.arange(len(frames), device=frames.device) + 10**6
        model.loss(model.data_preprocessor.normalize(frames), {'video_id': ids})
        model.update_memory()
    maps = bank.features[: bank.filled]
    while bank.filled < bank.num_frames:
        bank.features[bank.filled :][: len(maps)] = maps[: bank.num_frames - bank.filled]
        bank.filled = min(bank.num_frames, bank.filled + len(maps))
    bank.video_ids[:] = torch.arange(bank.num_frames, device=frames.device) + 10**6


def matrix_rate(device: str, half: bool) -> float:
    """Operations a second of one large matrix product in the precision of the convolutions."""
    import torch

    side = MATRIX_SIDE[device]
    kind = torch.bfloat16 if half else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))

    def product() -> None:
        torch.matmul(a, b)
        if device == 'cuda':
            torch.cuda.synchronize()

    product()
    return 2 * side**3 / min(_timed(product) for _ in range(5))


def peak_memory(device: str) -> int:
    """Bytes: what PyTorch held on the GPU at most, or the process's largest resident set."""
    import torch

    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    for line in Path('/proc/self/status').read_text(encoding='utf-8').splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    raise OSError('no VmHWM in /proc/self/status: peak memory can be read on Linux only')


def print_row(row: dict) -> None:
    print(
        f'{row["variant"]:<22} batch {row["batch"]:>3}  {row["seconds"]:8.3f} s  {row["tflop"]:7.3f} TFLOP  '
        f'{100 * row["share"]:5.1f} % of {row["matrix_tflop_per_s"]:.2f} TFLOP/s  {row["peak_gib"]:6.2f} GiB',
        flush=True,
    )


def print_shares(rows: list[dict]) -> None:
    """What each part adds to the step without it."""
    for batch in sorted({row['batch'] for row in rows}):
        by_name = {row['variant']: row for row in rows if row['batch'] == batch}
        whole = by_name['stage 2 (all)']
        for part in ('inter', 'compactness'):
            less = by_name[f'without {part}']
            print(
                f'batch {batch}: {part} adds {100 * (whole["seconds"] / less["seconds"] - 1):.1f} % of the time and '
                f'{whole["peak_gib"] - less["peak_gib"]:.2f} GiB'
            )


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == '__main__':
    sys.exit(main())
