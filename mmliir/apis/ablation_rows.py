"""What an ablation is: tables of rows, each a config that changes a few declared entries of the main recipe."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mmengine
from mmengine.config import Config

from mmliir.apis.configs import ABSENT, differences, load_config
from mmliir.apis.train import stage_configs
from mmliir.propagation import Protocol, resolve_protocol

_ROW_KEYS = {'label', 'config', 'paper', 'checkpoint'}
_TABLE_KEYS = {'title', 'rows', 'notes', 'task'}
_DECLARATION_KEYS = {'table', 'row', 'changes', 'scaled'}
#: Entries that differ between any two configs and mean nothing, or are compared otherwise.
NOT_COMPARED = ('work_dir', 'experiment_name', 'ablation', 'protocol', 'stages')

Stages = Sequence[tuple[str, Config]]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: On the command line.
        label: In the printed table.
        config: Its config file.
        checkpoint: The row whose training it is tested with: its own name, or another's for rows that only test.
        paper: Benchmark -> the paper's number, in per cent.
    """

    name: str
    label: str
    config: Path
    checkpoint: str
    paper: Mapping[str, float]

    @property
    def test_only(self) -> bool:
        """Whether this row is tested with the weights of another."""
        return self.checkpoint != self.name


@dataclass(frozen=True)
class AblationTable:
    """A table of a paper: `base` is the config that its rows change, `task` the benchmark of its numbers."""

    name: str
    title: str
    notes: tuple[str, ...]
    task: str
    base: Path
    rows: Mapping[str, Row]

    def select(self, names: Sequence[str] | None) -> list[Row]:
        """Rows by name, in the order of the table; None for all.

        Raises:
            ValueError: A row that the table does not have.
        """
        for name in names or ():
            if name not in self.rows:
                raise ValueError(f'table {self.name} has no row {name!r}{_hint(name, self.rows)}')
        return [row for row in self.rows.values() if names is None or row.name in names]


@dataclass(frozen=True)
class ResolvedRow:
    """A row on a base: what is trained, and how it is tested.

    Attributes:
        row: The row.
        stages: (name, config) of each stage of the training.
        protocol: Of the test.
        changed: Dotted name -> (value in the base, value here), of all stages and of the protocol.
    """

    row: Row
    stages: tuple[tuple[str, Config], ...]
    protocol: Protocol
    changed: Mapping[str, tuple]


def read_tables(path: str | Path) -> dict[str, AblationTable]:
    """Read `tables.yml`: name -> table.

    Raises:
        FileNotFoundError: The file, or a config that it names, is not there.
        ValueError: An entry is unknown or missing, or a row takes the checkpoint of one that is not trained.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'tables of ablations not found: {path}')
    content = mmengine.load(path)
    _check_keys(content, {'base', 'task', 'tables'}, str(path), required={'base', 'task', 'tables'})
    base = _config_path(path, content['base'], f'{path}: base')
    tables = {}
    for name, entry in content['tables'].items():
        where = f'{path}: table {name}'
        _check_keys(entry, _TABLE_KEYS, where, required={'title', 'rows'})
        rows = {row: _read_row(path, f'{where}, row {row}', row, values) for row, values in entry['rows'].items()}
        for row in rows.values():
            giver = rows.get(row.checkpoint)
            if giver is None:
                raise ValueError(
                    f'{where}, row {row.name}: checkpoint of {row.checkpoint!r}{_hint(row.checkpoint, rows)}'
                )
            if giver.test_only:
                raise ValueError(f'{where}, row {row.name}: checkpoint of {giver.name!r}, which is not trained itself')
        task = entry.get('task', content['task'])
        tables[name] = AblationTable(name, entry['title'], tuple(entry.get('notes', ())), task, base, rows)
    return tables


def get_table(tables: Mapping[str, AblationTable], name: str) -> AblationTable:
    """Look a table up; 'A.1', 'a.1' and 'a1' are one.

    Raises:
        ValueError: No such table; the message lists all.
    """
    for key, table in tables.items():
        if _plain(key) == _plain(name):
            return table
    raise ValueError(f'there is no table {name!r}; the tables are {", ".join(tables)}')


def resolve_stages(config: str | Path, options: dict | None = None) -> tuple[list[tuple[str, Config]], Protocol]:
    """The stages of a config, and the protocol that it names."""
    cfg = load_config(config, options)
    if 'train_dataloader' not in cfg or 'train_cfg' not in cfg:
        raise ValueError(f'{config} describes a frozen feature: it has no training to ablate')
    return stage_configs(cfg, Path('work'), options), resolve_protocol(cfg.get('protocol') or 'liir_paper')


def check_declarations(tables: Mapping[str, AblationTable], table: AblationTable) -> None:
    """Check that each config of a table says of which row it is, and that this row takes it.

    Raises:
        ValueError: A config names a table or a row that does not exist, or one that takes another config.
    """
    for row in table.rows.values():
        if row.config == table.base:
            continue
        entry = _declaration(row)
        where = f'{row.config}: ablation'
        if entry['table'] not in tables:
            raise ValueError(f'{where}: there is no table {entry["table"]!r}{_hint(entry["table"], tables)}')
        rows = tables[entry['table']].rows
        if entry['row'] not in rows:
            raise ValueError(f'{where}: table {entry["table"]} has no row {entry["row"]!r}{_hint(entry["row"], rows)}')
        if rows[entry['row']].config != row.config:
            raise ValueError(
                f'{where}: row {entry["row"]} of table {entry["table"]} takes {rows[entry["row"]].config.name}, not '
                'this file'
            )


def check_row(table: AblationTable, row: Row) -> dict[str, tuple]:
    """Compare a row's config with the table's base, in every stage and in the protocol.

    Returns:
        Dotted name -> (value in the base, value in the row) of all that differs; protocol settings are
        `protocol.<setting>`.

    Raises:
        ValueError: The file declares nothing, another table or row, a change that it does not make, or makes one that
            it does not declare.
    """
    if row.config == table.base:
        return {}
    return _check_changes(table, row, _row_differences(row, resolve_stages(table.base), resolve_stages(row.config)))


def _check_changes(table: AblationTable, row: Row, changed: dict[str, tuple]) -> dict[str, tuple]:
    declared = _declaration(row)['changes']
    for name in changed:
        if not any(_is_inside(name, entry) for entry in declared):
            own, new = changed[name]
            raise ValueError(
                f'{row.config} changes {name} ({own!r} in {table.base.name}, {new!r} here) and does not declare it: '
                f'add it to `ablation.changes` ({", ".join(declared)}), or leave it as it is in the base'
            )
    for entry in declared:
        if not any(_is_inside(name, entry) for name in changed):
            raise ValueError(f'{row.config} declares a change of {entry}, which is as in {table.base.name}')
    return changed


def _row_differences(row: Row, own: tuple[Stages, Protocol], new: tuple[Stages, Protocol]) -> dict[str, tuple]:
    (own_stages, own_protocol), (new_stages, new_protocol) = own, new
    own_names, new_names = ([name for name, _ in stages] for stages in (own_stages, new_stages))
    if own_names != new_names:
        raise ValueError(f'{row.config} has the stages {new_names}, its base has {own_names}')
    changed = {}
    for (_, own), (_, new) in zip(own_stages, new_stages, strict=True):
        changed |= differences(_comparable(own), _comparable(new))
    return changed | differences(_settings(own_protocol), _settings(new_protocol))


def resolve_row(table: AblationTable, row: Row, stages: Stages, protocol: Protocol) -> ResolvedRow:
    """Apply a row's changes to the stages and the protocol of a base, which need not be the table's own.

    What the row changes against the table's base is changed here too, and nothing else. Where it puts another part in
    the place of one, entries that both have and that the row leaves alone (`channels`, `size`) are those of the given
    base. Numbers that the row declares as `scaled` keep their ratio: 480 of 1,440 frames are 160 of 480.

    Args:
        table: The table.
        row: One of its rows.
        stages: (name, config) of the base's stages.
        protocol: Of the base, or of the user.

    Raises:
        ValueError: As `check_row`; the base lacks a part that the row changes, or has other stages.
    """
    if row.config == table.base:
        return ResolvedRow(row, tuple((name, Config(_comparable(cfg))) for name, cfg in stages), protocol, {})
    own_side, new_side = resolve_stages(table.base), resolve_stages(row.config)
    _check_changes(table, row, _row_differences(row, own_side, new_side))
    scaled = _declaration(row).get('scaled', ())
    (own_stages, own_protocol), (new_stages, new_protocol) = own_side, new_side
    resolved = []
    for number, (name, cfg) in enumerate(stages):
        own, new = _same_stage(name, number == len(stages) - 1, own_stages, new_stages, table.base)
        values = _comparable(cfg)
        where = f'row {row.name} of table {table.name}'
        for key in {**own, **new}:
            triple = (side.get(key, ABSENT) for side in (new, own, values))
            value = _transplant(key, *triple, scaled, where)
            if value is ABSENT:
                values.pop(key, None)
            else:
                values[key] = value
        resolved.append((name, Config(values)))
    chosen = protocol.with_settings(_protocol_changes(row, own_protocol, new_protocol))
    changed = differences(_settings(protocol), _settings(chosen))
    for (_, before), (_, after) in zip(stages, resolved, strict=True):
        changed |= differences(_comparable(before), after.to_dict())
    return ResolvedRow(row, tuple(resolved), chosen, changed)


def _transplant(path: str, new, own, given, scaled: Sequence[str], where: str):
    """The given base's value with the change that leads from `own`, the table's base, to `new`, the row."""
    if _equal(new, own):
        return given
    if path in scaled and given is not ABSENT:
        return max(1, round(new / own * given))
    if not (isinstance(new, dict) and isinstance(own, dict)):
        return new
    if not isinstance(given, dict):
        raise ValueError(
            f'{where} changes the inside of {path}, which the base has not (it is {given!r}): take a base with all '
            'parts on'
        )
    replaced = new.get('type') != own.get('type')
    value = {}
    for key, entry in new.items():
        inner = f'{path}.{key}'
        result = _transplant(inner, entry, own.get(key, ABSENT), given.get(key, ABSENT), scaled, where)
        if result is ABSENT and replaced:
            result = entry  # the new part needs it, and the given base cannot say otherwise
        if result is not ABSENT:
            value[key] = result
    if not replaced:  # entries of the given base's part alone; another part would not know them
        value = {**{key: entry for key, entry in given.items() if key not in new and key not in own}, **value}
    return value


def _equal(first, second) -> bool:
    return not differences({'value': first}, {'value': second})


def _same_stage(name: str, last: bool, own_stages: Stages, new_stages: Stages, base: Path) -> tuple[dict, dict]:
    """The stage of the table's base, and of the row, that a stage of another base stands for."""
    names = [stage for stage, _ in own_stages]
    if not last and name not in names[:-1]:
        raise ValueError(f'the base has a stage {name!r}, which {base.name} has not: its stages are {", ".join(names)}')
    index = len(names) - 1 if last else names.index(name)
    return _comparable(own_stages[index][1]), _comparable(new_stages[index][1])


def _protocol_changes(row: Row, own: Protocol, new: Protocol) -> dict:
    """Changes for `Protocol.with_settings` that lead from one protocol to another."""
    if own.input != new.input:
        raise ValueError(f'{row.config}: a row changes settings of the protocol, not the size of its input')
    changes = {}
    before, after = asdict(own.settings), asdict(new.settings)
    for name in before:
        if before[name] == after[name]:
            continue
        if isinstance(before[name], dict) and isinstance(after[name], dict):
            changes |= {f'{name}.{key}': v for key, v in after[name].items() if v != before[name][key]}
        else:
            changes[name] = after[name]
    return changes


def _comparable(cfg: Config) -> dict:
    return {key: value for key, value in cfg.to_dict().items() if key not in NOT_COMPARED and not key.startswith('_')}


def _settings(protocol: Protocol) -> dict:
    return {'protocol': {**asdict(protocol.settings), 'input': asdict(protocol.input)}}


def _is_inside(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f'{entry}.')


def _declaration(row: Row) -> dict:
    """The `ablation` entry of a row's config, checked. Rows of other tables may share the file of a row."""
    entry = load_config(row.config).get('ablation')
    if entry is None:
        raise ValueError(f'{row.config}: no `ablation = dict(table=..., row=..., changes=[...])` says what it changes')
    entry = entry.to_dict()
    _check_keys(entry, _DECLARATION_KEYS, f'{row.config}: ablation', required={'table', 'row', 'changes'})
    if not entry['changes'] or not set(entry.get('scaled', ())) <= set(entry['changes']):
        raise ValueError(f'{row.config}: ablation.changes names at least one entry, and all those of `scaled`')
    return entry


def _read_row(path: Path, where: str, name: str, values: dict) -> Row:
    _check_keys(values, _ROW_KEYS, where, required={'label', 'config', 'paper'})
    config = _config_path(path, values['config'], where)
    return Row(name, str(values['label']), config, values.get('checkpoint', name), dict(values['paper']))


def _config_path(path: Path, name: str, where: str) -> Path:
    config = (path.parent / name).resolve()
    if not config.is_file():
        raise FileNotFoundError(f'{where}: config not found: {config}')
    return config


def _check_keys(entry, known: set[str], where: str, required: set[str]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected entries {", ".join(sorted(known))}, got {entry!r}')
    for name in sorted(set(entry) - known):
        raise ValueError(f'{where}: unknown entry {name!r}{_hint(name, known)}')
    for name in sorted(required - set(entry)):
        raise ValueError(f'{where}: {name!r} is missing')


def _hint(name: str, known) -> str:
    near = difflib.get_close_matches(str(name), [str(entry) for entry in known], n=1)
    return f'; did you mean {near[0]!r}?' if near else f'; there are {", ".join(map(str, known))}'


def _plain(name: str) -> str:
    return str(name).lower().replace('.', '').removeprefix('table')
