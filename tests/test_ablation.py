"""Ablations: a row changes what it declares, trainings are shared and resumed, the table says what is there."""

import fcntl
import json
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import command_cases
import mmengine
import pytest
import torch
from mmengine.config import Config
from train_cases import LIIR_CONFIG, ROOT, TINY, as_arguments, write_training_videos

from mmliir.apis import ablation
from mmliir.apis.ablation import find_eval_root, plan_table, run_table
from mmliir.apis.ablation_report import (
    RowResult,
    RowScores,
    TableResult,
    count_pairs_in_order,
    gain,
    spread,
    table_cells,
    table_notes,
    to_markdown,
    to_svg,
)
from mmliir.apis.ablation_rows import check_declarations, check_row, get_table, read_tables, resolve_row, resolve_stages
from mmliir.apis.configs import differences
from mmliir.apis.train import result_of_stage
from mmliir.engine.hooks import StepSeedHook
from mmliir.testing.synthetic import generate_videos, write_davis_layout
from mmliir.utils.checkpoint import read_checkpoint

TABLES_FILE = ROOT / 'configs' / 'ablations' / 'tables.yml'
TABLES = read_tables(TABLES_FILE)
CPU_BASE = ROOT / 'configs' / 'liir_r18_clips_cpu.py'
ROWS = [(table.name, row.name) for table in TABLES.values() for row in table.rows.values()]
TASK = Config.fromfile(str(ROOT / 'configs' / '_base_' / 'tasks' / 'davis2017.py')).task.to_dict()
TOOL = 'tools/analysis_tools/ablation_table.py'


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_training_videos(root / 'videos')
    write_davis_layout(root / 'davis', generate_videos(range(50, 52), num_frames=4, size=(32, 48)))
    return root


# --- rows ---


@pytest.mark.parametrize(('table', 'row'), ROWS)
def test_a_row_changes_what_it_declares_and_nothing_else(table, row):
    check_row(TABLES[table], TABLES[table].rows[row])


def test_the_comparison_of_rows_sees_training_stages_and_protocol():
    """An oracle by hand for one row of each kind."""
    changed = {row: check_row(TABLES['4'], TABLES['4'].rows[row]) for row in TABLES['4'].rows}
    tops = {row: {'.'.join(name.split('.')[:2]) for name in names} for row, names in changed.items()}
    pe, inter, compact, prior = 'model.position_encoder', 'model.inter', 'model.compactness', 'protocol.prior'
    assert tops == {
        'none': {pe, inter, compact, prior},
        'inter': {pe, compact, prior},
        'position': {inter, compact, prior},
        'compact': {pe, inter},
        'position_compact': {inter},
        'position_inter': {compact, prior},
        'all': set(),
    }
    row = TABLES['A.1'].rows['train3_infer1']
    assert check_row(TABLES['A.1'], row) == {
        'model.compactness.num_mixtures': (2, 3),
        'protocol.prior.num_mixtures': (2, 1),
    }


@pytest.mark.parametrize('name', list(TABLES))
def test_each_config_says_of_which_row_it_is(name):
    check_declarations(TABLES, TABLES[name])


def test_every_config_of_the_folder_is_a_row():
    used = {row.config for table in TABLES.values() for row in table.rows.values()}
    assert set((ROOT / 'configs' / 'ablations').glob('*.py')) <= used


def test_table_a1_is_13_rows_of_4_trainings_and_its_rows_say_what_they_are():
    rows = TABLES['A.1'].rows
    assert len(rows) == 13 and len({row.checkpoint for row in rows.values()}) == 4
    stages, protocol = resolve_stages(LIIR_CONFIG)
    for row in rows.values():
        resolved = resolve_row(TABLES['A.1'], row, stages, protocol)
        compactness, prior = resolved.stages[-1][1].model.compactness, resolved.protocol.settings.prior
        train, infer = (0 if part is None else part.num_mixtures for part in (compactness, prior))
        assert row.name == f'train{train}_infer{infer}'
        assert row.label == f'{train or "-"}, {infer or "-"}'


def test_rows_with_equal_configs_have_equal_numbers_of_the_paper():
    """The same experiment stands in several tables."""
    numbers = {}
    for table in TABLES.values():
        for row in table.rows.values():
            for task, value in row.paper.items():
                assert numbers.setdefault((row.config, task), value) == value, (table.name, row.name)
    assert numbers[Path(LIIR_CONFIG), 'davis2017'] == 72.1 and numbers[Path(LIIR_CONFIG), 'vip'] == 41.2


@pytest.mark.parametrize(('table', 'row'), ROWS)
def test_on_another_base_a_row_changes_what_it_declares_and_nothing_else(table, row, stages_of):
    table, row = TABLES[table], TABLES[table].rows[row]
    stages, protocol = stages_of(CPU_BASE)
    resolved = resolve_row(table, row, stages, protocol)
    declared = [] if row.config == table.base else Config.fromfile(str(row.config)).ablation.changes
    for name in resolved.changed:
        assert any(name == entry or name.startswith(f'{entry}.') for entry in declared), name
    for entry in declared:
        assert any(name == entry or name.startswith(f'{entry}.') for name in resolved.changed), entry
    own = check_row(table, row)
    for name, (_, value) in resolved.changed.items():
        if value is None or isinstance(value, str):
            assert own[name][1] == value


@pytest.fixture(scope='module')
def stages_of():
    known = {}

    def resolve(base, options=None):
        key = (base, json.dumps(options))
        known.setdefault(key, resolve_stages(base, options))
        return known[key]

    return resolve


def last_stage(table, row, stages, protocol):
    return resolve_row(TABLES[table], TABLES[table].rows[row], stages, protocol).stages[-1][1]


def test_another_part_has_the_sizes_of_the_base(stages_of):
    sine = last_stage('5b', '2dspe', *stages_of(CPU_BASE)).model.position_encoder
    assert sine == dict(type='SinePositionEncoder2d', channels=32, scale=1.0)
    learned = last_stage('5b', '2dape', *stages_of(CPU_BASE)).model.position_encoder
    assert learned == dict(type='LearnedPositionEncoder2d', channels=32, size=(48, 48), resize_mode='bicubic')


@pytest.mark.parametrize(
    ('table', 'row', 'frames', 'points'),
    [('5a', '480', 160, 4), ('5a', '960', 320, 4), ('5a', '1440', 480, 4), ('C.1', '480x12', 160, 12),
     ('C.1', '960x6', 320, 6), ('C.1', '1440x4', 480, 4), ('C.1', '1440x1', 480, 1)],
)  # fmt: skip
def test_the_bank_keeps_its_ratio_on_a_smaller_base(table, row, frames, points, stages_of):
    bank = last_stage(table, row, *stages_of(CPU_BASE)).model.inter.bank
    assert (bank.num_frames, bank.points_per_frame) == (frames, points)


def test_on_its_own_base_a_row_is_its_config(stages_of):
    stages, protocol = stages_of(Path(LIIR_CONFIG))
    for table, row in (('5b', '2dspe'), ('5a', '480'), ('4', 'none'), ('A.1', 'train1_infer3')):
        resolved = resolve_row(TABLES[table], TABLES[table].rows[row], stages, protocol)
        expected, expected_protocol = resolve_stages(TABLES[table].rows[row].config)
        assert resolved.protocol.settings == expected_protocol.settings
        for (_, own), (_, other) in zip(resolved.stages, expected, strict=True):
            assert own.model == other.model and own.train_cfg == other.train_cfg


def test_options_change_the_base_and_rows_change_that():
    stages, protocol = resolve_stages(LIIR_CONFIG, {'model.inter.bank.num_frames': 30, 'model.compactness.weight': 2.0})
    assert last_stage('5a', '480', stages, protocol).model.inter.bank.num_frames == 10
    assert last_stage('4', 'position', stages, protocol).model.inter is None
    assert last_stage('A.1', 'train1_infer1', stages, protocol).model.compactness.weight == 2.0


def test_a_protocol_without_a_prior_can_lose_it_but_not_change_it(stages_of):
    stages, protocol = stages_of(ROOT / 'configs' / 'liir_r18_quickstart.py')
    assert protocol.settings.prior is None and protocol.settings.radius == 6
    table = TABLES['4']
    assert resolve_row(table, table.rows['position'], stages, protocol).protocol.settings == protocol.settings
    with pytest.raises(ValueError, match="has no prior, so 'prior.num_mixtures' changes nothing"):
        resolve_row(TABLES['A.1'], TABLES['A.1'].rows['train2_infer1'], stages, protocol)


def test_a_base_without_the_part_that_a_row_changes_is_named():
    stages, protocol = resolve_stages(LIIR_CONFIG, {'model.inter': None})
    with pytest.raises(ValueError, match='row 480 of table 5a changes the inside of model.inter, which the base'):
        last_stage('5a', '480', stages, protocol)
    assert last_stage('5b', 'none', stages, protocol).model.position_encoder is None


# --- bad input ---


@pytest.fixture
def write_row(tmp_path):
    """A table '9' of two rows, `base` and `mine`, whose config is the given text."""

    def write(text: str, row: dict | None = None, **entries):
        (tmp_path / 'mine.py').write_text(f'_base_ = [{LIIR_CONFIG!r}]\n{text}\n')
        rows = {
            'base': dict(label='base', config=LIIR_CONFIG, paper={}),
            'mine': dict(label='mine', config='mine.py', paper={}) | (row or {}),
        }
        content = dict(base=LIIR_CONFIG, task='davis2017', tables={'9': dict(title='mine', rows=rows, **entries)})
        mmengine.dump(content, tmp_path / 'tables.yml')
        return tmp_path / 'tables.yml'

    return write


ABLATION = "ablation = dict(table='9', row='mine', changes=[{changes}])"


@pytest.mark.parametrize(
    ('text', 'changes', 'message'),
    [
        ('model = dict(inter=None, compactness=None)', "'model.inter'",
         r'mine.py changes model.compactness.* and does not declare it: add it to `ablation.changes` \(model.inter\)'),
        ('model = dict(inter=None)', "'model.inter', 'model.compactness'",
         'mine.py declares a change of model.compactness, which is as in liir_r18_ytvos.py'),
        ("protocol = 'crw'", "'model.inter'", 'mine.py changes protocol.'),
        ('train_cfg = dict(max_iters=3)', "'model.inter'", 'mine.py changes train_cfg.max_iters'),
        ("stages = [dict(name='intra', changes={'model.inter': None}), dict(name='inter', changes={})]",
         "'model.inter'", 'mine.py changes .*optim_wrapper|auto_scale_lr'),
        ('stages = None', "'model.inter'", r"mine.py has the stages \['train'\], its base"),
        ('', '', 'names at least one entry'),
    ],
)  # fmt: skip
def test_an_ablation_that_changes_what_it_does_not_declare_is_named(write_row, text, changes, message):
    table = read_tables(write_row(f'{text}\n{ABLATION.format(changes=changes)}'))['9']
    with pytest.raises(ValueError, match=message):
        check_row(table, table.rows['mine'])


def test_an_ablation_that_declares_nothing_or_wrongly_is_named(write_row):
    table = read_tables(write_row('model = dict(inter=None)'))['9']
    with pytest.raises(ValueError, match='mine.py: no `ablation = dict'):
        check_row(table, table.rows['mine'])
    tables = read_tables(write_row("ablation = dict(table='9', row='mien', changes=['model.inter'])"))
    with pytest.raises(ValueError, match="table 9 has no row 'mien'; did you mean 'mine'"):
        check_declarations(tables, tables['9'])
    tables = read_tables(write_row("ablation = dict(table='8', row='mine', changes=['model.inter'])"))
    with pytest.raises(ValueError, match="there is no table '8'"):
        check_declarations(tables, tables['9'])
    tables = read_tables(write_row("ablation = dict(table='9', row='base', changes=['model.inter'])"))
    with pytest.raises(ValueError, match='row base of table 9 takes liir_r18_ytvos.py, not this file'):
        check_declarations(tables, tables['9'])
    table = read_tables(write_row("ablation = dict(table='9', row='mine', change=['model.inter'])"))['9']
    with pytest.raises(ValueError, match="unknown entry 'change'; did you mean 'changes'"):
        check_row(table, table.rows['mine'])


@pytest.mark.parametrize(
    ('row', 'error', 'message'),
    [
        (dict(checkpoint='bsae'), ValueError, "row mine: checkpoint of 'bsae'; did you mean 'base'"),
        (dict(papre={}), ValueError, "row mine: unknown entry 'papre'; did you mean 'paper'"),
        (dict(config='yours.py'), FileNotFoundError, 'row mine: config not found: .*yours.py'),
    ],
)
def test_a_wrong_entry_of_the_tables_is_named(write_row, row, error, message):
    with pytest.raises(error, match=message):
        read_tables(write_row('', row))


def test_a_row_that_is_tested_with_another_training_is_refused(write_row, data):
    text = 'model = dict(inter=None)\n' + ABLATION.format(changes="'model.inter'")
    table = read_tables(write_row(text, dict(checkpoint='base')))['9']
    with pytest.raises(ValueError, match='row mine of table 9 takes the checkpoint of base, but its own'):
        plan_table(table, 'nowhere', data / 'videos', options=TINY)


def test_unknown_tables_and_rows_are_named():
    assert get_table(TABLES, 'a1') is get_table(TABLES, 'A.1') is TABLES['A.1']
    with pytest.raises(ValueError, match="no table '7'; the tables are 4, 5a, 5b, 5c, 5d, A.1, C.1"):
        get_table(TABLES, '7')
    with pytest.raises(ValueError, match="table 4 has no row 'positon'; did you mean 'position'"):
        TABLES['4'].select(['positon'])


def test_the_benchmark_is_found_beside_the_videos(data, tmp_path):
    assert find_eval_root(TASK, data / 'videos') == (data / 'davis').resolve()
    assert find_eval_root(TASK, data / 'davis') == data / 'davis'
    with pytest.raises(FileNotFoundError, match='data of davis2017 not found: give --eval-root'):
        find_eval_root(TASK, tmp_path)


# --- numbers and their table ---


def make_result(scores: dict[str, dict[int, float]], seeds=(0, 1)) -> TableResult:
    rows = [
        RowResult(row, {}, {seed: RowScores(jf, jf, jf, '1') for seed, jf in scores.get(name, {}).items()}, 0)
        for name, row in TABLES['4'].rows.items()
    ]
    return TableResult(TABLES['4'], 'base', 'davis2017', 'mast', 'stage 1 5 x 2 pairs', (2, 30), seeds, tuple(rows))


def test_spread_is_the_sample_standard_deviation():
    assert spread([]) is None
    two = spread([1.0, 3.0])
    assert (two.mean, two.count) == (2.0, 2) and two.deviation == pytest.approx(2**0.5) and str(two) == '2.0 ± 1.4'
    assert str(spread([5.0])) == '5.0'


def test_a_gain_is_taken_seed_by_seed():
    """A seed that shifts both rows by the same leaves the gain exact; a seed of one row alone does not count."""
    result = make_result({'none': {0: 50.0, 1: 60.0}, 'all': {0: 52.0, 1: 62.0, 2: 99.0}})
    difference = gain(result.rows[-1], result.rows[0])
    assert (difference.mean, difference.deviation, difference.count) == (2.0, 0.0, 2)


def test_pairs_in_the_papers_order_are_counted():
    # paper: none 65.3 < position 66.9 < compact 68.4
    result = make_result({'none': {0: 10.0}, 'position': {0: 30.0}, 'compact': {0: 20.0}})
    assert count_pairs_in_order(result) == (2, 3)
    assert count_pairs_in_order(make_result({})) == (0, 0)


def test_the_table_says_what_is_missing():
    result = make_result({'none': {0: 50.0, 1: 52.0}, 'all': {0: 60.0}})
    header, cells = table_cells(result)
    by_name = {cell[0]: dict(zip(header, cell, strict=True)) for cell in cells}
    assert by_name['none (MAST)']['our J&F'] == '51.0 ± 1.4' and by_name['none (MAST)']['seeds'] == '2 of 2'
    assert by_name['all (LIIR)']['our gain'] == '+10.0' and by_name['all (LIIR)']['paper gain'] == '+6.8'
    assert [by_name['PE'][name] for name in ('our J&F', 'seeds', 'paper J&F')] == ['–', '0 of 2', '66.9']
    notes = '\n'.join(table_notes(result))
    assert 'INCOMPLETE: 3 of 14 results' in notes and '2 of 30 sequences' in notes
    full = make_result({name: {0: 1.0} for name in TABLES['4'].rows}, seeds=(0,))
    assert 'INCOMPLETE' not in '\n'.join(table_notes(full))
    assert 'compare gains' in '\n'.join(table_notes(replace(full, task='davis2016')))


def test_markdown_has_as_many_cells_a_line_and_the_plot_a_dot_a_number():
    result = make_result({'none': {0: 50.0, 1: 52.0}, 'all': {0: 60.0}})
    lines = [line for line in to_markdown(result).splitlines() if line.startswith('|')]
    assert len(lines) == 2 + 7 and len({line.count('|') for line in lines}) == 1
    svg = ElementTree.fromstring(to_svg(result))
    titles = [title.text for title in svg.iter('{http://www.w3.org/2000/svg}title')]
    assert len(titles) == 7 + 2 and 'all (LIIR), ours, davis2017: 60.0' in titles


# --- running ---


def run(out, data, table='4', rows=('none', 'position'), **changes):
    settings = dict(task=TASK, data_root=data / 'videos', base=LIIR_CONFIG, options=TINY, protocol='quick') | changes
    return run_table(TABLES_FILE, table, out, rows=rows, **settings)


@pytest.fixture
def counted(monkeypatch):
    """Names of the stages that are trained, in order."""
    trained, original = [], ablation.train

    def train(config, work_dir, **arguments):
        trained.append(Path(work_dir).name.rpartition('-')[0])
        return original(config, work_dir, **arguments)

    monkeypatch.setattr(ablation, 'train', train)
    return trained


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    """Table 4, two rows, never interrupted."""
    out = tmp_path_factory.mktemp('finished')
    return out, run(out, data)


def weights(out: Path) -> dict[str, dict]:
    """Folder -> weights of the last checkpoint of every stage."""
    found = {}
    for folder in sorted((out / 'stages').iterdir()):
        checkpoint = result_of_stage(Config(dict(work_dir=str(folder), train_cfg=dict(max_iters=5))))
        found[folder.name] = read_checkpoint(checkpoint)['state_dict']
    return found


@pytest.mark.slow
def test_an_interrupted_table_goes_on_and_ends_with_the_same_weights_and_scores(
    data, finished, tmp_path, monkeypatch, counted
):
    original = StepSeedHook.before_train_iter

    def stop_in_third_training(self, runner, *rest, **named):
        if len(counted) == 3 and runner.iter == 3:
            raise KeyboardInterrupt
        return original(self, runner, *rest, **named)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StepSeedHook, 'before_train_iter', stop_in_third_training)
        run(tmp_path, data)
    assert counted == ['none-intra-seed0', 'none-inter-seed0', 'position-intra-seed0']
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        original_evaluate = ablation.evaluate

        def stop_after_masks(*given, **named):
            original_evaluate(*given, **named)
            (named['out_dir'] / 'scores.json').unlink()
            shutil.rmtree(next(path for path in named['out_dir'].iterdir() if path.is_dir()))
            raise KeyboardInterrupt

        patched.setattr(ablation, 'evaluate', stop_after_masks)
        run(tmp_path, data)
    assert counted[3:] == ['position-intra-seed0', 'position-inter-seed0']
    result = run(tmp_path, data)
    assert len(counted) == 5, 'nothing that was complete is trained again'
    expected_out, expected = finished
    assert [row.scores for row in result.rows] == [row.scores for row in expected.rows]
    own, other = weights(tmp_path), weights(expected_out)
    assert own.keys() == other.keys() and len(own) == 4
    for name in own:
        assert all(torch.equal(own[name][key], other[name][key]) for key in other[name])


def test_a_finished_table_does_nothing_again_and_is_written_and_shown(data, finished, counted, monkeypatch):
    out, first = finished
    monkeypatch.setattr(ablation, 'evaluate', None)
    again = run(out, data)
    assert counted == [] and again == first
    assert [len(row.scores) for row in again.rows] == [1, 0, 1, 0, 0, 0, 0]
    (page,) = out.glob('table4_davis2017_quick.md')
    assert 'INCOMPLETE: 2 of 7 results' in page.read_text()
    stored = json.loads((out / 'table4_davis2017_quick.json').read_text())
    assert stored['rows']['none']['scores']['0']['jf'] == first.rows[0].scores[0].jf
    ElementTree.parse(out / 'table4_davis2017_quick.svg')


def test_stage_two_starts_from_the_weights_of_its_own_stage_one(finished):
    out, _ = finished
    for row in ('none', 'position'):
        (folder,) = (out / 'stages').glob(f'{row}-inter-seed0-*')
        started = Path(Config.fromfile(str(folder / 'config.py')).load_from)
        assert started.parent.name.startswith(f'{row}-intra-seed0-')


def test_the_dumped_config_of_a_stage_is_the_stage(data, finished):
    out, _ = finished
    plan = plan_table(TABLES['4'], out, data / 'videos', LIIR_CONFIG, options=TINY)
    job = next(job for job in plan.jobs if job.row.name == 'position')
    for stage in job.stages:
        written = Config.fromfile(str(stage.folder / 'config.py'))
        changed = set(differences(stage.cfg.to_dict(), written.to_dict()))
        assert {name.split('.')[0] for name in changed} <= {'load_from', 'custom_hooks'}
        ((name, _),) = resolve_stages(stage.folder / 'config.py')[0]
        assert name == stage.name


def test_other_seeds_and_protocols_are_other_results(data, finished, counted):
    out, first = finished
    result = run(out, data, rows=['none'], protocol='crw')
    assert counted == [] and len(result.rows[0].scores) == 1
    assert (out / 'table4_davis2017_crw.md').is_file() and (out / 'table4_davis2017_quick.md').is_file()
    plans = [plan_table(TABLES['4'], out, data / 'videos', LIIR_CONFIG, seeds, options=TINY) for seeds in ((0,), (1,))]
    keys = [{stage.key for job in plan.jobs for stage in job.stages} for plan in plans]
    assert not keys[0] & keys[1]
    assert len({job.stages[0].key for job in plans[0].jobs}) == 2, 'with and without the position map'
    assert len({job.stages[-1].key for job in plans[0].jobs}) == 7


def test_trainings_with_other_settings_are_refused_by_name(data, finished):
    out, _ = finished
    options = {**TINY, 'optim_wrapper.optimizer.lr': 7.0}
    with pytest.raises(ValueError, match='holds trainings with other settings: .*optim_wrapper.optimizer.lr was 0.0'):
        run(out, data, options=options)
    with pytest.raises(ValueError, match="precision was 'float32', is 'bfloat16'"):
        run(out, data, precision='bfloat16')
    harmless = {**TINY, 'default_hooks.checkpoint.interval': 1, 'train_dataloader.num_workers': 1}
    assert run(out, data, options=harmless) == run(out, data)


def test_other_training_videos_are_other_trainings(data, finished, tmp_path):
    out, _ = finished
    shutil.copytree(data / 'videos', tmp_path / 'moved')
    assert run(out, data, data_root=tmp_path / 'moved', eval_root=data / 'davis').rows[0].scores
    shutil.rmtree(next((tmp_path / 'moved').iterdir()))
    with pytest.raises(ValueError, match='holds trainings with other settings: data was'):
        run(out, data, data_root=tmp_path / 'moved', eval_root=data / 'davis')


def test_two_processes_do_not_share_a_folder(data, finished):
    out, _ = finished
    with open(out / '.lock') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match='another process is running a table in'):
            run(out, data)


@pytest.mark.slow
def test_rows_that_only_test_are_never_trained_and_tables_share_trainings(data, tmp_path, counted):
    paper = dict(protocol=None)
    with pytest.raises(ValueError, match='row train2_infer1 is only tested, with the checkpoint of row train2_infer2'):
        run(tmp_path, data, 'A.1', ['train2_infer1'], **paper)
    result = run(tmp_path, data, 'A.1', ['train2_infer0', 'train2_infer1', 'train2_infer2'], **paper)
    assert counted == ['train0_infer0-intra-seed0', 'train2_infer2-inter-seed0']
    shas = {json.loads(path.read_text())['checkpoint_sha256'] for path in tmp_path.glob('predictions/*/run.json')}
    assert len(shas) == 1 and len(list(tmp_path.glob('predictions/*'))) == 3
    assert sum(len(row.scores) for row in result.rows) == 3
    run(tmp_path, data, 'A.1', ['train2_infer3'], **paper)
    run(tmp_path, data, '5d', ['train', 'both'], **paper)
    assert len(counted) == 2 and len(list(tmp_path.glob('predictions/*'))) == 4


def test_results_of_weights_that_were_trained_anew_do_not_count(data, finished, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(finished[0], out)
    assert run(out, data).rows[0].scores
    for path in out.glob('predictions/none-*/scores.json'):
        scores = json.loads(path.read_text())
        path.write_text(json.dumps({**scores, 'run_card': {**scores['run_card'], 'checkpoint_sha256': '0' * 64}}))
    plan = plan_table(TABLES['4'], out, data / 'videos', LIIR_CONFIG, protocol='quick', options=TINY)
    test = ablation._prepare_test(TASK, data / 'davis', None, False, 1)
    assert ablation._read_scores(out, plan.jobs[0], test) is None


def test_train_only_needs_no_benchmark(data, tmp_path, counted):
    result = run(tmp_path, data, rows=['none'], task=None)
    assert len(counted) == 2 and result.rows[0].trained == 1 and result.task is None
    assert table_cells(result)[1][0][-2] == '0 of 1, trained 1'


# --- the command ---


def test_the_command_prints_the_table(data, finished):
    out, result = finished
    options = as_arguments(TINY)
    done = command_cases.run(
        TOOL, '--table', '4', '--data-root', data / 'videos', '--out', out, '--protocol', 'quick', '--rows', 'none',
        'position', '--cfg-options', *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert 'none (MAST)' in done.out and '65.3' in done.out and f'{result.rows[0].scores[0].jf:.1f}' in done.out
    assert 'table4_davis2017_quick.md' in done.out


def test_the_command_lists_rows_without_data():
    done = command_cases.run(TOOL, '--table', '5a', '--list', '--base', CPU_BASE)
    assert done.code == 0 and 'inter.bank.num_frames 160 (480)' in done.out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--table', '7'], "there is no table '7'; the tables are 4, 5a"),
        (['--table', '4', '--rows', 'nothing', '--out', 'OUT'], "table 4 has no row 'nothing'"),
        (['--table', '4', '--data-root', 'nowhere', '--out', 'OUT'], 'training videos not found: '),
        (['--table', '4', '--base', 'nowhere.py', '--out', 'OUT'], 'config not found: nowhere.py'),
        (['--table', '5a', '--list', '--base', 'configs/mast_r18_ytvos.py'], 'changes the inside of model'),
        (['--table', '4', '--list', '--base', 'configs/frozen/raw_lab.py'], 'it has no training to ablate'),
        (['--table', '4', '--data-root', 'VIDEOS', '--eval-root', 'nowhere', '--out', 'OUT'], 'DAVIS not found at'),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {'OUT': tmp_path / 'out', 'VIDEOS': data / 'videos'}
    assert message in command_cases.run(TOOL, *[names.get(one, one) for one in arguments]).error()
    assert not (tmp_path / 'out' / 'stages').exists()

