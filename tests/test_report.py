"""Reports: one file that asks for nothing, escapes names, leaves out what is None and keeps to its size."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mmliir.evaluation.report import Report, ScoreRow, ScoreTable, Verdict, write_report

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags with their attributes, headings, visible text; knows whether each tag is closed."""

    void = {'meta', 'img', 'br', 'link'}

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.open, self.headings, self.text = [], [], [], ''
        self.feed(source)
        assert not self.open, f'not closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f'</{tag}> closes nothing'

    def handle_data(self, data):
        if self.open and self.open[-1] == 'h2':
            self.headings.append(data)
        if self.open and self.open[-1] not in ('script', 'style'):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def noise(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(bytes(range(256)) * 40)
    return path


def full_report(video) -> Report:
    return Report(
        title=f'Quickstart {EVIL}',
        subtitle=EVIL,
        summary_rows=[
            ScoreRow('raw Lab', {'J&F': 0.5, 'J': 0.49, 'F': 0.51}),
            ScoreRow(EVIL, {'J&F': 0.6123, 'J': None, 'F': float('nan')}, EVIL, highlight=True),
        ],
        verdict=Verdict(False, f'1.0 below the margin {EVIL}'),
        loss_curves={EVIL: [(n, 1 / (n + 1)) for n in range(99)], 'loss_inter': [(0, float('nan'))]},
        tables=[
            ScoreTable(
                EVIL, (EVIL, 'J', 'frames'), ((EVIL, 0.25, 50), ('goat', None, 90)), bars=('J',), note=EVIL
            )
        ],
        over_time={EVIL: {'J': [0.9, 0.8], EVIL: [0.7, 0.6]}, 'goat': {'J': [float('nan')]}},
        pictures=[(EVIL, noise())],
        videos=[(EVIL, video)],
        card={EVIL: EVIL, 'settings': {'radius': 12, EVIL: [EVIL, 2]}},
        commands=[f'echo {EVIL} && true'],
        notes=[EVIL],
        environment={EVIL: EVIL},
    )


def written(path, report, **options) -> Page:
    write_report(path, report, **options)
    return Page(path.read_text(encoding='utf-8'))


def test_report_holds_everything_and_asks_for_nothing(tmp_path, video):
    page = written(tmp_path / 'new/report.html', full_report(video))
    source = (tmp_path / 'new/report.html').read_text(encoding='utf-8')
    assert not re.search(r'(?i)https?:|//[a-z]|@import|url\(', re.sub(r'base64,[\w+/=]+', '', source))
    for tag, attributes in page.tags:
        assert tag not in ('link', 'iframe', 'object', 'embed', 'base', 'form')
        for name in ('src', 'href', 'poster', 'data', 'srcset', 'xlink:href'):
            assert attributes.get(name, 'data:').startswith('data:'), (tag, attributes)
    policy = next(a['content'] for t, a in page.tags if a.get('http-equiv') == 'Content-Security-Policy')
    assert policy.startswith("default-src 'none'") and 'http' not in policy


def test_names_are_text_and_never_markup(tmp_path, video):
    page = written(tmp_path / 'report.html', full_report(video))
    source = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert page.count('script') == 1, 'a name became a script'
    assert 'alert("x")' not in source
    assert page.text.count('alert("x")') >= 15, 'names got lost'


def test_video_and_pictures_are_inside_byte_by_byte(tmp_path, video):
    picture = io.BytesIO()
    Image.fromarray(noise()).save(picture, 'PNG')
    report = Report('t', pictures=[('kept', picture.getvalue()), ('array', noise())], videos=[('v', video)])
    page = written(tmp_path / 'report.html', report)
    (clip,) = [a for tag, a in page.tags if tag == 'video']
    assert 'controls' in clip and clip['src'].startswith('data:video/mp4;base64,')
    assert base64.b64decode(clip['src'].split(',')[1]) == video.read_bytes()
    kept, array = [a['src'] for tag, a in page.tags if tag == 'img']
    assert base64.b64decode(kept.split(',')[1]) == picture.getvalue() and kept.startswith('data:image/png')
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(array.split(',')[1]))))
    assert array.startswith('data:image/jpeg') and decoded.shape == (40, 60, 3)


@pytest.mark.parametrize(
    ('part', 'heading'),
    [
        ('summary_rows', 'Scores'),
        ('loss_curves', 'Training'),
        ('over_time', 'Scores over time'),
        ('pictures', 'Pictures'),
        ('videos', 'Video'),
        ('card', 'Protocol card'),
        ('commands', 'How this was made'),
        ('notes', 'Notes'),
        ('environment', 'Environment'),
        ('tables', EVIL),
    ],
)
def test_a_part_that_is_none_takes_its_section_with_it_and_no_other(tmp_path, video, part, heading):
    report = full_report(video)
    everything = ''.join(written(tmp_path / 'all.html', report).headings)
    less = ''.join(written(tmp_path / 'less.html', replace(report, **{part: None})).headings)
    assert less == everything.replace(heading, '', 1)


def test_a_title_alone_is_a_report(tmp_path):
    page = written(tmp_path / 'report.html', Report('only this'))
    assert page.count('section') == 0 and page.count('video') == 0 and 'only this' in page.text
    assert 'None' not in page.text and 'verdict' not in str(page.tags)


@pytest.mark.parametrize(('passed', 'word'), [(True, 'Passed.'), (False, 'Failed.')])
def test_verdict_says_how_it_ended(tmp_path, passed, word):
    assert word in written(tmp_path / 'report.html', Report('t', verdict=Verdict(passed, 'by 1.0'))).text


def test_scores_are_per_cent_and_missing_ones_dashes(tmp_path, video):
    text = written(tmp_path / 'report.html', full_report(video)).text
    assert '61.2' in text and '25.0' in text and 'nan' not in text and 'None' not in text


def test_pictures_get_coarser_before_anything_is_left_out(tmp_path):
    report = Report('t', pictures=[(str(n), noise(700, 1400, n)) for n in range(2)])
    large = write_report(tmp_path / 'large.html', report)
    small = write_report(tmp_path / 'small.html', report, max_bytes=int(large.num_bytes * 0.7))
    assert not small.left_out and small.num_bytes <= large.num_bytes * 0.7
    assert (tmp_path / 'small.html').stat().st_size == small.num_bytes


def test_what_does_not_fit_is_left_out_and_named(tmp_path, video):
    big = tmp_path / 'big.webm'
    big.write_bytes(b'\0' * 400_000)
    report = Report('t', videos=[('the big one', big), ('the small one', video)])
    done = write_report(tmp_path / 'report.html', report, max_bytes=100_000)
    page = Page(done.path.read_text(encoding='utf-8'))
    assert done.left_out == ('the big one',) and done.num_bytes <= 100_000
    assert page.count('video') == 1 and 'too big: the big one (big.webm, 0.4 MiB)' in page.text


@pytest.mark.parametrize(
    ('report', 'message'),
    [
        (Report('t', summary_rows=[ScoreRow('a', {'J': 61.2})]), 'Divide per cent by 100'),
        (Report('t', summary_rows=[ScoreRow('a', {'J': 0.1}), ScoreRow('b', {'F': 0.1})]), "'b' has"),
        (Report('t', tables=[ScoreTable('T', ('a', 'b'), (('x',),))]), 'expected 2 cells a row'),
        (Report('t', tables=[ScoreTable('T', ('a',), (('x',),), bars=('J',))]), 'no columns'),
        (Report('t', pictures=[('p', b'BM123')]), 'PNG, JPEG, GIF or WebP'),
        (Report('t', pictures=[('p', np.zeros((4, 4)))]), 'uint8 RGB'),
        (Report('t', videos=[('v', 'a.avi')]), 'a.avi'),
    ],
)
def test_wrong_parts_are_named_and_nothing_is_written(tmp_path, report, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / 'report.html', report)
    assert not list(tmp_path.iterdir())


def test_a_missing_video_and_a_wrong_suffix_stop(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.mp4'):
        write_report(tmp_path / 'report.html', Report('t', videos=[('v', tmp_path / 'gone.mp4')]))
    with pytest.raises(ValueError, match='report.pdf'):
        write_report(tmp_path / 'report.pdf', Report('t'))


def test_parts_have_their_own_media_and_headings(tmp_path, video):
    parts = [Report(f'{EVIL} {n}', pictures=[(f'p{n}', noise(seed=n))], notes=[f'note {n}']) for n in range(2)]
    page = written(tmp_path / 'r.html', Report('top', pictures=[('own', noise(seed=9))], parts=parts))
    assert [a['id'] for tag, a in page.tags if tag == 'details'] == ['part-1', 'part-2']
    assert [a['href'] for tag, a in page.tags if tag == 'a'] == ['#part-1', '#part-2']
    assert [a['alt'] for tag, a in page.tags if tag == 'img'] == ['p0', 'p1', 'own']
    assert page.count('script') == 1 and page.count('h3') == 4
    with pytest.raises(ValueError, match='one level'):
        write_report(tmp_path / 'x.html', Report('a', parts=[Report('b', parts=[Report('c')])]))


def test_what_does_not_fit_of_a_part_is_named_too(tmp_path):
    big = tmp_path / 'big.webm'
    big.write_bytes(b'\0' * 400_000)
    done = write_report(tmp_path / 'r.html', Report('t', parts=[Report('p', videos=[('big', big)])]), max_bytes=100_000)
    assert done.left_out == ('big',) and 'too big: big' in done.path.read_text()


def test_pictures_beside_each_other_share_a_caption_and_the_width(tmp_path):
    pair = [('prediction', noise(30, 2000)), ('truth', noise(30, 2000, 1))]
    page = written(tmp_path / 'r.html', Report('t', pictures=[(EVIL, pair)], pictures_title='Worst frames'))
    images = [a for tag, a in page.tags if tag == 'img']
    assert [a['alt'] for a in images] == [f'{EVIL}: prediction', f'{EVIL}: truth']
    widths = [Image.open(io.BytesIO(base64.b64decode(a['src'].split(',')[1]))).width for a in images]
    assert widths == [800, 800] and 'Worst frames' in page.headings


def test_warnings_come_before_the_scores_and_intervals_over_the_bar(tmp_path):
    row = ScoreRow('a', {'J': 0.5}, interval=(0.25, 1.5))
    page = written(tmp_path / 'r.html', Report('t', warnings=[EVIL], summary_rows=[row, ScoreRow('b', {'J': 0.5})]))
    source = (tmp_path / 'r.html').read_text()
    assert page.text.index('alert("x")') < page.text.index('Scores')
    assert source.count('style="left:25.00%;width:75.00%"') == 1 and '95 % interval' in page.text
    nothing = ScoreRow('a', {'J': 0.5}, interval=(float('nan'), float('nan')))
    written(tmp_path / 'n.html', Report('t', summary_rows=[nothing]))
    assert 'left:' not in re.sub('<style>.*</style>', '', (tmp_path / 'n.html').read_text(), flags=re.S)


def test_differences_are_bars_from_the_middle_with_their_sign(tmp_path):
    table = ScoreTable('T', ('s', 'd'), (('a', -0.2), ('b', 0.1), ('c', None)), bars=('d',), centred=True, max_bars=2)
    source = written(tmp_path / 'r.html', Report('t', tables=[table])) and (tmp_path / 'r.html').read_text()
    assert '-20.0</td>' in source and '+10.0</td>' in source and source.count('<rect') == 4
