"""Tables on the terminal: what is left out is said, names are text, widths fit."""

import io

import pytest
from result_cases import result, sequence
from rich.console import Console

from mmliir.evaluation.tables import result_table, score_text, summary_table, worst_first
from mmliir.evaluation.wording import coverage_text, incompleteness, interval_text, is_complete, metric_label, percent


def shown(table, width=100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def few(**changes):
    return result([sequence('goat', 0.5), sequence('bear', 0.75), sequence('[red]camel', 0.625, 0.0)], **changes)


def test_every_sequence_and_the_data_set_with_its_interval_stand_there():
    text = shown(result_table(few(num_in_split=30)))
    assert 'davis2017 val, 3 of 30 sequences' in text
    lines = [line.split() for line in text.splitlines()]
    assert ['goat', '50.0', '50.0', '50.0', '-1.0'] in lines
    assert ['[red]camel', '31.2', '62.5', '0.0', '-1.0'] in lines, 'a name was taken for markup'
    assert ['data', 'set', '52.1', '62.5', '41.7', '-1.0'] in lines
    assert any(line[:3] == ['95', '%', 'from'] for line in lines) and any(line[:1] == ['to'] for line in lines)


def test_of_many_sequences_the_worst_stand_there_and_a_line_says_so():
    rows = [sequence(f's{n:03d}', 0.9 - n / 100) for n in range(41)]
    text = shown(result_table(result(rows)))
    assert 'the 20 worst of 41 sequences' in text
    assert 's040' in text and 's021' in text and 's020' not in text
    text = shown(result_table(result(rows[:40])))
    assert 'worst' not in text and all(f's{n:03d}' in text for n in range(40))


def test_missing_sequences_are_rows_and_a_warning():
    text = shown(result_table(few(missing=(('lost', 'no file'),))))
    assert 'lost (missing)' in text and 'INCOMPLETE: 1' in text


def test_one_sequence_has_no_interval():
    assert '95 %' not in shown(result_table(result([sequence('goat', 0.5)])))


def test_it_fits_into_80_columns():
    assert max(map(len, shown(result_table(few()), width=80).splitlines())) <= 80


def test_benchmarks_are_rows_and_protocols_columns():
    part = few(num_in_split=30)
    other = result([sequence('a', 0.25)], benchmark='vip')
    text = shown(summary_table([('m', 'crw', few()), ('m', 'dino', few()), ('m', 'crw', other), ('m', 'dino', part)]))
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[0][0] == 'm:' and lines[1][-2:] == ['crw', 'dino']
    assert ['davis2017', 'val', 'J&F', '3', 'of', '3', '52.1', '±', *lines[3][8:]] == lines[3]
    assert lines[4] == ['vip', 'val', 'J&F', '1', 'of', '1', '25.0']
    assert lines[5][:6] == ['davis2017', 'val', 'J&F', '3', 'of', '30'], 'a part of the data set stands by itself'


def test_models_get_a_column_when_there_are_two_and_two_results_for_one_place_are_refused():
    text = shown(summary_table([('a', 'crw', few()), ('b', 'crw', few(missing=(('x', 'y'),)))]))
    assert 'model' in text and '*' in text and 'could not be scored' in text
    with pytest.raises(ValueError, match='two results for a, davis2017 val, protocol crw'):
        summary_table([('a', 'crw', few()), ('a', 'crw', few())])
    with pytest.raises(ValueError, match='one result'):
        summary_table([])


def test_worst_first_puts_what_has_no_value_last():
    rows = [sequence('a', 0.5), sequence('b', float('nan')), sequence('c', 0.1), sequence('d', 0.5)]
    assert [row.name for row in worst_first(result(rows))] == ['c', 'a', 'd', 'b']


def test_words():
    assert [metric_label(n) for n in ('jf_mean', 'j_recall', 'pck@0.1', 'miou', 'my_own')] == [
        'J&F', 'J recall', 'PCK@0.1', 'mIoU', 'my own',
    ]  # fmt: skip
    assert [percent(v) for v in (0.6123, None, float('nan'), -0.0001)] == ['61.2', '–', '–', '0.0']
    assert percent(0.05, signed=True) == '+5.0' and percent(0.0, signed=True) == '0.0'
    assert score_text(few(missing=(('x', 'y'),))).endswith('*')


@pytest.mark.parametrize(
    ('changes', 'complete', 'text', 'sentence'),
    [
        ({}, True, '3 of 3 sequences', None),
        ({'num_published': 3}, True, '3 of 3 sequences', None),
        ({'num_published': 30}, True, '3 of 3 sequences (published scores: 30)', 'Not the published list'),
        ({'num_in_split': 9}, False, '3 of 9 sequences', 'Part of the data set: 3 of 9'),
        ({'missing': (('x', 'y'),), 'num_in_split': 4}, False, '3 of 4 sequences', 'Incomplete: 1 of the 4'),
    ],
)
def test_n_of_n_is_said_and_what_it_means(changes, complete, text, sentence):
    found = few(**changes)
    assert is_complete(found) is complete and coverage_text(found) == text
    said = incompleteness(found)
    assert said is None if sentence is None else sentence in said


def test_no_interval_is_a_dash():
    from mmliir.evaluation.functional import Interval

    assert interval_text(Interval(0.5, float('nan'), float('nan'), 'x')) == '–'
    assert interval_text(Interval(0.5, -0.04, 0.6), signed=True) == '-4.0 to +60.0'
