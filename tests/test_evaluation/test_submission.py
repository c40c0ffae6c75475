"""Archives for servers: what is made is valid, and everything that may be wrong with one is said."""

import argparse
import hashlib
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmliir.cli.submit import add_submit
from mmliir.datasets import DavisDataset, YouTubeVosDataset, write_label_map
from mmliir.evaluation.export import export_predictions
from mmliir.evaluation.metrics import DavisMetric
from mmliir.evaluation.submission import validate_submission, write_submission
from mmliir.propagation import get_protocol
from mmliir.testing.synthetic import generate_videos, write_davis_layout
from mmliir.testing.synthetic_youtube_vos_eval import write_youtube_vos


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_youtube_vos(tmp_path_factory.mktemp('ytvos'))


@pytest.fixture
def dataset(written):
    return YouTubeVosDataset(written.root)


@pytest.fixture
def masks(written, dataset, tmp_path):
    written.write_perfect_predictions(tmp_path / 'masks', 'valid', dataset.names)
    return tmp_path / 'masks'


@pytest.fixture
def entries(masks, dataset, tmp_path):
    """Name -> content of a valid archive, to spoil."""
    path = write_submission(masks, dataset, tmp_path / 'good.zip')
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def _first(dataset, frame='00005'):
    return f'Annotations/{dataset.names[0]}/{frame}.png'


def _png(width, height, colour, depth, rows):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    parts = chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def _saved(image, tmp_path):
    image.save(tmp_path / 'one.png')
    return (tmp_path / 'one.png').read_bytes()


# ------------------------------------------------------------------------------------------------------- writing
def test_the_archive_holds_every_fifth_frame_and_is_valid(masks, dataset, tmp_path, written):
    write_label_map(masks / dataset.names[0] / '00003.png', np.zeros((48, 64), np.uint8))  # not asked for
    path = write_submission(masks, dataset, tmp_path / 'out' / 'submission.zip')
    assert validate_submission(path, dataset) == []
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            f'Annotations/{name}/{t:05d}.png' for name in dataset.names for t in range(0, 21, 5)
        ]
        with archive.open(_first(dataset)) as stream:
            image = Image.open(stream)
            assert image.mode == 'P'
            assert np.array_equal(np.array(image), written.truth['valid'][dataset.names[0]][5])


def test_equal_predictions_make_equal_archives(masks, dataset, tmp_path):
    def digest(name):
        return hashlib.sha256(write_submission(masks, dataset, tmp_path / name).read_bytes()).hexdigest()

    first = digest('a.zip')
    for path in masks.rglob('*.png'):
        path.touch()
    assert digest('b.zip') == first


def test_grey_masks_become_indexed_ones(masks, dataset, tmp_path):
    path = masks / dataset.names[0] / '00005.png'
    ids = np.array(Image.open(path))
    Image.fromarray(ids).save(path)
    with zipfile.ZipFile(write_submission(masks, dataset, tmp_path / 's.zip')) as archive:
        with archive.open(_first(dataset)) as stream:
            image = Image.open(stream)
            assert image.mode == 'P' and np.array_equal(np.array(image), ids)


def test_what_would_not_be_valid_is_not_written(masks, dataset, tmp_path):
    out = tmp_path / 'out' / 's.zip'
    path = masks / dataset.names[1] / '00010.png'
    write_label_map(path, np.full((48, 64), 9, np.uint8))
    with pytest.raises(ValueError, match=rf"cannot be handed in: '{dataset.names[1]}': ids 9, allowed are 0, 1, 2, 3"):
        write_submission(masks, dataset, out)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'00010\.png not found: 1 of the 10 masks'):
        write_submission(masks, dataset, out)
    shutil.rmtree(masks / dataset.names[0])
    with pytest.raises(FileNotFoundError, match='6 of the 10 masks'):
        write_submission(masks, dataset, out)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_exported_predictions_can_be_handed_in(dataset, tmp_path):
    """All frames are propagated, every 5th is stored, late objects are in it from where they are given."""
    protocol = get_protocol('crw').with_settings(dict(gaps=(1,), radius=3, topk=5))

    def encode(frames):
        return torch.nn.functional.avg_pool2d(frames.float(), 8)

    report = export_predictions(dataset, encode, protocol, 8, tmp_path / 'masks', card=None, progress=False)
    assert not report.failed and report.num_frames == 2 * 21
    name = dataset.names[0]
    assert sorted(path.stem for path in (tmp_path / 'masks' / name).iterdir()) == list(dataset.export_names(name))
    assert not export_predictions(dataset, encode, protocol, 8, tmp_path / 'masks', card=None, progress=False).written
    given = dataset.sample(name).given_labels
    for t, read in given.items():
        found, wanted = np.array(Image.open(tmp_path / 'masks' / name / f'{t:05d}.png')), read()
        assert np.array_equal(found[wanted > 0], wanted[wanted > 0])
    assert validate_submission(write_submission(tmp_path / 'masks', dataset, tmp_path / 's.zip'), dataset) == []


# ------------------------------------------------------------------------------------------------------- checking
def test_missing_videos_and_frames_are_named(entries, dataset, tmp_path):
    name, other = dataset.names
    del entries[f'Annotations/{name}/00010.png']
    left = {key: data for key, data in entries.items() if other not in key}
    problems = validate_submission(_zip(tmp_path / 'bad.zip', left), dataset)
    assert problems == [
        f"'{name}': 1 of 5 frames are missing: 00010",
        f"'{other}': no prediction at all (5 frames are expected in Annotations/{other}/)",
    ]


def test_a_missing_top_folder_is_seen(entries, dataset, tmp_path):
    flat = {key.removeprefix('Annotations/'): data for key, data in entries.items()}
    problems = validate_submission(_zip(tmp_path / 'bad.zip', flat), dataset)
    assert problems[0].startswith('10 entries that do not belong there') and 'in Annotations/' in problems[1]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda tmp: _saved(Image.new('P', (64, 50)), tmp), '64 x 50 pixels, the frames are 64 x 48'),
        (lambda tmp: _saved(Image.new('LA', (64, 48)), tmp), 'not an indexed'),
        (lambda tmp: _saved(Image.new('RGB', (64, 48)), tmp), 'not an indexed'),
        (lambda tmp: _saved(Image.new('L', (64, 48)), tmp), 'not an indexed'),
        (lambda tmp: b'GIF89a', 'not a PNG'),
        (lambda tmp: b'', 'not a PNG'),
        (lambda tmp: _png(64, 48, 3, 8, b'\0' * 100), 'damaged'),
        (lambda tmp: _png(64, 48, 3, 8, (b'\0' + b'\7' * 64) * 48), 'ids 7, allowed are 0, 1, 2, 3'),
        (lambda tmp: _png(60_000, 60_000, 3, 8, b'\0' * 1000), '60000 x 60000 pixels'),
    ],
)
def test_masks_that_the_server_would_not_take_are_named(entries, dataset, tmp_path, make, message):
    for frame in ('00005', '00015'):
        entries[_first(dataset, frame)] = make(tmp_path)
    problems = validate_submission(_zip(tmp_path / 'bad.zip', entries), dataset)
    assert len(problems) == 1 and problems[0].startswith(f"'{dataset.names[0]}': ")
    assert message in problems[0] and problems[0].endswith('(frame 00005 and 1 more)')


@pytest.mark.parametrize(
    'name',
    [
        '../outside.png',
        'Annotations/../../outside.png',
        '/etc/outside.png',
        'C:/outside.png',
        'Annotations\\..\\outside.png',
        'Annotations/a\\b.png',
    ],
)
def test_paths_that_lead_elsewhere_are_named_and_nothing_is_unpacked(entries, dataset, tmp_path, name):
    before = sorted(tmp_path.rglob('*'))
    path = _zip(tmp_path / 'bad.zip', entries | {name: b'x'})
    problems = validate_submission(path, dataset)
    assert len(problems) == 1 and problems[0].startswith('1 entries whose path leads elsewhere')
    assert sorted(tmp_path.rglob('*')) == sorted([*before, path])


def test_links_duplicates_and_strangers_are_named(entries, dataset, tmp_path):
    link = zipfile.ZipInfo('Annotations/link.png')
    link.external_attr = 0o120777 << 16
    stranger = 'Annotations/<script>é 名.png'
    path = _zip(tmp_path / 'bad.zip', entries | {stranger: b'x', '__MACOSX/._a': b'x'})
    with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning, match='Duplicate'):
        archive.writestr(link, '/etc/passwd')
        archive.writestr(_first(dataset), b'again')
    problems = validate_submission(path, dataset)
    assert 'leads elsewhere: Annotations/link.png' in problems[0]
    assert problems[1] == f'1 entries are there more than once: {_first(dataset)}'
    assert problems[2] == f'2 entries that do not belong there: {stranger}, __MACOSX/._a'


def test_folders_in_the_archive_are_fine(entries, dataset, tmp_path):
    folders = {'Annotations/': b'', **{f'Annotations/{name}/': b'' for name in dataset.names}}
    assert validate_submission(_zip(tmp_path / 'good2.zip', folders | entries), dataset) == []


def test_bombs_are_not_unpacked(entries, dataset, tmp_path, monkeypatch):
    entries[_first(dataset)] = b'\0' * (64 << 20)
    path = _zip(tmp_path / 'bomb.zip', entries)
    assert path.stat().st_size < 1 << 20
    read = []
    whole = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, 'read', lambda self, n=-1: read.append(n) or whole(self, n))
    (problem,) = validate_submission(path, dataset)
    assert 'unpacks to 67108864 bytes, a mask of 64 x 48 pixels has at most' in problem
    assert 0 < max(read) < 1 << 17 and min(read) >= 0
    many = entries | {f'{number}.png': b'' for number in range(2000)}
    (problem,) = validate_submission(_zip(tmp_path / 'many.zip', many), dataset)
    assert problem == '2010 entries, 10 are expected: not looked at further'


def test_an_archive_that_lies_about_sizes_is_read_no_further(entries, dataset, tmp_path):
    """The directory says 100 bytes, the data go on for megabytes."""
    name = _first(dataset)
    path = _zip(tmp_path / 'lie.zip', entries | {name: b'\0' * (8 << 20)})
    data = bytearray(path.read_bytes())
    true_size = struct.pack('<I', 8 << 20)
    position = data.find(true_size)
    while position >= 0:
        data[position : position + 4] = struct.pack('<I', 100)
        position = data.find(true_size)
    path.write_bytes(data)
    (problem,) = validate_submission(path, dataset)
    assert 'cannot be unpacked' in problem or 'not a PNG' in problem


@pytest.mark.parametrize('content', [b'', b'not a zip', b'PK\x03\x04' + b'\0' * 40, b'PK\x05\x06' + b'\xff' * 18])
def test_files_that_are_no_archives_are_named(dataset, tmp_path, content):
    (tmp_path / 'x.zip').write_bytes(content)
    (problem,) = validate_submission(tmp_path / 'x.zip', dataset)
    assert 'x.zip is not a readable zip file' in problem
    with pytest.raises(FileNotFoundError, match='archive not found'):
        validate_submission(tmp_path / 'y.zip', dataset)


def test_a_cut_archive_and_spoilt_entries_are_named(entries, dataset, tmp_path):
    path = _zip(tmp_path / 'bad.zip', entries, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 'not a readable zip file' in validate_submission(path, dataset)[0]
    spoilt = bytearray(data)
    spoilt[data.index(entries[_first(dataset)]) + 60] ^= 0xFF
    path.write_bytes(spoilt)
    assert 'cannot be unpacked (BadZipFile)' in validate_submission(path, dataset)[0]
    lzma = _zip(tmp_path / 'lzma.zip', entries, zipfile.ZIP_LZMA)
    assert all('use deflate' in problem for problem in validate_submission(lzma, dataset))


# ------------------------------------------------------------------------------------------------ DAVIS test-dev
@pytest.fixture
def dev_set(tmp_path):
    """DAVIS with one annotation a sequence, as test-dev has it."""
    videos = list(generate_videos([1, 2], 6, (48, 64)))
    root = tmp_path / 'davis'
    write_davis_layout(root, videos, split='test-dev')
    for video in videos:
        for t in range(1, 6):
            (root / 'Annotations' / '480p' / video.name / f'{t:05d}.png').unlink()
        for t in range(6):
            write_label_map(tmp_path / 'masks' / video.name / f'{t:05d}.png', video.label_maps[t])
    return root, tmp_path / 'masks'


def test_davis_test_dev_can_be_predicted_and_handed_in_and_not_scored(dev_set, tmp_path):
    root, masks = dev_set
    dataset = DavisDataset(root, split='test-dev')
    assert [list(sample.given_labels) for sample in dataset] == [[0], [0]]
    path = write_submission(masks, dataset, tmp_path / 's.zip')
    assert validate_submission(path, dataset) == []
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[:2] == [f'{dataset.names[0]}/00000.png', f'{dataset.names[0]}/00001.png']
    with pytest.raises(ValueError, match='truth of DAVIS test-dev is not public.*mmliir submit'):
        DavisMetric(root, split='test-dev')


# --------------------------------------------------------------------------------------------------- command line
def _command(*argv):
    parser = argparse.ArgumentParser()
    add_submit(parser.add_subparsers())
    args = parser.parse_args(['submit', *map(str, argv)])
    return args.run(args)


def test_the_command_makes_and_checks_archives(dev_set, masks, written, tmp_path, capsys):
    root, davis_masks = dev_set
    for benchmark, pred, data in (('davis2017_test_dev', davis_masks, root), ('youtube_vos2018', masks, written.root)):
        out = tmp_path / f'{benchmark}.zip'
        assert _command(benchmark, '--pred', pred, '--data-root', data, '--out', out) == 0
        said = capsys.readouterr()
        assert 'written and checked' in said.out and 'the server expects' in said.err
        assert _command(benchmark, '--data-root', data, '--check', out) == 0
        with pytest.raises(ValueError, match='there already'):
            _command(benchmark, '--pred', pred, '--data-root', data, '--out', out)
        assert _command(benchmark, '--pred', pred, '--data-root', data, '--out', out, '--overwrite') == 0
    capsys.readouterr()
    assert _command('davis2017_test_dev', '--data-root', root, '--check', tmp_path / 'youtube_vos2018.zip') == 2
    assert 'do not belong there' in capsys.readouterr().out
    with pytest.raises(ValueError, match='--check FILE alone'):
        _command('davis2017_test_dev', '--data-root', root)
