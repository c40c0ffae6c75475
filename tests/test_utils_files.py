"""Reading text files of others: marks before the text, other encodings, names that are no UTF-8."""

import codecs
import json
import os

import pytest

from mmliir.utils.files import is_system_file, read_text, shown_path, write_json_atomic

_TEXT = 'bear\nkäse\n\n'


@pytest.mark.parametrize(
    'data',
    [
        _TEXT.encode(),
        codecs.BOM_UTF8 + _TEXT.encode(),
        _TEXT.encode('utf-16'),
        codecs.BOM_UTF16_BE + _TEXT.encode('utf-16-be'),
        _TEXT.encode('utf-32'),
        codecs.BOM_UTF8 + _TEXT.replace('\n', '\r\n').encode(),
        _TEXT.replace('\n', '\r').encode(),
    ],
    ids=['utf8', 'utf8-mark', 'utf16-le', 'utf16-be', 'utf32', 'windows', 'old-mac'],
)
def test_text_is_the_same_under_every_mark(tmp_path, data):
    path = tmp_path / 'val.txt'
    path.write_bytes(data)
    assert read_text(path) == _TEXT


def test_an_empty_file_and_a_mark_alone_are_empty(tmp_path):
    for data in (b'', codecs.BOM_UTF8, codecs.BOM_UTF16_LE):
        (tmp_path / 'a.txt').write_bytes(data)
        assert read_text(tmp_path / 'a.txt') == ''


@pytest.mark.parametrize(
    'data, told',
    [
        ('bear\nkäse\n'.encode('latin-1'), r'a\.txt is no UTF-8 text: byte 0xe4 at position 6, line 2'),
        (codecs.BOM_UTF8 + b'ok\n\xff', r'a\.txt is no UTF-8 text: byte 0xff'),
        (codecs.BOM_UTF16_LE + b'a\0b', r'a\.txt is no UTF-16-LE text'),
    ],
    ids=['latin1', 'utf8-mark', 'utf16-cut'],
)
def test_what_is_no_text_is_named(tmp_path, data, told):
    path = tmp_path / 'a.txt'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told) as caught:
        read_text(path)
    assert not isinstance(caught.value, UnicodeDecodeError)
    assert 'Save it as UTF-8' in str(caught.value)


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / 'none.txt')


@pytest.mark.skipif(os.name != 'posix', reason='names of bytes are of POSIX')
def test_an_undecodable_name_can_be_told(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/k\xe4se.txt')
    with open(path, 'wb') as stream:
        stream.write(b'\xe4')
    with pytest.raises(ValueError) as caught:
        read_text(path)
    str(caught.value).encode('utf-8')
    assert 'k\\xe4se.txt' in str(caught.value)
    assert shown_path(path).endswith('k\\xe4se.txt')


def test_json_holds_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b'k\xe4se')
    write_json_atomic(tmp_path / 'a.json', {name: 'käse'})
    assert json.loads((tmp_path / 'a.json').read_text(encoding='utf-8')) == {name: 'käse'}


def test_files_of_systems_are_known():
    assert all(map(is_system_file, ['.DS_Store', '._00000.png', 'Thumbs.db']))
    assert not any(map(is_system_file, ['.git', '.hidden.png', '00000.png']))
