"""`summary.json` and `per_sequence.csv`: nothing gets lost, nothing executes, the same run gives the same bytes."""

import csv
import json
import math
from dataclasses import replace

import pytest
from result_cases import EVIL, card, result, sequence

from mmliir.evaluation.metrics.results import combine
from mmliir.evaluation.summary import (
    intervals,
    make_summary,
    ratio_arrays,
    read_csv,
    read_summary,
    to_csv,
    write_summary,
)

NAMES = ['plain', 'a,b', 'two\nlines', 'qu"ote', 'größe 🦢', '=1+1', '+x', '-x', '@x', '\tx', "'x", "'=x", EVIL, '']


def full(**changes):
    rows = [sequence('goat', 0.5), sequence('bear', 0.75), sequence('camel', 0.625)]
    return result(rows, **changes)


def test_what_is_read_is_what_was_written(tmp_path):
    missing = (('lost', 'no file 00003.png'),)
    written = make_summary(
        full(missing=missing, notes=('n',)), card(), {'torch': '2'}, ['tools/test.py', '--task', 'x']
    )
    json_path, csv_path = write_summary(tmp_path / 'new', written)
    for path in (json_path, tmp_path / 'new'):
        read = read_summary(path)
        assert read == replace(written, card=card().to_dict())
    values = json.loads(json_path.read_text())
    assert values['coverage'] == {'scored': 3, 'missing': 1, 'in_split': 3, 'published': None, 'complete': False}
    assert values['intervals']['jf_mean']['value'] == pytest.approx(0.625)
    assert csv_path.name == 'per_sequence.csv'


def test_the_same_run_gives_the_same_bytes(tmp_path):
    paths = [write_summary(tmp_path / name, make_summary(full(), card())) for name in ('a', 'b')]
    for first, second in zip(*paths, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_a_value_that_is_not_there_is_null_and_comes_back_as_nan(tmp_path):
    row = replace(sequence('goat', 0.5), metrics={'jf_mean': math.nan, 'j_mean': 0.5})
    write_summary(tmp_path, make_summary(full(sequences=(row,), metrics={'j_mean': 0.5}), None))
    text = (tmp_path / 'summary.json').read_text()
    assert 'NaN' not in text and 'Infinity' not in text
    read = read_summary(tmp_path)
    assert math.isnan(read.result.sequences[0].metrics['jf_mean']) and read.card is None
    assert math.isnan(read.intervals['j_mean'].low) and '1 sequence' in read.intervals['j_mean'].note
    scores, _ = read_csv(tmp_path / 'per_sequence.csv')
    assert math.isnan(scores['goat']['jf_mean']) and scores['goat']['j_mean'] == 0.5


def test_only_ratios_have_an_interval():
    found = intervals(full(metrics={'jf_mean': 0.625, 'ap': 0.4}))
    assert list(found) == ['jf_mean']
    assert found['jf_mean'].value == pytest.approx(combine(full().sequences, 'jf_mean'))
    assert found['jf_mean'].low < found['jf_mean'].value < found['jf_mean'].high
    assert intervals(full(sequences=())) == {}


def test_an_interval_around_another_value_is_none():
    found = intervals(full(metrics={'jf_mean': 0.6}))['jf_mean']
    assert found.value == 0.6 and math.isnan(found.low) and '0.6250, the metric says 0.6000' in found.note


def test_ragged_groups_are_named():
    rows = [sequence('a', 0.5), replace(sequence('b', 0.5), ratios={'jf_mean': ((1.0, 2.0), (1.0, 1.0))})]
    with pytest.raises(ValueError, match=r'jf_mean: .* \[1, 2\]'):
        ratio_arrays(rows, 'jf_mean')


def test_csv_keeps_every_name_and_digit(tmp_path):
    rows = [sequence(name, (n + 1) / 31, 1 / 3) for n, name in enumerate(NAMES)]
    _, path = write_summary(tmp_path, make_summary(result(rows, missing=(('=gone', '-no, "file"\n'),)), card()))
    scores, missing = read_csv(path)
    assert scores == {row.name: dict(row.metrics) for row in rows}
    assert missing == {'=gone': '-no, "file"\n'}


def test_no_text_cell_is_a_formula():
    text = to_csv(result([sequence(name, 0.5) for name in NAMES], missing=(('@gone', '=cmd()'),)))
    rows = list(csv.reader(text.splitlines(keepends=True)))
    assert rows[0] == ['sequence', 'jf_mean', 'j_mean', 'f_mean', 'j_decay', 'missing']
    for row in rows:
        for cell in (row[0], row[-1]):
            assert not cell.startswith(('=', '+', '-', '@', '\t', '\r'))
    assert [row[0] for row in rows if 'x' in row[0] and len(row[0]) < 5] == ["'+x", "'-x", "'@x", "'\tx", "''x", "''=x"]
    assert "'=1+1" in text and "'=cmd()" in text and ',-0.01,' in text  # a number may be negative
    assert text.count('\r\n') == len(rows) and text.endswith('\r\n')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'not JSON'),
        ('{', 'not JSON'),
        ('[' * 100_000, 'not JSON'),
        ('{"format": "mmliir-summary-1", "x": NaN}', 'not JSON'),
        ('[]', 'not a summary'),
        ('{"format": "mmliir-summary-99"}', "'mmliir-summary-99'"),
        ('{"format": "mmliir-summary-1"}', "'result' is missing"),
        ('{"format": "mmliir-summary-1", "result": 3}', 'damaged'),
    ],
)
def test_a_file_that_is_no_summary_is_named(tmp_path, content, message):
    path = tmp_path / 'summary.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_summary(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ('keys', 'value'),
    [
        (['result', 'sequences', 0, 'ratios', 'jf_mean'], []),
        (['result', 'sequences'], None),
        (['result', 'metrics'], {}),
        (['intervals', 'jf_mean'], 'high'),
        (['intervals', 'jf_mean', 'low'], 'low'),
        (['card'], ['x']),
        (['command'], 'rm'),
    ],
)
def test_a_damaged_summary_is_named(tmp_path, keys, value):
    path, _ = write_summary(tmp_path, make_summary(full(), card()))
    values = json.loads(path.read_text())
    place = values
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match='is damaged'):
        read_summary(path)


def test_a_summary_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='finished evaluation, or its folder$'):
        read_summary(tmp_path)


def test_the_evaluations_below_a_folder_are_named(tmp_path):
    for name in ('davis2016/crw', 'badja/crw'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'summary.json').write_text('{}')
    with pytest.raises(FileNotFoundError, match=f'Below it are {tmp_path}/badja/crw, {tmp_path}/davis2016/crw$'):
        read_summary(tmp_path)


@pytest.mark.parametrize('text', ['', 'name,j\r\n', 'sequence,j,missing\r\na,1\r\n'])
def test_a_csv_of_another_kind_is_named(tmp_path, text):
    (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(ValueError, match='x.csv'):
        read_csv(tmp_path / 'x.csv')
