#!/usr/bin/env python
"""How fast a frame is encoded: layouts, folded batch norm, compiled, several frames at a time, other run times.

All variants run in one process, in turn, --rounds times, with a product of large matrices before each: `time` and `cpu`
(processor seconds of all threads) are medians a frame; `share` is the encoder's operations a second over those of the
matrix products of the same rounds, per processor second (on a GPU by the clock). `difference` is the largest from the
first variant, over its largest value; that is the encoder as it is used, unless --only leaves it out.
Variants whose package is not installed (onnxruntime, openvino) or that cannot be compiled say so and are left out.

examples:
  python tools/benchmarks/encoder.py --threads 1
  python tools/benchmarks/encoder.py --config configs/liir_r18_clips_cpu.py --json encoder.json --plot encoder.png
  python tools/benchmarks/encoder.py --quick
"""

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common import (
    MATRIX_SIDE,
    Bars,
    Column,
    Cost,
    TextTable,
    add_machine_arguments,
    add_report_arguments,
    describe_machine,
    plot_bars,
    settled_device,
    timed,
    write_report,
)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import build_method

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'
#: (B, 3, H, W) normalised -> (B, C, h, w).
Encoder = Callable[[Tensor], Tensor]
TABLE = TextTable(
    [
        Column('variant', 'variant', width=36),
        Column('frames', 'batch', 'd', 8),
        Column('time s', 'wall_s', '.3f'),
        Column('cpu s', 'cpu_s', '.3f'),
        Column('x time', 'time_ratio', '.2f'),
        Column('x cpu', 'cpu_ratio', '.2f'),
        Column('share', 'share', '.2f'),
        Column('difference', 'difference', '.1e', 12),
    ]
)


def main() -> int:
    args = parse_args()
    machine = describe_machine(args.device, args.threads, matrix_side=256 if args.quick else None)
    print(machine)
    model = build_method(load_config(args.config), 'untrained', 0, args.device)
    spread_statistics(model)
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix='mmliir-encoder-') as folder:
        rows = compare(model.encoder, args, Path(folder))
    if args.json is not None:
        write_report(args.json, machine, rows, config=Path(args.config).stem, size=[args.height, args.width])
    if args.plot is not None:
        plot_bars(args.plot, [Bars('frames a second', {label(row): 1 / row['wall_s'] for row in rows}, form='%.2f')])
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG), metavar='FILE')
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--width', type=int, default=854)
    parser.add_argument('--rounds', type=int, default=3, metavar='N')
    parser.add_argument('--only', nargs='+', metavar='TEXT', help='variants whose name holds one of these')
    parser.add_argument('--leave-out', nargs='+', default=[], metavar='TEXT', help='those with one in their name')
    add_machine_arguments(parser)
    parser.add_argument('--quick', action='store_true', help='small frames')
    add_report_arguments(parser)
    args = parser.parse_args()
    args.device = settled_device(args.device)
    if args.quick:
        args.height, args.width, args.rounds = 64, 96, 1
    return args


def spread_statistics(model: nn.Module) -> None:
    """Batch norms as after training: none of them the identity."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_var, 0.5), (module.weight.data, 0.5), (module.bias.data, -0.5)):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))


def compare(encoder: nn.Module, args: argparse.Namespace, folder: Path) -> list[dict]:
    """Build all variants, check them, time them in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((4, 3, args.height, args.width), generator=generator).to(args.device) * 2 - 1
    with FlopCounterMode(display=False) as counter:
        truth = encoder(images[:1])
    flop = counter.get_total_flops()
    print(f'{Path(args.config).stem}, {args.height} x {args.width}, {flop * 1e-9:.0f} GFLOP a frame')
    ready: dict[tuple[str, int], tuple[Encoder, float]] = {}
    for (name, batch), make in variants(encoder, images, folder, args).items():
        if args.only and not any(text in name for text in args.only):
            continue
        if any(text in name for text in args.leave_out):
            continue
        try:
            run = make()
            found = run(images[:batch])
        except (ImportError, RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
            print(f'{name}: left out, {(str(error).strip() or type(error).__name__).splitlines()[0][:160]}', flush=True)
            continue
        difference = (found[:1].float() - truth).abs().max() / truth.abs().max()
        ready[name, batch] = run, float(difference)
    costs: dict[tuple[str, int], list] = {key: [] for key in ready}
    rates: list[Cost] = []
    side = 256 if args.quick else MATRIX_SIDE[args.device]
    a, b = torch.randn(2, side, side, device=args.device)

    def product() -> Tensor:
        return torch.mm(a, b)

    product()
    for _ in range(args.rounds):
        for (name, batch), (run, _) in ready.items():
            rates.append(timed(product, args.device)[0])
            costs[name, batch].append(timed(lambda run=run, batch=batch: run(images[:batch]), args.device)[0])
    key = 'wall' if args.device == 'cuda' else 'cpu'
    rate = 2e-9 * side**3 / statistics.median(getattr(cost, key) for cost in rates)
    print(f'matrix products between them: {rate:.0f} GFLOP a {"second" if key == "wall" else "processor second"}')
    TABLE.print_header()
    rows = []
    for (name, batch), (_, difference) in ready.items():
        wall, cpu = (statistics.median(getattr(cost, key) for cost in costs[name, batch]) for key in ('wall', 'cpu'))
        row = {'variant': name, 'batch': batch, 'wall_s': wall / batch, 'cpu_s': cpu / batch, 'difference': difference}
        row['time_ratio'] = rows[0]['wall_s'] / row['wall_s'] if rows else 1.0
        row['cpu_ratio'] = rows[0]['cpu_s'] / row['cpu_s'] if rows else 1.0
        row['share'] = 1e-9 * flop / row[f'{key}_s'] / rate
        rows.append(row)
        TABLE.print_row(row)
    return rows


def variants(
    encoder: nn.Module, images: Tensor, folder: Path, args: argparse.Namespace
) -> dict[tuple[str, int], Callable[[], Encoder]]:
    """(name, frames at a time) -> what builds it; the first is the encoder as it is used."""
    device = args.device

    def half(run: Encoder) -> Encoder:
        def encode(x: Tensor) -> Tensor:
            with torch.autocast(device, torch.bfloat16):
                return run(x)

        return encode

    def contiguous(run: nn.Module) -> Encoder:
        module = copy.deepcopy(run).to(memory_format=torch.contiguous_format)
        return lambda x: _without_layout(module, x)

    def compiled(run: nn.Module) -> Encoder:
        return torch.compile(run, mode='reduce-overhead' if device == 'cuda' else None, dynamic=False)

    def frozen(run: nn.Module, precision: Callable[[Encoder], Encoder]) -> Encoder:
        import torch._inductor.config as settings

        with settings.patch(freezing=True):
            compiled_run = precision(torch.compile(copy.deepcopy(run), dynamic=False))
            compiled_run(images[:1])  # compiled while the setting holds
        return compiled_run

    found: dict[tuple[str, int], Callable[[], Encoder]] = {
        ('channels last', 1): lambda: encoder,
        ('contiguous', 1): lambda: contiguous(encoder),
        ('channels last, folded', 1): lambda: folded(encoder),
        ('contiguous, folded', 1): lambda: contiguous(folded(encoder)),
        ('channels last', 4): lambda: encoder,
        ('compiled', 1): lambda: compiled(copy.deepcopy(encoder)),
        ('compiled, frozen', 1): lambda: frozen(encoder, lambda run: run),
        ('bfloat16', 1): lambda: half(encoder),
        ('bfloat16, folded', 1): lambda: half(folded(encoder)),
        ('bfloat16', 4): lambda: half(encoder),
        ('bfloat16, compiled', 1): lambda: half(compiled(copy.deepcopy(encoder))),
        ('bfloat16, compiled, frozen', 1): lambda: frozen(encoder, half),
    }
    if device == 'cpu':
        found['onnxruntime', 1] = lambda: onnx_runtime(encoder, images, folder, args.threads)
        found['openvino', 1] = lambda: open_vino(encoder, images, folder, args.threads, 'f32')
        found['openvino, bfloat16', 1] = lambda: open_vino(encoder, images, folder, args.threads, 'bf16')
    return found


def folded(encoder: nn.Module) -> nn.Module:
    """A copy with batch norms as part of the convolutions before them."""
    encoder = copy.deepcopy(encoder)
    for parent in list(encoder.modules()):
        names = list(parent._modules)
        for name, following in zip(names, names[1:], strict=False):
            conv, norm = getattr(parent, name), getattr(parent, following)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, following, nn.Identity())
    return encoder.to(memory_format=torch.channels_last)


def _without_layout(encoder: nn.Module, images: Tensor) -> Tensor:
    """`FeatureEncoder.forward` without its change of layout."""
    position_map = encoder.position_map(images)
    features = encoder.backbone(images) if position_map is None else encoder.backbone(images, position_map)
    return encoder.project(features)


def export(encoder: nn.Module, images: Tensor, folder: Path) -> Path:
    path = folder / 'encoder.onnx'
    if not path.exists():
        torch.onnx.export(copy.deepcopy(encoder).eval(), (images[:1],), str(path), dynamo=True, verbose=False)
    return path


def onnx_runtime(encoder: nn.Module, images: Tensor, folder: Path, threads: int) -> Encoder:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(export(encoder, images, folder)), options, providers=['CPUExecutionProvider']
    )
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def open_vino(encoder: nn.Module, images: Tensor, folder: Path, threads: int, precision: str) -> Encoder:
    import openvino

    settings = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': precision, 'NUM_STREAMS': 1}
    compiled = openvino.Core().compile_model(str(export(encoder, images, folder)), 'CPU', settings)
    return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())


def label(row: dict) -> str:
    return row['variant'] + (f', {row["batch"]} frames' if row['batch'] > 1 else '')


if __name__ == '__main__':
    sys.exit(main())
