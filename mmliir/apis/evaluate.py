"""Evaluate a feature: build it, propagate labels through a benchmark, score the files."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from mmliir.apis.configs import load_config
from mmliir.evaluation.export import export_predictions
from mmliir.evaluation.metrics import METRIC_VERSION, Scores
from mmliir.evaluation.protocol import ProtocolCard, fingerprint_data
from mmliir.evaluation.tasks import Task, build_task
from mmliir.models.methods import BaseCorrespondence
from mmliir.propagation import Protocol, resolve_protocol
from mmliir.registry import MODELS
from mmliir.utils.checkpoint import load_weights, read_checkpoint
from mmliir.utils.env import code_version
from mmliir.utils.files import sha256_file, write_json_atomic

#: In the place of a checkpoint: keep the random initial weights.
UNTRAINED = 'untrained'


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` did: the scores, and where predictions and `scores.json` lie."""

    scores: Scores
    out_dir: Path
    card: ProtocolCard


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
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()


def evaluate(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    task: dict,
    protocol: str | dict | Protocol | None = None,
    short_side: int | None = None,
    data_root: str | Path | None = None,
    out_dir: str | Path = 'work_dirs/eval',
    sequences: Sequence[str] | None = None,
    amp: bool = False,
    overwrite: bool = False,
    backend: str = 'mmliir',
    jobs: int = 1,
    seed: int = 0,
    options: dict | None = None,
    progress: Callable[[int, int], None] | None = None,
    name: str | None = None,
) -> Evaluation:
    """Propagate and score; a killed evaluation continues, finished sequences are not computed again.

    Args:
        config: Config file, or a resolved config.
        checkpoint: Checkpoint file, 'untrained', or None for features without weights.
        task: Config of the task, see `mmliir.evaluation.tasks`.
        protocol: Name of a preset, `dict(base, changes)`, or a `Protocol`; None takes the config's.
        short_side: Frames are resized to this shorter side for the encoder; results keep their size.
        data_root: Replaces the task's.
        out_dir: Predictions `<sequence>/<frame>.png`, `run.json`, `scores.json`.
        sequences: Only these; None for all.
        amp: Encode in bfloat16.
        overwrite: Replace the predictions of another run.
        backend: Metric code: 'mmliir' or 'official'.
        jobs: Threads of the metric.
        seed: Of untrained weights.
        options: Changes to the config by dotted name.
        progress: Called by the metric with (frames done, all).
        name: Of the feature, on the card; None takes the config file's.

    Returns:
        The scores and where things are.
    """
    if isinstance(config, Config):
        cfg, name = config, name or Path(config.filename or 'config').stem
    else:
        cfg, name = load_config(config, options), name or Path(config).stem
    chosen = protocol or cfg.get('protocol')
    if chosen is None:
        raise ValueError('give a protocol: the config names none (`protocol = ...`)')
    chosen = resolve_protocol(chosen)
    if short_side is not None:
        chosen = chosen.at_short_side(short_side)
    built = build_task(task, data_root, sequences)
    model = build_method(cfg, checkpoint, seed)
    out_dir = Path(out_dir)
    _refuse_data_as_output(built, out_dir)
    card = make_card(built, chosen, cfg, name, checkpoint, seed, amp)
    encode = make_encoder(model, amp)
    report = export_predictions(
        [built.dataset[i] for i in range(len(built.dataset))],
        encode,
        chosen,
        model.stride,
        out_dir,
        card=card,
        overwrite=overwrite,
        device=model.device,
    )
    report.raise_for_failures()
    scores = built.metric.score(out_dir, backend=backend, jobs=jobs, progress=progress)
    write_json_atomic(out_dir / 'scores.json', {**scores.to_dict(), 'run_card': card.to_dict()})
    return Evaluation(scores, out_dir, card)


def make_card(
    task: Task, protocol: Protocol, cfg: Config, name: str, checkpoint: str | Path | None, seed: int, amp: bool
) -> ProtocolCard:
    """Everything that the scores of this evaluation depend on."""
    samples = [task.dataset[i] for i in range(len(task.dataset))]
    has_file = checkpoint is not None and str(checkpoint) != UNTRAINED
    preprocessor = cfg.model.get('data_preprocessor') or {}
    return ProtocolCard(
        protocol=protocol.name,
        settings=dataclasses.asdict(protocol.settings),
        input=describe_input(protocol, cfg, amp),
        colour_space=preprocessor.get('color_space', 'lab'),
        model=name,
        checkpoint_sha256=sha256_file(checkpoint) if has_file else None,
        data=fingerprint_data((s.name, len(s.frames), s.frames[0].shape[:2]) for s in samples),
        metric_version=METRIC_VERSION,
        n_of_N=(len(samples), task.metric.num_sequences_in_split),
        code_version=code_version(),
        seed=seed if str(checkpoint) == UNTRAINED else None,
    )


def describe_input(protocol: Protocol, cfg: Config, amp: bool) -> dict:
    """How frames enter and what encodes them: with it on the card, a changed option is another run."""
    model = json.dumps(cfg.model.to_dict(), sort_keys=True, default=str)
    return dataclasses.asdict(protocol.input) | {
        'precision': 'bfloat16' if amp else 'float32',
        'model_config_sha256': hashlib.sha256(model.encode('utf-8')).hexdigest(),
    }


def _refuse_data_as_output(task: Task, out_dir: Path) -> None:
    """Predictions must never replace the frames or the truth that they are made from."""
    for name in (sample.name for sample in task.dataset):
        truth = task.dataset.truth(name)[0].parent
        frames = task.dataset.sample(name).frames.path
        if (out_dir / name).resolve() in (truth.resolve(), frames.resolve()):
            raise ValueError(f'predictions in {out_dir} would replace the data set itself: give another output folder')


def make_encoder(model: BaseCorrespondence, amp: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """(B, 3, H, W) uint8 RGB -> (B, C, h, w) features; with `amp`, computed in bfloat16."""
    if not amp:
        return model.extract_feature

    def encode(frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(frames.device.type, dtype=torch.bfloat16):
            return model.extract_feature(frames)

    return encode


def default_jobs() -> int:
    """Threads for the metric: the cores of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else (os.cpu_count() or 1)
