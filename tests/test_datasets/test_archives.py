"""Archives are unpacked inside the folder, or refused before anything is written."""

import io
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmliir.datasets import archives
from mmliir.datasets.archives import extract_archive

FILES = {'DAVIS/a/00000.jpg': b'abc' * 1000, 'DAVIS/a/00001.jpg': os.urandom(5000), 'DAVIS/list.txt': b''}
TARS = {'.tar': 'w:', '.tar.gz': 'w:gz', '.tar.xz': 'w:xz', '.tar.bz2': 'w:bz2'}
KINDS = ('.zip', *TARS)


def write_zip(path: Path, files: dict[str, bytes], change=None) -> Path:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if change is not None:
                change(info)
            archive.writestr(info, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], change=None) -> Path:
    with tarfile.open(path, TARS[''.join(path.suffixes)]) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return path


def write(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path, files) if path.suffix == '.zip' else write_tar(path, files)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def assert_refused(path: Path, tmp_path: Path, match: str) -> None:
    """Nothing is written, inside or outside."""
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=match):
        extract_archive(path, tmp_path / 'inner' / 'into')
    assert contents(tmp_path) == before and not (tmp_path / 'inner').exists()


@pytest.mark.parametrize('kind', KINDS)
def test_files_come_out_as_they_went_in(tmp_path, kind):
    path, steps = write(tmp_path / f'data{kind}', {**FILES, '__MACOSX/._a': b'x', 'DAVIS/.DS_Store': b'x'}), []
    done = extract_archive(path, tmp_path / 'into', progress=lambda *step: steps.append(step))
    assert contents(tmp_path / 'into') == FILES
    assert (done.num_files, done.num_bytes, done.num_left_out, done.top) == (3, 8000, 2, ('DAVIS',))
    assert steps[-1] == (8000, 8000)
    assert not (done.into / 'DAVIS' / 'a' / '00000.jpg').stat().st_mode & 0o7111


@pytest.mark.parametrize('kind', ['.zip', '.tar', '.tar.gz'])
@pytest.mark.parametrize(
    'name', ['../out.txt', 'a/../../out.txt', '/etc/out.txt', 'a\\..\\..\\out.txt', 'C:/out.txt', 'a/../b.txt', 'x\ny']
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, kind, name):
    path = write(tmp_path / f'data{kind}', {**FILES, name: b'owned'})
    assert_refused(path, tmp_path, 'leads out of the folder|cannot be that of a file')


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    def change(info):
        if info.name == 'DAVIS/list.txt':
            info.type, info.linkname = kind, '/etc/passwd'

    assert_refused(write_tar(tmp_path / 'data.tar', FILES, change), tmp_path, 'is a (link|device)')


def test_a_tar_that_writes_through_its_own_link_is_refused(tmp_path):
    path = tmp_path / 'data.tar'
    with tarfile.open(path, 'w') as archive:
        link = tarfile.TarInfo('door')
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        info = tarfile.TarInfo('door/out.txt')
        info.size = 5
        archive.addfile(info, io.BytesIO(b'owned'))
    assert_refused(path, tmp_path, "'door' is a link")


@pytest.mark.parametrize('mode,said', [(stat.S_IFLNK, 'link'), (stat.S_IFCHR, 'device'), (stat.S_IFIFO, 'device')])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, said):
    def change(info):
        if info.filename == 'DAVIS/list.txt':
            info.external_attr = (mode | 0o777) << 16

    assert_refused(write_zip(tmp_path / 'data.zip', FILES, change), tmp_path, f'is a {said}')


@pytest.mark.parametrize('kind', ['.zip', '.tar'])
@pytest.mark.parametrize(
    'twin',
    [
        'DAVIS/A/00000.jpg',  # by case, of a folder
        'DAVIS/LIST.txt',  # by case, of a file
        'DAVIS/a',  # a file where a folder is
        'DAVIS/list.txt/inside',  # a folder where a file is
        'DAVIS/./list.txt',  # the same, spelled otherwise
    ],
)
def test_a_name_that_is_there_twice_is_refused(tmp_path, kind, twin):
    assert_refused(write(tmp_path / f'data{kind}', {**FILES, twin: b'x'}), tmp_path, 'is in it twice')


def test_a_name_that_is_there_twice_by_unicode_form_is_refused(tmp_path):
    assert_refused(write(tmp_path / 'data.zip', {'caf\u00e9': b'', 'cafe\u0301': b'', 'x': b''}), tmp_path, 'twice')


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_file_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'data.zip', 'w') as archive:
        archive.writestr('a', b'1')
        archive.writestr('a', b'2')
    assert_refused(tmp_path / 'data.zip', tmp_path, "'a' is in it twice")


def test_an_encrypted_file_is_refused(tmp_path):
    path = write_zip(tmp_path / 'data.zip', {'a': b'abc'})
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(data)
    assert_refused(path, tmp_path, 'is encrypted')


@pytest.mark.parametrize('kind', ['.zip', '.tar.gz', '.tar.bz2'])
def test_a_bomb_is_refused_and_the_limit_can_be_raised(tmp_path, monkeypatch, kind):
    path = write(tmp_path / f'data{kind}', {'zeros': bytes(1_000_000)})
    monkeypatch.setattr(archives, '_RATIO_FROM', 100_000)
    assert_refused(path, tmp_path, r'times its size, the limit is 100 \(raise --max-ratio')
    with pytest.raises(ValueError, match=r'unpacks to 0.001 GB, the limit is 0.0005 GB \(raise --max-gb'):
        extract_archive(path, tmp_path / 'into', max_bytes=500_000)
    assert extract_archive(path, tmp_path / 'into', max_ratio=1e6).num_bytes == 1_000_000


def test_a_zip_whose_files_overlap_is_refused(tmp_path):
    """As in a bomb of files that share their bytes: the directory lists one file's bytes many times."""
    path = write_zip(tmp_path / 'data.zip', {'a': os.urandom(3000)})
    data = path.read_bytes()
    start, end = data.index(b'PK\x01\x02'), data.index(b'PK\x05\x06')
    entry, count = data[start:end], 40
    entries = b''.join(entry[:-1] + bytes([97 + n]) if n < 26 else entry[:-1] + bytes([39 + n]) for n in range(count))
    tail = bytearray(data[end:])
    struct.pack_into('<HHI', tail, 8, count, count, len(entries))
    path.write_bytes(data[:start] + entries + tail)
    assert_refused(path, tmp_path, 'its files overlap')


def test_a_zip_that_lies_about_a_length_is_refused(tmp_path):
    path = write_zip(tmp_path / 'data.zip', {'a': bytes(100_000)})
    data = bytearray(path.read_bytes())
    struct.pack_into('<I', data, data.index(b'PK\x01\x02') + 24, 10)  # unpacked size, in the directory
    path.write_bytes(data)
    with pytest.raises(ValueError, match='cut off or damaged|longer than its header'):
        extract_archive(path, tmp_path / 'into')
    assert contents(tmp_path / 'into') == {}


@pytest.mark.parametrize('kind', KINDS)
def test_a_download_that_was_cut_off_anywhere_is_refused(tmp_path, kind):
    files = {f'DAVIS/{number}.jpg': os.urandom(1536) for number in range(4)}
    path = write(tmp_path / f'data{kind}', files)
    whole = path.read_bytes()
    end = len(whole.rstrip(b'\0')) if kind == '.tar' else len(whole)  # a tar may lose padding
    for length in [*range(0, end, end // 16), 512, 2048, end - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='cut off|holds no file'):
            extract_archive(path, tmp_path / 'into')
        assert not (tmp_path / 'into').exists() or contents(tmp_path / 'into') == {}


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / 'data.zip').write_text('<html>404 not found</html>')
    assert_refused(tmp_path / 'data.zip', tmp_path, 'A web page saved under its name')
    with pytest.raises(FileNotFoundError, match='archive not found'):
        extract_archive(tmp_path / 'nothing.zip', tmp_path / 'into')


def test_an_interrupted_call_leaves_a_hidden_part_that_the_next_replaces(tmp_path, monkeypatch):
    path, into = write(tmp_path / 'data.zip', FILES), tmp_path / 'into'
    monkeypatch.setattr(archives, '_remove', lambda folder: None)  # as when the process is killed

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_archive(path, into, progress=stop)
    assert [entry.name for entry in into.iterdir()] == ['.data.zip.part']
    monkeypatch.undo()
    (into / '.data.zip.part' / 'stale').write_text('')
    extract_archive(path, into)
    assert contents(into) == FILES


def test_a_second_call_keeps_equal_files_and_refuses_others(tmp_path):
    path, into = write(tmp_path / 'data.zip', FILES), tmp_path / 'into'
    extract_archive(path, into)
    (into / 'DAVIS' / 'mine.txt').write_text('kept')
    extract_archive(path, into)
    (into / 'DAVIS' / 'list.txt').write_text('changed')
    before = contents(into)
    with pytest.raises(ValueError, match=r'list.txt is there already and differs'):
        extract_archive(path, into)
    assert contents(into) == before and before['DAVIS/mine.txt'] == b'kept'


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    usage = type('usage', (), {'free': 100})
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda folder: usage)
    assert_refused(write(tmp_path / 'data.zip', FILES), tmp_path, 'Make room')
