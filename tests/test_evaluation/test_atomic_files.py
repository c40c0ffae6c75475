"""Files are whole or not there."""

import hashlib
import os
import stat

import pytest

from mmliir.utils import files
from mmliir.utils.files import sha256_file, write_bytes_atomic, write_json_atomic, write_text_atomic


def test_content_arrives_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / 'a' / 'b.json'
    assert write_json_atomic(path, {'word': 'é', 'none': None}) == path
    assert path.read_text(encoding='utf-8') == '{\n  "word": "é",\n  "none": null\n}\n'
    write_text_atomic(path, 'new\n')
    assert path.read_bytes() == b'new\n'
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'scores.json'
    write_text_atomic(path, 'old')

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(path, 'new')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_be_made_again_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(files.os, 'fsync', waited.append)
    write_bytes_atomic(tmp_path / 'mask.png', b'new', durable=False)
    assert not waited and (tmp_path / 'mask.png').read_bytes() == b'new'
    write_bytes_atomic(tmp_path / 'scores.json', b'new')
    assert waited and sorted(path.name for path in tmp_path.iterdir()) == ['mask.png', 'scores.json']


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match='JSON'):
        write_json_atomic(tmp_path / 'x.json', {'decay': float('nan')})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != 'posix', reason='file modes')
def test_others_may_read_it_as_any_other_new_file(tmp_path):
    (tmp_path / 'plain').touch()
    write_bytes_atomic(tmp_path / 'ours', b'')
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('plain', 'ours')}
    assert len(modes) == 1


def test_sha256_of_a_file_longer_than_a_chunk(tmp_path):
    data = bytes(range(256)) * 5000
    assert sha256_file(write_bytes_atomic(tmp_path / 'x', data)) == hashlib.sha256(data).hexdigest()
