"""Published propagation protocols. Every value names where it was read: repository, commit, file.

One module a family: what a family shares is written once. `docs/protocols.md` is generated from here.
"""

import difflib
from collections.abc import Mapping

from mmliir.propagation.presets import crw, liir, mast, uvc, vfs, vit
from mmliir.propagation.presets.protocol import DEFAULT_TASKS, FAMILIES, PRESETS, Protocol, TaskSettings

__all__ = ['DEFAULT_TASKS', 'FAMILIES', 'PRESETS', 'Protocol', 'TaskSettings', 'get_protocol', 'resolve_protocol']

PRESETS.update(
    (protocol.name, protocol)
    for protocol in (
        liir.LIIR_PAPER, liir.LIIR_COMPAT, mast.MAST, crw.CRW, crw.QUICK, vit.DINO, vfs.VFS, vit.DINOV3, uvc.UVC,
        mast.MAMP, crw.CROPMAE, crw.HVC, vfs.SPA_THEN_TEMP, vfs.FGVC,
    )
)  # fmt: skip


def resolve_protocol(spec: 'str | Mapping | Protocol') -> Protocol:
    """A protocol from its name, from `dict(base=NAME, changes={setting: value})`, or as it is."""
    if isinstance(spec, Protocol):
        return spec
    if isinstance(spec, str):
        return get_protocol(spec)
    if set(spec) != {'base', 'changes'}:
        raise ValueError(f'a protocol in a config is a name or dict(base=NAME, changes=dict(...)), got {dict(spec)!r}')
    return get_protocol(spec['base']).with_settings(spec['changes'])


def get_protocol(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        ValueError: No protocol of this name; the message lists all names.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        raise ValueError(f'unknown protocol {name!r}; there are {", ".join(PRESETS)}{hint}')
    return PRESETS[name]
