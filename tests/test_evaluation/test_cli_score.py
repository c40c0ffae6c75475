"""`mmliir score` as a user types it."""

import json
import subprocess
import sys

import pytest
from davis_cases import write_dataset

from mmliir.cli import main
from mmliir.version import __version__


@pytest.fixture
def data(tmp_path):
    return tmp_path, write_dataset(tmp_path, ['three-frames', 'tall'])


def _score(root, predictions, *more):
    return main(['score', 'davis2017', '--pred', str(predictions), '--data-root', str(root), *map(str, more)])


def test_table_json_and_exit_code(data, capsys):
    root, predictions = data
    out = root / 'results' / 'scores.json'
    assert _score(root, predictions, '--out', out, '--jobs', 2) == 0
    said = capsys.readouterr()
    result = json.loads(out.read_text())
    for word in ('three-frames', 'tall', 'data set', '2 of 2 sequences', f'{100 * result["jf_mean"]:.1f}', 'davis2017'):
        assert word in said.out
    assert result['num_sequences'] == 2 and result['num_objects'] == 5
    assert result['run_card'] is None
    assert 'note: 2 sequences' in said.err


def test_the_run_card_travels_with_the_scores(data):
    root, predictions = data
    (predictions / 'run.json').write_text('{"protocol": "liir_davis"}')
    assert _score(root, predictions, '--out', root / 's.json') == 0
    assert json.loads((root / 's.json').read_text())['run_card'] == {'protocol': 'liir_davis'}


def test_sequences_are_chosen_by_name(data, capsys):
    root, predictions = data
    assert _score(root, predictions, '--sequences', 'tall') == 0
    said = capsys.readouterr()
    assert 'three-frames' not in said.out and 'tall' in said.out


def test_what_is_there_is_scored_and_the_rest_is_named_with_exit_code_3(data, capsys):
    root, predictions = data
    assert _score(root, predictions, '--sequences', 'three-frames', '--out', root / 'alone.json') == 0
    (predictions / 'tall' / '00003.png').unlink()
    assert _score(root, predictions, '--out', root / 's.json') == 3
    said = capsys.readouterr()
    assert 'not scored: tall: 1 of 7 scored frames have no prediction (00003.png)' in said.err
    assert 'note: 1 of the 2 sequences' in said.err
    alone, both = (json.loads((root / name).read_text()) for name in ('alone.json', 's.json'))
    assert both['jf_mean'] == alone['jf_mean']
    assert both['missing'] == [['tall', '1 of 7 scored frames have no prediction (00003.png)']]


def test_an_error_is_one_line_and_exit_code_2(data, capsys):
    root, predictions = data
    for name in ('tall', 'three-frames'):
        for path in (predictions / name).iterdir():
            path.unlink()
    assert _score(root, predictions, '--out', root / 's.json') == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.strip().count('\n') == 0
    assert said.err.startswith('mmliir: error: ') and 'nothing to score, none of 2 sequences is complete' in said.err
    assert not (root / 's.json').exists()
    assert _score(root / 'nowhere', predictions) == 2
    assert _score(root, predictions, '--sequences', 'nobody') == 2
    assert _score(root, predictions, '--out', root) == 2


def test_the_traceback_is_there_for_who_asks(data, monkeypatch):
    root, _ = data
    monkeypatch.setenv('MMLIIR_TRACEBACK', '1')
    with pytest.raises(FileNotFoundError):
        _score(root, root / 'nowhere')


@pytest.mark.parametrize('argv', [[], ['score'], ['score', 'davis2018'], ['nothing']])
def test_wrong_arguments_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert 'usage: mmliir' in capsys.readouterr().err


def test_version_and_help(capsys):
    for argv, word in (
        (['--version'], __version__),
        (['--help'], 'score'),
        (['score', '--help'], 'examples:'),
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        assert word in capsys.readouterr().out


def test_module_runs_as_a_program(tmp_path):
    command = [
        sys.executable,
        '-m',
        'mmliir',
        'score',
        'davis2017',
        '--pred',
        'x',
        '--data-root',
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('mmliir: error: ') and 'Traceback' not in done.stderr
