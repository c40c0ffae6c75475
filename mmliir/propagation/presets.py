"""Published propagation protocols. Every value names where it was read.

Section numbers of `LIIR`, `MAST` and so on are not repeated in results: a result row carries the protocol's
name and all of its settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from mmliir.propagation.settings import (
    InputSettings,
    LongRangeSearch,
    MixturePrior,
    PointSettings,
    PropagationSettings,
)

_PAPER = 'LIIR, CVPR 2022 (arXiv 2203.14333)'
_UNOFFICIAL = 'shasha521/LIIR_pytorch@21c7ba5, evaluate_davis.py and models/colorizer_momen.py'
_MAST = 'zlai0/MAST@a57b043, benchmark.py and models/colorizer.py'
_MAST_SEARCH = (
    'references more than 15 frames old in two steps, dilated by min(4, D // 15 + 1). It reads the labels of all of '
    'them at the offset of the last one, a mistake that LIIR_pytorch corrects; here each has its own, and '
    'labels_from_last=True is parity. Its sampling grid is exact on torch < 1.3 only (models/deform_im2col_util.py); '
    'here always, and align_corners_mismatch=True is parity with later torch'
)
_CRW = 'ajabri/videowalk@047f3f4, code/test.py and code/utils/test_utils.py'
_CRW_README = 'ajabri/videowalk@047f3f4, README.md, command line for DAVIS'
_DINO = 'facebookresearch/dino@7c446df, eval_video_segmentation.py'
_VFS = 'xvjiarui/VFS@8e055cc, configs/r18_nc_*.py and mmaction/models/trackers/vanilla_tracker.py'


@dataclass(frozen=True)
class TaskSettings:
    """What a protocol does otherwise on one family of benchmarks than on DAVIS.

    Attributes:
        source: Where this was read, or why it was chosen.
        changes: Fields of `PropagationSettings` -> value.
        input: Size of the encoder's input; None keeps the protocol's.
        points: How points are drawn and read; None keeps the protocol's.
    """

    source: str
    changes: Mapping[str, object] = field(default_factory=dict)
    input: InputSettings | None = None
    points: PointSettings | None = None


_UNDEFINED = 'the protocol does not define this benchmark; input size as most do'
#: For the families of benchmarks that a protocol says nothing of.
DEFAULT_TASKS: dict[str, TaskSettings] = {
    'vip': TaskSettings(
        f'{_UNDEFINED}: 560 x 560 (UVC, ContrastCorr, Spa-then-Temp)', input=InputSettings(size=(560, 560))
    ),
    'jhmdb': TaskSettings(
        f'{_UNDEFINED}: 320 x 320 (UVC, CRW, VFS)', input=InputSettings(size=(320, 320)), points=PointSettings()
    ),
    'tapvid': TaskSettings(
        f'{_UNDEFINED}: 256 x 256 (TAP-Vid)',
        input=InputSettings(size=(256, 256)),
        points=PointSettings(sigma=6.0, drawn_at='input', decoded_at='input'),
    ),
    'badja': TaskSettings(
        f'{_UNDEFINED}: 320 x 512 (PIPs)',
        input=InputSettings(size=(320, 512)),
        points=PointSettings(sigma=6.0, drawn_at='input', decoded_at='input'),
    ),
}


@dataclass(frozen=True)
class Protocol:
    """A propagation protocol.

    Attributes:
        name: Its name on the command line and in results.
        settings: How labels are propagated.
        input: The size at which frames enter the encoder.
        sources: Name of each field of `settings`, and 'input' -> where its value was read, or why it was
            chosen.
        points: How points are drawn and read.
        tasks: Family of benchmarks ('vip', 'jhmdb', 'tapvid', 'badja', 'youtube_vos') -> what is otherwise there.
    """

    name: str
    settings: PropagationSettings
    input: InputSettings
    sources: Mapping[str, str]
    points: PointSettings = PointSettings()
    tasks: Mapping[str, TaskSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = {field.name for field in fields(PropagationSettings)} | {'input'}
        wrong = expected ^ set(self.sources)
        if wrong:
            raise ValueError(
                f'protocol {self.name!r}: sources must name every setting once; check {sorted(wrong)}'
            )

    def for_task(self, family: str) -> 'Protocol':
        """The protocol as it is on one family of benchmarks: its own values there, else those of `DEFAULT_TASKS`.

        'davis', and what neither knows, is the protocol itself. The name stays.
        """
        task = self.tasks.get(family) or DEFAULT_TASKS.get(family)
        if task is None:
            return self
        settings = replace(self.settings, **task.changes)
        sources = {**self.sources, **{name: task.source for name in task.changes}}
        if task.input is not None:
            sources['input'] = task.source
        return replace(
            self,
            settings=settings,
            input=task.input or self.input,
            points=task.points or self.points,
            sources=sources,
            tasks={},
        )

    def at_short_side(self, pixels: int) -> 'Protocol':
        """The same protocol on frames resized to this shorter side; its name says so: 'crw@240'."""
        resized = replace(self.input, short_side=pixels, size=None)
        sources = {**self.sources, 'input': f'short side {pixels}, chosen by the user; else {self.sources["input"]}'}
        return replace(self, name=f'{self.name}@{pixels}', input=resized, sources=sources)


    def with_settings(self, changes: Mapping[str, object]) -> 'Protocol':
        """The same protocol with some settings changed; its name lists them: 'crw+radius=5'.

        Args:
            changes: Name of a setting -> value. A part (`prior`, `long_range`) takes None, which switches it off, or
                its values as a plain dict, with defaults for those not named; 'prior.num_mixtures' changes one value
                of the protocol's own part and keeps the others.

        Raises:
            ValueError: A setting that does not exist, or a value it cannot have.
        """
        whole = {name: value for name, value in changes.items() if '.' not in name}
        inside = {name: value for name, value in changes.items() if '.' in name}
        self._refuse_unknown({name.split('.')[0] for name in changes})
        for name, value in whole.items():
            if name in _PARTS and isinstance(value, Mapping):
                whole[name] = _build_part(name, value, f'protocol {self.name!r}: {name}')
        settings = replace(self.settings, **whole)
        for name, value in inside.items():
            settings = _change_inside(settings, name, value, f'protocol {self.name!r}')
        listed = ''.join(f'+{name}={_short(value)}' for name, value in sorted(changes.items()))
        sources = {**self.sources, **{name: 'chosen by the user' for name in whole}}
        for name in inside:
            setting, part = name.split('.')
            sources[setting] = f'{part} chosen by the user; else {sources[setting]}'
        return replace(self, name=self.name + listed, settings=settings, sources=sources)

    def _refuse_unknown(self, names: set[str]) -> None:
        known = [field.name for field in fields(PropagationSettings)]
        for name in sorted(names - set(known)):
            raise ValueError(f'protocol {self.name!r} has no setting {name!r}; there are {", ".join(known)}')


#: Settings that have values of their own, and None for off.
_PARTS = {'prior': MixturePrior, 'long_range': LongRangeSearch}


def _change_inside(settings: PropagationSettings, name: str, value: object, where: str) -> PropagationSettings:
    """The settings with one value of a part changed: 'prior.num_mixtures'."""
    setting, _, inner = name.partition('.')
    if setting not in _PARTS:
        raise ValueError(f'{where}: {setting!r} has no parts, so {name!r} names nothing; only {", ".join(_PARTS)} have')
    part = getattr(settings, setting)
    if part is None:
        having = [name for name, protocol in PRESETS.items() if getattr(protocol.settings, setting) is not None]
        raise ValueError(
            f'{where} has no {setting}, so {name!r} changes nothing: give `{setting}` whole, as a dict, or take a '
            f'protocol that has one ({", ".join(having)})'
        )
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(settings, **{setting: _build_part(setting, {**values, inner: value}, f'{where}: {setting}')})


def _build_part(setting: str, values: Mapping[str, object], where: str) -> MixturePrior | LongRangeSearch:
    known = [field.name for field in fields(_PARTS[setting])]
    for name in values:
        if name not in known:
            raise ValueError(f'{where} has no {name!r}; it has {", ".join(known)}')
    return _PARTS[setting](**values)


def _short(value: object) -> object:
    """A value as it stands in a protocol's name."""
    if isinstance(value, tuple(_PARTS.values())):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return '{' + ','.join(f'{name}={entry}' for name, entry in value.items()) + '}'
    return value


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
        raise ValueError(f'unknown protocol {name!r}; there are {", ".join(PRESETS)}')
    return PRESETS[name]


def _sources(default: str, **special: str) -> dict[str, str]:
    """One citation for every field that has none of its own."""
    return {field.name: default for field in fields(PropagationSettings)} | {'input': default} | special


_RECENT_20 = tuple(range(1, 21))
_NOT_DEFINED = (
    'not defined by the source (labels are given for the first frame only); as in STM issue #3 and MAMP'
)
_UNUSED = 'the source has no such step'
_LIIR_DEFAULT_ENCODING = (
    f'{_MAST}: labels are taken as [::4] of the full-resolution hard mask; the LIIR text follows MAST here'
)

_LIIR_SHARED = {
    'permanent': f'{_PAPER}, section 3.3: frames 0 and 5 "if applicable"',
    'gaps': f'{_PAPER}, section 3.3: frames t-5, t-3, t-1',
    'fill_with_first': _UNUSED,
    'keep_late_frames': _NOT_DEFINED,
    'window_on_permanent': f'{_MAST} and {_UNOFFICIAL}: a window on every reference',
    'output_resize': 'results have the size of the input (native 480p)',
}

PRESETS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            'liir_paper',
            PropagationSettings(
                permanent=(0, 5),
                gaps=(1, 3, 5),
                radius=12,
                temperature='sqrt_channels',
                border='zero_logit',
                long_range=LongRangeSearch(),
                prior=MixturePrior(num_mixtures=2, estimator='moments', threshold=None, keep_mass=True),
                carry='hard',
                encoding='subsample',
                upsample='mast',
                fg_gain=1.0,
            ),
            InputSettings(multiple_of=4, fit='pad'),
            _sources(
                f'{_PAPER} leaves it open; as in {_MAST}',
                **_LIIR_SHARED,
                radius=f'{_PAPER} leaves it open; {_MAST}: 12',
                long_range=f'{_PAPER} propagates "as in" MAST; {_MAST} searches {_MAST_SEARCH}',
                temperature=(
                    f'{_PAPER} prints none; square root of the channels as in MAMP (issue #4: MAST does not '
                    'converge well without rescaling the affinity)'
                ),
                prior=(
                    f'{_PAPER}, section 3.2 and appendix A: the affinity is replaced by the mixture (Eq. 7), '
                    'K = 2 in training and inference, parameters estimated from the affinity. Our reading: a '
                    'component weighs what its cells weigh, so that a reference keeps its share of the joint '
                    'soft-max'
                ),
                fg_gain=f'{_PAPER} mentions none',
                topk=f'{_PAPER} mentions none',
                encoding=_LIIR_DEFAULT_ENCODING,
                input=f'native 480p; {_UNOFFICIAL}: padded right and below to a multiple of 4, mid-grey',
            ),
        ),
        Protocol(
            'liir_compat',
            PropagationSettings(
                permanent=(0, 5),
                gaps=(1, 3, 5),
                radius=14,
                temperature=1.0,
                border='zero_logit',
                prior=MixturePrior(num_mixtures=2, estimator='fixed', threshold=0.1),
                carry='hard',
                encoding='subsample',
                upsample='mast',
                fg_gain=1.05,
            ),
            InputSettings(multiple_of=4, fit='pad'),
            _sources(
                _UNOFFICIAL,
                **_LIIR_SHARED,
                long_range=f'{_UNOFFICIAL}: plain window; the two-step search is switched off for the 72.2 model',
            ),
        ),
        Protocol(
            'mast',
            PropagationSettings(
                permanent=(0, 5),
                gaps=(1, 3, 5),
                radius=12,
                long_range=LongRangeSearch(),
                temperature=1.0,
                border='zero_logit',
                carry='hard',
                encoding='subsample',
                upsample='mast',
            ),
            InputSettings(multiple_of=4, fit='pad'),
            _sources(
                _MAST,
                fill_with_first=_UNUSED,
                keep_late_frames=_NOT_DEFINED,
                long_range=f'{_MAST} searches {_MAST_SEARCH}',
                input=f'{_MAST}: native 480p. Padding to a multiple of 4 as in its followers (MAMP, LIIR)',
                output_resize='results have the size of the input (native 480p)',
            ),
        ),
        Protocol(
            'crw',
            PropagationSettings(
                permanent=(0,),
                gaps=_RECENT_20,
                fill_with_first=True,
                radius=12,
                shape='circle',
                window_on_permanent=False,
                topk=10,
                temperature=0.05,
                l2_normalise=True,
                border='mask',
                carry='soft',
                encoding='bilinear',
                upsample='mast',
                min_max=False,
            ),
            InputSettings(),
            _sources(
                _CRW,
                temperature=f'{_CRW_README}: 0.05 (the default of the script is 0.07)',
                topk=f'{_CRW_README}: 10',
                radius=f'{_CRW_README}: 12, cells nearer than the radius',
                gaps=f'{_CRW_README}: videoLen 20',
                keep_late_frames=_NOT_DEFINED,
                input=f'{_CRW_README}: cropSize -1, native 480p, RGB',
            ),
        ),
        Protocol(
            'quick',
            PropagationSettings(
                permanent=(0,),
                gaps=(1, 2, 3, 4, 5),
                radius=12,
                shape='circle',
                topk=10,
                temperature=0.05,
                l2_normalise=True,
                border='mask',
                carry='soft',
                encoding='bilinear',
                upsample='mast',
            ),
            InputSettings(),
            _sources(
                'ours, not published: `crw` with 5 recent frames in place of 20, and a window on the first frame '
                'too; a quarter of the time',
            ),
        ),
        Protocol(
            'dino',
            PropagationSettings(
                permanent=(0,),
                gaps=tuple(range(1, 8)),
                radius=12,
                topk=5,
                temperature=0.1,
                l2_normalise=True,
                border='mask',
                carry='soft',
                encoding='nearest',
                upsample='mast',
                output_resize='labels',
                min_max=True,
            ),
            InputSettings(short_side=480, multiple_of=64, fit='floor_long_side'),
            _sources(
                _DINO,
                keep_late_frames=_NOT_DEFINED,
                topk=f'{_DINO}: 5 over all references, by threshold, so that ties are kept',
                input=f'{_DINO}: short side 480, long side rounded down to a multiple of 64, RGB',
            ),
        ),
        Protocol(
            'vfs',
            PropagationSettings(
                permanent=(0,),
                gaps=_RECENT_20,
                radius=12,
                shape='circle',
                window_on_permanent=True,
                topk=10,
                temperature=0.07,
                l2_normalise=True,
                border='mask',
                carry='soft',
                encoding='nearest',
                upsample='mast',
                output_resize='field',
                min_max=True,
            ),
            InputSettings(short_side=480),
            _sources(
                _VFS,
                keep_late_frames=_NOT_DEFINED,
                radius=f'{_VFS}: neighbor_range 24, a circle of radius 12',
                window_on_permanent=f'{_VFS}: with_first_neighbor',
                input=f'{_VFS}: short side 480, ratio kept, RGB',
            ),
        ),
    )
}
