"""Some seconds of real training, for gpu.py: the main recipe, its data loading, its hooks, its two stages.

Importing it needs an engine (mmengine and mmcv).
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from common import peak_bytes, reset_peak, synchronise
from data_loading import write_jpegs
from mmengine.hooks import Hook

import mmliir.datasets
import mmliir.models  # noqa: F401  (both register parts)
from mmliir.apis.configs import load_config
from mmliir.apis.train import prepare_config, stage_configs
from mmliir.engine import CorrespondenceRunner
from mmliir.testing.synthetic import generate_video

#: A part of the steps at either end, whose mean loss tells whether training learns.
END_SHARE = 0.1


class StopwatchHook(Hook):
    """Ends training after some seconds, and keeps the loss and the time spent in loading of every step.

    Losses stay on the device until the end, so that no step waits for them.

    Args:
        seconds: From the end of the first steps on.
        warm_steps: Steps before the clock starts: they start workers, compile kernels and try algorithms.
        device: 'cpu' or 'cuda'.
        line_interval: Seconds between lines of progress.
    """

    priority = 'VERY_LOW'

    def __init__(self, seconds: float, warm_steps: int, device: str, line_interval: float = 10.0) -> None:
        self.seconds = seconds
        self.warm_steps = warm_steps
        self.device = device
        self.line_interval = line_interval
        self.losses: list[torch.Tensor] = []
        self.start: float | None = None
        self.loading = 0.0
        self.elapsed = 0.0

    def before_train(self, runner) -> None:
        self._mark = self._line = time.perf_counter()
        if self.warm_steps == 0:
            self._start()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.loading += time.perf_counter() - self._mark

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].detach().clone())
        if len(self.losses) == self.warm_steps:
            self._start()
        now = time.perf_counter()
        self._mark = now
        if now - self._line >= self.line_interval:
            self._line = now
            print(f'{runner.stage}: step {len(self.losses)}', flush=True)
        if self.start is not None and now - self.start >= self.seconds and self.steps > 0:
            synchronise(self.device)
            self.elapsed = time.perf_counter() - self.start
            runner.train_loop.stop_training = True

    @property
    def steps(self) -> int:
        """Timed so far."""
        return len(self.losses) - self.warm_steps

    def _start(self) -> None:
        synchronise(self.device)
        reset_peak(self.device)
        self.start, self.loading = time.perf_counter(), 0.0


def train_stages(
    config: Path,
    options: dict,
    seconds: tuple[float, ...],
    warm_steps: int,
    precision: str,
    device: str,
    work_dir: Path,
) -> Iterator[dict]:
    """Train the stages of a config for some seconds each; the next starts from the weights of the one before.

    Args:
        config: The recipe.
        options: Dotted name -> value.
        seconds: Of each stage.
        warm_steps: Of each stage, before its seconds.
        precision: As `prepare_config` takes it.
        device: 'cpu' or 'cuda'.
        work_dir: Where logs and weights go.

    Yields:
        A row a stage: steps, samples a second with loading, losses at both ends, peak memory.
    """
    stages = stage_configs(load_config(config, options), work_dir, options)
    previous = None
    for (name, cfg), limit in zip(stages, seconds, strict=True):
        if previous is not None:
            cfg.load_from = str(previous)
        prepare_config(cfg, precision, 'none', False)
        watch = StopwatchHook(limit, warm_steps, device)
        runner = CorrespondenceRunner.from_cfg(cfg)
        runner.stage = name
        runner.register_hook(watch)
        runner.train()
        loader = cfg.train_dataloader
        yield stage_row(name, watch, loader.batch_size, loader.dataset.pipeline[0].size)
        runner.save_checkpoint(cfg.work_dir, f'{name}.pth', save_param_scheduler=False)
        previous = Path(cfg.work_dir) / f'{name}.pth'


def stage_row(name: str, watch: StopwatchHook, batch: int, size: tuple[int, int]) -> dict:
    losses = torch.stack(watch.losses).tolist()
    end = max(1, min(50, round(END_SHARE * len(losses))))
    first, last = statistics.mean(losses[:end]), statistics.mean(losses[-end:])
    return {
        'name': name,
        'batch': batch,
        'size': list(size),
        'seconds': watch.elapsed,
        'steps': watch.steps,
        'steps_per_s': watch.steps / watch.elapsed,
        'pairs_per_s': batch * watch.steps / watch.elapsed,
        'loading_share': watch.loading / watch.elapsed,
        'loss_first': first,
        'loss_last': last,
        'loss_fell': last < first,
        'peak_gib': peak_bytes(watch.device) / 2**30,
    }


def training_data(data_root: Path | None, folder: Path, videos: int, frames: int, size: tuple[int, int]) -> Path:
    """The folder of frame folders of real clips, `train` in the data root; generated ones where there is none."""
    if data_root is not None and (data_root / 'train').is_dir():
        inner = data_root / 'train' / 'JPEGImages'
        return inner if inner.is_dir() else data_root / 'train'
    for seed in range(videos):
        video = generate_video(seed, frames, size, name=f'v{seed}')
        write_jpegs(folder / 'generated' / video.name, video.frames)
    return folder / 'generated'
