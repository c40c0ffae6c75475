"""MMEngine's Runner with checkpoints that survive a kill, resume exactly, and never execute."""

import os

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmliir.utils.checkpoint import FORMAT, FORMAT_KEY, load_weights, read_checkpoint

_OWN_NOISE = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias')


@RUNNERS.register_module()
class CorrespondenceRunner(Runner):
    """Differences from MMEngine's Runner:

    * a checkpoint is written beside its final name, flushed to disk, then renamed: a kill leaves the old one whole;
    * checkpoints hold tensors and plain data only and are read with `weights_only=True`;
    * resuming never executes the config inside a checkpoint;
    * weights that do not fit stop the run.
    """

    #: The stage of the config that runs; kept in checkpoints, so that a checkpoint continues its own stage.
    stage: str | None = None

    def build_logger(self, log_level='INFO', log_file=None, **log_cfg):
        """As in MMEngine, without what it says of its own outdated calls at every start."""
        logger = super().build_logger(log_level=log_level, log_file=log_file, **log_cfg)
        logger.addFilter(lambda record: not any(name in record.getMessage() for name in _OWN_NOISE))
        return logger

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
        except BaseException:  # a full disk, an interruption: no half file stays behind
            if os.path.exists(partial):
                os.remove(partial)
            raise

    def call_hook(self, fn_name, **kwargs):
        """As in MMEngine; before a checkpoint is saved, what is not plain data is turned into plain data."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            checkpoint = kwargs['checkpoint']
            checkpoint['message_hub'] = _plain_message_hub(checkpoint['message_hub'])
            checkpoint['meta']['stage'] = self.stage
            checkpoint['recipe'] = self.bare_model.recipe
            checkpoint[FORMAT_KEY] = FORMAT

    def load_checkpoint(self, filename, map_location='cpu', strict=True, revise_keys=()):
        """Load weights; they must fit (see `mmliir.utils.checkpoint.load_weights`). Other arguments are not used."""
        checkpoint = read_checkpoint(filename, 'cpu')
        report = load_weights(self.bare_model, checkpoint, filename)
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
        checkpoint = self.load_checkpoint(filename)
        if FORMAT_KEY not in checkpoint:
            raise ValueError(
                f'{filename} holds weights but no training state of mmliir: pass it as `load_from` (start from these '
                'weights) instead of resuming it'
            )
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


def _resume_scheduler(scheduler, state: dict) -> None:
    """Load a schedule's state but keep the end that the config gives now: a run may be continued for longer."""
    end = scheduler.end
    scheduler.load_state_dict(state)
    had_ended = scheduler._global_step >= scheduler.end
    scheduler.end = end
    if had_ended and scheduler._global_step < end:  # the last step of the shorter run moved nothing: make up for it
        scheduler._global_step -= 1
        scheduler.step()


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


def _plain(value):
    """A value, or a list of values, of Python's own types (a NumPy float is a float, but no plain one); else None."""
    if isinstance(value, (list, tuple)):
        values = [_plain(entry) for entry in value]
        return None if None in values else values
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value.item() if isinstance(value, np.generic) else None


def _message_hub_state(plain: dict) -> dict:
    """The inverse of `_plain_message_hub`."""
    scalars = {
        name: HistoryBuffer(entry['values'].tolist(), entry['counts'].tolist(), entry['max_length'])
        for name, entry in plain['log_scalars'].items()
    }
    return {**plain, 'log_scalars': scalars}
