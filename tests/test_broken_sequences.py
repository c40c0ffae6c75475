"""One broken sequence stops no benchmark: it is named, the others are scored, and the exit code is 3."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_cases import RAW_LAB, run
from PIL import Image
from replicas import SCORED, write_perfect, write_replicas

from mmliir.datasets.masks import write_label_map
from mmliir.evaluation.benchmarks import open_benchmark
from mmliir.evaluation.tasks import Task
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos

pytestmark = pytest.mark.usefixtures('one_thread')
MASKS = ('davis2016', 'davis2017', 'vip', 'vip_instance', 'youtube_vos_holdout')


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """A data root with two sequences or more of every benchmark; nothing is written into it."""
    pytest.importorskip('scipy')
    root = tmp_path_factory.mktemp('whole')
    write_youtube_vos(root / 'youtube_vos2018', num_valid=1, num_train=1, num_holdout=2, num_frames=16)
    return write_replicas(root, SCORED)


@pytest.fixture
def case(whole, tmp_path, request) -> tuple[Task, Path, Path]:
    """A benchmark, its data root (a copy), and perfect predictions."""
    root, pred = tmp_path / 'data', tmp_path / 'pred'
    shutil.copytree(whole, root)
    task = open_benchmark(request.param, root)
    write_perfect(task, pred)
    assert len(task.dataset.names) > 1
    return task, root, pred


def score(task: Task, root: Path, pred: Path, *more: object):
    return run('mmliir', 'score', task.name, '--pred', pred, '--data-root', root, *more)


def all_tracks(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def prediction(pred: Path, name: str) -> Path:
    """A file that is scored: neither the first nor the last of a sequence."""
    files = sorted(path for path in (pred / name).iterdir() if path.suffix != '.txt')
    return files[len(files) // 2]


def smaller(path: Path) -> None:
    write_label_map(path, np.array(Image.open(path))[:-2])


def in_colours(path: Path) -> None:
    Image.open(path).convert('RGB').save(path)


def one_object_more(path: Path) -> None:
    ids = np.array(Image.open(path))
    ids[10:-10, 10:-10] = 77
    write_label_map(path, ids)


def fewer_points(path: Path) -> None:
    arrays = {name: array[1:] for name, array in all_tracks(path).items()}
    np.savez(path, **arrays)


def other_places(path: Path) -> None:
    arrays = all_tracks(path)
    np.savez(path, **{**arrays, 'queries': arrays['queries'] + 3})


PREDICTIONS = {
    'gone': shutil.rmtree,
    'lacking': Path.unlink,
    'cut off': cut_off,
    'empty': lambda path: path.write_bytes(b''),
    'no picture': lambda path: path.write_text('no picture'),
    'smaller': smaller,
    'colours': in_colours,
    'extra id': one_object_more,
    'fewer points': fewer_points,
    'other places': other_places,
}


def damage_prediction(kind: str, pred: Path, name: str) -> None:
    PREDICTIONS[kind](pred / name if kind == 'gone' else prediction(pred, name))


def fits(kind: str, benchmark: str) -> bool:
    if kind in ('smaller', 'colours', 'extra id'):
        return benchmark in MASKS and (kind, benchmark) != ('extra id', 'davis2016')  # there everything but 0 is 1
    return not (kind in ('fewer points', 'other places') and benchmark in MASKS)


@pytest.mark.parametrize(
    ('case', 'kind'),
    [(name, kind) for name in SCORED for kind in PREDICTIONS if fits(kind, name)],
    indirect=['case'],
)
def test_predictions_that_cannot_be_scored_are_named_and_the_others_scored(case, kind, tmp_path):
    task, root, pred = case
    bad, *good = task.dataset.names
    damage_prediction(kind, pred, bad)
    done = score(task, root, pred, '--out', tmp_path / 's.json')
    assert done.code == 3, done.err
    assert f'not scored: {bad}: ' in done.err and 'INCOMPLETE: 1' in done.out and f'{bad} (missing)' in done.out
    found = json.loads((tmp_path / 's.json').read_text())
    assert [row['name'] for row in found['sequences']] == good
    assert [name for name, _ in found['missing']] == [bad]
    alone = score(task, root, pred, '--sequences', ','.join(good), '--out', tmp_path / 'alone.json')
    assert alone.code == 0, alone.err
    assert found['metrics'] == json.loads((tmp_path / 'alone.json').read_text())['metrics']


@pytest.mark.parametrize('case', SCORED, indirect=True)
def test_where_nothing_is_left_to_score_the_exit_code_is_2(case, tmp_path):
    task, root, pred = case
    for name in task.dataset.names:
        cut_off(prediction(pred, name))
    done = score(task, root, pred, '--out', tmp_path / 's.json')
    said = done.error()
    assert 'nothing to score' in said and task.dataset.names[0] in said and done.out == ''
    assert not (tmp_path / 's.json').exists()


# -- the truth --------------------------------------------------------------------------------------------------------


def truth_files(task: Task, name: str) -> list[Path]:
    if task.name in MASKS:
        return task.dataset.annotation_paths(name)
    if task.name == 'badja':
        return [task.dataset.data_root / 'joint_annotations' / f'{name}.json']
    if task.name == 'jhmdb':
        return [task.dataset._clips[name].joints]
    return [task.dataset._places[name][0]]


def remove_folder(paths: list[Path]) -> None:
    shutil.rmtree(paths[0].parent)


def remove_all_but_two(paths: list[Path]) -> None:
    for path in paths[2:]:
        path.unlink()


def cut_off_all(paths: list[Path]) -> None:
    for path in paths:
        cut_off(path)


def cut_off_last_but_one(paths: list[Path]) -> None:
    cut_off(paths[max(len(paths) - 2, 0)])


def shorter_tracks(paths: list[Path]) -> None:
    """In the first video of a file that has several: points of one frame too few."""
    content = pickle.loads(paths[0].read_bytes())
    video = content[next(iter(content))] if isinstance(content, dict) else content[0]
    video['points'] = video['points'][:, 1:]
    paths[0].write_bytes(pickle.dumps(content))


TRUTHS = {
    'shorter tracks': shorter_tracks,
    'no folder': remove_folder,
    'two frames': remove_all_but_two,
    'cut off': cut_off_all,
    'one cut off': cut_off_last_but_one,
    'empty': lambda paths: paths[0].write_bytes(b''),
}


def truth_fits(kind: str, benchmark: str) -> bool:
    if kind == 'shorter tracks':
        return benchmark.startswith(('tapvid', 'robotap'))
    if benchmark in MASKS:
        return kind != 'two frames' or benchmark.startswith('davis')
    return benchmark in ('badja', 'jhmdb') and kind in ('cut off', 'empty', *(['no folder'] * (benchmark == 'jhmdb')))


BROKEN_TRUTHS = [(name, kind) for name in SCORED for kind in TRUTHS if truth_fits(kind, name)]


@pytest.mark.parametrize(('case', 'kind'), BROKEN_TRUTHS, indirect=['case'])
def test_a_broken_truth_is_named_and_the_others_scored(case, kind, tmp_path):
    task, root, pred = case
    bad, *good = task.dataset.names
    TRUTHS[kind](truth_files(task, bad))
    done = score(task, root, pred, '--out', tmp_path / 's.json')
    assert done.code == 3, done.err
    assert f'not scored: {bad}: ' in done.err and 'INCOMPLETE: 1' in done.out
    assert [row['name'] for row in json.loads((tmp_path / 's.json').read_text())['sequences']] == good
    if kind == 'shorter tracks':
        return
    for name in good:
        TRUTHS[kind](truth_files(task, name))
    assert bad in score(task, root, pred).error()


@pytest.mark.parametrize(('case', 'kind'), BROKEN_TRUTHS, indirect=['case'])
def test_a_broken_truth_is_named_by_both_commands_that_propagate(case, kind, tmp_path):
    task, root, _ = case
    bad = task.dataset.names[0]
    TRUTHS[kind](truth_files(task, bad))
    out = tmp_path / 'out'
    common = ('--short-side', 32, '--data-root')
    done = run(
        *('mmliir', 'eval', '--model', 'raw:lab', '--on', task.name, '--protocol', 'quick', '--out', out, '--jobs', 1),
        *(*common, root),
    )
    assert done.code == 3, done.err
    assert f'NOT SCORED: {bad}: ' in done.err and f'{bad} (missing)' in done.out
    summary = json.loads((out / task.name / 'quick@32' / 'summary.json').read_text())
    assert summary['coverage']['missing'] == 1 and not summary['coverage']['complete']
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert 'Incomplete: 1 of the' in page and bad in page
    tested = run(
        *('tools/test.py', RAW_LAB, '--task', task.name, '--protocol', 'quick', '--out', tmp_path / 'test'),
        *('--jobs', 1, *common, task.dataset.data_root),
    )
    assert tested.code == 3, tested.err
    assert f'not scored: {bad}: ' in tested.err and 'INCOMPLETE: 1' in tested.out


def test_a_benchmark_whose_frames_are_missing_of_one_sequence_goes_on(tmp_path, whole):
    shutil.copytree(whole / 'davis2017', tmp_path / 'davis2017')
    shutil.rmtree(tmp_path / 'davis2017' / 'JPEGImages' / '480p' / 'v0')
    common = ('--protocol', 'quick', '--jobs', 1, '--data-root', tmp_path, '--out', tmp_path / 'out')
    done = run('mmliir', 'eval', '--model', 'raw:lab', '--on', 'davis2017', *common)
    assert done.code == 3 and 'NOT SCORED: v0: DAVIS frames not found at ' in done.err, done.err


def test_training_does_not_start_over_a_benchmark_that_it_cannot_score(tmp_path, whole):
    from mmliir.engine.hooks import PropagationEvalHook
    from mmliir.evaluation.benchmarks import find_benchmark

    shutil.copytree(whole / 'davis2017', tmp_path / 'davis2017')
    for path in sorted((tmp_path / 'davis2017' / 'Annotations' / '480p' / 'v1').iterdir())[2:]:
        path.unlink()
    config = find_benchmark('davis2017')
    root = str(tmp_path / 'davis2017')
    task = {**config, **{part: {**config[part], 'data_root': root} for part in ('dataset', 'metric')}}
    with pytest.raises(ValueError, match='v1 cannot be scored: .*holds 2 annotated frames'):
        PropagationEvalHook(task, 'quick')
    PropagationEvalHook(task, 'quick', sequences=['v0'])


# -- a wrong folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('case', ['davis2017', 'tapvid_davis'], indirect=True)
def test_a_wrong_folder_of_predictions_says_where_they_may_be(case, tmp_path):
    task, root, pred = case
    first = task.dataset.names[0]
    assert f'{pred}: is it the one that is meant?' in score(task, root, tmp_path).error()
    assert 'is the folder of one sequence: give the folder above it' in score(task, root, pred / first).error()
    other = tmp_path / 'other'
    (other / 'masks').mkdir(parents=True)
    assert 'The folder holds masks; expected a folder a sequence' in score(task, root, other).error()
    assert 'does not exist' in score(task, root, tmp_path / 'nowhere').error()
    (tmp_path / 'pred.zip').write_bytes(b'PK')
    assert 'pred.zip is a file' in score(task, root, tmp_path / 'pred.zip').error()
