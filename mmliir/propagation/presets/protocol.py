"""What a protocol is: settings with a source for each, and what it does otherwise on other benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from mmliir.propagation.settings import (
    InputSettings,
    LongRangeSearch,
    MixturePrior,
    PointSettings,
    PropagationSettings,
)

#: Name -> protocol; the package fills it.
PRESETS: 'dict[str, Protocol]' = {}

#: Families of benchmarks that a protocol may define otherwise than DAVIS.
FAMILIES = ('vip', 'jhmdb', 'tapvid', 'badja', 'youtube_vos')


@dataclass(frozen=True)
class TaskSettings:
    """What a protocol does otherwise on one family of benchmarks than on DAVIS.

    Attributes:
        source: Where this was read, or why it was chosen.
        changes: Fields of `PropagationSettings` -> value.
        input: Size of the encoder's input and how frames come to it; None keeps the protocol's.
        points: How points are drawn and read; None keeps the protocol's.
        short_side: Without `input`: frames are resized to this shorter side, the rest of the protocol's input stays.
    """

    source: str
    changes: Mapping[str, object] = field(default_factory=dict)
    input: InputSettings | None = None
    points: PointSettings | None = None
    short_side: int | None = None

    def __post_init__(self) -> None:
        if self.input is not None and self.short_side is not None:
            raise ValueError('give input or short_side, not both: input says the whole size')

    def resolve_input(self, default: InputSettings) -> InputSettings:
        """The encoder's input here, where `default` is the protocol's."""
        if self.short_side is not None:
            return replace(default, short_side=self.short_side, size=None)
        return self.input or default


_UNDEFINED = 'the protocol does not define this benchmark; input size as most do'
#: Points are carried on as maps: the arg-max of Gaussians would be one cell of the highest.
_AS_MAPS = {'carry': 'soft'}
#: For the families of benchmarks that a protocol says nothing of.
DEFAULT_TASKS: dict[str, TaskSettings] = {
    'vip': TaskSettings(
        f'{_UNDEFINED}: 560 x 560 (UVC, ContrastCorr, Spa-then-Temp)', input=InputSettings(size=(560, 560))
    ),
    'jhmdb': TaskSettings(
        f'{_UNDEFINED}: 320 x 320 (UVC, CRW, VFS)',
        changes=_AS_MAPS,
        input=InputSettings(size=(320, 320)),
        points=PointSettings(),
    ),
    'tapvid': TaskSettings(
        f'{_UNDEFINED}: 256 x 256 (TAP-Vid)',
        changes=_AS_MAPS,
        input=InputSettings(size=(256, 256)),
        points=PointSettings(sigma=6.0, drawn_at='input', decoded_at='input'),
    ),
    'badja': TaskSettings(
        f'{_UNDEFINED}: 320 x 512 (PIPs)',
        changes=_AS_MAPS,
        input=InputSettings(size=(320, 512)),
        points=PointSettings(sigma=6.0, drawn_at='input', decoded_at='input'),
    ),
    'youtube_vos': TaskSettings(
        'the protocol does not define this benchmark: short side 480; frames with given labels stay references, as in '
        'STM issue #3 and MAMP; all frames are propagated through, not every fifth only (AFB-URR issue #5)',
        changes={'keep_late_frames': True},
        short_side=480,
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
        tasks: Family of benchmarks (one of `FAMILIES`) -> what is otherwise there.
        features: What it was published with: network, stride, colours. The model's matter, not the protocol's.
        differences: What the published code does otherwise than these values say.
    """

    name: str
    settings: PropagationSettings
    input: InputSettings
    sources: Mapping[str, str]
    points: PointSettings = PointSettings()
    tasks: Mapping[str, TaskSettings] = field(default_factory=dict)
    features: str = ''
    differences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = {field.name for field in fields(PropagationSettings)} | {'input'}
        wrong = expected ^ set(self.sources)
        if wrong:
            raise ValueError(
                f'protocol {self.name!r}: sources must name every setting once; check {sorted(wrong)}'
            )
        for family in self.tasks:
            if family not in FAMILIES:
                raise ValueError(f'protocol {self.name!r}: tasks has {family!r}; there are {", ".join(FAMILIES)}')

    def for_task(self, family: str) -> 'Protocol':
        """The protocol as it is on one family of benchmarks: its own values there, else those of `DEFAULT_TASKS`.

        'davis', and what neither knows, is the protocol itself. The name stays.
        """
        task = self.tasks.get(family) or DEFAULT_TASKS.get(family)
        if task is None:
            return self
        settings = replace(self.settings, **task.changes)
        changed = [name for name, value in task.changes.items() if getattr(self.settings, name) != value]
        sources = {**self.sources, **{name: task.source for name in changed}}
        own_input = task.resolve_input(self.input)
        if family not in self.tasks:  # a default says a size, not with which filter this protocol resizes
            own_input = replace(own_input, resize=self.input.resize)
        if own_input != self.input:
            sources['input'] = task.source
        return replace(
            self,
            settings=settings,
            input=own_input,
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


def cite(default: str, **special: str) -> dict[str, str]:
    """One citation for every field that has none of its own."""
    return {field.name: default for field in fields(PropagationSettings)} | {'input': default} | special


#: For settings that a source cannot have an opinion on.
NOT_DEFINED = 'not defined by the source (labels are given for the first frame only); as in STM issue #3 and MAMP'
UNUSED = 'the source has no such step'
