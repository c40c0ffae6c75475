"""Run a table of ablations: train what it needs once, test each row, go on where a killed run stopped.

`out_dir` holds `stages/<row>-<stage>-seed<n>-<key>` (checkpoints), `predictions/<row>-seed<n>-<key>` (masks and scores)
and the tables. A key is a fingerprint of all that weights or scores depend on, so rows and tables with equal stages
share one checkpoint, and nothing made with other settings is ever taken for this table's.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from mmliir.apis.ablation_report import RowResult, RowScores, TableResult, write_result
from mmliir.apis.ablation_rows import (
    NOT_COMPARED,
    AblationTable,
    ResolvedRow,
    Row,
    check_declarations,
    get_table,
    read_tables,
    resolve_row,
    resolve_stages,
)
from mmliir.apis.configs import differences, flatten
from mmliir.apis.evaluate import default_device, describe_affinity, evaluate
from mmliir.apis.train import result_of_stage, train
from mmliir.evaluation.protocol import fingerprint_data, read_run_card
from mmliir.evaluation.tasks import Task, build_task
from mmliir.propagation import Protocol, resolve_protocol
from mmliir.registry import DATASETS
from mmliir.utils.compute import Precision, choose_precision
from mmliir.utils.env import code_version
from mmliir.utils.files import read_text, sha256_file, write_json_atomic, write_text_atomic

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_KEY_LENGTH = 12
_SETTINGS, _TIMINGS, _STAGE = 'training.json', 'timings.json', 'stage.json'
#: Entries of a config that weights do not depend on.
_NOT_IN_WEIGHTS = (
    'log_level', 'log_processor', 'visualizer', 'resume', 'launcher', 'task', 'env_cfg.mp_cfg', 'precision',
    'default_hooks.logger', 'default_hooks.timer', 'default_hooks.checkpoint',
    'train_dataloader.num_workers', 'train_dataloader.persistent_workers', 'train_dataloader.pin_memory',
    'train_dataloader.dataset.source.data_root', 'train_dataloader.dataset.source.cache',
    'train_dataloader.dataset.source.cache_dir',
)  # fmt: skip
_MAX_SHOWN = 6


@dataclass(frozen=True)
class StageJob:
    """One stage of a training.

    Attributes:
        name: Of the stage, in the config.
        title: For people.
        key: Fingerprint of all that its weights depend on, earlier stages included.
        identity: What the fingerprint is of: dotted name -> value.
        cfg: Its config; works in its own folder.
        previous: The stage whose weights it starts from, or None.
    """

    name: str
    title: str
    key: str
    identity: Mapping
    cfg: Config
    previous: 'StageJob | None'

    @property
    def folder(self) -> Path:
        """Where it trains."""
        return Path(self.cfg.work_dir)

    def checkpoint(self) -> Path | None:
        """Its last checkpoint when it is complete, else None."""
        return result_of_stage(self.cfg)


@dataclass(frozen=True)
class RowJob:
    """A row with one seed: the stages of its training, and how it is tested."""

    resolved: ResolvedRow
    seed: int
    stages: tuple[StageJob, ...]

    @property
    def row(self) -> Row:
        """The row."""
        return self.resolved.row

    @property
    def title(self) -> str:
        """For people."""
        return f'{self.row.name}, seed {self.seed}'


@dataclass(frozen=True)
class Plan:
    """All rows of a table with all seeds.

    Attributes:
        table: The table.
        base: Name of the config that the rows change.
        protocol: Name of the protocol that the rows' changes apply to.
        schedule: Steps and pairs of each stage, for people.
        seeds: Of the runs.
        jobs: Each row with each seed, seed by seed.
        settings: What all of it shares: dotted name -> value of the base's stages, without the seed.
    """

    table: AblationTable
    base: str
    protocol: str
    schedule: str
    seeds: tuple[int, ...]
    jobs: tuple[RowJob, ...]
    settings: Mapping


@dataclass(frozen=True)
class _Test:
    """What the rows are tested on."""

    config: dict
    data_root: Path
    task: Task
    data_sha256: str
    precision: Precision
    jobs: int


def run_table(
    tables_file: str | Path,
    name: str,
    out_dir: str | Path,
    task: dict | None = None,
    data_root: str | Path | None = None,
    eval_root: str | Path | None = None,
    base: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] | None = None,
    protocol: str | dict | Protocol | None = None,
    short_side: int | None = None,
    precision: str = 'float32',
    options: dict | None = None,
    jobs: int = 1,
) -> TableResult:
    """Train and test the rows of a table, or go on with them; what is complete in `out_dir` is not done again.

    Each result is written to the table's files at once, so that they are up to date when the run is killed.

    Args:
        tables_file: `configs/ablations/tables.yml`.
        name: Of the table: '4', '5a', 'A.1'.
        out_dir: Checkpoints, predictions and tables.
        task: Config of the benchmark, see `mmliir.evaluation.tasks`; None trains and tests nothing.
        data_root: Training videos; None for the base config's.
        eval_root: Data of the benchmark; None looks beside `data_root`, see `find_eval_root`.
        base: The config that the rows change; None for the table's own.
        seeds: Of the runs.
        rows: Only these are run; the table shows what is there of the others too. None for all.
        protocol: Replaces the base config's; a row's own changes apply to it.
        short_side: Frames are resized to this shorter side for the encoder.
        precision: Of training and encoding: 'float32', 'bfloat16', or 'auto' to ask the machine.
        options: Changes to the base config by dotted name.
        jobs: Threads of the metric.

    Returns:
        The table with its scores.

    Raises:
        ValueError: `out_dir` holds trainings with other settings; a row only tests and the training that it needs is
            neither there nor asked for; a config changes what it does not declare; see also `train`, `evaluate`.
        FileNotFoundError: Data or a config are not there.
    """
    out_dir = Path(out_dir)
    tables = read_tables(tables_file)
    table = get_table(tables, name)
    check_declarations(tables, table)
    chosen = [row.name for row in table.select(rows)]
    precision = choose_precision(precision, default_device())
    plan = plan_table(table, out_dir, data_root, base, seeds, protocol, short_side, precision, options)
    wanted = [job for job in plan.jobs if job.row.name in chosen]
    _refuse_untrained_checkpoint(wanted)
    test = None if task is None else _prepare_test(task, eval_root, data_root, precision, jobs)
    with _alone_in(out_dir):
        _claim(out_dir, plan.settings)
        steps = _steps_to_do(out_dir, wanted, test)
        clock = _Clock(out_dir / _TIMINGS)
        for number, step in enumerate(steps):
            left = clock.describe([_work(later) for later in steps[number:]])
            head = f'[{number + 1}/{len(steps)}]'
            if isinstance(step, StageJob):
                _say(f'{head} training {step.title}: {_work(step)[1]} steps; {left}')
                _train(step, head, precision, clock)
            else:
                _say(f'{head} testing {step.title} on {test.task.name}; {left}')
                _evaluate(out_dir, step, test, clock)
                write_result(out_dir, _collect(out_dir, plan, test))
    result = _collect(out_dir, plan, test)
    if test is not None:
        write_result(out_dir, result)
    return result


def plan_table(
    table: AblationTable,
    out_dir: str | Path,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    protocol: str | dict | Protocol | None = None,
    short_side: int | None = None,
    precision: Precision = 'float32',
    options: dict | None = None,
) -> Plan:
    """Every row with every seed: what is trained for it and how it is tested. Reads configs and lists videos.

    Args: See `run_table`.

    Raises:
        ValueError: A row that only tests would be trained otherwise than the row whose checkpoint it takes.
    """
    options = dict(options or {})
    if data_root is not None:
        options['train_dataloader.dataset.source.data_root'] = str(Path(data_root).resolve())
    base = Path(base or table.base)
    stages, own_protocol = resolve_stages(base, options)
    chosen = own_protocol if protocol is None else resolve_protocol(protocol)
    if short_side is not None:
        chosen = chosen.at_short_side(short_side)
    data = _fingerprint_videos(stages[-1][1])
    resolved = [resolve_row(table, row, stages, chosen) for row in table.rows.values()]
    planned, folders, seeds = [], _Folders(Path(out_dir) / 'stages'), tuple(dict.fromkeys(seeds))
    for seed in seeds:
        trained_first = sorted(resolved, key=lambda one: one.row.test_only)  # they give the folders their names
        stages_of = {one.row.name: _plan_stages(one, seed, data, precision, folders) for one in trained_first}
        jobs = {one.row.name: RowJob(one, seed, stages_of[one.row.name]) for one in resolved}
        for job in jobs.values():
            giver = jobs[job.row.checkpoint]
            if giver.stages[-1].key != job.stages[-1].key:
                names = sorted(differences(dict(giver.stages[-1].identity), dict(job.stages[-1].identity)))
                raise ValueError(
                    f'row {job.row.name} of table {table.name} takes the checkpoint of {giver.row.name}, but its own '
                    f'training differs in {", ".join(names[:_MAX_SHOWN])}'
                )
        planned += jobs.values()
    settings = {f'{name}: {key}': value for name, cfg in stages for key, value in _identity(_plain(cfg)).items()}
    schedule = ', '.join(
        f'stage {name} {cfg.train_cfg.max_iters} x {cfg.train_dataloader.batch_size} pairs' for name, cfg in stages
    )
    settings |= {'data': data, 'precision': precision}
    return Plan(table, base.stem, chosen.name, schedule, seeds, tuple(planned), settings)


def find_eval_root(task: dict, data_root: str | Path | None) -> Path:
    """Where the benchmark's data lie when the user does not say: the task's place, in or beside the training videos.

    Raises:
        FileNotFoundError: Nowhere; lists the places.
    """
    places = [Path(task['dataset']['data_root'])]
    if data_root is not None:
        root = Path(data_root)
        names = (task['name'], 'davis', 'DAVIS')
        places += [root, *(above / name for above in (root, *list(root.resolve().parents)[:2]) for name in names)]
    for place in places:
        if all((place / part).is_dir() for part in ('JPEGImages', 'Annotations', 'ImageSets')):
            return place
    raise FileNotFoundError(
        f'data of {task["name"]} not found: give --eval-root, a folder with JPEGImages, Annotations and ImageSets '
        f'(looked at {", ".join(map(str, places))})'
    )


def _plan_stages(
    resolved: ResolvedRow, seed: int, data: str, precision: Precision, folders: '_Folders'
) -> tuple[StageJob, ...]:
    jobs: list[StageJob] = []
    for name, stage in resolved.stages:
        cfg = Config(stage.to_dict())
        cfg.merge_from_dict({'randomness.seed': seed})
        previous = jobs[-1] if jobs else None
        identity = _identity(cfg) | {'data': data, 'precision': precision}
        identity['previous'] = previous.key if previous else None
        key = _fingerprint(identity)
        folder = folders.get(key, f'{resolved.row.name}-{name}-seed{seed}')
        title = f'{folder.name.removesuffix(f"-{key}").removesuffix(f"-{name}-seed{seed}")}, stage {name}, seed {seed}'
        cfg.work_dir, cfg.log_level = str(folder), 'WARNING'
        cfg.experiment_name = folder.name
        cfg.stages = [dict(name=name, changes={})]
        jobs.append(StageJob(name, title, key, identity, cfg, previous))
    return tuple(jobs)


class _Folders:
    """Folders by key. One that is there keeps its name; for a new one, the first that asks gives it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, str] = {}
        if root.is_dir():
            self.names = {path.name.rpartition('-')[2]: path.name for path in sorted(root.iterdir()) if path.is_dir()}

    def get(self, key: str, name: str) -> Path:
        return self.root / self.names.setdefault(key, f'{name}-{key}')


def _plain(cfg: Config) -> Config:
    """A stage's config without what is a row's or a run's own: folders, test, seed."""
    values = {name: value for name, value in cfg.to_dict().items() if name not in NOT_COMPARED}
    values['randomness'] = {name: value for name, value in values.get('randomness', {}).items() if name != 'seed'}
    return Config(values)


def _identity(cfg: Config) -> dict:
    """All entries of a stage's config that its weights depend on."""
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] != 'ProgressHook']
    values = flatten({**cfg.to_dict(), 'custom_hooks': [dict(hook) for hook in hooks]})
    return {
        name: value
        for name, value in values.items()
        if not any(name == entry or name.startswith(f'{entry}.') for entry in _NOT_IN_WEIGHTS)
    }


def _fingerprint(values) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode('utf-8')).hexdigest()[:_KEY_LENGTH]


def _fingerprint_videos(cfg: Config) -> str:
    """Of the names and lengths of the training videos, wherever they lie."""
    source = dict(cfg.train_dataloader.dataset.source)
    source.update({name: None for name in ('cache', 'cache_dir') if name in source})  # nothing is decoded for a list
    videos = DATASETS.build(source)
    return _fingerprint([[name, videos.num_frames(number)] for number, name in enumerate(videos.names)])


def _refuse_untrained_checkpoint(wanted: Sequence[RowJob]) -> None:
    trained = {stage.key for job in wanted if not job.row.test_only for stage in job.stages}
    for job in wanted:
        last = job.stages[-1]
        giver = job.row.checkpoint
        if job.row.test_only and last.key not in trained and last.checkpoint() is None:
            raise ValueError(
                f'row {job.row.name} is only tested, with the checkpoint of row {giver} (seed {job.seed}), which is '
                f'not complete in {last.folder.parent}: add {giver} to the rows'
            )


def _prepare_test(task: dict, eval_root, data_root, precision: Precision, jobs: int) -> _Test:
    root = Path(eval_root) if eval_root is not None else find_eval_root(task, data_root)
    built = build_task(task, root)
    samples = [built.dataset[number] for number in range(len(built.dataset))]
    data = fingerprint_data((s.name, len(s.frames), s.frames[0].shape[:2]) for s in samples)
    return _Test(task, root, built, data.sha256, precision, jobs)


def _claim(out_dir: Path, settings: Mapping) -> None:
    """Remember how this folder's trainings are made; refuse another way: its tables would be of two kinds."""
    path, settings = out_dir / _SETTINGS, _json(settings)
    if not path.is_file():
        write_json_atomic(path, settings)
        return
    different = differences({'': json.loads(read_text(path))}, {'': settings})
    if different:
        shown = [f'{name.lstrip(".")} was {old!r}, is {new!r}' for name, (old, new) in different.items()]
        more = f'; and {len(shown) - _MAX_SHOWN} more' if len(shown) > _MAX_SHOWN else ''
        raise ValueError(
            f'{out_dir} holds trainings with other settings: {"; ".join(shown[:_MAX_SHOWN])}{more}. Use another output '
            'folder, or the settings of before'
        )


def _steps_to_do(out_dir: Path, wanted: Sequence[RowJob], test: _Test | None) -> list['StageJob | RowJob']:
    """Stages and tests that are not complete, in the order of the rows; each stage once."""
    steps: list[StageJob | RowJob] = []
    keys = set()
    for job in wanted:
        if test is not None and _read_scores(out_dir, job, test) is not None:
            continue
        last = job.stages[-1].checkpoint() is not None
        for stage in () if last else job.stages:
            if stage.key not in keys and stage.checkpoint() is None:
                keys.add(stage.key)
                steps.append(stage)
        if test is not None:
            steps.append(job)
    return steps


def _train(stage: StageJob, head: str, precision: Precision, clock: '_Clock') -> None:
    cfg = Config(stage.cfg.to_dict())
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] != 'ProgressHook']
    cfg.custom_hooks = [*hooks, dict(type='ProgressHook', name=f'{head} {stage.title}')]
    if stage.previous is not None:
        cfg.load_from = str(stage.previous.checkpoint())
    config = write_text_atomic(stage.folder / 'config.py', cfg.pretty_text)
    goes_on = (stage.folder / 'last_checkpoint').is_file()
    about = {'title': stage.title, 'code_version': code_version()}
    write_json_atomic(stage.folder / _STAGE, {**about, **_json(stage.identity)})
    start = time.monotonic()
    train(config, work_dir=stage.folder, resume=goes_on, precision=precision)
    if not goes_on:
        clock.add(_work(stage), time.monotonic() - start)


def _evaluate(out_dir: Path, job: RowJob, test: _Test, clock: '_Clock') -> None:
    last, folder = job.stages[-1], _predictions(out_dir, job, test)
    card = read_run_card(folder)
    start = time.monotonic()
    evaluate(
        last.cfg,
        last.checkpoint(),
        test.config,
        protocol=job.resolved.protocol,
        data_root=test.data_root,
        out_dir=folder,
        precision=test.precision,
        # half a set of masks of another version of the code, or of weights that were since trained anew
        overwrite=card is not None
        and (card['code_version'], card['checkpoint_sha256']) != (code_version(), sha256_file(last.checkpoint())),
        jobs=test.jobs,
        name=last.key,
    )
    if card is None:
        clock.add(_work(job), time.monotonic() - start)


def _predictions(out_dir: Path, job: RowJob, test: _Test) -> Path:
    protocol = job.resolved.protocol
    key = _fingerprint(
        {
            'training': job.stages[-1].key,
            'settings': asdict(protocol.settings),
            'input': asdict(protocol.input),
            'protocol': protocol.name,
            'task': test.task.name,
            'data': test.data_sha256,
            'precision': test.precision,
            'affinity': describe_affinity(default_device()),
            'metric': test.task.metric.version,
        }
    )
    return _Folders(out_dir / 'predictions').get(key, f'{job.row.name}-seed{job.seed}')


def _read_scores(out_dir: Path, job: RowJob, test: _Test) -> RowScores | None:
    """The scores of a row that was tested; None when it was not, or with weights that were since trained anew."""
    path = _predictions(out_dir, job, test) / 'scores.json'
    if not path.is_file():
        return None
    scores = json.loads(read_text(path))
    checkpoint = job.stages[-1].checkpoint()
    if checkpoint is not None and sha256_file(checkpoint) != scores['run_card']['checkpoint_sha256']:
        return None
    percent = [math.nan if (v := scores['metrics'][f'{name}_mean']) is None else 100 * v for name in ('jf', 'j', 'f')]
    return RowScores(*percent, scores['run_card']['code_version'])


def _collect(out_dir: Path, plan: Plan, test: _Test | None) -> TableResult:
    """What is there of the whole table, whichever rows this run was asked for."""
    results = []
    for name, row in plan.table.rows.items():
        jobs = [job for job in plan.jobs if job.row.name == name]
        found = {job.seed: None if test is None else _read_scores(out_dir, job, test) for job in jobs}
        scores = {seed: one for seed, one in found.items() if one is not None}
        trained = sum(job.stages[-1].checkpoint() is not None for job in jobs)
        results.append(RowResult(row, jobs[0].resolved.changed, scores, trained))
    return TableResult(
        table=plan.table,
        base=plan.base,
        task=None if test is None else test.task.name,
        protocol=plan.protocol,
        schedule=plan.schedule,
        sequences=(0, 0) if test is None else (len(test.task.dataset), test.task.metric.num_sequences_in_split),
        seeds=plan.seeds,
        rows=tuple(results),
    )


def _work(step: 'StageJob | RowJob') -> tuple[str, int]:
    """Kind and amount of work of a step, for the time that is left."""
    if isinstance(step, StageJob):
        return f'train {step.name}', int(step.cfg.train_cfg.max_iters)
    return 'test', 1


class _Clock:
    """Measured pace of each kind of work, kept in a file, and the time that the rest will take."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = json.loads(read_text(path)) if path.is_file() else {}

    def add(self, work: tuple[str, int], seconds: float) -> None:
        kind, amount = work
        before = self.seen.get(kind, [0.0, 0])
        self.seen[kind] = [before[0] + seconds, before[1] + amount]
        write_json_atomic(self.path, self.seen)

    def describe(self, rest: Sequence[tuple[str, int]]) -> str:
        known = [(kind, amount) for kind, amount in rest if kind in self.seen]
        if not known:
            return 'time left not known yet'
        seconds = sum(amount * self.seen[kind][0] / self.seen[kind][1] for kind, amount in known)
        text = f'{int(seconds // 3600)}:{int(seconds // 60) % 60:02d}:{int(seconds % 60):02d} left'
        unknown = len(rest) - len(known)
        return f'about {text}' if not unknown else f'more than {text}: {unknown} steps of a kind not measured yet'


@contextlib.contextmanager
def _alone_in(out_dir: Path) -> Iterator[None]:
    """Hold the folder while this process works in it; a killed process lets it go."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with open(out_dir / '.lock', 'a') as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f'another process is running a table in {out_dir}: wait for it, or stop it') from error
        os.utime(out_dir / '.lock')
        yield


def _json(values: Mapping) -> dict:
    return json.loads(json.dumps(dict(values), default=str))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
