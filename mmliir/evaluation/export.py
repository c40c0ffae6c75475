"""Loop 1 of an evaluation: propagate the labels of every sequence and write the predictions to disk."""

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmliir.datasets.named import is_folder_name
from mmliir.evaluation.protocol import (
    RUN_CARD_NAME,
    ProtocolCard,
    check_run_card,
    first_prediction,
    write_run_card,
)
from mmliir.evaluation.writers import WRITERS, PredictedFile, SequenceWriter, write_files
from mmliir.propagation import Protocol
from mmliir.structures import PointSample, VideoSample
from mmliir.utils.files import is_system_file
from mmliir.utils.pipeline import Overlap, overlap_for
from mmliir.utils.progress import ProgressBar


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        out_dir: Where the predictions are, a folder a sequence.
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
    samples: Sequence[VideoSample | PointSample],
    encode: Callable[[Tensor], Tensor],
    protocol: Protocol,
    stride: int,
    out_dir: str | Path,
    *,
    card: ProtocolCard | None,
    writer: SequenceWriter = WRITERS['masks'],
    overwrite: bool = False,
    device: str | torch.device = 'cpu',
    progress: bool | None = None,
    max_memory: int | None = None,
) -> ExportReport:
    """Propagate the given labels through each sequence and write the files of `writer` into `<out_dir>/<sequence>`.

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
        writer: What is propagated and how it is stored: an entry of `WRITERS`.
        overwrite: Delete the predictions of these sequences first, whatever they were made with. Refused when
            the folder holds predictions of other sequences, which would be mixed with the new ones.
        device: Where to encode and propagate.
        progress: Show a bar with the time left on the standard error stream, or lines where that is no terminal; None:
            only where it is one.
        max_memory: Bound in bytes on the memory of the propagation, see `PropagationSession`.

    Returns:
        What was written, skipped and not possible.

    Raises:
        ValueError: Two sequences of one name, or a folder that belongs to another run.
    """
    out_dir = Path(out_dir)
    prepare_folder(out_dir, [sample.name for sample in samples], card, overwrite)
    written, skipped, failed, overlap = [], [], [], overlap_for(device)
    num_frames, start = 0, time.monotonic()
    total, seen = sum(len(sample.frame_names) for sample in samples), 0
    with ProgressBar('propagate', 'frames', progress) as bar:

        def advance(frames: int = 1) -> None:
            nonlocal seen
            seen += frames
            bar.update(seen, total)

        for sample in samples:
            bar.update(seen, total, name=sample.name)
            if is_complete(out_dir / sample.name, writer.files(sample)):
                skipped.append(sample.name)
                advance(len(sample.frame_names))
                continue
            propagate = functools.partial(writer.produce, sample, encode, protocol, stride, device)
            make = functools.partial(propagate, max_memory=max_memory)
            _refuse_foreign(out_dir / sample.name, writer.files(sample))
            attempt = _Attempt(sample, make, advance)
            _write_sequence(out_dir, sample.name, attempt, overlap)
            if attempt.error is None:
                written.append(sample.name)
                num_frames += len(sample.frame_names)
            else:
                failed.append((sample.name, attempt.error))
                advance(len(sample.frame_names) - attempt.count)
    seconds = time.monotonic() - start
    return ExportReport(out_dir, tuple(written), tuple(skipped), tuple(failed), num_frames, seconds)


def prepare_folder(
    out_dir: str | Path, names: Sequence[str], card: ProtocolCard | None, overwrite: bool = False
) -> None:
    """Make sure that a folder is this run's before anything is written into it; see `export_predictions`.

    Processes that share a run's sequences call `export_predictions` with `card=None` after one of them has done this.

    Raises:
        ValueError: Two sequences of one name, or a folder that belongs to another run.
    """
    out_dir = Path(out_dir)
    _check_names(names)
    if overwrite:
        _clear(out_dir, names)
    if card is not None and not check_run_card(out_dir, card):
        write_run_card(out_dir, card)
    out_dir.mkdir(parents=True, exist_ok=True)


class _Attempt:
    """Iterates over a sequence's files; what goes wrong with its frames or labels ends it and is
    remembered."""

    def __init__(self, sample, make: Callable[[Callable[[], None]], Iterator[PredictedFile]], advance) -> None:
        self.error: str | None = None
        self.count = 0
        self._sample, self._make, self._advance = sample, make, advance

    def __iter__(self) -> Generator[PredictedFile, None, None]:
        if len(self._sample.frames) != len(self._sample.frame_names):
            self.error = f'{len(self._sample.frames)} frames, but {len(self._sample.frame_names)} frame names'
            return
        files = None
        while True:
            # Only reading and propagating stand in here: an error while writing must reach the caller.
            try:
                files = self._make(self._count) if files is None else files
                file = next(files, None)
            except (ValueError, OSError) as error:
                self.error = str(error)
                return
            if file is None:
                return
            yield file

    def _count(self) -> None:
        self.count += 1
        self._advance()


def _write_sequence(out_dir: Path, name: str, files: _Attempt, overlap: Overlap) -> None:
    part, final = out_dir / f'.{name}.part', out_dir / name
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    with contextlib.closing(iter(files)) as stream:  # an error while writing ends what reads ahead
        write_files(part, stream, overlap)
    if files.error is not None:
        shutil.rmtree(part)
        return
    if final.exists():
        shutil.rmtree(final)  # it was incomplete; it holds nothing else, see `_refuse_foreign`
    os.replace(part, final)


def _refuse_foreign(folder: Path, files: Sequence[str]) -> None:
    """An incomplete folder is made anew; one that holds anything but predictions is not ours to delete."""
    known = set(files)
    found = (path for path in sorted(folder.rglob('*')) if not (path.is_file() and is_system_file(path.name)))
    foreign = next((path for path in found if path.name not in known), None)
    if foreign is not None:
        raise ValueError(f'{foreign} is no prediction of this run, which would replace its folder: use another --out')


def is_complete(folder: Path, files: Sequence[str]) -> bool:
    """Whether a sequence's folder holds all files of its predictions."""
    return folder.is_dir() and all((folder / name).is_file() for name in files)


def _check_names(names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f'two sequences are called {name!r}: their predictions would go to one folder')
        if not is_folder_name(name):
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
        if path.name not in own and first_prediction(path) is not None
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
