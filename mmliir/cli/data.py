"""`mmliir data`: what data sets there are, whether yours are whole, and getting them ready."""

import argparse
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmliir.cli.common import EXIT_INCOMPLETE, positive, progress_bar
from mmliir.utils.console import EXIT_ERROR
from mmliir.utils.files import write_json_atomic

_EXAMPLES = """examples:
  mmliir data list                                     the data sets, and which benchmarks they serve
  mmliir data list jhmdb                               one of them: where to get it, layout, licence
  mmliir data doctor --data-root data                  look at all that is in data/
  mmliir data prepare extract DAVIS.zip --into data    unpack, safely
"""
_LIST_EXAMPLES = """examples:
  mmliir data list
  mmliir data list davis2017
  mmliir data list --data-root data     which of them are in data/, and where
"""
_DOCTOR_EXAMPLES = """examples:
  mmliir data doctor --data-root data
  mmliir data doctor --data-root data davis2017 badja --full --out doctor.json
  mmliir data doctor --data-root data/DAVIS davis2017

exit code: 0 all is complete, 3 something is missing or broken but part can be used, 2 nothing can be used, or an error
"""
_EXTRACT_EXAMPLES = """examples:
  mmliir data prepare extract DAVIS-2017-trainval-480p.zip --into data
  mmliir data prepare extract joint_positions.tar.gz --into data/jhmdb

Refused before anything is written: names that lead out of the folder, links, devices, names that are there twice (also
by case alone), encrypted files, archives that swell beyond the limits, archives that are cut off.
"""
_RESIZE_EXAMPLES = """examples:
  mmliir data prepare resize data/youtube_vos/train_all_frames data/ytvos_s256 --short-side 256 --jobs 8
  mmliir data prepare resize data/davis2017 data/davis2017_s240 --short-side 240

Names, folders and lists stay; masks take the nearest pixel and keep their palette; originals are not touched. The same
command continues after an interruption.
"""
_LIST_FILE_EXAMPLES = """example:
  mmliir data prepare list data/youtube_vos/train_all_frames/JPEGImages --out train.tsv

A line a video: path, frames, height, width, with tabs between.
"""
_MARKS = {'problem': '[bold red]problem[/]', 'note': '[yellow]note[/]', 'ok': '[green]ok[/]'}
_STATES = {'complete': '[green]complete[/]', 'usable': '[yellow]in part[/]', 'unusable': '[bold red]nothing usable[/]'}


def add_data(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = _add(subparsers, 'data', 'list, check and prepare data sets', _EXAMPLES)
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)

    command = _add(commands, 'list', 'say what data sets there are and where to get them', _LIST_EXAMPLES)
    command.add_argument('name', nargs='?', metavar='NAME', help='everything about this one')
    command.add_argument('--data-root', type=Path, metavar='DIR', help='say which are there, and where')
    command.set_defaults(run=_run_list)

    command = _add(commands, 'doctor', 'say what is wrong with data, and what can be evaluated', _DOCTOR_EXAMPLES)
    command.add_argument('names', nargs='*', metavar='NAME', help='data sets (default: all that are found)')
    command.add_argument(
        '--data-root', type=Path, required=True, metavar='DIR', help='folder of the data sets, or of one'
    )
    command.add_argument(
        '--full', action='store_true', help='decode every image (default: the first and the last of each sequence)'
    )
    command.add_argument('--out', type=Path, metavar='FILE', help='write all findings and names to this JSON file')
    command.set_defaults(run=_run_doctor)

    prepare = _add(commands, 'prepare', 'unpack archives, make smaller copies, write lists', None)
    commands = prepare.add_subparsers(title='commands', metavar='COMMAND', required=True)
    command = _add(commands, 'extract', 'unpack a zip or tar file inside one folder', _EXTRACT_EXAMPLES)
    command.add_argument('archive', type=Path, metavar='ARCHIVE', help='.zip, .tar, .tar.gz, .tar.xz, .tar.bz2')
    command.add_argument('--into', type=Path, required=True, metavar='DIR', help='folder to unpack into')
    command.add_argument('--max-gb', type=positive, metavar='N', help='refuse what unpacks to more (default: 500)')
    command.add_argument(
        '--max-ratio', type=positive, metavar='N', help='refuse what unpacks to N times its size (default: 100)'
    )
    command.set_defaults(run=_run_extract)

    command = _add(commands, 'resize', 'copy frames and masks at a smaller size', _RESIZE_EXAMPLES)
    command.add_argument('source', type=Path, metavar='SRC', help='data set, or folder of folders of frames')
    command.add_argument('out', type=Path, metavar='DST', help='folder for the copies, outside SRC')
    command.add_argument('--short-side', type=positive, required=True, metavar='N', help='pixels of the shorter side')
    command.add_argument('--jobs', type=positive, default=1, metavar='N', help='threads (default: 1)')
    command.set_defaults(run=_run_resize)

    command = _add(commands, 'list', 'write a list of videos, their lengths and sizes', _LIST_FILE_EXAMPLES)
    command.add_argument('root', type=Path, metavar='DIR', help='folder of folders of frames')
    command.add_argument('--out', type=Path, required=True, metavar='FILE', help='the list')
    command.set_defaults(run=_run_list_file)


def _add(
    subparsers: argparse._SubParsersAction, name: str, text: str, examples: str | None
) -> argparse.ArgumentParser:
    return subparsers.add_parser(
        name,
        help=text,
        description=f'{text[0].upper()}{text[1:]}.',
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _run_list(args: argparse.Namespace) -> int:
    from mmliir.datasets.catalog import CATALOG

    if args.data_root is not None and not args.data_root.is_dir():
        raise FileNotFoundError(f'--data-root {args.data_root}: no such folder')
    console = _console()
    if args.name is None:
        _print_table(console, args.data_root)
        return 0
    if args.name not in CATALOG:
        raise ValueError(f'unknown data set {args.name!r}; there are {", ".join(CATALOG)}')
    _print_details(console, args.name, args.data_root)
    return 0


def _print_table(console: Console, data_root: Path | None) -> None:
    from mmliir.datasets.catalog import CATALOG

    if data_root is not None:
        console.print(f'below {escape(str(data_root))}:', highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column('data set', no_wrap=True)
    table.add_column('benchmarks', overflow='fold')
    table.add_column('published', justify='right', no_wrap=True)
    table.add_column('what it is' if data_root is None else 'found in', overflow='fold')
    for name, entry in CATALOG.items():
        number = next(iter(entry.benchmarks.values()))
        last = escape(entry.about) if data_root is None else _shown_place(name, data_root)
        table.add_row(name, ', '.join(entry.benchmarks), f'{number:,}', last)
    console.print(table)
    if data_root is None:
        console.print('`mmliir data list NAME` says where to get one, and how its folder looks.', highlight=False)


def _shown_place(name: str, data_root: Path) -> str:
    from mmliir.datasets.catalog import find_all

    folder = find_all(data_root).get(name)
    return '[dim]-[/]' if folder is None else f'[green]{escape(folder.relative_to(data_root).as_posix())}[/]'


def _print_details(console: Console, name: str, data_root: Path | None) -> None:
    from mmliir.datasets.catalog import CATALOG

    entry = CATALOG[name]
    console.print(f'[bold]{escape(entry.title)}[/]  {escape(entry.about)}', highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style='bold')
    table.add_column(overflow='fold')
    table.add_row('homepage', escape(entry.homepage))
    for number, source in enumerate(entry.sources):
        table.add_row('' if number else 'get it', escape(source))
    table.add_row('licence', escape(entry.licence))
    table.add_row('published', escape(entry.counts))
    if entry.size is not None:
        table.add_row('size', escape(entry.size))
    table.add_row('benchmarks', ', '.join(entry.benchmarks))
    table.add_row('folder', escape(' or '.join(entry.folders)))
    table.add_row('details', f'docs/datasets.md#{entry.section}')
    if data_root is not None:
        place = _shown_place(name, data_root)
        table.add_row('found in', f'{place}, below {escape(str(data_root))}')
    console.print(table, highlight=False)
    console.print('\n[bold]layout[/]')
    for line in entry.layout:
        console.print(f'  {escape(line)}', highlight=False, soft_wrap=True)


def _run_doctor(args: argparse.Namespace) -> int:
    from mmliir.datasets.catalog import CATALOG, find_all, find_data
    from mmliir.datasets.doctor import diagnose

    if args.out is not None and args.out.is_dir():
        raise ValueError(f'--out {args.out} is a folder; give the name of a JSON file.')
    for name in args.names:
        if name not in CATALOG:
            raise ValueError(f'unknown data set {name!r}; there are {", ".join(CATALOG)}')
        find_data(name, args.data_root)
    names = list(dict.fromkeys(args.names)) or list(find_all(args.data_root))
    if not names:
        raise FileNotFoundError(
            f'no data set found in {args.data_root}: `mmliir data list NAME` says how each folder is called and looks; '
            'with NAME, the doctor says what it looked for.'
        )
    diagnoses = []
    for name in names:
        with progress_bar(name) as progress:
            diagnoses.append(diagnose(name, args.data_root, args.full, progress))
        _print_diagnosis(_console(), diagnoses[-1])
    if not args.full:
        print('note: of each sequence the first and the last image were decoded; --full decodes all', file=sys.stderr)
    if args.out is not None:
        write_json_atomic(args.out, {diagnosis.name: diagnosis.to_dict() for diagnosis in diagnoses})
        print(f'written: {args.out}')
    states = {diagnosis.state for diagnosis in diagnoses}
    if states == {'complete'}:
        return 0
    return EXIT_ERROR if states == {'unusable'} else EXIT_INCOMPLETE


def _print_diagnosis(console: Console, diagnosis) -> None:
    console.print(
        f'[bold]{escape(diagnosis.title)}[/]  {_STATES[diagnosis.state]}  [dim]{escape(str(diagnosis.folder))}[/]',
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow='fold')
    for finding in diagnosis.findings:
        table.add_row(_MARKS[finding.level], escape(str(finding)))
    for row in diagnosis.evaluable:
        table.add_row('[bold]usable[/]', escape(str(row)))
    for row in diagnosis.training:
        table.add_row('[bold]usable[/]', escape(f'to train on, {row}'))
    console.print(table, highlight=False)
    for row in diagnosis.evaluable:
        if 0 < len(row.usable) < row.listed:
            # On one line, however long: it is to be copied.
            text = f'  evaluate what is whole: --on {row.benchmark} --sequences {_some(row.usable)}'
            console.print(escape(text), highlight=False, soft_wrap=True)
    console.print()


def _some(names: tuple[str, ...]) -> str:
    few = 20  # on a terminal; --out has all
    return ','.join(names[:few]) + (f',... ({len(names)}; --out FILE has all)' if len(names) > few else '')


def _run_extract(args: argparse.Namespace) -> int:
    from mmliir.datasets.archives import MAX_BYTES, MAX_RATIO, extract_archive

    max_bytes = MAX_BYTES if args.max_gb is None else args.max_gb * 10**9
    with progress_bar(args.archive.name) as progress:
        done = extract_archive(args.archive, args.into, max_bytes, args.max_ratio or MAX_RATIO, progress)
    print(f'{done.num_files:,} files, {done.num_bytes / 1e6:,.1f} MB, in {args.into}: {", ".join(done.top[:8])}')
    if done.num_left_out:
        print(f'note: {done.num_left_out} files that macOS adds were left out', file=sys.stderr)
    return 0


def _run_resize(args: argparse.Namespace) -> int:
    from mmliir.datasets.prepare import resize_frames

    with progress_bar('resizing') as progress:
        done = resize_frames(args.source, args.out, short_side=args.short_side, jobs=args.jobs, progress=progress)
    lists = f'{done.num_copied} list{"" if done.num_copied == 1 else "s"} copied'
    print(f'{done.num_written:,} images written, {done.num_kept:,} were there, {lists}: {args.out}')
    if done.left_out:
        text = 'files of other kinds were not copied (joints may be in pixels of the originals)'
        print(f'note: {len(done.left_out)} {text}, e.g. {done.left_out[0]}', file=sys.stderr)
    return _report_broken('images', done.broken)


def _run_list_file(args: argparse.Namespace) -> int:
    from mmliir.datasets.prepare import write_file_list

    with progress_bar('listing') as progress:
        done = write_file_list(args.root, args.out, progress)
    print(f'{done.num_videos:,} videos, {done.num_frames:,} frames: {done.path}')
    return _report_broken('folders', done.broken)


def _report_broken(what: str, broken: tuple[str, ...]) -> int:
    for line in broken[:5]:
        print(f'problem: {line}', file=sys.stderr)
    if broken:
        print(f'{len(broken)} {what} could not be read', file=sys.stderr)
    return EXIT_INCOMPLETE if broken else 0


def _console() -> Console:
    # A pipe has no width of its own.
    return Console(width=None if sys.stdout.isatty() else 120)
