"""Evaluate a feature: build it, propagate labels through a benchmark, score the files."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from mmliir.apis.affinity import Affinity, describe_affinity, settle_affinity
from mmliir.apis.configs import load_config
from mmliir.apis.encoders import make_encoder, settle_compile
from mmliir.evaluation.export import export_predictions, is_complete, prepare_folder
from mmliir.evaluation.metrics import BenchmarkResult
from mmliir.evaluation.protocol import ProtocolCard, fingerprint_data, read_run_card, write_run_card
from mmliir.evaluation.scoring import score_sound, score_task
from mmliir.evaluation.sharding import ALONE, Shard
from mmliir.evaluation.summary import CSV_NAME, SUMMARY_NAME
from mmliir.evaluation.tasks import Task, build_task
from mmliir.evaluation.writers import WRITERS
from mmliir.models.methods import BaseCorrespondence
from mmliir.propagation import Protocol, resolve_protocol
from mmliir.registry import MODELS
from mmliir.structures import PointSample, VideoSample
from mmliir.utils.checkpoint import load_weights, read_checkpoint
from mmliir.utils.compute import Precision, choose_precision, limit_threads
from mmliir.utils.env import code_version
from mmliir.utils.files import sha256_file, write_json_atomic
from mmliir.utils.machine import usable_cores

#: In the place of a checkpoint: keep the random initial weights.
UNTRAINED = 'untrained'
SCORES_NAME = 'scores.json'


@dataclass(frozen=True)
class ModelIdentity:
    """What a result says of the feature that it was made with.

    Attributes:
        name: Of the config or the model.
        colour_space: 'rgb' or 'lab'.
        checkpoint_sha256: Of the weights file; None where there is none.
        seed: Of random weights; None where there are none.
        details: More that scores depend on, as JSON values.
    """

    name: str
    colour_space: str
    checkpoint_sha256: str | None
    seed: int | None
    details: dict


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of one benchmark under one protocol did.

    Attributes:
        result: The scores; None for a benchmark whose truth is not public (a test split), and where no sequence could
            be scored.
        out_dir: Predictions, `run.json` and `scores.json`.
        card: Everything that the predictions depend on.
        missing: (name, reason) of the sequences that could not be propagated or scored; only what is there is scored.
        num_asked: Sequences that were asked for.
    """

    result: BenchmarkResult | None
    out_dir: Path
    card: ProtocolCard
    missing: tuple[tuple[str, str], ...] = ()
    num_asked: int = 0


def build_method(
    cfg: Config, checkpoint: str | Path | None, seed: int = 0, device: str | torch.device | None = None
) -> BaseCorrespondence:
    """Build a config's model and load its weights.

    Args:
        cfg: A resolved config.
        checkpoint: A checkpoint file; 'untrained' keeps the initial weights; None for features without weights,
            or with weights of their own (`FrozenFeature.pretrained`).
        seed: Of the initial weights.
        device: Where to; the GPU when there is one.

    Raises:
        ValueError: The model has weights and no checkpoint was given, or the checkpoint does not fit.
    """
    if 'model' not in cfg:
        raise ValueError('the config has no `model`')
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    has_weights = any(True for _ in model.parameters())
    if checkpoint is None and has_weights and not getattr(model, 'pretrained', False):
        raise ValueError(
            f'{type(model).__name__} has weights: give a checkpoint, or {UNTRAINED!r} to use its random initial weights'
        )
    if checkpoint is not None and str(checkpoint) != UNTRAINED:
        load_weights(model, read_checkpoint(checkpoint, entries=('state_dict', 'model')), checkpoint)
    return model.to(device or default_device()).eval()


def default_device() -> torch.device:
    """The GPU when there is one."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def evaluate(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    task: dict,
    protocol: str | dict | Protocol | None = None,
    short_side: int | None = None,
    data_root: str | Path | None = None,
    out_dir: str | Path = 'work_dirs/eval',
    sequences: Sequence[str] | None = None,
    precision: str = 'float32',
    overwrite: bool = False,
    backend: str = 'mmliir',
    jobs: int = 1,
    seed: int = 0,
    options: dict | None = None,
    progress: Callable[[int, int], None] | None = None,
    name: str | None = None,
    shard: Shard = ALONE,
    compiled: bool = False,
    strict: bool = True,
) -> Evaluation:
    """Propagate and score; a killed evaluation continues, finished sequences are not computed again.

    Args:
        config: Config file, or a resolved config.
        checkpoint: Checkpoint file, 'untrained', or None for features without weights.
        task: Config of the task, see `mmliir.evaluation.tasks`.
        protocol: Name of a preset, `dict(base, changes)`, or a `Protocol`; None takes the config's.
        short_side: Frames are resized to this shorter side for the encoder; results keep their size.
        data_root: Replaces the task's.
        out_dir: Predictions, a folder a sequence; `run.json`, `scores.json`.
        sequences: Only these; None for all.
        precision: 'float32', 'bfloat16', or 'auto' to ask the machine, see `choose_precision`.
        compiled: Compile the encoder, see `CompiledEncoder`.
        overwrite: Replace the predictions of another run.
        backend: Metric code: 'mmliir', or 'official' where the benchmark has a tool of its own that can be called.
        jobs: Parallel work of the metric; no number depends on it.
        seed: Of untrained weights.
        options: Changes to the config by dotted name.
        progress: Called by the metric with (done, all).
        name: Of the feature, on the card; None takes the config file's.
        shard: This process's part of the sequences, see `run_task`.
        strict: A sequence that cannot be propagated or scored is an error, and nothing is scored; see `run_task`.

    Returns:
        The scores and where things are.

    Raises:
        ValueError: A sequence cannot be propagated or scored (`strict`).
    """
    if isinstance(config, Config):
        cfg, name = config, name or Path(config.filename or 'config').stem
    else:
        cfg, name = load_config(config, options), name or Path(config).stem
    chosen = protocol or cfg.get('protocol')
    if chosen is None:
        raise ValueError('give a protocol: the config names none (`protocol = ...`)')
    built = build_task(task, data_root, sequences)
    chosen = protocol_for(chosen, built, short_side)
    model = build_method(cfg, checkpoint, seed)
    identity = describe_model(cfg, name, checkpoint, seed)
    return run_task(
        model,
        identity,
        built,
        chosen,
        out_dir,
        precision=precision,
        compiled=compiled,
        overwrite=overwrite,
        backend=backend,
        jobs=jobs,
        progress=progress,
        strict=strict,
        shard=shard,
    )


def protocol_for(spec: 'str | dict | Protocol', task: Task, short_side: int | None = None) -> Protocol:
    """A protocol as it is on this task's family of benchmarks, on frames of this shorter side if one is given."""
    protocol = resolve_protocol(spec).for_task(task.dataset.family)
    return protocol if short_side is None else protocol.at_short_side(short_side)


def describe_model(cfg: Config, name: str, checkpoint: str | Path | None, seed: int) -> ModelIdentity:
    """What a result says of a config's model with these weights."""
    has_file = checkpoint is not None and str(checkpoint) != UNTRAINED
    model = json.dumps(cfg.model.to_dict(), sort_keys=True, default=str)
    return ModelIdentity(
        name=name,
        colour_space=(cfg.model.get('data_preprocessor') or {}).get('color_space', 'lab'),
        checkpoint_sha256=sha256_file(checkpoint) if has_file else None,
        seed=seed if str(checkpoint) == UNTRAINED else None,
        details={'model_config_sha256': hashlib.sha256(model.encode('utf-8')).hexdigest()},
    )


def run_task(
    model: BaseCorrespondence,
    identity: ModelIdentity,
    task: Task,
    protocol: Protocol,
    out_dir: str | Path,
    *,
    precision: str = 'float32',
    compiled: bool = False,
    overwrite: bool = False,
    backend: str = 'mmliir',
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    strict: bool = False,
    shard: Shard = ALONE,
    max_memory: int | None = None,
) -> Evaluation:
    """Loop 1 and loop 2 of one benchmark under one protocol.

    Args:
        model: Gives features.
        identity: What the card says of it.
        task: The benchmark.
        protocol: As it is on this benchmark, see `protocol_for`.
        out_dir: Predictions, a folder a sequence; `run.json`, `scores.json`.
        precision: 'float32', 'bfloat16', or 'auto' to ask the machine, see `choose_precision`.
        compiled: Compile the encoder, see `CompiledEncoder`.
        overwrite: Replace the predictions of another run.
        backend: See `evaluate`.
        jobs: Parallel work of the metric.
        progress: Called by the metric with (done, all).
        strict: A sequence that cannot be propagated or scored is an error, and nothing is scored. False: the others are
            scored, and it is named in the result.
        shard: Which part of the sequences this process propagates; all processes call this together, the main one
            scores.
        max_memory: Bound in bytes on the memory of the propagation, see `PropagationSession`.

    Returns:
        The evaluation; `result` is None in processes that are not the main one.
    """
    out_dir = Path(out_dir)
    _refuse_data_as_output(task, out_dir)
    if strict:
        task.refuse_broken()
    samples, unread = _open_samples(task, strict)
    identity = dataclasses.replace(identity, details=identity.details | {'state_sha256': state_digest(model)})

    limit_threads()
    precision = shard.gather(choose_precision(precision, model.device))[0]  # one answer for all processes
    compiled = settle_compile(compiled, model.device)
    writer = WRITERS[task.dataset.kind]

    def is_finished() -> bool:
        return all(is_complete(out_dir / sample.name, writer.files(sample)) for sample in samples)

    affinity = _agree_on_affinity(shard, out_dir, model.device, overwrite, is_finished)

    def card_of(part: Sequence) -> ProtocolCard:
        with affinity.computing():
            return affinity.on_card(make_card(part, task, protocol, identity, precision, compiled, model.device))

    card = card_of(samples)
    refusal = None
    if shard.is_main:
        try:
            _accept_repaired(out_dir, samples, card, card_of)
            prepare_folder(out_dir, task.dataset.names, card, overwrite)
        except ValueError as error:
            refusal = str(error)
    refusal = shard.gather(refusal)[0]  # so that all processes end alike, and none waits for one that has gone
    if refusal is not None:
        raise ValueError(refusal)
    with affinity.computing():
        report = export_predictions(
            [samples[number] for number in shard.mine([len(sample.frames) for sample in samples])],
            make_encoder(model, precision, compiled),
            protocol,
            model.stride,
            out_dir,
            card=None,
            writer=writer,
            device=model.device,
            progress=shard.is_main,
            max_memory=max_memory,
        )
    failed = unread | dict(sum(shard.gather(list(report.failed)), []))
    if strict and failed:  # in every process, with all of them: none goes on alone
        whole = dataclasses.replace(
            report,
            written=tuple(name for name in task.dataset.names if name not in failed),
            skipped=(),
            failed=tuple(sorted(failed.items())),
        )
        whole.raise_for_failures()
    failed = {name: _without_folders(reason, (task.dataset.data_root, out_dir)) for name, reason in failed.items()}
    result, missing = None, tuple(sorted(failed.items()))
    if shard.is_main and task.metric is not None:
        for name in (SCORES_NAME, SUMMARY_NAME, CSV_NAME):  # an earlier run's must not be taken for this one's
            (out_dir / name).unlink(missing_ok=True)
        if strict:
            result = score_task(task, out_dir, backend, jobs, progress)
        else:
            result, missing = score_sound(task, out_dir, backend, jobs, progress, failed)
            missing = tuple((n, _without_folders(why, (task.dataset.data_root, out_dir))) for n, why in missing)
        if result is not None:
            notes = (*result.notes, *_lost_notes(result, protocol))
            result = dataclasses.replace(result, missing=missing, notes=notes)
            write_json_atomic(out_dir / SCORES_NAME, {**result.to_dict(), 'run_card': card.to_dict()})
    missing = shard.gather(missing)[0]  # all processes end with one exit code
    return Evaluation(result, out_dir, card, missing, len(task.dataset.names))


def refuse_nothing(evaluations: Sequence[tuple[str, Evaluation]]) -> None:
    """Raise `ValueError` where none of the named evaluations has a score or a prediction; says why."""
    lost = [(what, *pair) for what, evaluation in evaluations for pair in evaluation.missing]
    if lost and all(len(evaluation.missing) == evaluation.num_asked for _, evaluation in evaluations):
        shown = '; '.join(f'{what}, {name}: {reason}' for what, name, reason in lost[:3])
        more = f'; and {len(lost) - 3} more' if len(lost) > 3 else ''
        raise ValueError(f'nothing to score: no sequence could be propagated or scored ({shown}{more})')


def _open_samples(task: Task, strict: bool) -> tuple[list, dict[str, str]]:
    """The sequences that can be opened, and name -> why of the others."""
    samples, unread = [], {}
    for name in task.dataset.names:
        try:
            sample = task.dataset.sample(name)
            _frame_size(sample)
        except (ValueError, OSError) as error:
            if strict:
                raise
            unread[name] = str(error)
        else:
            samples.append(sample)
    return samples, unread


def _agree_on_affinity(
    shard: Shard, out_dir: Path, device: torch.device, overwrite: bool, is_finished: Callable[[], bool]
) -> Affinity:
    """What compares cells in all processes: what the main one finds, see `settle_affinity`.

    Raises:
        ValueError: In every process, where one of them cannot compute with it and something is left to be computed.
    """
    affinity, refusal = None, None
    if shard.is_main:
        try:
            affinity = settle_affinity(None if overwrite else out_dir, device)
        except ValueError as error:
            refusal = str(error)
    affinity, refusal = shard.gather((affinity, refusal))[0]
    if affinity is not None:
        reason = next(filter(None, shard.gather(affinity.missing())), '')
        if reason and shard.gather(is_finished())[0]:
            return affinity.nowhere()
        refusal = affinity.refusal(out_dir, reason) if reason else None
    if refusal is not None:
        raise ValueError(refusal)
    return affinity


def _accept_repaired(out_dir: Path, samples: Sequence, card: ProtocolCard, card_of: Callable) -> None:
    """Where a run could not open some sequences and now can, take its finished ones over: the rest is as it was."""
    found = read_run_card(out_dir)
    finished = [sample for sample in samples if (out_dir / sample.name).is_dir()]
    if found is None or found == card.to_dict() or not 0 < len(finished) < len(samples):
        return
    if found == card_of(finished).to_dict():
        write_run_card(out_dir, card)


def _lost_notes(result: BenchmarkResult, protocol: Protocol) -> list[str]:
    """A sentence where labels were lost from the first scored frame on: a score of 0 looks like a mistake of ours."""
    lost = [
        row.name
        for row in result.sequences
        if any(row.curves.values()) and all(value == 0 for curve in row.curves.values() for value in curve)
    ]
    if not lost:
        return []
    note = f'{len(lost)} of {len(result.sequences)} sequences score 0 in every frame: the labels are lost at once. '
    note += f'Does {protocol.name} suit this feature? Another protocol tells.'
    return [note]


def _without_folders(text: str, folders: Sequence[Path]) -> str:
    """A reason as results hold it: paths begin below the data and the predictions, wherever those are."""
    for folder in folders:
        text = text.replace(f'{folder}{os.sep}', '')
    return text


def make_card(
    samples: Sequence,
    task: Task,
    protocol: Protocol,
    identity: ModelIdentity,
    precision: Precision,
    compiled: bool,
    device: torch.device,
) -> ProtocolCard:
    """Everything that the scores of this evaluation depend on."""
    settings = dataclasses.asdict(protocol.settings)
    if task.dataset.kind == 'points':
        settings['points'] = dataclasses.asdict(protocol.points)
    listed = task.metric.num_sequences_in_split if task.metric is not None else len(samples)
    return ProtocolCard(
        protocol=protocol.name,
        settings=settings,
        input=describe_input(protocol, identity, precision, compiled, device) | {'benchmark': task.data_options()},
        colour_space=identity.colour_space,
        model=identity.name,
        checkpoint_sha256=identity.checkpoint_sha256,
        data=fingerprint_data((s.name, len(s.frames), _frame_size(s), _given_digest(s)) for s in samples),
        metric_version=task.metric.version if task.metric is not None else 'none',
        n_of_N=(len(samples), listed),
        code_version=code_version(),
        seed=identity.seed,
    )


def state_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the weights as they are in memory: their names, types, shapes and numbers.

    It also tells weights apart that come from no file of ours: random ones, and what a function of the user loads.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _given_digest(sample: VideoSample | PointSample) -> str:
    """SHA-256 of what a sequence is given: label maps and their frames, or queries; what cannot be read says so."""
    digest = hashlib.sha256()
    if isinstance(sample, PointSample):
        digest.update(np.ascontiguousarray(sample.queries, dtype=np.float64).tobytes())
        return digest.hexdigest()
    for number, read in sorted(sample.given_labels.items()):
        try:
            label_map = np.ascontiguousarray(read())
        except (ValueError, OSError) as error:
            digest.update(f'{number} {type(error).__name__}'.encode())
        else:
            digest.update(f'{number} {label_map.shape} {label_map.dtype}'.encode() + label_map.tobytes())
    return digest.hexdigest()


def _frame_size(sample: VideoSample | PointSample) -> tuple[int, int]:
    """(H, W); of files, the header of the first frame says it."""
    size = getattr(sample.frames, 'frame_size', None)
    return tuple(sample.frames[0].shape[:2]) if size is None else tuple(size)


def describe_input(
    protocol: Protocol, identity: ModelIdentity, precision: Precision, compiled: bool, device: torch.device
) -> dict:
    """How frames enter and what computes: with it on the card, a changed option is another run."""
    run = {'precision': precision, 'compiled': compiled, 'affinity': describe_affinity(device)}
    return dataclasses.asdict(protocol.input) | run | identity.details


def _refuse_data_as_output(task: Task, out_dir: Path) -> None:
    """Predictions must never replace the frames or the truth that they are made from."""
    data_root, out = task.dataset.data_root.resolve(), out_dir.resolve()
    if out == data_root or data_root in out.parents or (out in data_root.parents and _would_replace(task, out)):
        raise ValueError(f'predictions in {out_dir} would replace the data set itself: give another output folder')


def _would_replace(task: Task, out: Path) -> bool:
    """Whether a sequence's folder of predictions is the data set's own folder or holds it."""
    data_root = task.dataset.data_root.resolve()
    folders = [(out / name).resolve() for name in task.dataset.names]
    return any(folder == data_root or folder in data_root.parents for folder in folders)


def default_jobs() -> int:
    """Threads for the metric: the cores that this process may use."""
    return usable_cores()
