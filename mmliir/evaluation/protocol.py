"""What a run was made with, kept beside what it made, so that two runs never mix in one folder."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmliir.utils.files import is_system_file, read_text, write_json_atomic

RUN_CARD_NAME = 'run.json'
_MISSING = '(absent)'
_MAX_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class DataFingerprint:
    """Tells whether two runs saw the same sequences: counts for people, a hash for certainty."""

    num_sequences: int
    num_frames: int
    sha256: str


def fingerprint_data(sequences: Iterable[tuple]) -> DataFingerprint:
    """Return the fingerprint of a data set, from what is known without reading a frame's pixels.

    Args:
        sequences: (name, number of frames, (H, W) in pixels, and if there is one a digest of what is given: masks,
            points) of each; their order does not matter.

    Returns:
        Equal for equal names, lengths, sizes and given labels. It does not see the pixels of the frames.
    """
    rows = sorted(
        [name, int(frames), [int(side) for side in size], *given] for name, frames, size, *given in sequences
    )
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode('utf-8')).hexdigest()
    return DataFingerprint(len(rows), sum(row[1] for row in rows), digest)


@dataclasses.dataclass(frozen=True)
class ProtocolCard:
    """Everything a score depends on.

    Args:
        protocol: Name of the protocol, say 'liir_davis'.
        settings: Fields of `PropagationSettings`.
        input: How frames enter, and what computes: size rule, normalisation, precision, the code that compares cells.
        colour_space: 'rgb' or 'lab'.
        model: Config name or model name.
        checkpoint_sha256: Of the weights file; None for weights that come from no file (random, hand-made feature).
        data: Fingerprint of the sequences.
        metric_version: Version of the formulas that will score this.
        n_of_N: Sequences in this run, sequences in the published split.
        code_version: Version of this package, with the commit where it is known.
        seed: Of everything random; None when nothing is.
    """

    protocol: str
    settings: dict[str, Any]
    input: dict[str, Any]
    colour_space: str
    model: str
    checkpoint_sha256: str | None
    data: DataFingerprint
    metric_version: str
    n_of_N: tuple[int, int]
    code_version: str
    seed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON holds it: tuples are lists, keys are strings.

        Raises:
            TypeError: `settings` or `input` hold something JSON has no word for.
            ValueError: They hold a NaN or an infinity.
        """
        return json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))


def write_run_card(out_dir: str | Path, card: ProtocolCard) -> Path:
    """Write `run.json` into the folder of a run, whole or not at all; return its path."""
    return write_json_atomic(Path(out_dir) / RUN_CARD_NAME, card.to_dict())


def read_run_card(out_dir: str | Path) -> dict[str, Any] | None:
    """Return the card of a folder as plain values, or None when it has none.

    Raises:
        ValueError: `run.json` is there and is not a card.
    """
    path = Path(out_dir) / RUN_CARD_NAME
    if not path.is_file():
        return None
    text = read_text(path)
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not JSON ({error}). Use another --out, or --overwrite.') from error
    if not isinstance(card, dict):
        raise ValueError(f'{path} holds no run card. Use another --out, or --overwrite.')
    return card


def check_run_card(out_dir: str | Path, card: ProtocolCard) -> bool:
    """Say whether a run may write into a folder.

    Args:
        out_dir: Folder of predictions; it may be missing.
        card: Of the run that is about to start.

    Returns:
        True to resume (the folder holds the same card), False to start (it holds no card and no prediction).

    Raises:
        ValueError: The folder belongs to a run with another card, or to one without a card.
    """
    out_dir = Path(out_dir)
    found = read_run_card(out_dir)
    if found is None:
        stray = first_prediction(out_dir)
        if stray is not None:
            raise ValueError(
                f"{out_dir} holds another run's predictions ({stray.relative_to(out_dir)}) and no "
                f'{RUN_CARD_NAME} that says how they were made. Use another --out, or --overwrite.'
            )
        return False
    differences = card_differences(found, card.to_dict())
    if differences:
        shown = '; '.join(
            f'{key}: {_short(old)} there, {_short(new)} now' for key, old, new in differences[:_MAX_SHOWN]
        )
        more = f'; and {len(differences) - _MAX_SHOWN} more' if len(differences) > _MAX_SHOWN else ''
        raise ValueError(
            f'{out_dir} holds predictions of a run with other settings ({shown}{more}). Use another --out, or '
            '--overwrite to replace them.'
        )
    return True


def first_prediction(path: str | Path) -> Path | None:
    """A prediction of any benchmark at or below a path; None where there is none."""
    path = Path(path)
    if path.is_file():
        return path if path.suffix in ('.png', '.npz') and not is_system_file(path.name) else None
    found = (
        file for pattern in ('*.png', '*.npz') for file in path.rglob(pattern) if not is_system_file(file.name)
    )
    return next(found, None) if path.is_dir() else None


def card_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = '') -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old value, new value) wherever two nested dicts differ."""
    rows = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        if isinstance(before, dict) and isinstance(after, dict):
            rows += card_differences(before, after, f'{prefix}{key}.')
        elif before != after or isinstance(before, bool) != isinstance(after, bool):
            rows.append((prefix + key, before, after))
    return rows


def _short(value: Any) -> str:
    text = value if value is _MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + '...'
