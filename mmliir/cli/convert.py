"""`mmliir convert`: checkpoints of other projects."""

import argparse
from pathlib import Path

from mmliir.utils.key_maps import KEY_MAPS


def add_convert(subparsers: argparse._SubParsersAction) -> None:
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
