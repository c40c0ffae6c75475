"""A run as one HTML file: scores, curves, pictures, a video and how they were made.

The file needs nothing else: pictures and videos are inside of it, and it asks the network for nothing. Parts
of a report that are None are not shown.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmliir.utils.files import write_bytes_atomic
from mmliir.version import __version__
from mmliir.visualization.overlay import resize_to_width
from mmliir.visualization.plots import SERIES_COLORS, bar_chart, difference_chart, legend, line_chart

MAX_BYTES = 20 * 2**20
# (greatest width in pixels, JPEG quality), best first
_PICTURE_SETTINGS = ((1600, 88), (1280, 80), (960, 70))
# A cell with more letters is a sentence and wraps.
_LONG = 28
# A table with more rows scrolls in its own box.
_TALL = 40
_MAGIC = {b'\x89PNG\r\n\x1a\n': 'png', b'\xff\xd8\xff': 'jpeg', b'GIF8': 'gif', b'RIFF': 'webp'}
_VIDEO_TYPES = {'.mp4': 'video/mp4', '.webm': 'video/webm'}


#: The bytes of a PNG, JPEG, GIF or WebP file, or (H, W, 3) uint8 RGB.
Picture = bytes | np.ndarray


@dataclass(frozen=True)
class ScoreRow:
    """One line of the headline scores.

    Attributes:
        name: What was scored, for example 'trained, 2,000 iterations'.
        scores: Metric -> fraction from 0 to 1, or None where there is none. The first metric gets the
            bar; all rows have the same metrics in the same order, for example 'J&F', 'J', 'F'.
        note: A few words more; None shows none.
        highlight: The row that the report is about.
        interval: (low, high) around the first metric, drawn over its bar; None or NaN draws none.
    """

    name: str
    scores: Mapping[str, float | None]
    note: str | None = None
    highlight: bool = False
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether the run reached what was asked for, and by how much, in one sentence."""

    passed: bool
    text: str


@dataclass(frozen=True)
class ScoreTable:
    """A sortable table, a sequence a row.

    Attributes:
        title: Heading of the table.
        columns: Names of the columns; the first one names the rows.
        rows: Cells. A float is a fraction and is shown in per cent with a bar behind it, int and str stand as
            they are, None and NaN are a dash.
        bars: Names of columns that are also drawn as bars, one group a row; None draws none.
        note: A sentence under the table, for example how the mean is taken; None shows none.
        max_bars: Bars are drawn for so many rows, the first ones; None draws all.
        centred: Bars grow from the middle, to the left where a value is negative: for differences. The longest fills
            its half.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    bars: tuple[str, ...] | None = None
    note: str | None = None
    max_bars: int | None = None
    centred: bool = False


@dataclass(frozen=True)
class Report:
    """What a report shows, from top to bottom; None is not shown.

    Attributes:
        title: Heading, for example 'LIIR quickstart'.
        subtitle: A sentence under it: data, split, date.
        warnings: What makes the numbers less than they seem, such as missing sequences; shown before them.
        summary_rows: Headline scores, for example raw Lab, untrained, trained.
        verdict: Passed or failed, and the margin.
        loss_curves: Loss name -> points (step, value); one small chart each.
        tables: Scores a sequence.
        over_time: Sequence -> curve name ('J', 'F') -> fraction of each frame; one small chart a sequence.
        pictures: (caption, picture); a picture is the bytes of a PNG, JPEG, GIF or WebP, kept as they are, or
            an array (H, W, 3) uint8 RGB, which becomes a JPEG; or a sequence of (name, picture), which stand side by
            side, and below each other on a narrow screen.
        pictures_title: Heading over them.
        videos: (caption, path of an .mp4 or .webm file that browsers play, see `visualization.write_video`).
        card: The protocol card: setting -> value. A mapping as value is a group.
        commands: Commands that make this again, in order.
        notes: What the reader should know: limits, skipped things.
        environment: Name -> version of what it ran with.
        parts: Reports in this report, each under its own heading, after `tables` and before `notes`. Parts have no
            parts.
    """

    title: str
    subtitle: str | None = None
    warnings: Sequence[str] | None = None
    summary_rows: Sequence[ScoreRow] | None = None
    verdict: Verdict | None = None
    loss_curves: Mapping[str, Sequence[tuple[float, float]]] | None = None
    tables: Sequence[ScoreTable] | None = None
    over_time: Mapping[str, Mapping[str, Sequence[float]]] | None = None
    pictures: 'Sequence[tuple[str, Picture | Sequence[tuple[str, Picture]]]] | None' = None
    pictures_title: str = 'Pictures'
    videos: Sequence[tuple[str, str | Path]] | None = None
    card: Mapping[str, object] | None = None
    commands: Sequence[str] | None = None
    notes: Sequence[str] | None = None
    environment: Mapping[str, object] | None = None
    parts: 'Sequence[Report] | None' = None


@dataclass(frozen=True)
class WrittenReport:
    """What `write_report` wrote.

    Attributes:
        path: The file.
        num_bytes: Its size.
        left_out: Captions of videos and pictures that did not fit; the report says so, too.
    """

    path: Path
    num_bytes: int
    left_out: tuple[str, ...]


def write_report(path: str | Path, report: Report, max_bytes: int = MAX_BYTES) -> WrittenReport:
    """Write a report as one self-contained HTML file.

    Arrays are written as JPEG, smaller and coarser when the file would get too big; after that the biggest
    videos and pictures are left out, and the report and the return value name them. The file appears when it
    is whole.

    Args:
        path: File to write, `.html`; folders are made.
        report: What to show.
        max_bytes: Greatest size of the file.

    Raises:
        FileNotFoundError: A video is not there.
        ValueError: A score that is no fraction, a table with ragged rows, a picture or a video of an unknown
            kind, parts of parts, or a report that is too big even without pictures and videos.
    """
    path = Path(path)
    if path.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f"Expected a file name that ends in '.html'; got {path.name!r}.")
    if any(part.parts for part in report.parts or ()):
        raise ValueError(f'Report {report.title!r}: a part of it has parts; a report has one level of them.')
    reports = [report, *(report.parts or ())]
    videos = [[_load_video(caption, source) for caption, source in one.videos or ()] for one in reports]
    text_bytes = len(_page(report, [((), ())] * len(reports), ()).encode()) + 4096
    if text_bytes > max_bytes:
        raise ValueError(
            f'The text of the report alone takes {text_bytes} bytes of {max_bytes}; give fewer curves.'
        )
    for width, quality in _PICTURE_SETTINGS:
        pictures = [
            [_encode_picture(caption, image, width, quality) for caption, image in one.pictures or ()]
            for one in reports
        ]
        media = [item for group in pictures + videos for item in group]
        if text_bytes + sum(item.num_bytes for item in media) <= max_bytes:
            break
    media.sort(key=lambda item: item.num_bytes)
    left_out = []
    while text_bytes + sum(item.num_bytes for item in media) > max_bytes:
        left_out.append(media.pop())
    lost = {id(item) for item in left_out}
    kept = [
        tuple([item for item in group if id(item) not in lost] for group in groups)
        for groups in zip(pictures, videos, strict=True)
    ]
    page = _page(report, kept, tuple(item.describe() for item in left_out)).encode()
    write_bytes_atomic(path, page)
    return WrittenReport(path, len(page), tuple(item.caption for item in left_out))


@dataclass(frozen=True)
class _Medium:
    caption: str
    mime: str
    data: bytes
    name: str
    others: 'tuple[_Medium, ...]' = ()  # what stands beside it; all have their name as caption, and it is empty

    @property
    def num_bytes(self) -> int:
        """Size in the page: base64, the caption and the tags around it."""
        own = math.ceil(len(self.data) / 3) * 4 + 6 * len(self.caption.encode()) + 400
        return own + sum(item.num_bytes for item in self.others)

    def uri(self) -> str:
        return f'data:{self.mime};base64,{base64.b64encode(self.data).decode()}'

    def describe(self) -> str:
        size = f'{(len(self.data) + sum(len(item.data) for item in self.others)) / 2**20:.1f} MiB'
        return f'Left out because the file would get too big: {self.caption} ({self.name}, {size}).'


def _load_video(caption: str, source: str | Path) -> _Medium:
    source = Path(source)
    mime = _VIDEO_TYPES.get(source.suffix.lower())
    if mime is None:
        raise ValueError(f"Expected '.mp4' or '.webm', got {source.name!r}; see visualization.write_video.")
    if not source.is_file():
        raise FileNotFoundError(f'Video of the report not found at {source}; write it before the report.')
    return _Medium(caption, mime, source.read_bytes(), source.name)


def _encode_picture(
    caption: str, image: Picture | Sequence[tuple[str, Picture]], max_width: int, quality: int
) -> _Medium:
    if isinstance(image, list | tuple):
        width = max_width // max(1, len(image))
        beside = tuple(_encode_picture(name, one, width, quality) for name, one in image)
        return _Medium(caption, '', b'', f'{len(beside)} pictures', beside)
    if isinstance(image, bytes):
        for magic, kind in _MAGIC.items():
            if image.startswith(magic):
                return _Medium(caption, f'image/{kind}', image, f'a {kind.upper()} picture')
        raise ValueError(
            f'Picture {caption!r}: expected the bytes of a PNG, JPEG, GIF or WebP file, '
            f'came {len(image)} bytes that start with {image[:8]!r}.'
        )
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'Picture {caption!r}: expected (H, W, 3) uint8 RGB, got shape {image.shape} of {image.dtype}.'
        )
    buffer = io.BytesIO()
    small = resize_to_width(image, min(max_width, image.shape[1]))
    Image.fromarray(small).save(buffer, 'JPEG', quality=quality, optimize=True)
    return _Medium(caption, 'image/jpeg', buffer.getvalue(), 'a JPEG picture')


# --- page ------------------------------------------------------------------------------------------------


def _escape(value: object) -> str:
    return html.escape(str(value))


def _percent(score: float | None) -> str:
    return '–' if score is None or not math.isfinite(score) else f'{score * 100:.1f}'


def _section(title: str, body: str, lead: str | None = None, heading: str = 'h2') -> str:
    lead = f'<p class="lead">{_escape(lead)}</p>' if lead else ''
    return f'<section><{heading}>{_escape(title)}</{heading}>{lead}{body}</section>'


def _summary(rows: Sequence[ScoreRow]) -> str:
    metrics = list(rows[0].scores)
    parts = []
    for row in rows:
        if list(row.scores) != metrics:
            raise ValueError(f'Row {row.name!r} has the scores {list(row.scores)}, the first row {metrics}.')
        for metric, score in row.scores.items():
            if score is not None and math.isfinite(score) and not 0 <= score <= 1:
                raise ValueError(
                    f'Score {metric!r} of {row.name!r}: expected a fraction from 0 to 1, got {score}. '
                    'Divide per cent by 100.'
                )
        main = row.scores[metrics[0]]
        width = 0 if main is None or not math.isfinite(main) else main * 100
        numbers = ''.join(
            f'<div{" class=main" if metric == metrics[0] else ""}><b>{_percent(score)}</b>'
            f'<span>{_escape(metric)}</span></div>'
            for metric, score in row.scores.items()
        )
        note = f'<small>{_escape(row.note)}</small>' if row.note else ''
        parts.append(
            f'<li class="score{" highlight" if row.highlight else ""}">'
            f'<div class="name">{_escape(row.name)}{note}</div>'
            f'<div class="track"><div style="width:{width:.2f}%"></div>{_whisker(row.interval)}</div>'
            f'<div class="numbers">{numbers}</div></li>'
        )
    return f'<ul class="scores">{"".join(parts)}</ul>'


def _whisker(interval: tuple[float, float] | None) -> str:
    if interval is None or not all(math.isfinite(end) for end in interval):
        return ''
    low, high = (min(max(end, 0.0), 1.0) * 100 for end in interval)
    text = f'{_percent(low / 100)} to {_percent(high / 100)}'
    return f'<i style="left:{low:.2f}%;width:{high - low:.2f}%" title="{text}"></i>'


def _verdict(verdict: Verdict) -> str:
    kind, mark, word = ('passed', '✓', 'Passed') if verdict.passed else ('failed', '✕', 'Failed')
    return (
        f'<p class="verdict {kind}"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<span><b>{word}.</b> {_escape(verdict.text)}</span></p>'
    )


def _plot(name: str, chart: str, remark: str) -> str:
    remark = f'<small>{_escape(remark)}</small>' if remark else ''
    return f'<figure class="plot"><figcaption>{_escape(name)}{remark}</figcaption>{chart}</figure>'


def _loss_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    parts = []
    for name, points in curves.items():
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if not finite:
            parts.append(_plot(f'{name}: no finite value', '', ''))
            continue
        window = max(1, len(points) // 25)
        lost = len(points) - len(finite)
        broken = f' ({lost} not finite)' if lost else ''
        chart = line_chart({name: points}, smoothing=window if window > 2 else 1)
        parts.append(_plot(name, chart, f'{finite[0][1]:.4g} → {finite[-1][1]:.4g}{broken}'))
    return f'<div class="plots">{"".join(parts)}</div>'


def _over_time(sequences: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    parts, names = [], []
    for sequence, curves in sequences.items():
        names += [name for name in curves if name not in names]
        # A curve that this sequence lacks is an empty one, so that colours mean the same in every chart.
        series = {name: list(enumerate(curves.get(name, ()))) for name in names}
        if not any(math.isfinite(score) for curve in curves.values() for score in curve):
            parts.append(_plot(f'{sequence}: no finite value', '', ''))
            continue
        chart = line_chart(series, y_range=(0.0, 1.0), x_label='frame', percent=True)
        parts.append(_plot(sequence, chart, ''))
    return f'{legend(names)}<div class="plots">{"".join(parts)}</div>'


def _cell(value: str | float | int | None, first: bool, signed: bool = False) -> str:
    if first:
        return f'<th scope="row">{_escape("–" if value is None else value)}</th>'
    if signed and isinstance(value, float | np.floating) and math.isfinite(value):
        return f'<td class="num plain" data-v="{value:.6f}">{value * 100:+.1f}</td>'
    if isinstance(value, float | np.floating) and math.isfinite(value):
        width = min(max(float(value), 0.0), 1.0) * 100
        return f'<td class="num" data-v="{value:.6f}" style="--w:{width:.1f}%">{_percent(value)}</td>'
    if value is None or isinstance(value, float | np.floating):
        return '<td class="num">–</td>'
    if isinstance(value, int | np.integer):
        return f'<td class="num plain" data-v="{value}">{value}</td>'
    kind = ' class="text"' if _is_long(value) else ''
    return f'<td{kind}>{_escape(value)}</td>'


def _is_long(value: str | float | int | None) -> bool:
    return isinstance(value, str) and len(value) > _LONG


def _table(table: ScoreTable) -> str:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f'Table {table.title!r}: expected {len(table.columns)} cells a row, {list(table.columns)}, '
                f'got {len(row)} in {row!r}.'
            )
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    kinds = [' class="text"' if any(_is_long(value) for value in column) else '' for column in columns]
    head = ''.join(
        f'<th scope="col"{kind} aria-sort="none"><button type="button">{_escape(name)}</button></th>'
        for name, kind in zip(table.columns, kinds, strict=True)
    )
    signed = {n for n, name in enumerate(table.columns) if table.centred and name in (table.bars or ())}
    body = ''.join(
        f'<tr>{"".join(_cell(value, n == 0, n in signed) for n, value in enumerate(row))}</tr>' for row in table.rows
    )
    bars = ''
    if table.bars is not None:
        unknown = [name for name in table.bars if name not in table.columns]
        if unknown:
            raise ValueError(f'Table {table.title!r} has no columns {unknown}; it has {list(table.columns)}.')
        numbers = {name: table.columns.index(name) for name in table.bars}
        drawn = table.rows[: table.max_bars]
        groups = {str(row[0]): {name: row[n] for name, n in numbers.items()} for row in drawn}
        chart = difference_chart(groups) if table.centred else bar_chart(groups)
        bars = (legend(table.bars) if len(table.bars) > 1 else '') + f'<div class="bar-chart">{chart}</div>'
    note = f'<p class="lead">{_escape(table.note)}</p>' if table.note else ''
    tall = ' tall' if len(table.rows) > _TALL else ''
    return (
        f'{bars}<div class="scroll{tall}" tabindex="0"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>{note}'
    )


def _pictures(pictures: Sequence[_Medium]) -> str:
    return ''.join(
        f'<figure class="picture">{_beside(item) if item.others else _image(item)}'
        f'<figcaption>{_escape(item.caption)}</figcaption></figure>'
        for item in pictures
    )


def _image(item: _Medium) -> str:
    return f'<div class="scroll"><img src="{item.uri()}" alt="{_escape(item.caption)}"></div>'


def _beside(item: _Medium) -> str:
    images = (
        f'<div><span>{_escape(one.caption)}</span>'
        f'<img src="{one.uri()}" alt="{_escape(item.caption)}: {_escape(one.caption)}"></div>'
        for one in item.others
    )
    return f'<div class="beside">{"".join(images)}</div>'


def _videos(videos: Sequence[_Medium]) -> str:
    return ''.join(
        f'<figure class="picture">'
        f'<video controls loop muted playsinline preload="auto" src="{item.uri()}"></video>'
        f'<figcaption>{_escape(item.caption)}</figcaption></figure>'
        for item in videos
    )


def _definitions(values: Mapping[str, object]) -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            parts.append(f'<dt class="group">{_escape(name)}</dt><dd>{_definitions(value)}</dd>')
        else:
            if isinstance(value, list | tuple):
                value = ', '.join(str(item) for item in value)
            parts.append(f'<dt>{_escape(name)}</dt><dd>{_escape("–" if value is None else value)}</dd>')
    return f'<dl>{"".join(parts)}</dl>'


def _page(
    report: Report,
    media: Sequence[tuple[Sequence[_Medium], Sequence[_Medium]]],
    left_out: tuple[str, ...],
) -> str:
    """`media`: (pictures, videos) of the report and of each of its parts."""
    parts = list(report.parts or ())
    inner = [
        _part(number, part, *found) for number, (part, found) in enumerate(zip(parts, media[1:], strict=True), 1)
    ]
    contents = ''
    if len(parts) > 1:
        links = (f'<li><a href="#part-{n}">{_escape(part.title)}</a></li>' for n, part in enumerate(parts, 1))
        contents = f'<nav aria-label="Parts"><ul>{"".join(links)}</ul></nav>'
    notes = [*(report.notes or ()), *left_out]
    subtitle = f'<p class="subtitle">{_escape(report.subtitle)}</p>' if report.subtitle else ''
    return _TEMPLATE.format(
        title=_escape(report.title),
        subtitle=subtitle + contents,
        css=_CSS,
        script=_SCRIPT,
        sections='\n'.join(_sections(report, *media[0], notes, inner)),
        version=_escape(__version__),
    )


def _part(number: int, part: Report, pictures: Sequence[_Medium], videos: Sequence[_Medium]) -> str:
    subtitle = f'<p class="subtitle">{_escape(part.subtitle)}</p>' if part.subtitle else ''
    sections = '\n'.join(_sections(part, pictures, videos, part.notes or (), (), heading='h3'))
    return (
        f'<details class="part" id="part-{number}" open><summary><h2>{_escape(part.title)}</h2></summary>'
        f'{subtitle}{sections}</details>'
    )


def _sections(
    report: Report,
    pictures: Sequence[_Medium],
    videos: Sequence[_Medium],
    notes: Sequence[str],
    parts: Sequence[str],
    heading: str = 'h2',
) -> list[str]:
    """The sections of a report or of one of its parts, from top to bottom."""
    sections = [_warning(text) for text in report.warnings or ()]

    def add(title: str, body: str, lead: str | None = None) -> None:
        sections.append(_section(title, body, lead, heading))

    if report.summary_rows:
        metric = next(iter(report.summary_rows[0].scores))
        drawn = any(row.interval is not None for row in report.summary_rows)
        whisker = ', the line over it the 95 % interval over sequences' if drawn else ''
        add('Scores', _summary(report.summary_rows), f'In per cent, more is better; the bar is {metric}{whisker}.')
    if report.verdict is not None:
        sections.append(_verdict(report.verdict))
    if videos:
        add('Video', _videos(videos))
    if report.loss_curves:
        add('Training', _loss_curves(report.loss_curves))
    for table in report.tables or ():
        add(table.title, _table(table))
    sections += parts
    if report.over_time:
        add('Scores over time', _over_time(report.over_time), 'In per cent, frame by frame.')
    if pictures:
        add(report.pictures_title, _pictures(pictures))
    if notes:
        add('Notes', f'<ul>{"".join(f"<li>{_escape(note)}</li>" for note in notes)}</ul>')
    if report.card:
        add('Protocol card', _definitions(report.card))
    if report.commands:
        commands = '\n'.join(_escape(command) for command in report.commands)
        add('How this was made', f'<pre><code>{commands}</code></pre>')
    if report.environment:
        add('Environment', _definitions(report.environment))
    return sections


def _warning(text: str) -> str:
    return (
        f'<p class="verdict failed" role="alert"><span class="mark" aria-hidden="true">!</span>'
        f'<span>{_escape(text)}</span></p>'
    )


# The policy forbids the page every request: what is not inside of the file cannot be asked for.
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<header><h1>{title}</h1>{subtitle}</header>
<main>
{sections}
</main>
<footer>Written by mmliir {version}.</footer>
<script>{script}</script>
</body>
</html>
"""

_LIGHT_SERIES = ''.join(f'--series-{n}:{color};' for n, color in enumerate(SERIES_COLORS, 1))

_CSS = (
    ':root{color-scheme:light dark;' + _LIGHT_SERIES + """
--bg:#f6f7f9;--card:#fff;--text:#1b1f27;--muted:#5d6675;--line:#e1e5eb;--accent:#2f6fde;--soft:#e9f0fd;
--good:#10775c;--good-bg:#e3f5ee;--bad:#b02440;--bad-bg:#fdeaee}
@media (prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1d2128;--text:#e8ebf0;--muted:#9aa4b2;
--line:#313741;--accent:#6ea2ff;--soft:#24304a;--good:#5fd3ac;--good-bg:#173229;--bad:#ff8fa3;--bad-bg:#3a1d25;
--series-1:#6ea2ff;--series-2:#f2985a;--series-3:#4cc7a6;--series-4:#cf86e4;--series-5:#f07a90;
--series-6:#a5adba}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}
header,main,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:36px;padding-bottom:8px}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:0;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:1.12rem;margin:0 0 10px;letter-spacing:-.005em}
.subtitle,.lead{color:var(--muted);margin:6px 0 0}.lead{font-size:.9rem}
h2+.lead{margin:-8px 0 12px}.scroll+.lead{margin:12px 0 0}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:20px 22px;margin:16px 0}
small{color:var(--muted);font-weight:400}
.scores{list-style:none;margin:0;padding:0}
.score{display:grid;grid-template-columns:minmax(150px,1fr) 2.2fr auto;gap:6px 20px;align-items:center;
padding:12px 10px;border-top:1px solid var(--line)}
.score:first-child{border-top:0}
.score.highlight{background:var(--soft);border-radius:10px;border-top-color:transparent}
.score .name{font-weight:600;overflow-wrap:anywhere}.score .name small{display:block;line-height:1.35}
.track{position:relative;height:14px;border-radius:7px;overflow:hidden;
background:color-mix(in srgb,var(--text) 9%,transparent)}
.track div{height:100%;border-radius:7px;background:var(--muted)}
.highlight .track div{background:var(--accent)}
.track i{position:absolute;top:6px;height:2px;min-width:2px;background:var(--text)}
.track i::before,.track i::after{content:'';position:absolute;top:-4px;width:2px;height:10px;background:var(--text)}
.track i::before{left:0}.track i::after{right:0}
.numbers{display:flex;gap:18px;text-align:right;font-variant-numeric:tabular-nums}
.numbers div{min-width:3em;align-self:end}
.numbers b{display:block;font-size:1.05rem;line-height:1.2;font-weight:600}
.numbers .main b{font-size:1.45rem;font-weight:700}.numbers span{font-size:.75rem;color:var(--muted)}
.verdict{display:flex;gap:12px;align-items:center;border-radius:14px;padding:14px 20px;margin:16px 0}
.verdict.passed{background:var(--good-bg);color:var(--good)}.verdict.failed{background:var(--bad-bg);color:var(--bad)}
.mark{font-size:1.3rem;font-weight:700;line-height:1}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(290px,100%),1fr));gap:16px 20px}
figure{margin:0}
.plot figcaption{display:flex;justify-content:space-between;gap:8px;font-weight:600;
font-size:.92rem}
.chart{display:block;width:100%;height:auto}
svg text{font-family:inherit}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 10px;font-size:.88rem;color:var(--muted)}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
.bar-chart{margin:0 0 18px}.bars{display:block;overflow:visible}
.scroll{overflow-x:auto}.scroll.tall{max-height:75vh;overflow-y:auto}
.tall thead th{position:sticky;top:0;background:var(--card);z-index:1}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:14px 0 0;font-size:.92rem}
nav a{color:var(--accent)}
.part{margin:34px 0 0}.part>summary{cursor:pointer}
.part>summary h2{display:inline;font-size:1.35rem;margin:0;overflow-wrap:anywhere}
h3{font-size:1.12rem;margin:0 0 10px;letter-spacing:-.005em}h3+.lead{margin:-8px 0 12px}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
tbody th{font-weight:500}tbody tr:last-child>*{border-bottom:0}
thead button{font:inherit;font-weight:600;color:var(--muted);background:none;border:0;
padding:0;cursor:pointer}
thead button::after{content:'↕';opacity:.35;margin-left:5px;font-size:.85em}
thead th[aria-sort=ascending] button::after{content:'↑';opacity:1}
thead th[aria-sort=descending] button::after{content:'↓';opacity:1}
th.text{text-align:left}td.text{white-space:normal;text-align:left;min-width:15em;overflow-wrap:anywhere}
td.num:not(.plain){background:linear-gradient(var(--soft),var(--soft)) 0 50%/var(--w,0) 72% no-repeat}
.picture{margin:14px 0 0}
.picture img,.picture video{display:block;max-width:100%;height:auto;border-radius:8px}
.picture video{width:100%;background:#000}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(260px,100%),1fr));gap:8px 12px}
.beside img{width:100%}.beside span{font-size:.85rem;color:var(--muted)}
.picture figcaption{color:var(--muted);font-size:.9rem;margin-top:6px}
dl{display:grid;grid-template-columns:170px 1fr;gap:4px 22px;
margin:6px 0 0;font-size:.92rem}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}dt.group,dt.group+dd{grid-column:1/-1}
dt{overflow-wrap:anywhere}dd dl{margin:0}
dt.group{color:var(--text);font-weight:600;margin-top:8px}
pre{background:var(--bg);border:1px solid var(--line);border-radius:10px;padding:12px 14px;overflow-x:auto;
margin:8px 0 0;font-size:.86rem;line-height:1.6}
code{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}
ul{margin:6px 0 0;padding-left:1.2em}
footer{color:var(--muted);font-size:.85rem;padding-top:8px;padding-bottom:36px}
@media (max-width:640px){header,main,footer{padding-left:12px;padding-right:12px}section{padding:16px 14px}
.score{grid-template-columns:1fr;padding:12px 8px}.numbers{justify-content:flex-start;text-align:left}
th,td{padding:7px 6px}thead th[aria-sort=none] button::after{content:none}
.picture .scroll img{max-width:none;width:max(100%,min(720px,180vw))}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
@media print{section{break-inside:avoid}}
"""
)

_SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener('click', () => {
    const up = head.getAttribute('aria-sort') === 'descending' ||
      (column === 0 && head.getAttribute('aria-sort') === 'none');
    heads.forEach(other => other.setAttribute('aria-sort', 'none'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const compare = (a, b) => {
      [a, b] = [a.cells[column], b.cells[column]];
      const [x, y] = [parseFloat(a.dataset.v), parseFloat(b.dataset.v)];
      if (isNaN(x) && isNaN(y)) return a.textContent.localeCompare(b.textContent, 'en', {numeric: true});
      return isNaN(x) ? -1 : isNaN(y) ? 1 : x - y;
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(a, b) * (up ? 1 : -1));
    table.tBodies[0].append(...rows);
  }));
}
"""
