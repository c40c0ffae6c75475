"""`mmliir eval`: any feature on any benchmark under any protocol."""

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console

from mmliir.cli.common import (
    EXIT_INCOMPLETE,
    add_encoder_options,
    add_max_memory,
    names,
    positive,
    progress_bar,
    without_folder,
)

_EXAMPLES = """examples:
  mmliir eval --model raw:lab --on davis2016,badja --protocol crw,vfs --data-root data
  mmliir eval --model timm:vit_small_patch16_224.dino --download --on davis2017 --protocol dino --data-root data
  mmliir eval --model configs/liir_r18_ytvos.py --weights liir.pth --on davis2017,vip,jhmdb --protocol liir_paper \\
      --data-root data
  torchrun --nproc_per_node 8 -m mmliir eval ...      the sequences are shared out; files and scores are the same

exit code: 0 every sequence was scored, 3 some could not be (they are named, the others are scored), 2 an error
"""

def add_eval(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'eval',
        help='score any feature on any benchmark under any protocol',
        description=(
            'Propagate the first labels of every sequence with a feature, write the predictions, score them, and '
            'write a report. A killed run continues when the same command is given again.'
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--model',
        required=True,
        metavar='SPEC',
        help='raw:lab, raw:rgb, timm:NAME, hf:NAME or hf:CONFIG_FILE, torchvision:NAME, hub:REPO:NAME, '
        'file.py:function, or a config of ours (configs/x.py); see docs/features.md',
    )
    parser.add_argument(
        '--weights', metavar='FILE', help="weights of the model; 'untrained' for random ones; none for raw colours"
    )
    parser.add_argument('--download', action='store_true', help='let the library of the model fetch its weights')
    parser.add_argument('--layer', type=_layer, metavar='N', help='stage or block: number or name (default: by family)')
    parser.add_argument('--stride', type=positive, metavar='N', help='pixels per cell (default: by family)')
    parser.add_argument('--on', required=True, type=names, metavar='A,B', help='benchmarks; a wrong name lists all')
    parser.add_argument(
        '--protocol', required=True, type=names, metavar='A,B', help='protocols; a wrong name lists all'
    )
    parser.add_argument(
        '--data-root', required=True, metavar='DIR', help='folder of the data sets (davis2016/, vip/, ...), or of one'
    )
    parser.add_argument('--out', metavar='DIR', help='predictions, scores, report (default: work_dirs/eval/MODEL)')
    parser.add_argument('--sequences', type=names, metavar='A,B', help='only these (default: all)')
    parser.add_argument('--short-side', type=positive, metavar='N', help='resize frames for the encoder')
    add_encoder_options(parser)
    add_max_memory(parser)
    parser.add_argument('--jobs', type=positive, metavar='N', help='processes of the metrics (default: the cores)')
    parser.add_argument('--seed', type=int, default=0, help='of untrained weights (default: 0)')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's predictions in --out")
    parser.add_argument('--no-report', action='store_true', help='leave out report.html')
    parser.set_defaults(run=_run_eval)


def _layer(text: str) -> int | str:
    """A number counts stages or blocks; anything else is a name."""
    return int(text) if re.fullmatch(r'-?\d+', text) else text


def _run_eval(args: argparse.Namespace) -> int:
    # Here, and not at the top: they bring PyTorch and all models, which other commands do not wait for.
    from mmliir.apis.benchmark import folder_name, plan_runs, run_benchmarks, write_results
    from mmliir.apis.evaluate import default_jobs, refuse_nothing
    from mmliir.apis.features import build_feature
    from mmliir.evaluation.sharding import current_shard

    shard = current_shard()
    out_dir = Path(args.out or Path('work_dirs') / 'eval' / folder_name(args.model, args.weights))
    plan = plan_runs(args.on, args.protocol, args.data_root, args.sequences, args.short_side)
    feature = build_feature(
        args.model,
        weights=args.weights,
        layer=args.layer,
        stride=args.stride,
        download=args.download,
        seed=args.seed,
    )

    def announce(number: int, planned) -> None:
        if shard.is_main:
            found = len(planned.task.dataset.names)
            count = f'{found} sequence{"" if found == 1 else "s"}'
            print(
                f'[{number + 1}/{len(plan)}] {planned.benchmark} under {planned.protocol.name}: {count}',
                file=sys.stderr,
                flush=True,
            )

    with progress_bar('scoring') as progress:
        runs = run_benchmarks(
            plan,
            feature.method,
            feature.identity,
            out_dir,
            precision=args.precision,
            compiled=args.compile,
            overwrite=args.overwrite,
            jobs=args.jobs or default_jobs(),
            progress=progress,
            announce=announce,
            shard=shard,
            max_memory=args.max_memory,
        )
    missing = sum(len(run.evaluation.missing) for run in runs)
    if shard.is_main:
        (out_dir / 'report.html').unlink(missing_ok=True)  # an earlier run's: this one may end without
    refuse_nothing([(run.benchmark, run.evaluation) for run in runs])
    if shard.is_main:
        written = write_results(runs, out_dir, _command(args), not args.no_report)
        console = Console(width=None if sys.stdout.isatty() else 120)
        for table in written.tables:
            console.print(table)
        for note in written.notes:
            print(f'note: {note}', file=sys.stderr)
        for path in written.paths:
            print(path)
    shard.wait()
    return EXIT_INCOMPLETE if missing else 0


def _command(args: argparse.Namespace) -> list[str]:
    """The command again, without what changes no number and without this machine's paths."""
    parts = ['mmliir', 'eval', '--model', without_folder(args.model)]
    for name in ('weights', 'layer', 'stride', 'short_side'):
        value = getattr(args, name)
        if value is not None:
            parts += [f'--{name.replace("_", "-")}', without_folder(str(value))]
    parts += ['--download'] if args.download else []
    for name in ('on', 'protocol', 'sequences'):
        value = getattr(args, name)
        if value is not None:
            parts += [f'--{name}', ','.join(value)]
    parts += ['--precision', args.precision] if args.precision != 'float32' else []
    parts += ['--compile'] if args.compile else []
    parts += ['--seed', str(args.seed)] if args.seed else []
    return [*parts, '--data-root', 'DATA']
