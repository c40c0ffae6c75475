"""The benchmarks by name, and where their data are found."""

from pathlib import Path

import pytest

from mmliir.apis.configs import load_config
from mmliir.datasets.catalog import CATALOG, find_data
from mmliir.evaluation.benchmarks import BENCHMARKS, find_benchmark, open_benchmark
from mmliir.registry import DATASETS, METRICS

TASKS = sorted((Path(__file__).parents[2] / 'configs' / '_base_' / 'tasks').glob('*.py'))


def test_every_task_config_is_a_benchmark_with_the_same_values():
    configs = {path.stem: load_config(path).task.to_dict() for path in TASKS}
    assert configs == BENCHMARKS


@pytest.mark.parametrize('name', BENCHMARKS)
def test_every_benchmark_names_parts_and_data_that_exist(name):
    task = BENCHMARKS[name]
    dataset = DATASETS.get(task['dataset']['type'])
    assert dataset.kind in ('masks', 'instances', 'points') and dataset.family
    assert task['metric'] is None or METRICS.get(task['metric']['type']).evaluate
    assert Path(task['dataset']['data_root']).name in CATALOG


def test_a_wrong_name_lists_what_there_is():
    with pytest.raises(ValueError, match="unknown benchmark 'davis2071'; did you mean 'davis2017'.* vip, "):
        find_benchmark('davis2071')


def test_data_are_found_under_their_usual_names_or_as_the_folder_itself(tmp_path):
    (tmp_path / 'all' / 'DAVIS' / 'ImageSets' / '2017').mkdir(parents=True)
    (tmp_path / 'all' / 'DAVIS' / 'ImageSets' / '2017' / 'val.txt').write_text('a\n')
    assert find_data('davis2017', tmp_path / 'all') == tmp_path / 'all' / 'DAVIS'
    assert find_data('davis2017', tmp_path / 'all' / 'DAVIS') == tmp_path / 'all' / 'DAVIS'
    with pytest.raises(FileNotFoundError, match=r'DAVIS 2016 not found in .*ImageSets/2016/\*.txt.*`mmliir data list`'):
        find_data('davis2016', tmp_path / 'all')
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        open_benchmark('vip', tmp_path / 'nowhere')
