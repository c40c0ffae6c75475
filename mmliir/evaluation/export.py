"""Loop 1 of an evaluation: propagate the labels of every sequence and write the predictions to disk."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmliir.datasets.masks import write_label_map
from mmliir.evaluation.protocol import RUN_CARD_NAME, ProtocolCard, check_run_card, write_run_card
from mmliir.propagation import Protocol, propagate_video
from mmliir.structures import VideoSample


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        out_dir: Where the predictions are: `<out_dir>/<sequence>/<frame>.png`.
        written: Names of the sequences that this run finished.
        skipped: Names of the sequences that an earlier run had finished.
        failed: (name, reason) of the sequences that could not be read or propagated. Nothing is left of their
            predictions. A command that gets any exits with an error.
        num_frames: Frames written by this run.
        seconds: Duration of this run.
    """

    out_dir: Path
    written: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    num_frames: int
    seconds: float

    def raise_for_failures(self) -> None:
        """Raise where a sequence failed: its scores would be missing, and nothing may be scored without it.

        Raises:
            ValueError: Names each sequence that failed and why.
        """
        if self.failed:
            total = len(self.written) + len(self.skipped) + len(self.failed)
            reasons = '; '.join(f'{name}: {why}' for name, why in self.failed)
            raise ValueError(
                f'{len(self.failed)} of {total} sequences could not be propagated, so nothing was scored: {reasons} '
                f'(The other predictions are kept in {self.out_dir}; repair this and run the same command again.)'
            )

    def summary(self) -> str:
        """One line for people."""
        rate = self.num_frames / self.seconds if self.seconds > 0 else 0.0
        speed = f'{self.num_frames} frames, {rate:.2f} a second'
        text = f'{len(self.written)} sequences written to {self.out_dir} ({speed})'
        if self.skipped:
            text += f', {len(self.skipped)} were finished before'
        if self.failed:
            text += f', {len(self.failed)} FAILED: ' + '; '.join(
                f'{name}: {why}' for name, why in self.failed
            )
        return text


def export_predictions(
    samples: Sequence[VideoSample],
    encode: Callable[[Tensor], Tensor],
    protocol: Protocol,
    stride: int,
    out_dir: str | Path,
    *,
    card: ProtocolCard | None,
    overwrite: bool = False,
    device: str | torch.device = 'cpu',
    progress: bool | None = None,
) -> ExportReport:
    """Propagate the given labels through each sequence and write `<out_dir>/<sequence>/<frame>.png`.

    A sequence is written into a hidden folder that takes its name when it is complete, so a killed run leaves
    no half sequence; started again with the same card, it goes on with the sequences that are missing. A
    sequence that cannot be read or propagated is reported and the next one is tried; a disk that cannot be
    written stops the run.

    Args:
        samples: The sequences; names must differ.
        encode: (1, 3, h', w') uint8 RGB on `device` -> (1, C, h, w) features, see `propagate_video`.
        protocol: Settings of the propagation and of the encoder's input.
        stride: Pixels of the encoder's input per cell.
        out_dir: Folder of the predictions; created when missing.
        card: Everything that the predictions depend on; written as `run.json`. A folder that holds
            predictions of another card, or of none, is refused. None: nothing is checked or written, and
            complete sequences are skipped whoever made them.
        overwrite: Delete the predictions of these sequences first, whatever they were made with. Refused when
            the folder holds predictions of other sequences, which would be mixed with the new ones.
        device: Where to encode and propagate.
        progress: Show a bar with the time left on the standard error stream. None: when that is a terminal.

    Returns:
        What was written, skipped and not possible.

    Raises:
        ValueError: Two sequences of one name, or a folder that belongs to another run.
    """
    out_dir = Path(out_dir)
    names = [sample.name for sample in samples]
    _check_names(names)
    if overwrite:
        _clear(out_dir, names)
    if card is not None and not check_run_card(out_dir, card):
        write_run_card(out_dir, card)
    out_dir.mkdir(parents=True, exist_ok=True)
    written, skipped, failed = [], [], []
    num_frames, start = 0, time.monotonic()
    with _bar(progress) as bar:
        task = bar.add_task('propagate', total=sum(len(sample.frame_names) for sample in samples))
        for sample in samples:
            bar.update(task, description=sample.name)
            if _is_complete(out_dir / sample.name, sample.frame_names):
                skipped.append(sample.name)
                bar.advance(task, len(sample.frame_names))
                continue
            attempt = _Attempt(sample, encode, protocol, stride, device)
            _write_sequence(out_dir, sample, attempt, lambda: bar.advance(task))
            if attempt.error is None:
                written.append(sample.name)
                num_frames += len(sample.frame_names)
            else:
                failed.append((sample.name, attempt.error))
                bar.advance(task, len(sample.frame_names) - attempt.count)
    seconds = time.monotonic() - start
    return ExportReport(out_dir, tuple(written), tuple(skipped), tuple(failed), num_frames, seconds)


class _Attempt:
    """Iterates over a sequence's label maps; what goes wrong with its files or labels ends it and is
    remembered."""

    def __init__(self, sample: VideoSample, encode, protocol: Protocol, stride: int, device) -> None:
        self.error: str | None = None
        self.count = 0
        self._make = lambda: propagate_video(
            sample.frames, encode, sample.given_labels, protocol, stride, device
        )
        self._sample = sample

    def __iter__(self) -> Iterator[np.ndarray]:
        if len(self._sample.frames) != len(self._sample.frame_names):
            self.error = f'{len(self._sample.frames)} frames, but {len(self._sample.frame_names)} frame names'
            return
        maps = None
        while True:
            # Only reading and propagating stand in here: an error while writing must reach the caller.
            try:
                maps = self._make() if maps is None else maps
                label_map = next(maps, None)
            except (ValueError, OSError) as error:
                self.error = str(error)
                return
            if label_map is None:
                return
            yield label_map
            self.count += 1


def _write_sequence(out_dir: Path, sample: VideoSample, maps: _Attempt, advance: Callable[[], None]) -> None:
    part, final = out_dir / f'.{sample.name}.part', out_dir / sample.name
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    for frame_name, label_map in zip(sample.frame_names, maps, strict=False):
        write_label_map(part / f'{frame_name}.png', label_map)
        advance()
    if maps.error is not None:
        shutil.rmtree(part)
        return
    if final.exists():
        shutil.rmtree(final)  # it was incomplete
    os.replace(part, final)


def _is_complete(folder: Path, frame_names: Sequence[str]) -> bool:
    return folder.is_dir() and all((folder / f'{name}.png').is_file() for name in frame_names)


def _check_names(names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f'two sequences are called {name!r}: their predictions would go to one folder')
        if not name or name in ('.', '..') or Path(name).name != name:
            raise ValueError(f'sequence name {name!r} cannot be the name of a folder')
        seen.add(name)


def _clear(out_dir: Path, names: Sequence[str]) -> None:
    """Delete the run card and the predictions of these sequences, unless there are others."""
    if not out_dir.is_dir():
        return
    own = {*names, *(f'.{name}.part' for name in names)}
    foreign = sorted(
        str(path.relative_to(out_dir))
        for path in out_dir.iterdir()
        if path.name not in own and (path.suffix == '.png' or (path.is_dir() and any(path.rglob('*.png'))))
    )
    if foreign:
        shown = ', '.join(foreign[:5]) + (', ...' if len(foreign) > 5 else '')
        raise ValueError(
            f'{out_dir} holds predictions that this run would not overwrite ({shown}). Use another --out, '
            'or delete them yourself.'
        )
    (out_dir / RUN_CARD_NAME).unlink(missing_ok=True)
    for name in own:
        if (out_dir / name).is_dir():
            shutil.rmtree(out_dir / name)


def _bar(progress: bool | None) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('frames,'),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal if progress is None else progress),
    )
