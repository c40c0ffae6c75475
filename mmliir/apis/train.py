"""Train a method from its config: the stages in turn, each a Runner of its own."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, init_dist, is_main_process
from mmengine.utils.dl_utils import set_multi_processing

from mmliir.apis.configs import change_config, load_config
from mmliir.apis.evaluate import default_device
from mmliir.engine import CorrespondenceRunner
from mmliir.registry import MODELS
from mmliir.utils.checkpoint import read_checkpoint
from mmliir.utils.compute import Precision, choose_precision, explain_precision, limit_threads
from mmliir.utils.files import read_text, write_json_atomic

_DONE = 'stage_done.json'
_REPLACEABLE_WRAPPERS = ('OptimWrapper', 'DeferredOptimWrapper', 'AutocastOptimWrapper')


def stage_configs(cfg: Config, work_dir: Path, options: dict | None = None) -> list[tuple[str, Config]]:
    """Resolve a config with stages into one config a stage.

    Args:
        cfg: A resolved config; `stages` is a list of `dict(name, changes)` or None for a single stage.
        work_dir: The last stage works here, earlier ones in `work_dir/stage_<name>`.
        options: Changes from the command line; they win over the stages' own.

    Returns:
        [(name, config)] in order, without the `stages` entry.
    """
    stages = cfg.get('stages') or [dict(name='train', changes={})]
    resolved = []
    for number, stage in enumerate(stages):
        unknown = set(stage) - {'name', 'changes'}
        if unknown:
            raise ValueError(f'a stage has `name` and `changes`, got {sorted(unknown)} besides')
        own = Config(cfg.to_dict())
        own.pop('stages', None)
        change_config(own, dict(stage['changes']), f'stage {stage["name"]!r}')
        kept = {name: value for name, value in (options or {}).items() if not _inside_part_off(name, value, cfg, own)}
        change_config(own, kept, '--cfg-options')
        last = number == len(stages) - 1
        own.work_dir = str(work_dir if last else work_dir / f'stage_{stage["name"]}')
        own.experiment_name = f'{work_dir.name}_{stage["name"]}'
        resolved.append((stage['name'], own))
    return resolved


def _inside_part_off(name: str, value, cfg: Config, own: Config) -> bool:
    """Whether an option changes `stages`, or the inside of a part that the config has and this stage switches off."""
    keys = name.split('.')
    for depth in range(1, len(keys) + isinstance(value, dict)):
        whole, stage = (_entry(config, keys[:depth]) for config in (cfg, own))
        if whole is not None and stage is None:
            return True
    return keys[0] == 'stages'


def _entry(config, keys: list[str]):
    for key in keys:
        if isinstance(config, (list, tuple)):
            config = config[int(key)] if key.isdecimal() and int(key) < len(config) else None
        else:
            config = config.get(key) if hasattr(config, 'get') else None
    return config


def train(
    config: str | Path,
    work_dir: str | Path | None = None,
    options: dict | None = None,
    resume: str | bool = False,
    precision: str | None = None,
    launcher: str = 'none',
    auto_scale_lr: bool = False,
    stage: str | None = None,
    data_root: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a method.

    Args:
        config: Config file.
        work_dir: Where logs and checkpoints go; `work_dirs/<config name>` by default.
        options: Dotted name -> value; win over the config and its stages.
        resume: True continues the run in `work_dir` where it stopped; a path continues that checkpoint.
        precision: Of the encoder: 'float32', 'bfloat16', or 'auto' to ask the machine, see `choose_precision`. None
            takes the config's `precision`. A run that is resumed under 'auto' keeps its own.
        launcher: 'none', 'pytorch' (torchrun) or 'slurm'.
        auto_scale_lr: Scale the learning rate with the global batch size over the config's base batch size.
        stage: Run only the stage of this name.
        data_root: Folder of training videos; short for `train_dataloader.dataset.source.data_root`.
        overwrite: Replace a run that `work_dir` holds.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: The work dir holds a run and nothing says what is to become of it; a config that does not fit
            itself; a checkpoint of another run.
    """
    options = dict(options or {})
    if data_root is not None:
        options['train_dataloader.dataset.source.data_root'] = str(data_root)
    cfg = load_config(config, options)
    if 'train_dataloader' not in cfg or 'train_cfg' not in cfg:
        raise ValueError(f'{config} describes a frozen feature: it has no training (train_dataloader, train_cfg)')
    prepare_distributed(launcher, cfg.get('env_cfg', {}))
    work_dir = Path(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(config).stem)
    stages = stage_configs(cfg, work_dir, options)
    names = [name for name, _ in stages]
    if stage is not None and stage not in names:
        raise ValueError(f'{config} has no stage {stage!r}; its stages are {", ".join(names)}')
    first = names.index(stage) if stage is not None else 0
    last = first if stage is not None else len(stages) - 1
    if isinstance(resume, str):
        own = _stage_of_checkpoint(resume, names)
        if stage is not None and own != stage:
            raise ValueError(f'{resume} is a checkpoint of stage {own!r}, it cannot continue stage {stage!r}')
        first = names.index(own)
        stages[first][1].resume, stages[first][1].load_from = True, resume
    previous = None
    if first > 0 and not isinstance(resume, str):
        previous = result_of_stage(stages[first - 1][1])
        if previous is None and not stages[first][1].get('load_from'):
            raise ValueError(
                f'stage {stage!r} starts from stage {names[first - 1]!r}, which is not complete in '
                f'{stages[first - 1][1].work_dir}: run that first, or name weights by --cfg-options load_from=CKPT'
            )
    if not resume and not overwrite:
        _refuse_used_folders([Path(stage_cfg.work_dir) for _, stage_cfg in stages[first : last + 1]])
    _check_models(stages[first : last + 1])
    limit_threads()
    if resume is not True and is_main_process():
        for _, stage_cfg in stages[first : last + 1]:  # what an earlier run left here is not this run's to continue
            for marker in (_DONE, 'last_checkpoint'):
                (Path(stage_cfg.work_dir) / marker).unlink(missing_ok=True)
    for name, stage_cfg in stages[first : last + 1]:
        previous = _run_stage(name, stage_cfg, previous, resume is True, precision, launcher, auto_scale_lr)
    return previous


def _refuse_used_folders(folders: list[Path]) -> None:
    """A run that is there already is not trained over by mistake."""
    for folder in folders:
        checkpoint = _latest_checkpoint(folder)
        if checkpoint is not None:
            raise ValueError(
                f'{folder} holds a run ({checkpoint.name}): --resume continues it, another --work-dir keeps it, '
                '--overwrite replaces it'
            )


def _check_models(stages: list[tuple[str, Config]]) -> None:
    """Build the model of every stage once: what is wrong with the last should not show after days."""
    for _, cfg in stages:
        MODELS.build(cfg.model)


def _stage_of_checkpoint(path: str, names: list[str]) -> str:
    """The stage that wrote a checkpoint."""
    own = read_checkpoint(path).get('meta', {}).get('stage')
    if own is None and len(names) == 1:
        return names[0]
    if own not in names:
        raise ValueError(f'{path} is of stage {own!r}, the config has {", ".join(names)}: it cannot be continued here')
    return own


def result_of_stage(cfg: Config) -> Path | None:
    """The last checkpoint of a stage that is complete; None when it is not."""
    done = Path(cfg.work_dir) / _DONE
    if not done.is_file():
        return None
    result = json.loads(read_text(done))
    checkpoint = Path(cfg.work_dir) / result['checkpoint']
    return checkpoint if checkpoint.is_file() and result['max_iters'] == cfg.train_cfg.max_iters else None


def _latest_checkpoint(work_dir: Path) -> Path | None:
    """Where a run stopped: what `last_checkpoint` names, in this folder (it may have moved); None: nothing is there.

    A kill may leave that file empty, or naming a checkpoint that has made room for the next: then the newest counts.
    """
    pointer = work_dir / 'last_checkpoint'
    if not pointer.is_file():
        return None
    named = work_dir / Path(read_text(pointer).strip()).name
    if named.is_file():
        return named
    return max(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime_ns, default=None)


def _run_stage(
    name: str,
    cfg: Config,
    previous: Path | None,
    go_on: bool,
    asked: str | None,
    launcher: str,
    auto_scale_lr: bool,
) -> Path:
    """Train one stage, or return its checkpoint when it is complete and the run goes on."""
    done = Path(cfg.work_dir) / _DONE
    if go_on and (complete := result_of_stage(cfg)) is not None:
        if is_main_process():
            print(f'stage {name!r} is complete: {complete}', file=sys.stderr)
        return complete
    if go_on and (latest := _latest_checkpoint(Path(cfg.work_dir))) is not None:
        cfg.resume, cfg.load_from = True, str(latest)
    elif go_on and is_main_process():
        print(f'stage {name!r} begins: no checkpoint of it in {cfg.work_dir} yet', file=sys.stderr)
    if not cfg.get('resume') and previous is not None:
        cfg.load_from = str(previous)
    precision = settle_precision(cfg, asked)
    prepare_config(cfg, precision, launcher, auto_scale_lr)
    runner = CorrespondenceRunner.from_cfg(cfg)
    runner.stage = name
    runner.train()
    barrier()  # the first rank writes the checkpoint; the others must not look before it is there
    checkpoint = _latest_checkpoint(Path(cfg.work_dir))
    if is_main_process():
        write_json_atomic(done, {'checkpoint': checkpoint.name, 'max_iters': cfg.train_cfg.max_iters})
    return checkpoint


def settle_precision(cfg: Config, asked: str | None) -> Precision:
    """The precision of a stage, the same in every process, said in one line.

    Args:
        cfg: The stage's config; with `resume`, `load_from` is the checkpoint that it goes on from.
        asked: What the caller wants; None: the config's `precision`, or bfloat16 where its optimizer wrapper says so.

    Returns:
        'float32' or 'bfloat16'.
    """
    if asked is None:
        asked = cfg.get('precision', 'auto')
        if asked == 'auto' and _wrapper(cfg) == 'AutocastOptimWrapper':
            asked = 'bfloat16'
    if asked == 'auto' and _wrapper(cfg) not in _REPLACEABLE_WRAPPERS:
        asked = 'float32'  # a wrapper of the user's own
    chosen = reason = before = None
    if is_main_process():
        if cfg.get('resume') and cfg.get('load_from'):
            before = read_checkpoint(cfg.load_from).get('meta', {}).get('precision')
        if asked == 'auto' and before is not None:
            chosen, reason = before, f'{before}, as before'
        else:
            chosen = choose_precision(asked, default_device())
            reason = explain_precision(chosen, default_device()) if asked == 'auto' else chosen
            reason += '' if before in (None, chosen) else f'; until now this run was computed in {before}'
        print(f'precision: {reason}', file=sys.stderr)
    settled = [chosen]
    broadcast_object_list(settled)
    return settled[0]


def _wrapper(cfg: Config) -> str:
    return cfg.optim_wrapper.get('type', 'OptimWrapper')


def prepare_config(cfg: Config, precision: Precision, launcher: str, auto_scale_lr: bool) -> None:
    """Fill in what depends on the machine: precision, ranks, device ids, samples a step."""
    cfg.launcher = launcher
    cfg.precision = precision
    kind = _wrapper(cfg)
    if precision == 'bfloat16':
        if kind not in _REPLACEABLE_WRAPPERS:
            raise ValueError(
                f'bfloat16 (--amp) puts AutocastOptimWrapper in the place of DeferredOptimWrapper, but the config has '
                f'{kind}'
            )
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    elif kind == 'AutocastOptimWrapper':
        cfg.optim_wrapper.type = 'DeferredOptimWrapper'
    if auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise ValueError('--auto-scale-lr needs `auto_scale_lr.base_batch_size` in the config')
        cfg.auto_scale_lr.enable = True
    if not torch.cuda.is_available():
        if cfg.get('model_wrapper_cfg'):
            cfg.model_wrapper_cfg.device_ids = None
        cfg.train_dataloader.pin_memory = False
    if cfg.train_dataloader.get('num_workers', 0) == 0:
        cfg.train_dataloader.persistent_workers = False
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    for scheduler in cfg.get('param_scheduler') or []:
        if scheduler.setdefault('by_epoch', False):  # MMEngine's own default is True
            raise ValueError(
                f'{scheduler.get("type")} has by_epoch=True, but training counts iterations and the schedule would '
                'never step: leave by_epoch out and give its lengths in iterations'
            )
        if scheduler.get('type') == 'SampleStepLR' and scheduler.get('samples_per_step') is None:
            scheduler.samples_per_step = cfg.train_dataloader.batch_size * ranks


def prepare_distributed(launcher: str, env_cfg: dict) -> None:
    """Start the process group before a stage is prepared: schedules and folders depend on the ranks.

    With torchrun on a machine without a GPU the back end is gloo, whatever the config says.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi'.
        env_cfg: The config's: `mp_cfg`, `dist_cfg`.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            '--launcher pytorch needs torchrun: `bash tools/dist_train.sh CONFIG 2`, or '
            '`torchrun --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch`'
        )
    if launcher == 'pytorch' and not torch.cuda.is_available():
        dist.init_process_group('gloo')
        return
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)  # before MMEngine's default, 'spawn'
    init_dist(launcher, **env_cfg.get('dist_cfg', {}))
