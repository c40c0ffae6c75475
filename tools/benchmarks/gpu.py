#!/usr/bin/env python
"""All that this package can measure on a GPU, in one call of at most eight minutes: see gpu.sh, which calls this.

Sections, in order: the machine (rates of products and of a copy), the Triton kernel against the loop over cells,
propagation steps, a whole video, training steps, 60 seconds of real training, the encoder. Each is a process of its own
with a part of the time; time that one leaves goes to the next. One that fails, hangs or is killed is recorded with its
error, and the others go on. OUT/gpu.json and OUT/gpu.md are written anew after every row, so that a run that is
stopped leaves what was measured; OUT/<section>.log holds what a section printed.

The exit code is 0 when everything was measured, 1 when something was not, 2 when nothing could start.

examples:
  bash tools/benchmarks/gpu.sh
  bash tools/benchmarks/gpu.sh --device cpu --tiny --out gpu-dry-run
"""

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
#: Seconds without a line of a section after which one is printed.
QUIET = 15.0
FORMAT = 1
STATUS = {
    'ok': 'measured',
    'failed': 'failed',
    'timed out': 'timed out',
    'stopped': 'stopped with the whole run',
    'left out': 'left out',
    'not started': 'not started',
}


@dataclass(frozen=True)
class Column:
    """Of a Markdown table: title, key of the row, format specification without the width."""

    title: str
    key: str
    form: str = ''


@dataclass(frozen=True)
class Section:
    """A process of its own.

    Attributes:
        name: Of the function in gpu_sections.py.
        part: Of the time; all parts together are the whole.
        title: In the report.
        columns: Of its table.
    """

    name: str
    part: float
    title: str
    columns: tuple[Column, ...]


NAME = Column('', 'name')
SECONDS_MS = Column('ms', 'ms', '.3f')
SHARE = Column('share of the product', 'share', '.1%')
SECTIONS = (
    Section(
        'machine',
        25,
        'The machine: products and a copy',
        (NAME, Column('side', 'side'), Column('TFLOP/s', 'tflop_per_s', '.1f'), Column('GB/s', 'gb_per_s', '.0f')),
    ),
    Section(
        'kernel',
        50,
        'The Triton kernel against the loop over cells',
        (
            NAME,
            Column('cells', 'cells'),
            Column('type', 'dtype'),
            Column('largest difference', 'max_difference', '.1e'),
        ),
    ),
    Section(
        'propagation',
        85,
        'A propagation step at 480p',
        (
            NAME,
            Column('algorithm', 'algorithm'),
            Column('type', 'dtype'),
            SECONDS_MS,
            Column('TFLOP/s', 'tflop_per_s', '.2f'),
            SHARE,
            Column('share of the copy', 'bandwidth_share', '.1%'),
            Column('bound', 'bound'),
            Column('peak MB', 'peak_mb', '.0f'),
            Column('largest difference', 'max_difference', '.1e'),
            Column('cells that differ', 'cells_that_differ', '.4%'),
        ),
    ),
    Section(
        'video',
        65,
        'A whole 480p video, files to files',
        (
            NAME,
            Column('protocol', 'protocol'),
            Column('frames', 'frames'),
            Column('frames/s', 'frames_per_s', '.1f'),
            Column('encode ms', 'encode_ms', '.2f'),
            Column('affinity and read-out ms', 'attend_ms', '.2f'),
            Column('encoder TFLOP/s', 'encoder_tflop_per_s', '.1f'),
            Column('share of the product', 'encoder_share', '.1%'),
            Column('peak GiB', 'peak_gib', '.2f'),
        ),
    ),
    Section(
        'train_step',
        140,
        "A training step at the paper's size",
        (
            NAME,
            Column('way', 'way'),
            Column('pairs', 'batch'),
            SECONDS_MS,
            Column('pairs/s', 'pairs_per_s', '.1f'),
            Column('TFLOP/s', 'tflop_per_s', '.1f'),
            SHARE,
            Column('peak GiB', 'peak_gib', '.2f'),
        ),
    ),
    Section(
        'training',
        100,
        'Real training, with data loading',
        (
            NAME,
            Column('precision', 'precision'),
            Column('videos', 'videos'),
            Column('pairs', 'batch'),
            Column('s', 'seconds', '.1f'),
            Column('steps', 'steps'),
            Column('steps/s', 'steps_per_s', '.2f'),
            Column('pairs/s', 'pairs_per_s', '.1f'),
            Column('waiting for data', 'loading_share', '.1%'),
            SHARE,
            Column('loss, first', 'loss_first', '.4f'),
            Column('loss, last', 'loss_last', '.4f'),
            Column('peak GiB', 'peak_gib', '.2f'),
        ),
    ),
    Section(
        'encoder',
        15,
        'The encoder on frames of 480 x 854',
        (NAME, Column('frames at a time', 'batch'), Column('frames/s', 'frames_per_s', '.1f'), SHARE),
    ),
)


# ------------------------------------------------------------------------------------------------------------ the run
def main() -> int:
    args = parse_args()
    if args.section is not None:
        return measure_section(args)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    signal.signal(signal.SIGTERM, stop)
    try:
        run.all()
    finally:
        run.end()
    return run.exit_code()


def stop(*_) -> None:
    """A kill by `timeout` ends the section that runs, and what was measured is written; no second signal ends that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--tiny', action='store_true', help='few cells and steps: does everything work')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), metavar='DIR')
    parser.add_argument('--budget', type=float, default=465.0, metavar='SECONDS', help='of all sections')
    parser.add_argument('--sections', nargs='+', choices=[own.name for own in SECTIONS], metavar='NAME')
    parser.add_argument('--section', help=argparse.SUPPRESS)  # one section, in this process
    parser.add_argument('--result', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--seconds', type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.budget <= 0:
        parser.error(f'--budget: expected seconds above 0, got {args.budget:g}')
    return args


def find_data_root() -> Path | None:
    """`$MMLIIR_DATA_ROOT`, else `shared/data` beside the repository, else `data` in it."""
    named = os.environ.get('MMLIIR_DATA_ROOT')
    roots = [Path(named)] if named else [REPOSITORY.parent / 'shared' / 'data', REPOSITORY / 'data']
    return next((root.resolve() for root in roots if root.is_dir()), None)


class Run:
    """What has been measured, and the section that is at work."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = time.monotonic()
        self.data_root = find_data_root()
        wanted = args.sections or [own.name for own in SECTIONS]
        self.sections = [own for own in SECTIONS if own.name in wanted]
        self.child: subprocess.Popen | None = None
        self.report = {
            'format': FORMAT,
            'started': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'device': args.device,
            'tiny': args.tiny,
            'budget_s': args.budget,
            'data_root': None if self.data_root is None else self.data_root.name,
            'seconds': 0.0,
            'sections': {own.name: {'status': 'not started', 'rows': []} for own in self.sections},
        }

    def all(self) -> None:
        self.write()
        whole, until = sum(own.part for own in self.sections), 0.0
        for section in self.sections:
            until += self.args.budget * section.part / whole
            self.one(section, until)
            self.write()
        self.say(f'done: {self.args.out / "gpu.md"}, {self.args.out / "gpu.json"}')

    def one(self, section: Section, until: float) -> None:
        """Run a section until it ends or `until` seconds of the run have passed; its rows and its fate are kept."""
        found, result = self.report['sections'][section.name], self.args.out / f'{section.name}.json'
        result.unlink(missing_ok=True)
        began = time.monotonic()
        limit = until - self.elapsed
        if limit < 1:
            return
        found['status'] = 'stopped'  # with the whole run, unless it says otherwise
        self.say(f'{section.name}: {section.title} (at most {limit:.0f} s)')
        command = [sys.executable, str(Path(__file__).resolve()), '--section', section.name]
        command += ['--device', self.args.device, '--out', str(self.args.out), '--result', str(result)]
        command += ['--seconds', f'{limit:.1f}', *['--tiny'] * self.args.tiny]
        last = ''
        with open(self.args.out / f'{section.name}.log', 'w', encoding='utf-8') as log:
            for line in self.lines_of(command, began + limit):
                if line is None:
                    self.say(f'{section.name}: still at it')
                    continue
                log.write(line)
                log.flush()
                last = line.strip() or last
                if self.take(found, result):
                    self.write()
                self.say(f'{section.name}: {line.rstrip()}')
        found['seconds'] = time.monotonic() - began
        self.take(found, result)
        result.unlink(missing_ok=True)
        if 'ended' in found:
            found['status'] = found.pop('ended')
        elif time.monotonic() < began + limit:
            found['status'], found['error'] = 'failed', f'the process ended: {last[:300]}'
        else:
            found['status'], found['error'] = 'timed out', f'stopped after {limit:.0f} s'
        if found['status'] == 'ok' and any('error' in row for row in found['rows']):
            found['status'] = 'failed'
        self.say(f'{section.name}: {found["status"]}' + (f', {found["error"]}' if 'error' in found else ''))

    @staticmethod
    def take(found: dict, result: Path) -> bool:
        """Take over what a section has written so far; whether there is more than before."""
        if not result.is_file():
            return False
        before = len(found['rows'])
        found |= json.loads(result.read_text(encoding='utf-8'))
        return len(found['rows']) > before

    def lines_of(self, command: Sequence[str], deadline: float) -> Iterator[str | None]:
        """Lines as a program prints them; None after a silence. Its whole family is killed at the deadline."""
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace',
            env=self.environment(), start_new_session=True,
        )  # fmt: skip
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_copy_lines, args=(self.child.stdout, lines), daemon=True).start()
        quiet_since, ended = time.monotonic(), False
        while time.monotonic() < deadline:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                if not ended and self.child.poll() is not None:
                    # What it printed last is still on its way; a grandchild may keep the pipe open for ever.
                    ended, deadline = True, min(deadline, time.monotonic() + 2)
                if time.monotonic() - quiet_since >= QUIET:
                    quiet_since = time.monotonic()
                    yield None
                continue
            if line is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(max(0.0, deadline - time.monotonic()))
                break
            quiet_since = time.monotonic()
            yield line
        self.kill_child()

    def kill_child(self) -> None:
        """The section that runs and all that it started."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            self.child = None

    def environment(self) -> dict[str, str]:
        """Of the sections: this checkout is imported, wherever it lies; the interpreter serves the CPU alone."""
        own = dict(os.environ)
        own['PYTHONPATH'] = os.pathsep.join([str(REPOSITORY), *filter(None, [own.get('PYTHONPATH')])])
        own['PYTHONUNBUFFERED'] = '1'
        own.pop('TRITON_INTERPRET', None)
        if self.args.device == 'cpu':
            own['TRITON_INTERPRET'] = '1'
            own['CUDA_VISIBLE_DEVICES'] = ''
        if self.data_root is not None:
            own['MMLIIR_DATA_ROOT'] = str(self.data_root)
        return own

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def say(self, text: str) -> None:
        left = max(0.0, self.args.budget - self.elapsed)
        print(f'[{self.elapsed:4.0f} s, {left:4.0f} s left] {text}', flush=True)

    def write(self) -> None:
        self.report['seconds'] = self.elapsed
        self.report['complete'] = self.exit_code() == 0
        write_atomic(self.args.out / 'gpu.json', json.dumps(self.report, indent=1) + '\n')
        write_atomic(self.args.out / 'gpu.md', markdown(self.report))

    def end(self) -> None:
        self.kill_child()
        self.write()

    def exit_code(self) -> int:
        """0 where all was measured; on a CPU, what only a GPU has may be left out."""
        return int(any(own['status'] not in ('ok', 'left out') for own in self.report['sections'].values()))


def _copy_lines(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def write_atomic(path: Path, text: str) -> None:
    """A reader, or a kill, never meets half a file. (`mmliir.utils.files` may need what is missing here.)"""
    partial = path.with_name(path.name + '.partial')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)


# ---------------------------------------------------------------------------------------------------------- a section
def measure_section(args: argparse.Namespace) -> int:
    """Run one section in this process; its rows are written as they come."""
    start = time.monotonic()
    open_package()
    import gpu_sections as sections

    report = args.out / 'gpu.json'
    known = json.loads(report.read_text(encoding='utf-8'))['sections'] if report.is_file() else {}
    sections.set_precision()
    rows = {name: own['rows'] for name, own in known.items()}
    setup = sections.Setup(args.device, args.tiny, args.seconds, find_data_root(), rows, start)
    found: dict = {'rows': []}
    try:
        for row in sections.SECTIONS[args.section](setup):
            found['rows'].append(row)
            write_atomic(args.result, json.dumps(found))
            print(line_of(row), flush=True)
        found['ended'] = 'ok'
    except sections.LeftOut as reason:
        found |= {'ended': 'left out', 'error': str(reason)}
    except sections.ROW_ERRORS as error:
        found |= {'ended': 'failed', 'error': sections.short(error)}
    write_atomic(args.result, json.dumps(found))
    return 0


def open_package() -> None:
    """Let `mmliir.ops` be imported where no engine is installed, though the package asks for one when it is imported.

    What compares features needs none; the sections that do say so.
    """
    if importlib.util.find_spec('mmengine') is None:
        package = types.ModuleType('mmliir')
        package.__path__ = [str(REPOSITORY / 'mmliir')]
        sys.modules['mmliir'] = package


def line_of(row: dict) -> str:
    words = [str(row[key]) for key in ('name', 'algorithm', 'dtype', 'way', 'batch') if row.get(key) is not None]
    return ', '.join(words) + (f': {row["error"]}' if 'error' in row else '')


# -------------------------------------------------------------------------------------------------------- the report
def markdown(report: dict) -> str:
    """The tables; a row or a section without a number says why."""
    lines = ['# Measured on a GPU' if report['device'] == 'cuda' else '# Dry run on a CPU', '']
    if report['tiny']:
        lines += ['**Tiny: shows that everything works; no number here means anything.**', '']
    versions = next(
        (row for own in report['sections'].values() for row in own['rows'] if row['name'] == 'versions'), {}
    )
    lines += [f'Started {report["started"]}, {report["seconds"]:.0f} of {report["budget_s"]:.0f} s.', '']
    lines += [f'- {key}: {value}' for key, value in versions.items() if key != 'name' and value is not None]
    lines += [
        '',
        'Shares: of a large product of matrices in the same precision (float32 convolutions may run in TensorFloat-32 '
        'and are compared with that), and of a large copy, both measured in this run. Times are medians.',
        '',
    ]
    for section in SECTIONS:
        if section.name in report['sections']:
            lines += section_lines(section, report['sections'][section.name])
    return '\n'.join(lines)


def section_lines(section: Section, found: dict) -> list[str]:
    lines = [f'## {section.title}', '']
    if found['status'] != 'ok':
        reason = found.get('error') or 'see the rows' * (found['status'] == 'failed')
        lines += [f'**{STATUS[found["status"]]}**' + (f': {escaped(reason)}' if reason else ''), '']
    rows = [row for row in found['rows'] if row['name'] != 'versions']
    if not rows:
        return [*lines, 'not measured', '']
    lines.append('| ' + ' | '.join(column.title for column in section.columns) + ' |')
    lines.append('|---' * len(section.columns) + '|')
    for row in rows:
        shown = {**row, 'ms': 1e3 * row['seconds'] if 'seconds' in row else None}
        cells = [cell(shown, column) for column in section.columns]
        if 'error' in row:
            cells[-1] = f'not measured: {escaped(row["error"])}'
        lines.append('| ' + ' | '.join(cells) + ' |')
    return [*lines, '']


def cell(row: dict, column: Column) -> str:
    value = row.get(column.key)
    return '' if value is None else escaped(f'{value:{column.form}}')


def escaped(text: str) -> str:
    return text.replace('|', '\\|').replace('\n', ' ')


if __name__ == '__main__':
    sys.exit(main())
