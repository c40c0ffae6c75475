"""Two runs compared: refused when they are not alike, and what they share is what is said."""

import argparse
import math
from dataclasses import replace

import numpy as np
import pytest
from result_cases import EVIL, card, result, sequence

from mmliir.cli.compare import add_compare
from mmliir.evaluation.compare import compare, comparison_report, verdict_text, write_comparison
from mmliir.evaluation.compare_tables import sequence_table
from mmliir.evaluation.functional import paired_difference
from mmliir.evaluation.protocol import DataFingerprint
from mmliir.evaluation.summary import make_summary, write_summary

NAMES = [f's{n:02d}' for n in range(12)]


def run(gain=0.0, names=NAMES, model='a', changes=None, **card_changes):
    rows = [sequence(name, 0.2 + 0.05 * n + gain, 0.3 + 0.02 * n + gain) for n, name in enumerate(names)]
    values = result(rows, **{'num_in_split': len(NAMES), **(changes or {})})
    return make_summary(values, card(model=model, **card_changes))


def main(argv) -> int:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    args = parser.parse_args(list(map(str, argv)))
    return args.run(args)


def test_differences_are_second_minus_first_on_the_same_resamples():
    rng = np.random.default_rng(0)
    rows = [
        [sequence(name, *rng.uniform(0.2, 0.9, 2)) for name in NAMES],
        [sequence(name, *rng.uniform(0.2, 0.9, 2)) for name in NAMES],
    ]
    found = compare(*(make_summary(result(part), card()) for part in rows))
    ones = np.ones((len(NAMES), 1))
    for name in ('jf_mean', 'j_mean', 'f_mean'):
        a, b = (np.array([[row.metrics[name]] for row in part]) for part in rows)
        expected = paired_difference((a, ones), (b, ones))
        assert found.metrics[name].interval.value == pytest.approx(b.mean() - a.mean())
        assert found.metrics[name].interval.low == pytest.approx(expected.interval.low)
        assert found.metrics[name].sign_flips == expected.sign_flips
    assert [row.difference for row in found.sequences] == pytest.approx(
        [b.metrics['jf_mean'] - a.metrics['jf_mean'] for a, b in zip(*rows, strict=True)]
    )


def test_an_even_gain_is_certain_and_no_gain_is_not():
    found = compare(run(), run(0.05))
    assert found.metrics['jf_mean'].interval.low == pytest.approx(0.05)
    assert '+5.0 points J&F' in verdict_text(found) and 'excludes 0' in verdict_text(found)
    assert 'holds 0' in verdict_text(compare(run(), run()))
    back = compare(run(0.05), run())
    assert back.metrics['jf_mean'].interval.value == pytest.approx(-0.05) and 'excludes 0' in verdict_text(back)


def test_only_sequences_of_both_are_compared_and_the_others_are_named():
    lost = (('s11', 'no file'),)
    first, second = run(), run(0.1, NAMES[:11], changes={'missing': lost})
    found = compare(first, second, ('old', 'new'))
    assert len(found.sequences) == 11 and found.only_first == ('s11',) and found.only_second == ()
    shared = [row.metrics['j_mean'] for row in first.result.sequences[:11]]
    assert found.metrics['j_mean'].first == pytest.approx(np.mean(shared))
    assert found.metrics['j_mean'].interval.value == pytest.approx(0.1)
    assert any('old has 12 of 12 sequences; 11 of them' in text for text in found.warnings)
    assert any('new: Incomplete' in text for text in found.warnings)
    assert 'Only in old, left out: s11.' in comparison_report(found).notes


def test_a_metric_that_is_no_ratio_is_known_for_all_sequences_only():
    def with_ap(summary, value):
        return replace(summary, result=replace(summary.result, metrics={**summary.result.metrics, 'ap': value}))

    found = compare(with_ap(run(), 0.4), with_ap(run(), 0.5)).metrics['ap']
    assert found.interval.value == pytest.approx(0.1) and math.isnan(found.interval.low)
    part = compare(with_ap(run(), 0.4), with_ap(run(0, NAMES[:5]), 0.5)).metrics['ap']
    assert math.isnan(part.first) and math.isnan(part.second)


@pytest.mark.parametrize(
    ('second', 'message'),
    [
        (run(changes={'benchmark': 'vip'}), "benchmark is 'davis2017' in A and 'vip' in B"),
        (run(changes={'split': 'train'}), "split is 'val' in A and 'train' in B"),
        (run(changes={'metric_version': 'davis-2'}), "metric version is 'davis-1' .* score both with one version"),
        (run(changes={'metrics': {'j_mean': 0.5}}), "headline is 'jf_mean'"),
        (run(data=DataFingerprint(9, 582, 'cd' * 32)), '3 sequences, 210 frames, in A; .* 9 sequences, 582 frames'),
        (replace(run(), card=None), 'B does not say which data'),
        (replace(run(), card={'data': 'x'}), 'B does not say which data'),
        (run(names=['other']), 'no scored sequence in common'),
    ],
)
def test_what_cannot_be_compared_is_refused_and_says_what_differs(second, message):
    with pytest.raises(ValueError, match=message):
        compare(run(), second)


def test_settings_that_differ_are_listed_and_the_data_are_not():
    found = compare(run(), run(model='b', protocol='crw', settings={'radius': 6, 'topk': 10}))
    assert found.changes == (
        ('model', 'a', 'b'),
        ('protocol', 'liir_davis', 'crw'),
        ('settings.radius', 12, 6),
    )


def test_the_page_escapes_names_and_has_a_bar_a_sequence(tmp_path):
    names = [EVIL, *NAMES[1:]]
    found = compare(run(names=names), run(0.05, names=names), (EVIL, 'b'))
    text = write_comparison(tmp_path / 'c.html', found).path.read_text()
    assert 'alert("x")' not in text and text.count('<script>') == 1
    assert text.count('<title>') == 1 + len(NAMES), 'a tooltip a bar, and the title'
    assert '+5.0' in text
    assert write_comparison(tmp_path / 'd.html', found).path.read_bytes() == (tmp_path / 'c.html').read_bytes()


def test_the_command_prints_and_writes(tmp_path, capsys):
    for name, summary in (('one', run()), ('two', run(0.05, model='b'))):
        write_summary(tmp_path / name, summary)
    assert main(['compare', tmp_path / 'one', tmp_path / 'two' / 'summary.json', '--out', tmp_path / 'c.html']) == 0
    said = capsys.readouterr()
    for word in ('J&F', '+5.0', 's00', '12 sequences in both', 'excludes 0', 'c.html'):
        assert word in said.out
    assert (tmp_path / 'c.html').is_file()


def test_the_command_refuses_before_it_writes(tmp_path):
    write_summary(tmp_path / 'one', run())
    write_summary(tmp_path / 'two', run(changes={'metric_version': 'davis-2'}))
    with pytest.raises(ValueError, match='davis-2'):
        main(['compare', tmp_path / 'one', tmp_path / 'two', '--out', tmp_path / 'c.html'])
    with pytest.raises(ValueError, match=r'\.html'):
        main(['compare', tmp_path / 'one', tmp_path / 'one', '--out', tmp_path / 'c.pdf'])
    with pytest.raises(FileNotFoundError, match='three'):
        main(['compare', tmp_path / 'one', tmp_path / 'three'])
    assert not list(tmp_path.glob('c.*'))


def test_of_many_sequences_the_largest_losses_and_gains_are_printed_once():
    names = [f'{n:03d}' for n in range(41)]
    first = make_summary(result([sequence(name, 0.5) for name in names]), card())
    second = make_summary(result([sequence(name, 0.3 + n / 100) for n, name in enumerate(names)]), card())
    rows = list(sequence_table(compare(first, second)).columns[0].cells)
    shown = [str(cell) for cell in rows]
    assert shown == names[:20] + names[21:]


def test_what_both_runs_lack_is_said_once():
    part = {'num_in_split': 30}
    rows = [run(changes=part), run(0.1, changes=part)]
    warning, few = compare(*rows).warnings
    assert warning.startswith('Both runs: Part of the data set: 12 of 30')
    assert few == '12 sequences are few: intervals over so few are too narrow.'


def test_another_way_of_computing_is_said():
    """Rounding alone can move a score by a tenth of a point."""
    ways = [{'precision': 'float32', 'affinity': name} for name in ('native on cpu', 'torch on cpu')]
    found = compare(*(run(input=way) for way in ways))
    assert 'affinity: native on cpu, torch on cpu' in found.warnings[0] and 'precision' not in found.warnings[0]
    assert not any('other ways' in text for text in compare(run(input=ways[0]), run(input=ways[0])).warnings)
