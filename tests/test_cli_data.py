"""`mmliir data` as a user types it."""

import json
import zipfile

import pytest
from command_cases import run

from mmliir.datasets.catalog import CATALOG
from mmliir.testing.synthetic import generate_videos, write_davis_layout


@pytest.fixture
def data(tmp_path):
    for year in (2016, 2017):
        write_davis_layout(tmp_path / 'data' / f'davis{year}', generate_videos([1, 2], 3, (48, 64)), year=year)
    return tmp_path / 'data'


def test_the_list_has_every_data_set_and_benchmark(data):
    done = run('mmliir', 'data', 'list')
    assert done.code == 0
    for name, entry in CATALOG.items():
        assert name in done.out and all(benchmark in done.out for benchmark in entry.benchmarks)
    done = run('mmliir', 'data', 'list', '--data-root', data)
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert rows['davis2016'].split()[-1] == 'davis2016' and rows['vip'].split()[-1] == '-'
    done = run('mmliir', 'data', 'list', '--data-root', data / 'davis2017')
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert rows['davis2017'].split()[-1] == '.' and rows['davis2016'].split()[-1] == '-'


@pytest.mark.parametrize('name', CATALOG)
def test_the_details_of_each_say_where_to_get_it(name):
    done, entry = run('mmliir', 'data', 'list', name), CATALOG[name]
    assert done.code == 0
    said = ' '.join(done.out.split())
    for text in (entry.homepage, entry.licence, entry.counts, *entry.sources, *entry.layout):
        assert ' '.join(text.split()) in said
    assert f'docs/datasets.md#{entry.section}' in said


def test_the_doctor_ends_by_what_can_be_used(data, tmp_path):
    done = run('mmliir', 'data', 'doctor', '--data-root', data, '--out', tmp_path / 'd.json')
    assert done.code == 3, done.err
    assert 'davis2016: 2 of the 20 published sequences; the list has 2' in done.out
    assert 'davis2017: 2 of the 30 published sequences; the list has 2' in done.out
    assert list(json.loads((tmp_path / 'd.json').read_text())) == ['davis2016', 'davis2017']
    (data / 'davis2017' / 'JPEGImages' / '480p' / 'seed00001' / '00001.jpg').write_bytes(b'')
    done = run('mmliir', 'data', 'doctor', '--data-root', data, 'davis2017')
    assert done.code == 3 and 'evaluate what is whole: --on davis2017 --sequences seed00002' in done.out
    (data / 'davis2017' / 'JPEGImages' / '480p').rename(data / 'elsewhere')
    assert run('mmliir', 'data', 'doctor', '--data-root', data, 'davis2017').code == 2


def test_the_doctor_refuses_in_one_line(data, tmp_path):
    assert 'unknown data set' in run('mmliir', 'data', 'doctor', '--data-root', data, 'davis').error()
    assert 'VIP (human parts) not found' in run('mmliir', 'data', 'doctor', '--data-root', data, 'vip').error()
    assert 'no such folder' in run('mmliir', 'data', 'doctor', '--data-root', tmp_path / 'none').error()
    (tmp_path / 'empty').mkdir()
    assert 'no data set found in' in run('mmliir', 'data', 'doctor', '--data-root', tmp_path / 'empty').error()
    assert 'is a folder' in run('mmliir', 'data', 'doctor', '--data-root', data, '--out', data).error()


def test_data_are_unpacked_shrunk_and_listed(data, tmp_path):
    with zipfile.ZipFile(tmp_path / 'davis.zip', 'w') as archive:
        for path in sorted((data / 'davis2017').rglob('*')):
            archive.write(path, path.relative_to(data))
    done = run('mmliir', 'data', 'prepare', 'extract', tmp_path / 'davis.zip', '--into', tmp_path / 'new')
    assert done.code == 0 and '13 files' in done.out and done.out.strip().endswith('davis2017')
    folders = tmp_path / 'new' / 'davis2017', tmp_path / 'small'
    done = run('mmliir', 'data', 'prepare', 'resize', *folders, '--short-side', 24, '--jobs', 2)
    assert done.code == 0 and '12 images written, 0 were there, 1 list copied' in done.out
    frames = tmp_path / 'small' / 'JPEGImages'
    done = run('mmliir', 'data', 'prepare', 'list', frames, '--out', tmp_path / 'list.tsv')
    assert done.code == 0 and '2 videos, 6 frames' in done.out
    assert (tmp_path / 'list.tsv').read_text().splitlines()[0] == '480p/seed00001\t3\t24\t32'
    (tmp_path / 'davis.zip').write_bytes(b'')
    error = run('mmliir', 'data', 'prepare', 'extract', tmp_path / 'davis.zip', '--into', tmp_path / 'new').error()
    assert 'no archive that can be read' in error


def test_every_help_has_an_example():
    for command in ((), ('list',), ('doctor',), *(('prepare', name) for name in ('extract', 'resize', 'list'))):
        done = run('mmliir', 'data', *command, '--help')
        assert done.code == 0 and 'example' in done.out and 'mmliir data' in done.out


@pytest.mark.real
def test_the_doctor_on_real_data(data_root):
    done = run('mmliir', 'data', 'doctor', '--data-root', data_root)
    assert done.code == 3
    for row in ('davis2016: 9 of the 20', 'davis2017: 4 of the 30', 'badja: 2 of the 7'):
        assert f'{row} published sequences' in done.out
