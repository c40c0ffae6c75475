"""`mmliir eval` and `mmliir score` on every benchmark, as a user types them, on small copies of the data."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_cases import RAW_LAB, ROOT, Outcome, contents, run, start
from PIL import Image
from replicas import HANDED_IN, SCORED, videos, write_perfect, write_replica, write_replicas

from mmliir.apis import encoders
from mmliir.evaluation.benchmarks import BENCHMARKS, open_benchmark
from mmliir.evaluation.summary import read_csv
from mmliir.propagation import PRESETS
from mmliir.testing.synthetic import write_davis_layout

pytestmark = pytest.mark.usefixtures('one_thread')
QUICKSTART = str(ROOT / 'configs' / 'liir_r18_quickstart.py')
RANDOM_FEATURE = '''
import torch

def random():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, stride=4))
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A data root with a small copy of every benchmark; nothing is written into it."""
    pytest.importorskip('scipy')
    return write_replicas(tmp_path_factory.mktemp('data'))


@pytest.fixture
def davis(tmp_path) -> Path:
    """A data root with a DAVIS 2017 of three sequences, for tests that damage it."""
    write_davis_layout(tmp_path / 'data' / 'davis2017', videos())
    return tmp_path / 'data'


def evaluate(root: Path, out: Path, *options: object, on: str = 'davis2017', model: str = 'raw:lab') -> Outcome:
    protocol = () if '--protocol' in options else ('--protocol', 'quick')
    common = ('--model', model, '--on', on, *protocol, '--data-root', root, '--out', out, '--jobs', 1)
    return run('mmliir', 'eval', *common, *options)


def frame(root: Path, sequence: str, number: int) -> Path:
    return root / 'davis2017' / 'JPEGImages' / '480p' / sequence / f'{number:05d}.jpg'


def damage(path: Path) -> bytes:
    """Cut a file off; return what it held."""
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    return whole


# -- every benchmark --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('benchmark', SCORED)
def test_a_perfect_tracker_scores_100(benchmark, data, tmp_path):
    write_perfect(open_benchmark(benchmark, data), tmp_path / 'pred')
    done = run(
        *('mmliir', 'score', benchmark, '--pred', tmp_path / 'pred', '--data-root', data),
        *('--out', tmp_path / 'scores.json'),
    )
    assert done.code == 0, done.err
    scores = json.loads((tmp_path / 'scores.json').read_text())
    headline = next(iter(scores['metrics'].values()))
    assert headline == 1.0 and scores['missing'] == []
    last = next(line for line in done.out.splitlines() if line.strip().startswith('data set'))
    assert '100.0' in last
    assert all(f' {name} ' in done.out for name in (row['name'] for row in scores['sequences']))


def test_one_call_runs_over_every_benchmark(data, tmp_path):
    out = tmp_path / 'out'
    done = evaluate(data, out, '--short-side', 32, on=','.join(BENCHMARKS))
    assert done.code == 0, done.err
    for name in BENCHMARKS:
        folder = out / name / 'quick@32'
        card = json.loads((folder / 'run.json').read_text())
        assert card['protocol'] == 'quick@32' and card['model'] == 'raw:lab'
        assert (folder / 'summary.json').is_file() == (folder / 'per_sequence.csv').is_file() == (name in SCORED)
        if name in SCORED:
            summary = json.loads((folder / 'summary.json').read_text())
            assert summary['coverage']['missing'] == 0
            assert 0 <= next(iter(summary['result']['metrics'].values())) < 1
    for name in HANDED_IN:
        assert f'note: {name}: predicted, not scored' in done.err and '`mmliir submit`' in done.err
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert done.out.strip().endswith(str(out / 'report.html'))
    for name in ('davis2016 val', 'vip_instance val', 'jhmdb', 'badja davis', 'robotap strided', 'n of N'):
        assert name in page


@pytest.mark.parametrize('protocol', PRESETS)
def test_every_protocol_runs_on_masks_and_on_points(protocol, data, tmp_path):
    options = ('--protocol', protocol, '--short-side', 32, '--no-report')
    for benchmark, sequence in (('davis2017', 'v0'), ('jhmdb', 'clap__hands_clap_u_nm')):
        done = evaluate(data, tmp_path, *options, '--sequences', sequence, on=benchmark)
        assert done.code == 0, done.err
        summary = json.loads((tmp_path / benchmark / f'{protocol}@32' / 'summary.json').read_text())
        assert 0 <= next(iter(summary['result']['metrics'].values())) <= 1
        assert f'{protocol}@32' in done.out and '1 of 2 sequences' in done.out


# -- a run that is killed, shared out, incomplete ---------------------------------------------------------------------

_SLOW_FEATURE = """
import os, time
import torch

class Feature(torch.nn.Module):
    frames = 0

    def forward(self, frames):
        Feature.frames += 1
        if Feature.frames > int(os.environ.get('HANG_AFTER', 10**9)):
            time.sleep(600)
        return torch.nn.functional.avg_pool2d(frames.float() / 255, 4)

def pooled():
    return Feature()
"""


@pytest.mark.slow
def test_a_killed_run_continues_and_gives_the_same_files(data, tmp_path):
    feature = tmp_path / 'feature.py'
    feature.write_text(_SLOW_FEATURE)
    command = ['eval', '--model', f'{feature}:pooled', '--stride', 4, '--on', 'davis2017,jhmdb', '--protocol', 'quick']
    command += ['--data-root', data, '--jobs', 1]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    expected = run('mmliir', *command, '--out', whole)
    assert expected.code == 0, expected.err

    # Killed in the second sequence.
    process = subprocess.Popen(
        [sys.executable, '-m', 'mmliir', *map(str, command), '--out', str(parts)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'HANG_AFTER': '7'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        finished = parts / 'davis2017' / 'quick' / 'v0'
        deadline = time.monotonic() + 60
        while not (finished.is_dir() and (finished.parent / '.v1.part').is_dir()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not (finished.parent / 'v1').exists() and not (parts / 'report.html').exists()
    kept = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert len(kept) == 5

    again = run('mmliir', *command, '--out', parts)
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == kept
    assert contents(parts) == contents(whole)
    assert again.out.replace(str(parts), '') == expected.out.replace(str(whole), '')


@pytest.mark.slow
def test_two_processes_write_what_one_writes(data, tmp_path):
    common = ['eval', '--model', 'raw:lab', '--on', 'davis2017,vip_instance,tapvid_davis,davis2017_test_dev']
    common += ['--protocol', 'quick', '--data-root', data, '--short-side', 32, '--jobs', 1]
    alone = run('mmliir', *common, '--out', tmp_path / 'one')
    assert alone.code == 0, alone.err
    launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', 2, '-m', 'mmliir')
    shared = start(*launcher, *common, '--out', tmp_path / 'two', cwd=tmp_path)
    assert shared.returncode == 0, shared.stderr
    assert contents(tmp_path / 'two') == contents(tmp_path / 'one')
    assert shared.stdout.replace(str(tmp_path / 'two'), '') == alone.out.replace(str(tmp_path / 'one'), '')
    # A folder of another run is refused by all: none is left waiting for the one that looked.
    before = contents(tmp_path / 'two')
    refused = start(*launcher, *common, '--amp', '--out', tmp_path / 'two', cwd=tmp_path)
    assert refused.returncode != 0 and contents(tmp_path / 'two') == before
    assert refused.stderr.count('mmliir: error: ') == refused.stderr.count('with other settings (input.precision') == 2


@pytest.mark.parametrize('number', [0, 2])
def test_a_sequence_with_a_damaged_frame_is_named_and_the_others_are_scored(davis, tmp_path, number):
    whole = damage(frame(davis, 'v1', number))
    done = evaluate(davis, tmp_path / 'out')
    assert done.code == 3, done.err
    assert 'note: davis2017: NOT SCORED: v1: ' in done.err and f'{number:05d}.jpg' in done.err
    assert '2 of 3 sequences' in done.out and 'v1 (missing)' in done.out and 'INCOMPLETE: 1' in done.out
    folder = tmp_path / 'out' / 'davis2017' / 'quick'
    summary = json.loads((folder / 'summary.json').read_text())
    assert summary['coverage'] == {**summary['coverage'], 'scored': 2, 'missing': 1, 'in_split': 3}
    page = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    assert '2 of 3 sequences' in page and 'Missing sequences: 1' in page and 'Incomplete: 1 of the 3' in page
    assert str(tmp_path) not in page.replace(str(davis), ''), 'the page names no folder of this machine'

    # Scores of the others are those of a run on them alone; repaired, the same command completes it.
    alone = evaluate(davis, tmp_path / 'alone', '--sequences', 'v0,v2')
    assert alone.code == 0
    expected = json.loads((tmp_path / 'alone' / 'davis2017' / 'quick' / 'summary.json').read_text())
    assert summary['result']['metrics'] == expected['result']['metrics']
    frame(davis, 'v1', number).write_bytes(whole)
    repaired = evaluate(davis, tmp_path / 'out')
    assert repaired.code == 0, repaired.err
    assert '3 of 3 sequences' in repaired.out
    fresh = evaluate(davis, tmp_path / 'fresh')
    assert fresh.code == 0 and contents(tmp_path / 'fresh') == contents(tmp_path / 'out')


def test_a_damaged_annotation_is_named_and_the_others_are_scored(davis, tmp_path):
    path = davis / 'davis2017' / 'Annotations' / '480p' / 'v1' / '00002.png'
    path.write_bytes(path.read_bytes()[:60])
    done = evaluate(davis, tmp_path / 'out')
    assert done.code == 3, done.err
    assert 'NOT SCORED: v1: ' in done.err and '00002.png' in done.err and '2 of 3 sequences' in done.out


def test_a_benchmark_of_which_nothing_is_left_does_not_stop_the_others(davis, tmp_path):
    write_replica('jhmdb', davis)
    for name in ('v0', 'v1', 'v2'):
        damage(frame(davis, name, 1))
    done = evaluate(davis, tmp_path / 'out', '--short-side', 32, on='davis2017,jhmdb')
    assert done.code == 3, done.err
    assert all(f'note: davis2017: NOT SCORED: {name}: ' in done.err for name in ('v0', 'v1', 'v2'))
    assert 'jhmdb' in done.out and (tmp_path / 'out' / 'jhmdb' / 'quick@32' / 'summary.json').is_file()
    page = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    assert 'davis2017' in page and '0 of 3' in page
    alone = evaluate(davis, tmp_path / 'none', '--short-side', 32)
    assert alone.code == 2 and 'v0: ' in alone.error() and 'nothing' in alone.error()


# -- other settings over old predictions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('first', 'second', 'named'),
    [
        (('--seed', 1), ('--seed', 2), 'seed: 1 there, 2 now'),
        ((), ('--amp',), 'input.precision'),
        ((), ('--sequences', 'v0'), 'data'),
    ],
)
def test_other_settings_over_old_predictions_are_refused(davis, tmp_path, first, second, named):
    feature = tmp_path / 'feature.py'
    feature.write_text(RANDOM_FEATURE)
    out, options = tmp_path / 'out', dict(model=f'{feature}:random')
    common = ('--weights', 'untrained', '--stride', 4, '--no-report')
    assert evaluate(davis, out, *common, *first, **options).code == 0
    before = contents(out)
    refused = evaluate(davis, out, *common, *second, **options)
    assert named in refused.error() and '--overwrite' in refused.error()
    assert contents(out) == before
    if '--sequences' in second:
        return
    assert evaluate(davis, out, *common, *second, '--overwrite', **options).code == 0
    fresh = tmp_path / 'fresh'
    assert evaluate(davis, fresh, *common, *second, **options).code == 0
    assert contents(out) == contents(fresh) != before


@pytest.mark.parametrize('program', ['mmliir eval', 'mmliir propagate', 'tools/test.py'])
def test_compiling_is_asked_for_by_name_and_is_on_the_card(davis, tmp_path, monkeypatch, program):
    compiled = []

    def note(function, mode):
        compiled.append(mode)
        return function

    monkeypatch.setattr(torch, 'compile', note)
    monkeypatch.setattr(encoders, '_why_nothing_compiles', lambda device_type: '')
    out, root = tmp_path / 'out', davis / 'davis2017'
    mask = root / 'Annotations' / '480p' / 'v0' / '00000.png'
    commands = {
        'mmliir eval': lambda *more: evaluate(davis, out, '--no-report', *more),
        'mmliir propagate': lambda *more: run(
            *('mmliir', 'propagate', root / 'JPEGImages' / '480p' / 'v0', '--mask', mask, '--config', RAW_LAB),
            *('--out', out, *more),
        ),
        'tools/test.py': lambda *more: run(
            *('tools/test.py', RAW_LAB, '--task', 'davis2017', '--data-root', root, '--out', out, *more)
        ),
    }
    done = commands[program]('--compile')
    assert done.code == 0 and compiled == ['default'], done.err
    (card,) = out.rglob('run.json')
    assert json.loads(card.read_text())['input']['compiled'] is True
    assert 'input.compiled' in commands[program]().error()


def test_other_weights_another_protocol_and_another_size(davis, tmp_path):
    out = tmp_path / 'out'
    assert evaluate(davis, out, '--no-report').code == 0
    # Sizes and protocols have folders of their own: nothing is mixed, nothing has to be overwritten.
    assert evaluate(davis, out, '--no-report', '--short-side', 32).code == 0
    assert sorted(path.name for path in (out / 'davis2017').iterdir()) == ['quick', 'quick@32']
    refused = evaluate(davis, out, '--no-report', model='raw:rgb')
    assert 'model: "raw:lab" there, "raw:rgb" now' in refused.error()
    # The same file name with other weights in it.
    import torch

    feature, weights = tmp_path / 'feature.py', tmp_path / 'w.pth'
    feature.write_text(RANDOM_FEATURE)
    codes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, stride=4)).state_dict(), weights)
        options = ('--no-report', '--stride', 4, '--weights', weights)
        codes.append(evaluate(davis, tmp_path / 'w', *options, model=f'{feature}:random'))
    assert codes[0].code == 0 and 'checkpoint_sha256' in codes[1].error()


def test_a_changed_setting_of_the_protocol_is_named(davis, tmp_path):
    out = tmp_path / 'out'
    assert evaluate(davis, out, '--no-report').code == 0
    path = out / 'davis2017' / 'quick' / 'run.json'
    card = json.loads(path.read_text())
    card['settings']['radius'] += 1
    path.write_text(json.dumps(card))
    said = evaluate(davis, out, '--no-report').error()
    assert f'settings.radius: {card["settings"]["radius"]} there, {card["settings"]["radius"] - 1} now' in said


def test_predictions_of_nobody_are_not_mixed_in(davis, tmp_path):
    stray = tmp_path / 'out' / 'davis2017' / 'quick' / 'other' / '00000.png'
    stray.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stray)
    assert "holds another run's predictions" in evaluate(davis, tmp_path / 'out').error()


# -- wrong words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(on='davis2071'), "unknown benchmark 'davis2071'; did you mean 'davis2017'"),
        (dict(on='davis2017,davis2017'), "benchmark 'davis2017' is given twice"),
        (dict(on=','), 'give at least one benchmark'),
        (dict(options=('--protocol', 'crw2')), "unknown protocol 'crw2'; there are"),
        (dict(model='raw:xyz'), 'raw:xyz'),
        (dict(model='timm'), "'timm'"),
        (dict(model='nowhere.py:function'), 'nowhere.py'),
        (dict(model='configs/nowhere.py'), 'nowhere.py'),
        (dict(options=('--weights', 'nowhere.pth'), model=QUICKSTART), 'nowhere.pth'),
        (dict(options=('--sequences', 'v7')), "sequence 'v7' is not in"),
        (dict(on='vip'), 'VIP (human parts) not found in'),
        (dict(on='davis2017,vip'), 'VIP (human parts) not found in'),
    ],
)
def test_a_wrong_word_is_one_line_before_anything_is_computed(davis, tmp_path, changes, said):
    changes = dict(changes)
    done = evaluate(davis, tmp_path / 'out', *changes.pop('options', ()), **changes)
    assert said in done.error()
    assert done.out == '' and not (tmp_path / 'out').exists()


def test_a_data_root_that_is_not_there_is_one_line(tmp_path):
    done = evaluate(tmp_path / 'nowhere', tmp_path / 'out')
    assert 'nowhere: no such folder' in done.error() and not (tmp_path / 'out').exists()


def test_predictions_never_replace_the_data(davis):
    assert 'would replace the data set itself' in evaluate(davis, davis / 'davis2017').error()


def test_a_score_of_0_is_said_in_words(davis, tmp_path):
    layers = 'torch.nn.AvgPool2d(4), torch.nn.Threshold(9e9, 1.0)'  # the same everywhere
    (tmp_path / 'flat.py').write_text(f'import torch\ndef flat():\n    return torch.nn.Sequential({layers})\n')
    model = f'{tmp_path / "flat.py"}:flat'
    done = evaluate(davis, tmp_path / 'out', '--stride', 4, '--protocol', 'liir_paper', model=model)
    assert done.code == 0, done.err
    said = '3 of 3 sequences score 0 in every frame: the labels are lost at once. Does liir_paper suit'
    assert said in done.err and said in (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    colours = evaluate(davis, tmp_path / 'colours', '--short-side', 192)
    assert colours.code == 0 and 'the labels are lost' not in colours.err


# -- real clips -------------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.slow
def test_real_masks_and_joints_under_two_protocols(data_root, tmp_path):
    """The same frames as masks and as joints; a second call computes nothing and changes nothing."""
    common = ('--protocol', 'crw,liir_paper', '--sequences', 'horsejump-high', '--short-side', 60)
    done = evaluate(data_root, tmp_path, *common, on='davis2016,badja')
    assert done.code == 0, done.err
    assert '1 of 9 (published scores: 20)' in done.out and '1 of 2 (published scores: 7)' in done.out
    masks, points = (
        json.loads((tmp_path / name / 'crw@60' / 'summary.json').read_text())['result']['metrics']
        for name in ('davis2016', 'badja')
    )
    assert 0.1 < masks['jf_mean'] < 0.8 and 0.02 < points['pck@0.2'] < 0.5
    before = contents(tmp_path)
    again = evaluate(data_root, tmp_path, *common, on='davis2016,badja')
    assert (again.code, again.out) == (0, done.out) and contents(tmp_path) == before


# -- names and features -----------------------------------------------------------------------------------------------


def test_names_of_sequences_are_text_everywhere(tmp_path):
    names = ['größe 二', 'a b,"c"', "<img src=x onerror=alert(1)>&'", '=1+1', '[bold]x']
    root = tmp_path / 'data' / 'tapvid_davis'
    from mmliir.testing import synthetic_tapvid

    tracks = [synthetic_tapvid.generate_tracks(seed, 4, name=name) for seed, name in enumerate(names)]
    root.mkdir(parents=True)
    synthetic_tapvid._write(root / 'tapvid_davis.pkl', tracks, True, 'davis')
    done = evaluate(tmp_path / 'data', tmp_path / 'out', '--short-side', 32, on='tapvid_davis')
    assert done.code == 0, done.err
    folder = tmp_path / 'out' / 'tapvid_davis' / 'quick@32'
    assert set(names) < {path.name for path in folder.iterdir()}
    page = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    assert '<img src=x' not in page and '&lt;img src=x onerror=alert(1)&gt;&amp;&#x27;' in page
    assert 'größe 二' in page and 'a b,&quot;c&quot;' in page
    with open(folder / 'per_sequence.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == [names[0], names[1], names[2], "'=1+1", names[4]]
    assert list(read_csv(folder / 'per_sequence.csv')[0]) == names
    assert all(name in done.out for name in names)


@pytest.mark.parametrize('kind', ['file', 'rgb', 'config'])
def test_every_form_of_a_feature_goes_through_the_command(kind, davis, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'import torch\ndef pooled():\n    return torch.nn.AvgPool2d(4)\n', encoding='utf-8'
    )
    model, options = {
        'file': (f'{tmp_path / "mine.py"}:pooled', ('--stride', 4)),
        'rgb': ('raw:rgb', ()),
        'config': (QUICKSTART, ('--weights', 'untrained', '--seed', 3)),
    }[kind]
    done = evaluate(davis, tmp_path / 'out', '--sequences', 'v0', '--no-report', *options, model=model)
    assert done.code == 0, done.err
    card = json.loads((tmp_path / 'out' / 'davis2017' / 'quick' / 'run.json').read_text())
    assert card['seed'] == (3 if kind == 'config' else None)
    assert card['colour_space'] == {'file': 'rgb', 'rgb': 'rgb', 'config': 'lab'}[kind]


def test_a_config_and_its_short_name_give_the_same_scores(davis, tmp_path):
    for number, model in enumerate(('raw:lab', str(RAW_LAB))):
        assert evaluate(davis, tmp_path / str(number), '--sequences', 'v0', '--no-report', model=model).code == 0
    one, two = (
        json.loads((tmp_path / str(n) / 'davis2017' / 'quick' / 'scores.json').read_text()) for n in range(2)
    )
    assert one['metrics'] == two['metrics']
