"""Pickles of data sets: plain data and arrays come back as `pickle` itself reads them; nothing else is ever called."""

import os
import pickle
import pickletools
import resource
import struct
import time

import numpy as np
import pytest

from mmliir.datasets import read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def write(folder, data: bytes):
    path = folder / 'data.pkl'
    path.write_bytes(data)
    return path


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            assert_same(one, other)
    elif isinstance(theirs, (np.ndarray, np.generic)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def plain_data():
    rng = np.random.default_rng(0)
    shared = rng.random((3, 4))
    return {
        'video': rng.integers(0, 256, (2, 5, 6, 3), dtype=np.uint8),
        'jpegs': np.array([b'\xff\xd8one', b'\xff\xd8three\xff\xd9']),
        'names': np.array(['a', 'größe']),
        'occluded': rng.random((3, 2)) < 0.5,
        'points': rng.random((3, 2, 2)).astype(np.float32),
        'fortran': np.asfortranarray(rng.random((3, 4))),
        'turned': rng.random((2, 3, 4)).transpose(1, 0, 2),
        'cut': rng.random((6, 6))[::2, 1:4],
        'big end': rng.random(4).astype('>f8'),
        'whole': np.arange(5, dtype=np.int64),
        'none of it': np.empty((0, 4), np.int16),
        'shared': [shared, shared, {'again': shared}],
        'scalars': (np.float32(3.5), np.int64(-2), np.bool_(True)),
        'dtype': np.dtype('float32'),
        'numbers': [None, True, False, 0, 255, -1, 1 << 40, -(1 << 90), 1.5, float('inf')],
        'strings': ['', 'ü\n', b'', b'\x00\xff', ()],
        7: (1, (2, (3, [4, {}]))),
    }


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_plain_data_come_back_as_pickle_reads_them(tmp_path, protocol):
    data = pickle.dumps(plain_data(), protocol)
    assert_same(read_pickle(write(tmp_path, data)), plain_data())


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_names_of_numpy_1_and_2_are_both_known(tmp_path, protocol):
    data = pickle.dumps(plain_data(), protocol)
    new, old = b'numpy._core.', b'numpy.core.'
    if old in data:
        new, old = old, new
    for module in (b'multiarray', b'numeric'):
        ours, theirs = new + module, old + module
        for short in (b'', b'\x8c'):  # protocol 4 and later store the length of the name
            wrap = (lambda name: b'\x8c' + bytes([len(name)]) + name) if short else (lambda name: name)
            data = data.replace(wrap(ours), wrap(theirs)) if short or protocol < 4 else data
    assert new not in data and old in data
    assert_same(read_pickle(write(tmp_path, data)), plain_data())


def test_python_2_strings_hold_the_data_of_arrays(tmp_path):
    array = np.arange(250, 256, dtype=np.uint8).reshape(2, 3)
    text = array.tobytes()
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b'U' + bytes([len(text)]) + text + b'tb.'
    )
    assert_same(read_pickle(write(tmp_path, data)), array)


def test_a_list_that_holds_itself_is_read(tmp_path):
    data: list = [1]
    data.append(data)
    found = read_pickle(write(tmp_path, pickle.dumps(data)))
    assert found[1] is found


# -- the file stays on the disk -------------------------------------------------------------------------------


def test_arrays_are_read_only_views_of_the_file(tmp_path):
    found = read_pickle(write(tmp_path, pickle.dumps([np.zeros((50, 50, 3), np.uint8), b'x' * 10_000])))
    assert not found[0].flags.writeable and not found[0].flags.owndata
    assert isinstance(found[1], memoryview) and bytes(found[1]) == b'x' * 10_000


def test_a_file_larger_than_the_memory_is_open_at_once(tmp_path):
    """Eight GiB of zeros that the file system does not store."""
    length = 8 << 30
    head, tail = pickle.dumps(np.full(7, 9, np.uint8), 4).split(bytes([9]) * 7)
    head = head[: head.rindex(b'C')].replace(b'K\x07\x85', b'\x8a\x05' + length.to_bytes(5, 'little') + b'\x85')
    path = tmp_path / 'large.pkl'
    with open(path, 'wb') as stream:
        stream.write(head + b'\x8e' + struct.pack('<Q', length))
        stream.seek(length, os.SEEK_CUR)
        stream.write(tail)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array = read_pickle(path)
    assert array.shape == (length,) and array[length // 2] == 0
    assert time.monotonic() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    path.unlink()


# -- files that want more than data ---------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class WithState(Call):
    def __init__(self, state, function, *arguments):
        self.reduced = function, arguments, state


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('depth', ['alone', 'inside'])
def test_code_is_named_and_does_not_run(tmp_path, protocol, depth):
    marker = tmp_path / 'ran'
    attack = Call(os.system, f'touch {marker}')
    data = pickle.dumps(attack if depth == 'alone' else {'video': [np.zeros(3), attack]}, protocol)
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=rf"data.pkl asks for '{os.name}.system'.*nothing was executed"):
        read_pickle(path)
    assert not marker.exists()
    pickle.loads(data)  # the test would notice
    assert marker.exists()


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize(
    'call, named',
    [
        (Call(eval, '1 + 1'), r'eval'),
        (Call(getattr, 'text', 'upper'), r'getattr'),
        (Call(__import__, 'os'), r'__import__'),
        (Call(np.matrix, [[1, 2]]), r'matrix'),
        (Call(np.load, 'x.npy'), r'numpy.load'),
        (Call(np.fromfile, 'x'), r'numpy.fromfile'),
        (Call(np.zeros, (2,)), r'numpy.zeros'),
        (Call(bytearray, 5), r'bytearray'),
        (Call(np.dtype, 'O'), r"dtype 'O'"),
        (Call(np.dtype, 'i4,f4'), r"dtype 'i4,f4'"),
        (Call(np.dtype, 'V8'), r"dtype 'V8'"),
        (np.array([1, None], object), r"dtype 'O8'"),
        (np.zeros(2, [('a', 'f4')]), r'dtype'),
        (np.ma.masked_array([1, 2], [True, False]), r'_mareconstruct'),
        (np.datetime64('2020-01-01'), r'dtype'),
        (np.ndarray, r'numpy.ndarray'),
        (Call(np.ndarray, (4,)), r"call of 'numpy.ndarray'"),
        (np.dtype, r'numpy.dtype'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_is_no_plain_array_is_named(tmp_path, protocol, call, named):
    with pytest.raises(ValueError, match=f'data.pkl .*{named}'):
        read_pickle(write(tmp_path, pickle.dumps(call, protocol)))


@pytest.mark.parametrize(
    'data, named',
    [
        (b"(S'touch x'\nios\nsystem\n.", r"asks for an object of 'os.system'"),
        (b'(cos\nsystem\nX\x01\x00\x00\x00ao.', r"asks for 'os.system'"),
        (b'(cnumpy\nndarray\nK\x04o.', r"OBJ of 'numpy.ndarray'"),
        (b'\x80\x02cnumpy\nndarray\nK\x04\x85\x81.', r"NEWOBJ of 'numpy.ndarray'"),
        (b'\x80\x04cnumpy\nndarray\n)}\x92.', r"NEWOBJ_EX of 'numpy.ndarray'"),
        (b'\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.', r"'numpy.ndarray.__reduce__'"),
        (b'\x80\x04\x8c\x05numpy\x8c\x12dtype.__subclasses\x93.', r"'numpy.dtype.__subclasses'"),
        (b'cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.', r"change the state of 'numpy.dtype'"),
        (b'}}X\x01\x00\x00\x00aK\x01sb.', r"change the state of 'dict'"),
        (b'(lK\x01\x85R.', r"a call of 'list'"),
        (b'\x80\x02\x82\x05.', r'EXT1'),
        (b'Pabc\n.', r"PERSID \('abc'\)"),
        (b'K\x01Q.', r'BINPERSID'),
        (b'\x80\x05\x97.', r'NEXT_BUFFER'),
        (b'c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.', r"encoding 'rot13'"),
        (b'cnumpy.core.multiarray\n_reconstruct\n(c_codecs\nencode\n(K\x00tX\x01\x00\x00\x00btR.', r"'_codecs.encode'"),
    ],
    ids=repr,
)
def test_every_opcode_that_makes_objects_is_refused_with_its_name(tmp_path, data, named):
    with pytest.raises(ValueError, match=f'data.pkl .*{named}.*nothing was executed'):
        read_pickle(write(tmp_path, data))


def test_a_subclass_cannot_be_slipped_into_the_reconstruction_of_an_array(tmp_path):
    data = pickle.dumps(np.zeros(3), 2).replace(b'cnumpy\nndarray\n', b'cnumpy\nmemmap\n')
    with pytest.raises(ValueError, match=r"asks for 'numpy.memmap'"):
        read_pickle(write(tmp_path, data))


# -- files that want more than there is -----------------------------------------------------------------------


def _array_of_shape(shape: bytes) -> bytes:
    data = pickle.dumps(np.zeros(3, np.uint8), 2)
    assert data.count(b'K\x03\x85') == 1
    return data.replace(b'K\x03\x85', shape)


@pytest.mark.parametrize(
    'data',
    [
        _array_of_shape(b'\x8a\x08' + (1 << 60).to_bytes(8, 'little') + b'\x85'),
        _array_of_shape(b'\x8a\x08' + (1 << 60).to_bytes(8, 'little') + b'\x8a\x09' + bytes(8) + b'\x02\x86'),
        _array_of_shape(b'K\x04\x85'),
        _array_of_shape(b'J\xfd\xff\xff\xff\x85'),
        _array_of_shape(b'N\x85'),
        _array_of_shape(b'(' + b'K\x01' * 60 + b'K\x03t'),
        _array_of_shape(b'G?\xf0\x00\x00\x00\x00\x00\x00\x85'),
        pickle.dumps(np.zeros(3, np.uint8), 2).replace(b'u1', b'u9'),
        pickle.dumps(np.zeros(3, 'S4'), 2).replace(b'S4', b'S0'),
        pickle.dumps(np.zeros(3, 'S4'), 2).replace(b'X\x02\x00\x00\x00S4', b'X\x0b\x00\x00\x00S9999999999'),
        pickle.dumps(np.float64(1.0), 2).replace(b'f8', b'f4'),
        b'\x80\x04\x8e' + struct.pack('<Q', 1 << 62) + b'x.',
        b'\x80\x05\x96' + struct.pack('<Q', (1 << 64) - 1) + b'x.',
        b'B' + struct.pack('<I', (1 << 32) - 1) + b'x.',
        b'\x80\x04\x8d' + struct.pack('<Q', 1 << 62) + b'x.',
        b'X' + struct.pack('<I', (1 << 32) - 1) + b'x.',
        b'\x8b' + struct.pack('<i', (1 << 31) - 1) + b'1.',
        b'\x8b' + struct.pack('<i', -5) + b'1.',
        b'j' + struct.pack('<I', 5) + b'.',
        b'h\x00.',
        b')' + b'\x85' * 300_000 + b'q\x00}h\x00K\x01s.',  # hashing it would overflow the C stack
        b'.',
        b'0.',
        b't.',
        b'K\x01a.',
        b'}K\x01K\x02K\x03(K\x01u.',
        b'}]K\x01s.',
        b'\xf0.',
        b'not a pickle at all',
        b'\x89PNG\r\n\x1a\n',
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n(K\x01K\x02K\x03tR.',
        b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00X\x01\x00\x00\x00btR.',
        b'cnumpy.core.multiarray\n_reconstruct\n(tR.',
        b'L' + b'9' * 10_000 + b'L\n.',
    ],
)
def test_what_does_not_add_up_is_a_named_error(tmp_path, data):
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=r'data\.pkl'):
        read_pickle(path)


def test_a_number_in_the_memo_makes_no_room_for_all_below_it(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_pickle(write(tmp_path, b'K\x07r' + struct.pack('<I', (1 << 32) - 1) + b'.')) == 7
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_file_cut_off_anywhere_is_a_named_error(tmp_path, protocol):
    data = pickle.dumps({'video': np.zeros((2, 3), np.uint8), 'names': ['a', b'b', 1.5, None]}, protocol)
    for length in range(len(data)):
        path = write(tmp_path, data[:length])
        with pytest.raises(ValueError, match=r'data\.pkl.*Download it again'):
            read_pickle(path)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_damaged_file_is_read_or_a_named_error_and_nothing_else(tmp_path, protocol):
    data = pickle.dumps({'v': np.zeros((2, 3), np.uint8), 'p': np.ones((1, 2)), 'n': ['a', b'b', 1.5, -1]}, protocol)
    rng = np.random.default_rng(protocol)
    codes = np.frombuffer(''.join(pickletools.code2op).encode('latin1'), np.uint8)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.choice(codes) if rng.random() < 0.7 else rng.integers(256)
        path = write(tmp_path, bytes(damaged))
        try:
            read_pickle(path)
        except ValueError as error:
            assert 'data.pkl' in str(error)


def test_a_file_that_is_absent_or_a_folder_or_empty_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pkl, which does not exist'):
        read_pickle(tmp_path / 'absent.pkl')
    with pytest.raises(FileNotFoundError, match='which is a folder'):
        read_pickle(tmp_path)
    with pytest.raises(ValueError, match=r'data.pkl is empty \(0 bytes\)'):
        read_pickle(write(tmp_path, b''))
