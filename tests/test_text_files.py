"""Text files of others: with a byte order mark they mean the same, and what is no UTF-8 is named, never a traceback."""

import codecs
import json
import shutil
from pathlib import Path

import pytest
from command_cases import RAW_LAB, make_ids, run, write_frames
from replicas import write_perfect, write_replicas

from mmliir.datasets import write_label_map
from mmliir.evaluation.benchmarks import open_benchmark
from mmliir.evaluation.summary import read_csv, read_summary

pytestmark = pytest.mark.usefixtures('one_thread')
#: Benchmark -> the text files of its small copy.
LISTS = {
    'davis2016': 'davis2016/ImageSets/**/*.txt',
    'davis2017': 'davis2017/ImageSets/2017/val.txt',
    'vip': 'vip/VIP_Fine/lists/*.txt',
    'vip_instance': 'vip/VIP_Fine/Annotations/Instance_ids/*/*.txt',
    'jhmdb': 'jhmdb/**/*.txt',
    'badja': 'badja/joint_annotations/*.json',
    'youtube_vos_holdout': 'youtube_vos2018/train/meta.json',
}
ENCODINGS = {'utf-8-sig': codecs.BOM_UTF8, 'utf-16': codecs.BOM_UTF16_LE}


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    pytest.importorskip('scipy')
    return write_replicas(tmp_path_factory.mktemp('whole'), tuple(LISTS))


@pytest.fixture
def case(whole, tmp_path, request):
    """(benchmark, data root, predictions, text files)."""
    root = tmp_path / 'data'
    shutil.copytree(whole, root)
    write_perfect(open_benchmark(request.param, root), tmp_path / 'pred')
    files = sorted(root.glob(LISTS[request.param]))
    assert files
    return request.param, root, tmp_path / 'pred', files


def score(benchmark, root, pred):
    return run('mmliir', 'score', benchmark, '--pred', pred, '--data-root', root)


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('case', LISTS, indirect=True)
def test_a_byte_order_mark_changes_nothing(case, encoding):
    benchmark, root, pred, files = case
    if benchmark == 'vip_instance' and encoding == 'utf-16':
        pytest.skip('numbers alone; what follows them may be in any encoding')
    expected = score(benchmark, root, pred)
    for path in [*files, *pred.glob('*/*.txt')]:
        if encoding == 'utf-16' and path.is_relative_to(pred):
            continue
        path.write_bytes(path.read_text().replace('\n', '\r\n').encode(encoding))
        assert path.read_bytes().startswith(ENCODINGS[encoding])
    assert expected.code == 0 and score(benchmark, root, pred) == expected


@pytest.mark.parametrize('case', [name for name in LISTS if name != 'vip_instance'], indirect=True)
def test_another_encoding_is_named_with_its_file(case):
    benchmark, root, pred, files = case
    for path in files:
        path.write_bytes('größe\n'.encode('latin-1') + path.read_bytes())
    said = score(benchmark, root, pred).error()
    assert any(path.name in said for path in files) and 'no UTF-8 text' in said and 'Save it as UTF-8' in said


def test_results_may_go_through_an_editor(tmp_path, whole):
    out = tmp_path / 'out'
    common = ('--on', 'davis2017', '--protocol', 'quick', '--data-root', whole, '--jobs', 1, '--no-report')
    assert run('mmliir', 'eval', '--model', 'raw:lab', *common, '--out', out).code == 0
    folder = out / 'davis2017' / 'quick'
    summary, rows = read_summary(folder), read_csv(folder / 'per_sequence.csv')
    for name in ('summary.json', 'per_sequence.csv', 'run.json'):
        (folder / name).write_bytes(codecs.BOM_UTF8 + (folder / name).read_bytes())
    assert read_summary(folder) == summary and read_csv(folder / 'per_sequence.csv') == rows
    again = run('mmliir', 'eval', '--model', 'raw:lab', *common, '--out', out)
    assert again.code == 0, again.err
    assert run('mmliir', 'compare', folder, folder, '--out', tmp_path / 'c.html').code == 0
    for name in ('summary.json', 'run.json'):
        (folder / name).write_bytes('{"größe": 1}'.encode('latin-1'))
    assert 'summary.json is no UTF-8 text' in run('mmliir', 'compare', folder, folder).error()
    assert 'run.json is no UTF-8 text' in run('mmliir', 'eval', '--model', 'raw:lab', *common, '--out', out).error()


@pytest.mark.parametrize('where', ['itself', 'base'])
@pytest.mark.parametrize('kind', ['latin-1', 'mark'])
def test_a_config_that_cannot_be_read_is_named(tmp_path, where, kind):
    base, config = tmp_path / 'base.py', tmp_path / 'mine.py'
    base.write_text(f'_base_ = [{str(RAW_LAB)!r}]\n')
    config.write_text("_base_ = ['./base.py']\n")
    bad = config if where == 'itself' else base
    bad.write_bytes(
        bad.read_bytes() + '# größe\n'.encode('latin-1') if kind == 'latin-1' else codecs.BOM_UTF8 + bad.read_bytes()
    )
    write_label_map(tmp_path / 'mask.png', make_ids())
    clip = write_frames(tmp_path / 'clip', 2)
    done = run(
        *('mmliir', 'propagate', clip, '--mask', tmp_path / 'mask.png', '--out', tmp_path / 'out', '--config', config),
        *('--protocol', 'quick'),
    )
    said = done.error()
    assert str(bad) in said
    assert ('no UTF-8 text' if kind == 'latin-1' else 'byte order mark') in said


def test_a_list_of_the_official_form_with_a_mark_names_its_first_sequence(tmp_path, whole):
    shutil.copytree(whole / 'davis2016', tmp_path / 'davis2016')
    for path in (tmp_path / 'davis2016' / 'ImageSets').rglob('*.txt'):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    task = open_benchmark('davis2016', tmp_path)
    assert task.dataset.names == open_benchmark('davis2016', whole).dataset.names
    assert json.dumps(task.dataset.names).isascii()
