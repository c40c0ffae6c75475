"""Evaluation during training: propagate the first labels of a few sequences, score the files, log the numbers."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmliir.evaluation.export import export_predictions
from mmliir.evaluation.tasks import build_task
from mmliir.evaluation.writers import WRITERS
from mmliir.propagation import resolve_protocol
from mmliir.registry import HOOKS
from mmliir.utils.files import write_json_atomic

# Metrics in the log's line, the headline first; all go to the visualizer and the file.
_LOGGED = 4


@HOOKS.register_module()
class PropagationEvalHook(Hook):
    """Every `interval` steps, and after the last one, export predictions and score them.

    The same two loops as `tools/test.py`, on the model in memory. Scores go to the log, to the visualizer as
    `<task>/<metric>` (`davis2017/jf_mean`, `vip/miou`, `jhmdb/pck@0.1`), and to
    `<work_dir>/eval/<task>/iter_<n>/scores.json`. With several ranks the sequences are shared out.

    Args:
        task: Config of the task: `dict(name, dataset, metric)`.
        protocol: Name of the propagation protocol, or `dict(base=NAME, changes={setting: value})`.
        interval: Steps between evaluations.
        sequences: Only these sequences; None for all.
        at_start: Evaluate before the first step too: the untrained encoder.
    """

    priority = 'LOW'

    def __init__(
        self,
        task: dict,
        protocol: str | dict = 'liir_paper',
        interval: int = 2000,
        sequences: Sequence[str] | None = None,
        at_start: bool = False,
    ):
        if interval < 1:
            raise ValueError(f'interval must be at least 1 step, got {interval}')
        self.task = build_task(task, sequences=sequences)  # fails now when the data are not there, not hours later
        if self.task.metric is None:
            raise ValueError(f'{task["name"]} cannot be scored here: its truth is not public')
        self.task.refuse_broken()
        self.protocol = resolve_protocol(protocol).for_task(self.task.dataset.family)
        self.interval = interval
        self.at_start = at_start

    def before_train(self, runner):
        if self.at_start and runner.iter == 0:
            self.evaluate(runner, 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            self.evaluate(runner, step)

    def evaluate(self, runner, step: int) -> None:
        """Export, score, log."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        out_dir = Path(runner.work_dir) / 'eval' / self.task.name / f'iter_{step}'
        rank, ranks = runner.rank, runner.world_size
        samples = [self.task.dataset.sample(name) for name in self.task.dataset.names[rank::ranks]]
        if rank == 0 and out_dir.exists():
            shutil.rmtree(out_dir)  # of a run that was here before; the ranks share the folder
        if ranks > 1:
            dist.barrier()
        report = export_predictions(
            samples,
            model.extract_feature,
            self.protocol,
            model.stride,
            out_dir,
            card=None,
            writer=WRITERS[self.task.dataset.kind],
            device=model.device,
            progress=False,  # training shows a bar of its own
        )
        report.raise_for_failures()
        if ranks > 1:
            dist.barrier()
        if rank == 0:
            result = self.task.metric.evaluate(out_dir)
            write_json_atomic(out_dir / 'scores.json', result.to_dict())
            numbers = {name: value for name, value in result.metrics.items() if not math.isnan(value)}
            runner.visualizer.add_scalars({f'{self.task.name}/{name}': value for name, value in numbers.items()}, step)
            shown = list(numbers.items())[:_LOGGED]
            runner.logger.info(
                f'{self.task.name} at step {step} ({self.protocol.name}, {len(self.task.dataset.names)} sequences): '
                + '  '.join(f'{name} {100 * value:.1f}' for name, value in shown)
            )
        if ranks > 1:
            dist.barrier()
