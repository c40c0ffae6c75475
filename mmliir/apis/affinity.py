"""Which code compares cells in a run: chosen by the machine for a new run, kept for one that is continued.

Its kinds and levels give results that differ by rounding, so the predictions of a run come from one of them.
"""

import contextlib
import dataclasses
import logging
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from mmliir.evaluation.protocol import ProtocolCard, read_run_card
from mmliir.ops import fastest_backend, native

_logger = logging.getLogger(__name__)

# 'native (x86-64-v3, 256 bit) on cpu', 'torch on cuda'; cards of early versions: 'native on cpu'.
_FORM = re.compile(r'(?P<kind>native|torch)(?: \((?P<level>[\w-]+)(?:, \d+ bit)?\))? on (?P<device>\w+)')


@dataclass(frozen=True)
class Affinity:
    """The code that compares cells in a run.

    Attributes:
        text: As the run card has it, see `describe_affinity`.
        choice: What `MMLIIR_NATIVE` must say for it; None: any, as on a GPU.
    """

    text: str
    choice: str | None = None

    def computing(self) -> AbstractContextManager[None]:
        """In this block it is what computes, in all threads."""
        return contextlib.nullcontext() if self.choice is None else native.forced(self.choice)

    def on_card(self, card: ProtocolCard) -> ProtocolCard:
        """The card with this code on it."""
        return dataclasses.replace(card, input=card.input | {'affinity': self.text})

    def nowhere(self) -> 'Affinity':
        """The same on cards, where nothing is left to compute."""
        return dataclasses.replace(self, choice='0')

    def missing(self) -> str:
        """Why this process cannot compute with it; '' where it can."""
        if self.choice in (None, '0'):
            return ''
        if native.choice() == '0':
            return f'{native.SWITCH}=0 switches it off, unset it'
        if self.choice not in native.supported():
            return f'this processor can run {", ".join(native.supported())}'
        try:
            with self.computing():
                native.library()
        except native.Unavailable as error:
            return str(error)
        return ''

    def refusal(self, out_dir: str | Path, reason: str) -> str:
        """Where `missing` gave a reason: this code, what there is in its place, and the ways on, for people."""
        asked = native.choice()
        here = 'torch' if asked in ('0', self.choice) else f'native ({asked})'
        return (
            f'the predictions in {out_dir} come from {self.text}, which cannot be had here ({reason}); continued with '
            f'{here} they would be of two kinds, which differ by rounding. Install a C++ compiler or a wheel with '
            'compiled code (docs/installation.md, "Compiled code"), go on where they were begun, use another --out, or '
            '--overwrite to begin anew.'
        )


def describe_affinity(device: torch.device) -> str:
    """The code that `auto` asks first on a device: 'native (x86-64-v3, 256 bit) on cpu', 'torch on cuda'."""
    kind = fastest_backend(device)
    return f'{kind} ({native.describe()}) on {device.type}' if kind == 'native' else f'{kind} on {device.type}'


def settle_affinity(out_dir: str | Path | None, device: torch.device) -> Affinity:
    """What a run computes with: what its folder's predictions were begun with, else the fastest of this machine.

    Where the two differ, the log says so. Nothing is built or loaded for what is kept; see `Affinity.missing`.

    Args:
        out_dir: Folder of the run; it may be missing. None: a new run, whatever there is.
        device: Where it computes.

    Raises:
        ValueError: The folder's card cannot be read, or `MMLIIR_NATIVE` is wrong.
    """
    card = None if out_dir is None else read_run_card(out_dir)
    begun = ((card or {}).get('input') or {}).get('affinity')
    match = _FORM.fullmatch(begun) if isinstance(begun, str) else None
    if device.type != 'cpu' or match is None or match['device'] != 'cpu':
        return _fastest(device)
    asked = native.choice()
    if match['kind'] == 'torch':
        kept = '0'
    else:  # of cards without a level, this machine's
        kept = match['level'] or (native.supported()[0] if asked == '0' else asked)
    if kept != asked and asked != '0' and kept in ('0', *native.supported()):
        _logger.warning('%s was begun with %s: it is continued with it', out_dir, begun)
    return Affinity(begun, kept)


def _fastest(device: torch.device) -> Affinity:
    text = describe_affinity(device)
    if device.type != 'cpu':
        return Affinity(text)
    return Affinity(text, native.choice() if text.startswith('native') else '0')
