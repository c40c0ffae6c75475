#!/usr/bin/env python
"""Time and memory of training steps, and the share of the machine's measured matrix rate.

The first table: the whole step, and without the parts of LIIR. The second: stage 1 done in other ways (precision,
layout, compiled encoder, optimizer), of which the recipe has those that measure fastest.

Each row is a process of its own: random frames as bytes, a full bank, the config's optimizer; a step is transfer,
normalisation, forward, backward, optimizer and memory update, as in training. Steps before the clock starts count the
operations and compile. On a CPU the fastest of the repeats counts; on a GPU their median by its own clock, and no step
waits for the one before, as in training. `share` is the rate over that of one large matrix product in the same process
and the precision of the convolutions. `cpu s` is processor seconds of all threads, which a busy machine changes less.

examples:
  python tools/benchmarks/train_step.py
  python tools/benchmarks/train_step.py --batch 24 --amp --repeats 20 --ways compiled contiguous unfused   # on a GPU
  python tools/benchmarks/train_step.py --compile --ways --json step.json --plot step.png
  python tools/benchmarks/train_step.py --config configs/liir_r18_ytvos_compat.py --size 128
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import (
    Bars,
    Column,
    Cost,
    TextTable,
    add_machine_arguments,
    add_report_arguments,
    describe_machine,
    matrix_rate,
    measure_in_process,
    peak_bytes,
    plot_bars,
    reset_peak,
    settled_device,
    step_seconds,
    timed,
    write_report,
)
from torch.utils.flop_counter import FlopCounterMode

import mmliir.models  # noqa: F401  (registers the parts)
from mmliir.apis.configs import load_config
from mmliir.engine.optim import without_unsupported_fused
from mmliir.registry import MODELS, OPTIMIZERS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'
STAGE_1 = 'stage 1 (intra)'
#: name -> parts of the model that are off
VARIANTS = {
    STAGE_1: {'model.inter': None, 'model.compactness': None},
    'without inter': {'model.inter': None},
    'without compactness': {'model.compactness': None},
    'stage 2 (all)': {},
}
LAYOUTS = {'own': None, 'contiguous': torch.contiguous_format, 'channels last': torch.channels_last}
#: Steps before the clock starts, after one that counts: a GPU compiles, tries algorithms, records graphs, plays them.
WARM_STEPS = {'cpu': 1, 'cuda': 5}
LONG = 5.0  # seconds; a step that takes longer is not repeated
#: A model of milliseconds, for a test of this program.
SMALL = {
    'model.backbone.base_channels': 8,  # fewer crash PyTorch channels last, see `training_format`
    'model.position_encoder.channels': 8,
    'model.position_encoder.size': (16, 16),
    'model.projection.in_channels': 32,
    'model.projection.out_channels': 8,
    'model.inter.bank.num_frames': 6,
}
TABLE = TextTable(
    [
        Column('step', 'variant', 's', 21),
        Column('way', 'way', 's', 30),
        Column('batch', 'batch', 'd', 6),
        Column('time s', 'seconds', '.3f', 9),
        Column('cpu s', 'cpu_s', '.3f', 9),
        Column('TFLOP', 'tflop', '.3f', 8),
        Column('TFLOP/s', 'tflop_per_s', '.3f', 10),
        Column('of matrix', 'matrix_tflop_per_s', '.3f', 11),
        Column('share', 'share', '.2f', 7),
        Column('peak GiB', 'peak_gib', '.2f', 10),
    ]
)


@dataclass(frozen=True)
class Way:
    """How a step is done.

    Attributes:
        amp: Convolutions in bfloat16.
        compile: The encoder compiled.
        layout: 'contiguous' (channel after channel), 'channels last' (all channels of a cell together), or 'own': what
            the encoder takes here.
        unfused: The optimizer as single operations.
        graphs: The compiled encoder's kernels are recorded and launched as CUDA graphs.
    """

    amp: bool = False
    compile: bool = False
    layout: str = 'own'
    unfused: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        texts = {'compile': 'compiled', 'unfused': 'optimizer not fused'}
        kind = ['bfloat16' if self.amp else 'float32', *([self.layout] if self.layout != 'own' else [])]
        return ', '.join([*kind, *(text for name, text in texts.items() if getattr(self, name))])


    def compile_settings(self, backend: str | None = None) -> dict | None:
        """Arguments of `torch.compile`, as the config's `compile` takes them; None: not compiled.

        Args:
            backend: In place of inductor, for a test of this program. None: inductor.
        """
        if not self.compile:
            return None
        if backend is not None:
            return {'backend': backend}
        return {'mode': 'reduce-overhead'} if self.graphs else {}


#: Name for --ways -> what is done in another way than in the first table.
WAYS = {
    'amp': dict(amp=True),
    'compiled': dict(compile=True),
    'contiguous': dict(layout='contiguous'),
    'channels-last': dict(layout='channels last'),
    'unfused': dict(unfused=True),
    'amp+compiled': dict(amp=True, compile=True),
    'amp+contiguous': dict(amp=True, layout='contiguous'),
}


def main() -> int:
    args = parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args, args.measure, Way(**json.loads(args.way)), args.batch[0])))
        return 0
    base = Way(args.amp, args.compile, args.layout, args.unfused)
    kind = torch.bfloat16 if args.amp else torch.float32
    machine = describe_machine(args.device, args.threads, kind, 128 if args.quick else None)
    print(machine)
    TABLE.print_header()
    rows = []
    for batch in args.batch:
        ways = dict.fromkeys(replace(base, **WAYS[name]) for name in args.ways)  # each once
        cases = [(variant, base) for variant in VARIANTS]
        cases += [(STAGE_1, way) for way in ways if way != base]
        for variant, way in cases:
            rows.append(run_measurement(args, variant, way, batch))
            TABLE.print_row(rows[-1])
        print_shares([row for row in rows if row['batch'] == batch and row['way'] == str(base)])
    if args.json is not None:
        write_report(args.json, machine, rows)
    if args.plot is not None:
        plot(rows, args.plot)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--size', type=int, default=256, metavar='PIXELS', help='side of the square frames')
    parser.add_argument('--batch', type=int, nargs='+', default=[2], metavar='N', help='pairs a step')
    parser.add_argument('--repeats', type=int, default=3, metavar='N', help='timed steps')
    parser.add_argument('--amp', action='store_true', help='convolutions in bfloat16')
    parser.add_argument('--compile', action='store_true', help='compile the encoder')
    parser.add_argument(
        '--layout', choices=LAYOUTS, default='own', help='of features and weights (default: what training takes here)'
    )
    parser.add_argument('--unfused', action='store_true', help='the optimizer as single operations')
    parser.add_argument(
        '--ways', nargs='*', default=list(WAYS), choices=list(WAYS), metavar='WAY',
        help=f'of stage 1, besides: {", ".join(WAYS)}; none: the first table only',
    )  # fmt: skip
    add_machine_arguments(parser)
    add_report_arguments(parser)
    parser.add_argument('--quick', action='store_true', help='a tiny model in one process')
    parser.add_argument('--measure', choices=list(VARIANTS), help=argparse.SUPPRESS)  # one row, in this process
    parser.add_argument('--way', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = settled_device(args.device)
    if args.quick:
        args.size, args.repeats = 32, 1
    return args


# ------------------------------------------------------------------------------------------------- one measurement
def run_measurement(args: argparse.Namespace, variant: str, way: Way, batch: int) -> dict:
    if args.quick:
        return measure(args, variant, way, batch)
    command = ['--measure', variant, '--way', json.dumps(asdict(way)), '--batch', str(batch)]
    command += ['--config', args.config, '--size', str(args.size), '--repeats', str(args.repeats)]
    command += ['--device', args.device, '--threads', str(args.threads)]
    return measure_in_process(__file__, command, f'{variant}, {way}, batch {batch}')


def measure(args: argparse.Namespace, variant: str, way: Way, batch: int) -> dict:
    """One row."""
    device = args.device
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as the training does
    cfg = load_config(args.config, {**(SMALL if args.quick else {}), **VARIANTS[variant]})
    model = MODELS.build(cfg.model)
    if LAYOUTS[way.layout] is not None:
        for module in model.modules():
            if hasattr(module, 'memory_format'):
                module.memory_format = LAYOUTS[way.layout]
                module.to(memory_format=module.memory_format)
    model = model.to(device).train()
    optimizer = build_optimizer(cfg.optim_wrapper.optimizer, model, way)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, 2, 3, args.size, args.size), generator=generator, dtype=torch.uint8)
    ids = torch.arange(batch)
    if device == 'cuda':
        frames, ids = frames.pin_memory(), ids.pin_memory()
    if model.inter is not None:
        fill_bank(model, frames.to(device), generator)

    def step(number: int) -> None:
        model.seed_step(number)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=way.amp):
            data = model.data_preprocessor({'inputs': frames, 'data_samples': {'video_id': ids}}, True)
            losses = model.loss(**data)
        sum(value for name, value in losses.items() if name.startswith('loss')).backward()
        optimizer.step()
        with torch.autocast(device, torch.bfloat16, enabled=way.amp):
            model.update_memory()

    with FlopCounterMode(display=False) as counter:
        step(0)
    settings = way.compile_settings('eager' if args.quick else None)
    if settings is not None:
        model.compile_training(settings)
    for number in range(1, 1 + WARM_STEPS[device]):
        step(number)
    # Before and after the steps: of a machine with other work, the better says more.
    dtype, side = torch.bfloat16 if way.amp else torch.float32, 128 if args.quick else None
    rate = matrix_rate(device, dtype, side)
    reset_peak(device)
    cost, peak = fastest_step(step, args.repeats, device), peak_bytes(device)
    rate = max(rate, matrix_rate(device, dtype, side))
    flops = counter.get_total_flops()
    return {
        'variant': variant,
        'way': str(way),
        'config': args.config,
        'size': args.size,
        'batch': batch,
        **asdict(way),
        'seconds': cost.wall,
        'cpu_s': cost.cpu,
        'tflop': flops / 1e12,
        'tflop_per_s': flops / cost.wall / 1e12,
        'matrix_tflop_per_s': rate / 1e3,
        'share': flops / cost.wall / 1e9 / rate,
        'peak_gib': peak / 2**30,
    }


def fastest_step(step, repeats: int, device: str):
    """The cost of a step: the fastest on a CPU; on a GPU the median of steps that do not wait for one another."""
    if device == 'cuda':
        first = 1 + WARM_STEPS[device]
        cost, seconds = timed(lambda: step_seconds(lambda number: step(first + number), repeats, device), device)
        return Cost(statistics.median(seconds), cost.cpu / repeats)
    costs = []
    while len(costs) < (1 if costs and costs[0].wall > LONG else repeats):
        costs.append(timed(lambda: step(2 + len(costs)), device)[0])
    return min(costs, key=lambda cost: cost.wall)


def build_optimizer(settings: dict, model, way: Way) -> torch.optim.Optimizer:
    """The config's."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = without_unsupported_fused(dict(settings), parameters[0])
    if way.unfused:
        settings.pop('fused', None)
    return OPTIMIZERS.build({**settings, 'params': parameters})


def fill_bank(model, frames, generator) -> None:
    """Let one step put its frames in the bank, then repeat them until it is full, each as a video of its own."""
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


# ---------------------------------------------------------------------------------------------------------- report
def print_shares(rows: list[dict]) -> None:
    """What each part adds to the step without it."""
    by_name = {row['variant']: row for row in rows}
    whole = by_name['stage 2 (all)']
    for part in ('inter', 'compactness'):
        less = by_name[f'without {part}']
        wall, cpu = (100 * (whole[key] / less[key] - 1) for key in ('seconds', 'cpu_s'))
        print(
            f'batch {whole["batch"]}: {part} adds {wall:.1f} % of the time, {cpu:.1f} % of the processor seconds and '
            f'{whole["peak_gib"] - less["peak_gib"]:.2f} GiB'
        )


def plot(rows: list[dict], path: Path) -> None:
    """Bars of time, rate over the matrix rate, and memory."""
    shown = {f'{row["variant"]}, {row["way"]}, {row["batch"]} pairs': row for row in rows}
    panels = [
        Bars(title, {name: row[key] for name, row in shown.items()}, form=form)
        for key, title, form in (
            ('seconds', 'seconds a step', '%.3f'),
            ('share', 'share of the matrix rate', '%.2f'),
            ('peak_gib', 'peak memory, GiB', '%.2f'),
        )
    ]
    plot_bars(path, panels)


if __name__ == '__main__':
    sys.exit(main())
