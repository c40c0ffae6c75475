"""The `mmliir` command.

A subcommand is one function that adds its parser and names the function to run (`_add_score` and `_run_score`
are the form to copy); it is listed in `SUBCOMMANDS`. What it runs lives elsewhere: here are arguments in,
tables out.
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmengine.config import DictAction
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmliir.evaluation.metrics import DavisMetric, Scores, SequenceScores
from mmliir.evaluation.protocol import read_run_card
from mmliir.utils.console import TRACEBACK_VARIABLE, run_command
from mmliir.utils.files import write_json_atomic
from mmliir.utils.key_maps import KEY_MAPS
from mmliir.version import __version__

_BENCHMARK_YEARS = {'davis2017': 2017, 'davis2016': 2016}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0, 2 for an error of the user's, 130 when interrupted.

    Raises:
        SystemExit: From argparse, for `--help`, `--version` and arguments it does not know.
    """
    args = build_parser().parse_args(argv)
    return run_command('mmliir', lambda: args.run(args))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, every subcommand in it."""
    parser = argparse.ArgumentParser(
        prog='mmliir',
        description='Learn pixel correspondence from raw video, and use it.',
        epilog=f'An error is one line; {TRACEBACK_VARIABLE}=1 shows where it comes from.',
    )
    parser.add_argument('--version', action='version', version=f'mmliir {__version__}')
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in SUBCOMMANDS:
        add(subparsers)
    return parser


def _add_score(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'score',
        help='score a folder of predicted masks',
        description='Score a folder of predicted masks, <pred>/<sequence>/<frame>.png, against the truth.',
        epilog='example: mmliir score davis2017 --pred work_dirs/masks --data-root data/DAVIS --out s.json',
    )
    parser.add_argument('benchmark', choices=sorted(_BENCHMARK_YEARS), help='which rules and which list')
    parser.add_argument(
        '--pred',
        type=Path,
        required=True,
        metavar='DIR',
        help='predictions: 8-bit PNG, pixel value = object id, size of the truth',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        required=True,
        metavar='DIR',
        help='data in the DAVIS layout: Annotations/480p, ImageSets',
    )
    parser.add_argument('--split', default='val', help='list of sequences (default: val)')
    parser.add_argument(
        '--sequences', type=_names, metavar='A,B', help='score only these (default: all of the split)'
    )
    parser.add_argument(
        '--backend',
        choices=('mmliir', 'official'),
        default='mmliir',
        help='whose code computes: ours, or the original davis2017-evaluation if installed (default: mmliir)',
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='threads (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write all numbers to this JSON file')
    parser.set_defaults(run=_run_score)


def _run_score(args: argparse.Namespace) -> int:
    if args.out is not None and args.out.is_dir():
        raise ValueError(f'--out {args.out} is a folder; give the name of a JSON file.')
    metric = DavisMetric(args.data_root, _BENCHMARK_YEARS[args.benchmark], args.split, args.sequences)
    with progress_bar('scoring') as report:
        scores = metric.score(args.pred, args.backend, args.jobs, report)
    if args.out is not None:
        write_json_atomic(args.out, {**scores.to_dict(), 'run_card': read_run_card(args.pred)})
    print_scores(scores)
    return 0


def print_scores(scores: Scores) -> None:
    """Print a table on stdout, a row a sequence and the data set's value last, and the notes on stderr."""
    title = f'{scores.benchmark} {scores.split} (in %, {scores.metric_version}, {scores.backend})'
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify='left')
    table.add_column('sequence', overflow='fold')
    for name in ('ids', 'J&F', 'J mean', 'recall', 'decay', 'F mean', 'recall', 'decay'):
        table.add_column(name, justify='right', no_wrap=True)
    for sequence in scores.sequences:
        table.add_row(sequence.name, str(len(sequence.objects)), *_cells(sequence))
    table.add_section()
    num_objects = sum(len(sequence.objects) for sequence in scores.sequences)
    table.add_row('mean over ids', str(num_objects), *_cells(scores), style='bold')
    # A pipe has no width of its own: never fold or cut numbers there.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for note in scores.notes:
        print(f'note: {note}', file=sys.stderr)


def _cells(scores: Scores | SequenceScores) -> list[str]:
    values = [scores.jf_mean, scores.j.mean, scores.j.recall, scores.j.decay]
    values += [scores.f.mean, scores.f.recall, scores.f.decay]
    return [f'{100 * value:.1f}' for value in values]


@contextlib.contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on a terminal; give the function (done, total) that moves it."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    handle = bar.add_task(task, total=None)

    def report(done: int, total: int) -> None:
        bar.start()  # not before: what comes first may show a bar of its own, and two garble each other
        bar.update(handle, completed=done, total=total)

    try:
        yield report
    finally:
        bar.stop()


def _add_propagate(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'propagate',
        help='propagate masks through a video',
        description=(
            'Propagate the mask of the first frame through a video: one indexed PNG a frame, pixel value = '
            'object id as in the mask that was given.'
        ),
        epilog=_PROPAGATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('video', metavar='VIDEO', help='video file, or folder of frames (.jpg, .png)')
    parser.add_argument(
        '--mask',
        action='append',
        required=True,
        type=_numbered_mask,
        metavar='[FRAME:]PNG',
        help='mask of the first frame; again as FRAME:PNG for objects that enter there (frames count from 0)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='gets <frame name>.png and run.json'
    )
    parser.add_argument('--config', required=True, metavar='FILE', help='which feature: a file of configs/')
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help="weights; 'untrained' for random ones; nothing for features without weights",
    )
    parser.add_argument(
        '--protocol',
        metavar='NAME',
        help="crw, liir_paper, ... (default: the config's); a wrong name lists all",
    )
    parser.add_argument(
        '--short-side',
        type=_positive,
        metavar='N',
        help='resize frames for the encoder; masks keep their size',
    )
    parser.add_argument(
        '--overlay', action='store_true', help='write overlay.mp4 too: the masks over the frames'
    )
    parser.add_argument('--max-frames', type=_positive, metavar='N', help='stop after N frames')
    parser.add_argument('--amp', action='store_true', help='encode in bfloat16')
    parser.add_argument('--seed', type=int, default=0, help='of untrained weights (default: 0)')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's masks in --out")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.set_defaults(run=_run_propagate)


_PROPAGATE_EXAMPLES = """examples:
  mmliir propagate clip.mp4 --mask first.png --out work_dirs/clip --config configs/frozen/raw_lab.py --overlay
  mmliir propagate frames/ --mask first.png --mask 24:late.png --out work_dirs/clip \\
      --config configs/liir_r18_ytvos.py --checkpoint liir.pth --protocol crw
"""


def _run_propagate(args: argparse.Namespace) -> int:
    # Here, and not at the top: it brings PyTorch and all models, which `mmliir score` does not wait for.
    from mmliir.apis.propagate import propagate, write_propagation

    masks = {}
    for number, path in args.mask:
        if number in masks:
            raise ValueError(f'--mask: two masks for frame {number}, {masks[number]} and {path}')
        masks[number] = path
    propagation = propagate(
        args.video,
        masks,
        args.config,
        args.checkpoint,
        protocol=args.protocol,
        short_side=args.short_side,
        max_frames=args.max_frames,
        amp=args.amp,
        seed=args.seed,
        options=args.cfg_options,
    )
    for note in propagation.notes:
        print(f'note: {note}', file=sys.stderr)
    with progress_bar(propagation.name) as report:
        written = write_propagation(propagation, args.out, args.overlay, args.overwrite, report)
    done = 'were there already, of the same run' if written.was_complete else 'written'
    print(f'{written.num_masks} masks {done}: {written.out_dir}')
    if written.overlay is not None:
        print(f'overlay: {written.overlay}')
    return 0


def _add_convert(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'convert',
        help="turn another project's checkpoint into ours",
        description=(
            "Turn another project's checkpoint into weights that tools/test.py and `mmliir propagate` load. "
            'Every tensor is accounted for, a config of another recipe is refused, nothing in the file is executed.'
        ),
        epilog='example: mmliir convert crw pretrained.pth --out crw.pth',
    )
    parser.add_argument('family', choices=sorted(KEY_MAPS), help='whose checkpoint')
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='their file: .pth, .safetensors')
    parser.add_argument('--out', type=Path, metavar='FILE', help='the file to write: .pth or .safetensors')
    parser.add_argument(
        '--config',
        type=Path,
        metavar='FILE',
        help="the model it is for (default: the family's in configs/frozen/ that it fits)",
    )
    parser.add_argument('--dry-run', action='store_true', help='print what would become of every tensor; write nothing')
    parser.add_argument('--overwrite', action='store_true', help='replace the file --out')
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> int:
    from mmliir.apis.convert import check_out, convert_checkpoint, write_conversion

    if args.out is None and not args.dry_run:
        raise ValueError('give --out FILE, or --dry-run for the report alone')
    if args.out is not None and not args.dry_run:
        check_out(args.out, args.checkpoint, args.overwrite)
    conversion = convert_checkpoint(args.family, args.checkpoint, args.config)
    print('\n'.join(conversion.report.lines()))
    conversion.require_fit()
    if not args.dry_run:
        written = write_conversion(conversion, args.out, args.overwrite)
        print(f'written: {written}')
        print(f'score it: python tools/test.py {conversion.report.config} {written} --task davis2017')
    return 0


def _numbered_mask(text: str) -> tuple[int, Path]:
    """'first.png' -> frame 0; '24:late.png' -> frame 24."""
    match = re.fullmatch(r'(\d+):(.+)', text)
    return (int(match[1]), Path(match[2])) if match else (0, Path(text))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]


SUBCOMMANDS: tuple[Callable[[argparse._SubParsersAction], None], ...] = (_add_propagate, _add_score, _add_convert)
