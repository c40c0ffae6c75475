"""A benchmark as the evaluation uses it: sequences to propagate through, and a metric over the files.

Every data set class of a benchmark has the form

    class XDataset(Sequence):                 # DATASETS.register_module()
        family = 'davis'                      # what `Protocol.for_task` is asked for
        kind = 'masks'                        # a key of `mmliir.evaluation.writers.WRITERS`: what is stored
        data_root: Path
        names: list[str]                      # of its sequences, in order
        def __init__(self, data_root, ..., sequences=None)
        def sample(self, name)                # -> VideoSample or PointSample; frames are read when they are asked for

and every metric class the form of `mmliir.evaluation.metrics.results`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmliir.registry import DATASETS, METRICS
from mmliir.structures import VideoSample


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: As on the command line, 'davis2017'.
        dataset: Its sequences as `VideoSample`s or `PointSample`s.
        metric: Scores a folder of predictions; None where the truth is not public (DAVIS test-dev, YouTube-VOS valid):
            such a task is predicted and handed in, see `mmliir.evaluation.submission`.
    """

    name: str
    dataset: Sequence[VideoSample]
    metric: object | None


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
    return Task(
        task['name'],
        DATASETS.build({**task['dataset'], **changes}),
        METRICS.build({**task['metric'], **changes}) if task['metric'] is not None else None,
    )
