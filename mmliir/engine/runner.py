"""MMEngine's Runner with checkpoints that survive a kill, resume exactly, and never execute."""

import os

import torch
from mmengine.dist import master_only
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner

from mmliir.engine.message_hub import DeferredMessageHub
from mmliir.engine.optim import AutocastOptimWrapper, without_unsupported_fused
from mmliir.utils.checkpoint import FORMAT, FORMAT_KEY, load_weights, read_checkpoint

_OWN_NOISE = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias')


@RUNNERS.register_module()
class CorrespondenceRunner(Runner):
    """Differences from MMEngine's Runner:

    * a checkpoint is written beside its final name, flushed to disk, then renamed: a kill leaves the old one whole;
    * checkpoints hold tensors and plain data only and are read with `weights_only=True`;
    * resuming never executes the config inside a checkpoint;
    * weights that do not fit stop the run;
    * `compile` compiles the encoder and leaves names of weights as they are;
    * a step's losses are read when the log is written, not at every step.
    """

    #: The stage of the config that runs; kept in checkpoints, so that a checkpoint continues its own stage.
    stage: str | None = None

    def build_logger(self, log_level='INFO', log_file=None, **log_cfg):
        """As in MMEngine, without what it says of its own outdated calls at every start."""
        logger = super().build_logger(log_level=log_level, log_file=log_file, **log_cfg)
        logger.addFilter(lambda record: not any(name in record.getMessage() for name in _OWN_NOISE))
        return logger

    def build_message_hub(self, message_hub=None):
        """As in MMEngine, but numbers of the log stay on the device until they are read."""
        return DeferredMessageHub.get_instance(**{'name': self._experiment_name, **(message_hub or {})})

    def build_optim_wrapper(self, optim_wrapper):
        """As in MMEngine; `fused=True` is left out where the optimizer or the device has no such thing."""
        if isinstance(optim_wrapper, dict) and isinstance(optim_wrapper.get('optimizer'), dict):
            optimizer = without_unsupported_fused(optim_wrapper['optimizer'], next(self.bare_model.parameters()))
            if optimizer is not optim_wrapper['optimizer']:
                self.logger.info(f'{optimizer["type"]} is not fused: it has no such kernel for this device')
                optim_wrapper = {**optim_wrapper, 'optimizer': optimizer}
        return super().build_optim_wrapper(optim_wrapper)

    def _maybe_compile(self, target):
        """The config's `compile`: True, or arguments of `torch.compile`, compiles the encoders of the model in place.

        MMEngine compiles the whole training step, whose draws, bank and hooks break it into pieces.
        """
        settings = self.cfg.get('compile')
        if settings is True:
            settings = {}
        if settings is None or settings is False:
            return
        if not isinstance(settings, dict):
            raise ValueError(f'compile must be None, True or a dict of arguments of torch.compile, got {settings!r}')
        self.bare_model.compile_training(settings)
        self.logger.info('The encoder is compiled: the first steps take longer')

    @property
    def samples_per_step(self) -> int:
        """Samples of one step over all ranks; a resumed run finds its place in the data by it."""
        loader = self.train_loop.dataloader if isinstance(self._train_loop, BaseLoop) else None
        return self.world_size * (loader.batch_sampler.batch_size if loader is not None else 0)

    @property
    def precision(self) -> str:
        """Of the encoder; kept in checkpoints, so that a run goes on in it on another machine."""
        return 'bfloat16' if isinstance(self.optim_wrapper, AutocastOptimWrapper) else 'float32'

    @property
    def bare_model(self):
        """The model without its distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    @master_only
    def save_checkpoint(
        self,
        out_dir,
        filename,
        file_client_args=None,
        save_optimizer=True,
        save_param_scheduler=True,
        meta=None,
        by_epoch=True,
        backend_args=None,
    ):
        """Write `out_dir/filename` atomically; arguments as in MMEngine."""
        os.makedirs(out_dir, exist_ok=True)
        name = f'{filename}.partial'
        partial = os.path.join(out_dir, name)
        try:
            super().save_checkpoint(
                out_dir, name, file_client_args, save_optimizer, save_param_scheduler, meta, by_epoch, backend_args
            )
            with open(partial, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(partial, os.path.join(out_dir, filename))
        finally:
            if os.path.exists(partial):  # a full disk, an interruption: no half file stays behind
                os.remove(partial)

    def call_hook(self, fn_name, **kwargs):
        """As in MMEngine; before a checkpoint is saved, what is not plain data is turned into plain data."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            checkpoint = kwargs['checkpoint']
            checkpoint['message_hub'] = _plain_message_hub(checkpoint['message_hub'])
            checkpoint['meta']['stage'] = self.stage
            checkpoint['meta']['samples_per_step'] = self.samples_per_step
            checkpoint['meta']['precision'] = self.precision
            checkpoint['recipe'] = self.bare_model.recipe
            checkpoint[FORMAT_KEY] = FORMAT

    def load_checkpoint(self, filename, map_location='cpu', strict=True, revise_keys=()):
        """Load weights; they must fit (see `mmliir.utils.checkpoint.load_weights`). Other arguments are not used."""
        checkpoint = read_checkpoint(filename, 'cpu')
        report = load_weights(self.bare_model, checkpoint, filename)
        if not self._resume:
            self.bare_model.start_stage()
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._has_loaded = True
        self.logger.info(
            f'Loaded {report.loaded} tensors from {filename}'
            + (f'; not in the file: {len(report.missing)} that only training uses' if report.missing else '')
            + (f'; not used: {len(report.unexpected)} that only training uses' if report.unexpected else '')
        )
        return checkpoint

    def resume(self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location='default'):
        """Continue from a checkpoint of this package: weights, optimizer, schedules, logs, iteration, seed."""
        self._resume = True
        checkpoint = self.load_checkpoint(filename)
        if FORMAT_KEY not in checkpoint:
            raise ValueError(
                f'{filename} holds weights but no training state of mmliir: pass it as `load_from` (start from these '
                'weights) instead of resuming it'
            )
        _refuse_another_run(checkpoint, set(self.bare_model.state_dict()), self.samples_per_step, filename)
        meta = checkpoint['meta']
        self.train_loop._epoch, self.train_loop._iter = meta['epoch'], meta['iter']
        if meta.get('seed') is not None and meta['seed'] != self.seed:
            self.logger.info(f'Using the seed of the resumed run: {meta["seed"]} (not {self.seed})')
            self._randomness_cfg.update(seed=meta['seed'])
            self.set_randomness(**self._randomness_cfg)
        self.message_hub.load_state_dict(_message_hub_state(checkpoint['message_hub']))
        if resume_optimizer and 'optimizer' in checkpoint:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            self.optim_wrapper.load_state_dict(checkpoint['optimizer'])
        if resume_param_scheduler and checkpoint.get('param_schedulers') is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            for scheduler, state in zip(self.param_schedulers, checkpoint['param_schedulers'], strict=True):
                _resume_scheduler(scheduler, state)
        self._has_loaded = True
        self.logger.info(f'Resumed iteration {self.iter} from {filename}')


#: What changes in a schedule from step to step, and its end, which a longer run moves.
_MOVING = {'last_step', '_global_step', '_last_value', 'base_values', 'end', 'verbose'}


def _resume_scheduler(scheduler, state: dict) -> None:
    """Load a schedule's state but keep the end that the config gives now: a run may be continued for longer.

    Raises:
        ValueError: The schedule of the config is another than that of the run.
    """
    own = scheduler.state_dict()
    changed = [name for name in sorted(set(own) & set(state) - _MOVING) if _values(own[name]) != _values(state[name])]
    if changed:
        listed = '; '.join(f'{name} {state[name]!r}, this config {own[name]!r}' for name in changed)
        raise ValueError(
            f'the schedule {type(scheduler).__name__} of the run differs: {listed}. Resume with the config that wrote '
            'the checkpoint, or start from its weights with --cfg-options load_from=CKPT'
        )
    end = scheduler.end
    scheduler.load_state_dict(state)
    had_ended = scheduler._global_step >= scheduler.end
    scheduler.end = end
    if had_ended and scheduler._global_step < end:  # the last step of the shorter run moved nothing: make up for it
        scheduler._global_step -= 1
        scheduler.step()


def _values(entry):
    """A sequence as a list: a config holds lists where a constructor had tuples."""
    return list(entry) if isinstance(entry, (list, tuple)) else entry


def _refuse_another_run(checkpoint: dict, names: set[str], samples_per_step: int, filename: str) -> None:
    """A run is continued by its own config only: the same tensors, and the same samples a step.

    Raises:
        ValueError: The checkpoint is of another run; says in what.
    """
    advice = 'Resume with the config that wrote it, or start from its weights with --cfg-options load_from=CKPT'
    saved = {name.removeprefix('module.') for name in checkpoint['state_dict']}
    if saved != names:
        example = sorted(saved ^ names)[0]
        raise ValueError(
            f'{filename} cannot be resumed: {len(names - saved)} tensors of the model are not in it and '
            f'{len(saved - names)} of its tensors are not in the model ({example}, ...). {advice}'
        )
    before = checkpoint['meta'].get('samples_per_step')
    if before is not None and before != samples_per_step:
        raise ValueError(
            f'{filename} was trained with {before} samples a step (batch size times processes), this run has '
            f'{samples_per_step}: its place in the data and in the schedule would be another. {advice}'
        )


def _plain_message_hub(state: dict) -> dict:
    """MMEngine's log buffers as tensors; run-time entries that are plain values."""
    scalars = {
        name: {
            'values': torch.as_tensor(buffer.data[0], dtype=torch.float64),
            'counts': torch.as_tensor(buffer.data[1], dtype=torch.float64),
            'max_length': buffer.max_length,
        }
        for name, buffer in state['log_scalars'].items()
    }
    info = {
        name: float(value) if isinstance(value, float) else value  # NumPy's numbers would need unpickling
        for name, value in state['runtime_info'].items()
        if (isinstance(value, float) or type(value) in (str, int, bool)) and name != 'cfg'
    }
    resumed = {name: flag for name, flag in state['resumed_keys'].items() if name in info or name in scalars}
    return {'log_scalars': scalars, 'runtime_info': info, 'resumed_keys': resumed}


def _message_hub_state(plain: dict) -> dict:
    """The inverse of `_plain_message_hub`."""
    scalars = {
        name: HistoryBuffer(entry['values'].tolist(), entry['counts'].tolist(), entry['max_length'])
        for name, entry in plain['log_scalars'].items()
    }
    return {**plain, 'log_scalars': scalars}
