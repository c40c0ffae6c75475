"""`mmliir propagate`: masks through a video of one's own."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmliir.cli.common import ConfigOptions, add_encoder_options, add_max_memory, positive, progress_bar
from mmliir.utils.words import number_of

if TYPE_CHECKING:
    from mmliir.apis.propagate import WrittenMasks
    from mmliir.propagation import Absence


def add_propagate(subparsers: argparse._SubParsersAction) -> None:
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
    parser.add_argument('video', metavar='VIDEO', help='video file, or folder of frames (.jpg, .png, ...)')
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
        type=positive,
        metavar='N',
        help='resize frames for the encoder; masks keep their size',
    )
    parser.add_argument(
        '--overlay', action='store_true', help='write overlay.mp4 too: the masks over the frames'
    )
    parser.add_argument('--max-frames', type=positive, metavar='N', help='stop after N frames')
    parser.add_argument(
        '--bit-depth',
        type=int,
        metavar='BITS',
        help='of frames with 16 bits a channel: how many of them are used, 8 to 16 (default: found out and said)',
    )
    add_encoder_options(parser)
    add_max_memory(parser)
    parser.add_argument('--seed', type=int, default=0, help='of untrained weights (default: 0)')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's masks in --out")
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={}, metavar='KEY=VALUE')
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
        precision=args.precision,
        compiled=args.compile,
        seed=args.seed,
        options=args.cfg_options,
        max_memory=args.max_memory,
        bit_depth=args.bit_depth,
    )
    for note in propagation.notes:
        print(f'note: {note}', file=sys.stderr)
    with progress_bar(propagation.name) as report:
        written = write_propagation(propagation, args.out, args.overlay, args.overwrite, report)
    done = 'were there already, of the same run' if written.was_complete else 'written'
    print(f'{written.num_masks} masks {done}: {written.out_dir}')
    for note in _notes(written):
        print(f'note: {note}', file=sys.stderr)
    if written.overlay is not None:
        print(f'overlay: {written.overlay}')
    return 0


def _notes(written: 'WrittenMasks') -> Iterator[str]:
    """What of the objects is missing in the masks, each thing once."""
    advice = 'If it is still in sight, try another --protocol, larger frames or another feature.'
    gaps: dict[int, list[Absence]] = {}
    for absence in written.absences:
        if not absence.to_the_end:
            gaps.setdefault(absence.object_id, []).append(absence)
    for object_id, found in gaps.items():
        count = number_of(sum(gap.num_frames for gap in found), 'mask')
        yield f'object {object_id} is missing in {count} and then there again, first from frame {found[0].first} on.'
    for absence in written.lost:
        if absence.first != written.empty_from:
            yield f'object {absence.object_id} is in no mask from frame {absence.first} on. {advice}'
    if written.empty_from is not None:
        yield f'no mask shows an object from frame {written.empty_from} on. {advice}'


def _numbered_mask(text: str) -> tuple[int, Path]:
    """'first.png' -> frame 0; '24:late.png' -> frame 24."""
    match = re.fullmatch(r'(\d+):(.+)', text)
    return (int(match[1]), Path(match[2])) if match else (0, Path(text))
