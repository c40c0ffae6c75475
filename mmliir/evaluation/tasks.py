"""A benchmark as the evaluation uses it: sequences to propagate through, and a metric over the files.

Every data set class of a benchmark has the form

    class XDataset(NamedSamples):             # DATASETS.register_module(); see datasets/named.py
        family = 'davis'                      # what `Protocol.for_task` is asked for
        kind = 'masks'                        # a key of `mmliir.evaluation.writers.WRITERS`: what is stored
        data_root: Path
        names: list[str]                      # of its sequences, in order
        def __init__(self, data_root, ..., sequences=None)
        def sample(self, name)                # -> VideoSample or PointSample; frames are read when they are asked for

and every metric class the form of `mmliir.evaluation.metrics.results`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmliir.components import DATASETS, METRICS
from mmliir.evaluation.metrics.results import refuse_unscorable
from mmliir.structures import PointSample, VideoSample


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: As on the command line, 'davis2017'.
        dataset: Its sequences as `VideoSample`s or `PointSample`s.
        metric: Scores a folder of predictions; None where the truth is not public (DAVIS test-dev, YouTube-VOS valid):
            such a task is predicted and handed in, see `mmliir.evaluation.submission`.
        config: What it was built from.
    """

    name: str
    dataset: Sequence[VideoSample | PointSample]
    metric: Any
    config: dict = field(default_factory=dict)

    def metric_on(self, sequences: Sequence[str]) -> Any:
        """The metric of these sequences alone."""
        return METRICS.build({**self.config['metric'], 'sequences': list(sequences)})

    def refuse_broken(self) -> None:
        """Raise `ValueError` where a sequence is known to be unusable, by the data set or by the metric."""
        for part in (self.dataset, self.metric):
            refuse_unscorable(getattr(part, 'broken', {}))

    def data_options(self) -> dict:
        """What was asked of the data set and of the metric, but for places and the choice of sequences: results depend
        on it."""
        parts = {name: self.config[name] for name in ('dataset', 'metric') if self.config[name] is not None}
        places = ('data_root', 'frames_root', 'sequences')
        return {
            name: {key: value for key, value in part.items() if key not in places} for name, part in parts.items()
        }


def build_task(task: dict, data_root: str | Path | None = None, sequences: Sequence[str] | None = None) -> Task:
    """Build a task from its config.

    Args:
        task: `dict(name, dataset, metric)`, the metric None where there is none to have; see `configs/_base_/tasks`.
        data_root: Replaces the data root of both.
        sequences: Only these; None for all.

    Raises:
        ValueError: An entry is missing or unknown.
        FileNotFoundError: The data are not there.
    """
    if set(task) != {'name', 'dataset', 'metric'}:
        raise ValueError(f'a task has `name`, `dataset` and `metric`, got {sorted(task)}')
    changes = {}
    if data_root is not None:
        changes['data_root'] = str(data_root)
    if sequences is not None:
        changes['sequences'] = list(sequences)
    config = {**task, 'dataset': {**task['dataset'], **changes}}
    if task['metric'] is not None:
        config['metric'] = {**task['metric'], **changes}
    metric = None if config['metric'] is None else METRICS.build(config['metric'])
    return Task(task['name'], DATASETS.build(config['dataset']), metric, config)
