"""Score a feature on several benchmarks under several protocols: what `mmliir eval` does."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mmliir.apis.evaluate import Evaluation, ModelIdentity, protocol_for, run_task
from mmliir.evaluation.benchmarks import open_benchmark
from mmliir.evaluation.evaluation_report import EvaluatedRun, write_evaluation_report
from mmliir.evaluation.sharding import ALONE, Shard
from mmliir.evaluation.summary import CSV_NAME, SUMMARY_NAME, make_summary, write_summary
from mmliir.evaluation.tables import result_table, summary_table
from mmliir.evaluation.tasks import Task
from mmliir.models.methods import BaseCorrespondence
from mmliir.propagation import Protocol, get_protocol
from mmliir.utils.env import environment


@dataclass(frozen=True)
class BenchmarkRun:
    """One benchmark under one protocol.

    Attributes:
        benchmark: Its name.
        protocol: As it was on this benchmark.
        task: The benchmark.
        evaluation: What came out.
    """

    benchmark: str
    protocol: Protocol
    task: Task
    evaluation: Evaluation


@dataclass(frozen=True)
class PlannedRun:
    """One benchmark under one protocol, before it is run: the data are there and the names are right."""

    benchmark: str
    protocol: Protocol
    task: Task

    def folder(self, out_dir: str | Path) -> Path:
        """`<out_dir>/<benchmark>/<protocol>`."""
        return Path(out_dir) / self.benchmark / self.protocol.name


def plan_runs(
    benchmarks: Sequence[str],
    protocols: Sequence[str],
    data_root: str | Path,
    sequences: Sequence[str] | None = None,
    short_side: int | None = None,
) -> list[PlannedRun]:
    """Open every benchmark and look up every protocol, so that what is missing is known before anything is computed.

    Args:
        benchmarks: Names, see `mmliir.evaluation.benchmarks`.
        protocols: Names, see `mmliir.propagation.PRESETS`.
        data_root: Folder that holds the data sets, each under one of its usual names; or the only one itself.
        sequences: Only these; None for all.
        short_side: Frames are resized to this shorter side for the encoder.

    Raises:
        ValueError: An unknown name, or one that is given twice.
        FileNotFoundError: Data are missing.
    """
    for what, names in (('benchmark', benchmarks), ('protocol', protocols)):
        if not names:
            raise ValueError(f'give at least one {what}')
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise ValueError(f'{what} {twice[0]!r} is given twice')
    for name in protocols:
        get_protocol(name)
    tasks = {name: open_benchmark(name, data_root, sequences) for name in benchmarks}
    return [
        PlannedRun(name, protocol_for(protocol, task, short_side), task)
        for name, task in tasks.items()
        for protocol in protocols
    ]


def run_benchmarks(
    plan: Sequence[PlannedRun],
    model: BaseCorrespondence,
    identity: ModelIdentity,
    out_dir: str | Path,
    *,
    precision: str = 'float32',
    compiled: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[int, PlannedRun], None] | None = None,
    shard: Shard = ALONE,
    max_memory: int | None = None,
) -> list[BenchmarkRun]:
    """Propagate and score every planned run; a killed call continues when it is made again.

    Args:
        plan: From `plan_runs`.
        model: Gives features.
        identity: What results say of it.
        out_dir: Each run has a folder of its own in it, see `PlannedRun.folder`.
        precision: 'float32', 'bfloat16', or 'auto' to ask the machine, see `choose_precision`.
        compiled: Compile the encoder, see `CompiledEncoder`.
        overwrite: Replace predictions of other runs.
        jobs: Parallel work of the metrics.
        progress: Called by the metric with (done, all).
        announce: Called with (number, run) before each.
        shard: This process's part of the sequences, see `run_task`.
        max_memory: Bound in bytes on the memory of the propagation, see `PropagationSession`.

    Returns:
        The runs, in order of the plan. A sequence that cannot be propagated or scored is named in its run; see
        `refuse_nothing` where none is left.
    """
    runs = []
    for number, planned in enumerate(plan):
        if announce is not None:
            announce(number, planned)
        evaluation = run_task(
            model,
            identity,
            planned.task,
            planned.protocol,
            planned.folder(out_dir),
            precision=precision,
            compiled=compiled,
            overwrite=overwrite,
            jobs=jobs,
            progress=progress,
            shard=shard,
            max_memory=max_memory,
        )
        runs.append(BenchmarkRun(planned.benchmark, planned.protocol, planned.task, evaluation))
    return runs


@dataclass(frozen=True)
class WrittenResults:
    """What `write_results` wrote and what is left to print.

    Attributes:
        tables: For the terminal: one of each run, and with several, one of all.
        notes: What a reader must know.
        paths: The report, or the folder where there is none.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    paths: tuple[Path, ...]


def write_results(
    runs: Sequence[BenchmarkRun], out_dir: str | Path, command: Sequence[str], report: bool = True
) -> WrittenResults:
    """Write `summary.json` and `per_sequence.csv` of every run, and `report.html` of all.

    Args:
        runs: From `run_benchmarks`.
        out_dir: Gets `report.html`.
        command: What makes it all again, one string an argument.
        report: Whether to write the report.
    """
    out_dir = Path(out_dir)
    lost = [run for run in runs if run.task.metric is not None and run.evaluation.result is None]
    versions = {name: value for name, value in environment().items() if name != 'device'}
    scored = [run for run in runs if run.evaluation.result is not None]
    tables = []
    for run in scored:
        summary = make_summary(run.evaluation.result, run.evaluation.card, versions, tuple(command))
        write_summary(run.evaluation.out_dir, summary)
        tables.append(result_table(run.evaluation.result, summary.intervals))
        tables[-1].title.append(f', protocol {run.protocol.name}')
    for run in lost:  # what an earlier run wrote is not of these predictions
        for name in (SUMMARY_NAME, CSV_NAME):
            (run.evaluation.out_dir / name).unlink(missing_ok=True)
    notes = _shared_notes(runs)
    if len(scored) > 1:
        rows = [(run.evaluation.card.model, run.protocol.name, run.evaluation.result) for run in scored]
        tables.append(summary_table(rows))
    if not report or not scored:
        return WrittenResults(tuple(tables), tuple(notes), (out_dir,))
    written = write_evaluation_report(
        out_dir / 'report.html',
        [
            EvaluatedRun(run.evaluation.result, run.evaluation.card, run.task.dataset, run.evaluation.out_dir)
            for run in scored
        ],
        warnings=[_nothing_scored(run) for run in lost],
        commands=[shlex.join(command)],
        environment=versions,
    )
    return WrittenResults(tuple(tables), tuple(notes), (written.path,))


def _nothing_scored(run: BenchmarkRun) -> str:
    return f'Nothing scored of {run.benchmark} under {run.protocol.name}: 0 of {len(run.evaluation.missing)} sequences.'


def _shared_notes(runs: Sequence[BenchmarkRun]) -> list[str]:
    """What a reader must know; what is the same under every protocol of a benchmark stands once."""
    said: dict[tuple[str, str], list[str]] = {}
    for say in (_notes, _missing_notes):
        for run in runs:
            for note in say(run):
                said.setdefault((run.benchmark, note), []).append(run.protocol.name)
    protocols = {name: [run.protocol.name for run in runs if run.benchmark == name] for name, _ in said}
    return [
        f'{name}: {note}' if found == protocols[name] else f'{name}, {", ".join(found)}: {note}'
        for (name, note), found in said.items()
    ]


def _notes(run: BenchmarkRun) -> list[str]:
    if run.task.metric is None:
        return ['predicted, not scored: the truth is not public. `mmliir submit` makes the archive']
    return [] if run.evaluation.result is None else list(run.evaluation.result.notes)


def _missing_notes(run: BenchmarkRun) -> list[str]:
    return [f'NOT SCORED: {name}: {reason}' for name, reason in run.evaluation.missing]


def folder_name(spec: str, weights: str | Path | None = None) -> str:
    """A name for a feature's results: 'timm:vit_small' with 'a/b.pth' -> 'timm_vit_small_b'."""
    path = Path(spec)
    text = path.stem if path.suffix == '.py' else spec
    if weights is not None:
        text += f'_{Path(weights).stem}'
    return re.sub(r'[^\w.@+=-]+', '_', text).strip('._') or 'model'
