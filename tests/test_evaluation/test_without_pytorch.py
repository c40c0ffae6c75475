"""Commands that need no network start without PyTorch, 3 s, and without MMEngine, 0.4 s."""

import json

import pytest
from command_cases import ROOT, start
from replicas import SCORED, write_perfect, write_replicas
from result_cases import card, result, sequence

from mmliir.components import Components
from mmliir.datasets import YouTubeVosDataset
from mmliir.evaluation.benchmarks import open_benchmark
from mmliir.evaluation.summary import make_summary, write_summary
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos

# argv of commands in JSON; prints each one's name, exit code and what it has loaded that it should not
PROGRAM = """
import contextlib, io, json, os, runpy, sys
for argv in json.loads(sys.argv[1]):
    sys.argv, out = list(argv), io.StringIO()
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if argv[0] == 'mmliir':
                from mmliir.cli import main
                code = main(argv[1:])
            else:
                runpy.run_path(argv[0], run_name='__main__')
        except SystemExit as stop:
            code = stop.code
    loaded = [name for name in ('torch', 'mmengine', 'mmcv') if name in sys.modules]
    print(json.dumps([argv[:3], code or 0, loaded, out.getvalue()[-300:] if code else '']))
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_replicas(tmp_path_factory.mktemp('data'))


def run_all(commands, folder, codes=(0,)) -> None:
    """Run commands one after the other in one process of their own, and look what it has loaded after each."""
    argv = [[str(word) for word in command] for command in commands]
    done = start('-c', PROGRAM, json.dumps(argv), cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(argv)
    assert [row for row in rows if row[1] not in codes or row[2]] == []


@pytest.mark.parametrize('benchmark', SCORED)
def test_scoring(benchmark, data, tmp_path):
    write_perfect(open_benchmark(benchmark, data), tmp_path / 'masks')
    out = tmp_path / 'scores.json'
    command = ['mmliir', 'score', benchmark, '--pred', tmp_path / 'masks', '--data-root', data, '--out', out]
    run_all([command], tmp_path)
    assert json.loads(out.read_text())['metrics']


def test_the_help_of_every_command(tmp_path):
    commands = ['', 'score', 'eval', 'propagate', 'data', 'data doctor', 'compare', 'convert', 'submit']
    tools = [[ROOT / 'tools' / name, '--help'] for name in ('train.py', 'test.py', 'evaluate.py')]
    run_all([['mmliir', *command.split(), '--help'] for command in commands] + tools, tmp_path)


def test_comparing(tmp_path):
    for name, gain in (('a', 0.0), ('b', 0.1)):
        rows = [sequence(f's{n}', 0.2 + 0.05 * n + gain) for n in range(4)]
        write_summary(tmp_path / name, make_summary(result(rows), card(model=name)))
    run_all([['mmliir', 'compare', tmp_path / 'a', tmp_path / 'b', '--out', tmp_path / 'page.html']], tmp_path)
    assert (tmp_path / 'page.html').stat().st_size > 1000


def test_data_and_archives(data, tmp_path):
    videos = write_youtube_vos(tmp_path / 'ytvos', num_valid=1, num_train=1, num_holdout=1)
    videos.write_perfect_predictions(tmp_path / 'masks', 'valid', YouTubeVosDataset(videos.root).names)
    frames = data / 'davis2016' / 'JPEGImages' / '480p'
    root, server = ('--data-root', data), ('--data-root', videos.root)
    commands = [
        ['data', 'list'],
        ['data', 'list', 'jhmdb', *root],
        ['data', 'doctor', *root, '--full'],
        ['data', 'prepare', 'list', frames, '--out', tmp_path / 'list.tsv'],
        ['data', 'prepare', 'resize', frames, tmp_path / 'small', '--short-side', '24'],
        ['submit', 'youtube_vos2018', *server, '--pred', tmp_path / 'masks', '--out', tmp_path / 'a.zip'],
        ['submit', 'youtube_vos2018', *server, '--check', tmp_path / 'a.zip'],
    ]
    run_all([['mmliir', *command] for command in commands], tmp_path, codes=(0, 3))  # 3: not all of a data set


def test_components_are_handed_on_and_the_engine_has_the_last_word():
    class Registry:
        def __init__(self):
            self.classes = {}

        def register_module(self, module):
            self.classes[module.__name__] = module

        def build(self, config):
            return 'built by the engine', config

    components = Components('json')

    @components.register_module()
    class Early:
        def __init__(self, number):
            self.number = number

    assert components.build({'type': 'Early', 'number': 3}).number == 3
    with pytest.raises(TypeError, match='unexpected keyword'):
        components.build({'type': 'Early', 'nummer': 3})
    registry = Registry()
    components.hand_to(registry)

    @components.register_module()
    class Late: ...

    assert registry.classes == {'Early': Early, 'Late': Late}
    assert components.build({'type': 'Theirs'}) == ('built by the engine', {'type': 'Theirs'})


def test_a_name_that_is_not_ours_is_asked_of_the_engine(tmp_path):
    program = (
        'from mmliir.components import METRICS\n'
        'try:\n    METRICS.build(dict(type="NoSuchMetric"))\n'
        'except KeyError as error:\n    print("registry" in str(error))'
    )
    assert start('-c', program, cwd=tmp_path).stdout == 'True\n'
