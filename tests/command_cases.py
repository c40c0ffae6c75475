"""What the tests of the commands share: generated inputs, and commands as a user types them."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from mmliir.cli import main

ROOT = Path(__file__).resolve().parents[1]
RAW_LAB = ROOT / 'configs' / 'frozen' / 'raw_lab.py'
SIZE = (40, 56)  # (H, W) in pixels


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The error of a command that ended as it should: exit code 2, one line in the end, no traceback."""
        assert self.code == 2, f'exit code {self.code}: {self.out}{self.err}'
        assert 'Traceback' not in self.err, self.err
        lines = self.err.strip().splitlines()
        errors = [line for line in lines if ': error: ' in line]
        assert len(errors) == 1 and lines[-1] == errors[0], self.err
        return errors[0]


def run(program: str, *arguments: object) -> Outcome:
    """Run `mmliir`, or a script of `tools/`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = [str(argument) for argument in arguments]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, 'argv', [program, *argv]),
        # a script finds its neighbours
        mock.patch.object(sys, 'path', [str((ROOT / program).parent), *sys.path]),
    ):
        try:
            if program == 'mmliir':
                code = main(argv)
            else:
                runpy.run_path(str(ROOT / program), run_name='__main__')
                code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*command: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    """Run Python in a process of its own; `path` comes first where it looks for packages."""
    places = [str(place) for place in (path, ROOT) if place is not None]
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def make_frames(count: int = 4, bar_from: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8 RGB: a bright square that moves over a dark ramp, and a bar from a frame on."""
    frames = np.empty((count, *SIZE, 3), dtype=np.uint8)
    frames[:] = (np.arange(SIZE[1]) // 2)[None, :, None]
    for number in range(count):
        frames[number, 8:24, 8 + 2 * number : 24 + 2 * number] = (220, 60, 180)
        if number >= bar_from:
            frames[number, 26:36, 30:50] = (40, 200, 90)
    return frames


def make_ids(square: int = 1, bar: int = 2) -> np.ndarray:
    """(H, W) uint8: the objects of frame 0."""
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[8:24, 8:24] = square
    ids[26:36, 30:50] = bar
    return ids


def write_frames(folder: Path, count: int = 4, suffix: str = '.png', bar_from: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(make_frames(count, bar_from)):
        assert cv2.imwrite(str(folder / f'{number:05d}{suffix}'), frame[..., ::-1])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}
