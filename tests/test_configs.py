"""Configs: each builds its model; a typing error is one sentence that names it; stages change what they say."""

import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

import mmliir.engine  # noqa: F401  (registers hooks and loops)
import mmliir.models  # noqa: F401  (registers the parts)
from mmliir.apis.configs import change_config, differences, flatten, load_config
from mmliir.apis.train import stage_configs, train
from mmliir.models.layers import SyncBatchNorm2d
from mmliir.propagation import resolve_protocol
from mmliir.registry import HOOKS, LOOPS, MODELS

ROOT = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.rglob('*.py') if '_base_' not in path.parts
)
TRAINED = [name for name in CONFIGS if not name.startswith('frozen/')]
MAIN = ROOT / 'liir_r18_ytvos.py'
#: A sixteenth of the width, to build fast.
NARROW = {'model.backbone.base_channels': 4, 'model.projection.in_channels': 16}


def test_there_are_configs():
    assert {'liir_r18_ytvos.py', 'mast_r18_ytvos.py', 'frozen/raw_lab.py'} <= set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_builds_its_model_and_names_a_known_protocol(name):
    cfg = load_config(ROOT / name)
    for _, stage in stage_configs(cfg, Path('work')):
        model = MODELS.build(stage.model)
        assert model.stride > 0
    assert resolve_protocol(cfg.protocol).settings.radius > 0


@pytest.mark.parametrize('name', TRAINED)
def test_a_feature_is_tested_at_the_temperature_it_was_trained_with(name):
    """Cosine similarities have temperatures of their own; raw dot products mean what training made of them."""
    cfg = load_config(ROOT / name)
    settings, head = resolve_protocol(cfg.protocol).settings, cfg.model.reconstruction_head
    if settings.l2_normalise == head.normalize:
        assert settings.temperature == head.temperature


@pytest.mark.parametrize('name', TRAINED)
def test_every_trained_config_names_loops_and_hooks_that_exist(name):
    for _, stage in stage_configs(load_config(ROOT / name), Path('work')):
        assert LOOPS.get(stage.train_cfg.type) is not None
        for hook in stage.get('custom_hooks', []):
            assert HOOKS.get(hook['type']) is not None, hook


@pytest.mark.parametrize('name', CONFIGS)
def test_file_names_are_the_recipe(name):
    assert set(Path(name).stem) <= set('abcdefghijklmnopqrstuvwxyz0123456789_')


# --- typing errors ---


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / 'mine.py'
        path.write_text(f'_base_ = [{str(MAIN)!r}]\n{text}\n')
        return path

    return write


def test_a_missing_config_is_named_with_its_neighbours():
    with pytest.raises(
        FileNotFoundError, match=r'config not found: .*liir_r18_ytvoz.py; that folder holds .*liir_r18_ytvos'
    ):
        load_config(ROOT / 'liir_r18_ytvoz.py')


def test_a_mistyped_entry_at_the_top_level_is_named_with_the_nearest(config_file):
    with pytest.raises(ValueError, match="mine.py: 'optim_wraper' is not .*did you mean 'optim_wrapper'"):
        load_config(config_file('optim_wraper = dict(type="OptimWrapper")'))


@pytest.mark.parametrize('name', ['modle.backbone.base_channels', 'train_config.max_iters'])
def test_a_mistyped_option_is_named(name):
    with pytest.raises(ValueError, match=f'--cfg-options: {name.split(".")[0]!r} is not .*did you mean'):
        load_config(MAIN, {name: 3})


@pytest.mark.parametrize(
    'name',
    [
        'model.backbone.base_chanels',
        'model.projection.out_chanels',
        'model.position_encoder.sise',
        'model.reconstruction_head.raduis',
        'model.reconstruction_head.loss.wieght',
        'model.backbone.inti',
        'model.compactness.treshold',
        'model.compactness.widht',
        'model.inter.momentun',
        'model.inter.bank.num_frame',
        'model.inter.modulation.range',
        'model.data_preprocessor.colour_space',
        'model.interr',
        'model.tarket',
    ],
)
def test_a_mistyped_entry_inside_the_model_fails_at_build_with_its_name(name):
    cfg = load_config(MAIN, {**NARROW, name: 1})
    with pytest.raises(TypeError, match=f'unexpected keyword argument {name.split(".")[-1]!r}'):
        MODELS.build(cfg.model)


@pytest.mark.parametrize(
    'options',
    [
        {'model.position_encoder': dict(_delete_=True, type='LearnedPositionEncoder2d', channels=4, size=(128, 128))},
        {'model.position_encoder': dict(_delete_=True, type='SinePositionEncoder2d', channels=4, scale=0.1)},
        {'model.position_encoder.resize_mode': 'bilinear'},
        {'model.position_encoder': None},
        {'model.inter.modulation.type': 'PositionShuffle'},
        {'model.inter.modulation.per': 'batch'},
        {'model.inter.modulation': None},
        {'model.compactness.norm': 'kl'},
        {'model.compactness.variance_floor': 0.05},
        {'model.compactness': dict(_delete_=True, type='CompactnessPriorLoss', estimator='fixed', width=2.0)},
        {'model.target': 'chroma'},
        {'model.backbone.init': 'default', 'model.backbone.zero_init_residual': False},
    ],
)
def test_every_variant_of_a_part_is_a_choice_in_the_config(options):
    plain, cfg = (load_config(MAIN, {**NARROW, **own}) for own in ({}, options))
    assert MODELS.build(cfg.model).stride == 4
    changed = differences(plain.to_dict(), cfg.to_dict())
    assert changed and all(any(name.startswith(option) for option in options) for name in changed)


def test_the_config_states_every_default_of_the_parts_it_has():
    """A number of a table can be read off its config, without the code of that day."""
    cfg = load_config(MAIN)
    for part in (
        cfg.model.backbone,
        cfg.model.position_encoder,
        cfg.model.inter.modulation,
        cfg.model.reconstruction_head,
        cfg.model.reconstruction_head.loss,
    ):
        arguments = set(inspect.signature(MODELS.get(part.type)).parameters) - {'in_channels'}
        assert set(part) - {'type'} == arguments, part.type
    compactness = set(inspect.signature(MODELS.get('CompactnessPriorLoss')).parameters)
    assert set(cfg.model.compactness) - {'type'} == compactness - {'width'}  # the other estimator's
    assert cfg.model.target == 'dropped' and load_config(ROOT / 'mast_r18_ytvos.py').model.target == 'dropped'


def test_masts_own_start_and_temperature_are_the_options_that_its_config_names():
    path = ROOT / 'mast_r18_ytvos.py'
    (block,) = re.findall(r'--cfg-options((?:.|\n#)*)\n_base_', path.read_text())
    options = dict(item.split('=') for item in block.replace('#', ' ').split())
    options['model.backbone.zero_init_residual'] = options['model.backbone.zero_init_residual'] == 'True'
    options['model.reconstruction_head.temperature'] = float(options['model.reconstruction_head.temperature'])
    cfg = load_config(path, options)
    model = MODELS.build(cfg.model)
    assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(isinstance(m, SyncBatchNorm2d) for m in model.modules())
    settings = resolve_protocol(cfg.protocol).settings
    assert settings.temperature == cfg.model.reconstruction_head.temperature == 1.0


def test_an_unknown_component_is_named():
    cfg = load_config(MAIN, {'model.backbone.type': 'ResNet19'})
    with pytest.raises(KeyError, match='ResNet19 is not in the'):
        MODELS.build(cfg.model)


@pytest.mark.parametrize(
    'name, value',
    [
        ('log_level.inner', 3),
        ('model.inter.bank.num_frames.inner', 3),
        ('param_scheduler.7.factors', [1.0]),
        ('param_scheduler.first.factors', [1.0]),
    ],
)
def test_an_option_that_leads_nowhere_is_named(name, value):
    with pytest.raises(ValueError, match=f'--cfg-options: {name}='):
        load_config(MAIN, {name: value})


@pytest.mark.parametrize('text', ['model = dict(', 'x = undefined_name', 'log_level = dict(a=1)'])
def test_a_config_that_is_no_valid_python_or_does_not_fit_its_base_is_named(config_file, text):
    with pytest.raises(ValueError, match='config .*mine.py: '):
        load_config(config_file(text))


def test_a_mistyped_entry_in_a_stage_is_named_with_the_stage(config_file):
    cfg = load_config(MAIN)
    cfg.stages[0].changes['modell.inter'] = None
    with pytest.raises(ValueError, match="stage 'intra': 'modell' is not"):
        stage_configs(cfg, Path('work'))
    cfg = load_config(MAIN)
    cfg.stages[1]['change'] = {}
    with pytest.raises(ValueError, match='`name` and `changes`.*change'):
        stage_configs(cfg, Path('work'))


def test_a_frozen_feature_has_no_training(tmp_path):
    with pytest.raises(ValueError, match='raw_lab.py describes a frozen feature'):
        train(ROOT / 'frozen' / 'raw_lab.py', tmp_path)


# --- stages and options ---


@pytest.mark.parametrize('name', TRAINED)
def test_a_stage_changes_what_it_declares_and_nothing_else(name):
    cfg = load_config(ROOT / name)
    plain = {key: value for key, value in cfg.to_dict().items() if key != 'stages'}
    declared = cfg.get('stages') or [dict(name='train', changes={})]
    for stage, (stage_name, own) in zip(declared, stage_configs(cfg, Path('work')), strict=True):
        assert stage_name == stage['name'] and 'stages' not in own
        for changed in differences(plain, own.to_dict()):
            if changed in ('work_dir', 'experiment_name'):
                continue
            assert any(changed == entry or changed.startswith(f'{entry}.') for entry in stage['changes']), (
                changed
            )
        for entry, value in stage['changes'].items():
            if not isinstance(value, dict):
                assert flatten(own.to_dict())[entry] == (tuple(value) if isinstance(value, list) else value)


def test_stages_leave_the_config_they_come_from_alone():
    cfg = load_config(MAIN)
    before = flatten(cfg.to_dict())
    stage_configs(cfg, Path('work'), {'optim_wrapper.optimizer.lr': 5.0})
    assert flatten(cfg.to_dict()) == before


def test_the_paper_recipe_turns_two_parts_on_in_stage_two():
    (first_name, first), (second_name, second) = stage_configs(load_config(MAIN), Path('work'))
    assert (first_name, second_name) == ('intra', 'inter')
    assert first.model.inter is None and first.model.compactness is None
    assert second.model.inter.bank.num_frames == 1440 and second.model.inter.bank.points_per_frame == 4
    model = {name for name in differences(first.model.to_dict(), second.model.to_dict())}
    assert {name.split('.')[0] for name in model} == {'inter', 'compactness'}
    assert (Path(first.work_dir), Path(second.work_dir)) == (Path('work/stage_intra'), Path('work'))
    assert first.experiment_name != second.experiment_name


def test_options_win_over_stages():
    options = {'optim_wrapper.optimizer.lr': 7.0, 'train_cfg.max_iters': 3, 'train_dataloader.batch_size': 5}
    for _, own in stage_configs(load_config(MAIN, options), Path('work'), options):
        assert own.optim_wrapper.optimizer.lr == 7.0
        assert own.train_cfg.max_iters == 3 and own.train_dataloader.batch_size == 5


@pytest.mark.parametrize(
    'options', [{'model.inter.bank.num_frames': 9}, {'model.inter': dict(bank=dict(num_frames=9))}]
)
def test_an_option_inside_a_part_that_a_stage_switches_off_leaves_it_off(options):
    (_, first), (_, second) = stage_configs(load_config(MAIN, options), Path('work'), options)
    assert first.model.inter is None
    assert second.model.inter.bank.num_frames == 9 and second.model.inter.momentum == 0.999


def test_an_option_can_switch_a_part_or_the_stages_off():
    options = {'model.compactness': None}
    assert [
        own.model.compactness for _, own in stage_configs(load_config(MAIN, options), Path('w'), options)
    ] == [None, None]
    options = {'stages': None}
    ((name, own),) = stage_configs(load_config(MAIN, options), Path('work'), options)
    assert name == 'train' and own.model.inter is not None and own.work_dir == 'work'


def test_mast_is_liir_without_its_parts():
    (_, mast), *_ = stage_configs(load_config(ROOT / 'mast_r18_ytvos.py'), Path('work'))
    (_, first), _ = stage_configs(load_config(MAIN), Path('work'))
    changed = set(differences(first.to_dict(), mast.to_dict()))
    allowed = {'work_dir', 'experiment_name', 'model.type', 'model.inter', 'model.compactness'}
    own = ('model.position_encoder', 'protocol')
    assert {name for name in changed if not name.startswith(own)} <= allowed
    assert mast.model.get('position_encoder') is None


def test_change_config_reports_where_a_change_comes_from():
    with pytest.raises(ValueError, match='the sweep: log_level.inner=1 does not fit'):
        change_config(Config(dict(log_level='INFO')), {'log_level.inner': 1}, 'the sweep')


@pytest.mark.parametrize('name', [name for name in TRAINED if 'cpu' not in name and 'quickstart' not in name])
def test_batches_for_a_gpu_come_from_workers_and_page_locked_memory(name):
    loader = load_config(ROOT / name).train_dataloader
    assert loader.pin_memory is True and loader.num_workers > 0 and loader.persistent_workers is True
