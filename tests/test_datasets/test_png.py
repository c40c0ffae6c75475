"""The strict reader of ids against Pillow, for every way to filter the rows of a PNG."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmliir.datasets import png
from mmliir.datasets.png import _decode_fast, decode_ids, png_size, read_ids

NONE, SUB, UP, AVERAGE, PAETH = range(5)


@pytest.fixture(autouse=True, params=['zlib', 'isal'])
def _inflater(request, monkeypatch):
    """Everything holds with and without the extra `fast`."""
    module = zlib if request.param == 'zlib' else pytest.importorskip('isal.isal_zlib', reason='isal is not installed')
    monkeypatch.setattr(png, '_inflate', module)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def _filtered(ids: np.ndarray, filters: list[int]) -> bytes:
    """Filter row t by `filters[t]`, by the definition in the PNG standard, byte by byte."""
    padded = np.pad(ids.astype(int), ((1, 0), (1, 0)))
    rows = []
    for t, kind in enumerate(filters):
        here, left, above, corner = padded[t + 1, 1:], padded[t + 1, :-1], padded[t, 1:], padded[t, :-1]
        guess = left + above - corner
        near = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)]).argmin(axis=0)
        paeth = np.choose(near, [left, above, corner])
        predicted = [0, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((here - predicted) % 256).astype(np.uint8).tobytes())
    return b''.join(rows)


def _png(ids: np.ndarray, filters: list[int], colour: int = 0, extra: bytes = b'', cut: int | None = None) -> bytes:
    height, width = ids.shape
    stream = zlib.compress(_filtered(ids, filters)[:cut])
    half = len(stream) // 2
    parts = [_chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0)), extra]
    parts += [_chunk(b'PLTE', bytes(range(256)) * 3)] if colour == 3 else []
    parts += [_chunk(b'IDAT', stream[:half]), _chunk(b'IDAT', stream[half:]), _chunk(b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def _pillow(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize('colour', [0, 3])
@pytest.mark.parametrize(
    'filters', [[NONE], [SUB], [UP], [NONE, SUB, UP], [UP, UP, SUB, UP], [AVERAGE, PAETH], [PAETH]]
)
def test_ids_are_those_of_pillow_under_every_filter(filters, colour):
    ids = np.random.default_rng(len(filters)).integers(0, 256, (13, 67), dtype=np.uint8)
    data = _png(ids, (filters * 13)[:13], colour)
    assert np.array_equal(decode_ids(data, 'x.png'), ids) and np.array_equal(_pillow(data), ids)
    # Average and Paeth are left to Pillow.
    assert (_decode_fast(data, 13, 67, 'x.png') is None) == (max(filters) > UP)


@pytest.mark.parametrize('mode', ['L', 'P', '1'])
@pytest.mark.parametrize('options', [{}, {'optimize': True}, {'compress_level': 0}, {'bits': 2}])
def test_what_pillow_writes_is_read_the_same(tmp_path, mode, options):
    ids = (np.indices((40, 60)).sum(axis=0) // 9 % 4).astype(np.uint8)
    image = Image.fromarray(ids)
    if mode == 'P':
        image.putpalette(list(range(256)) * 3)
    elif mode == '1':
        image = Image.fromarray(ids > 1)
    image.save(tmp_path / 'x.png', **options)
    found = read_ids(tmp_path / 'x.png', (40, 60))
    assert found.dtype == np.uint8 and found.flags.writeable
    assert np.array_equal(found, np.array(Image.open(tmp_path / 'x.png')))


def test_no_damage_gives_other_ids():
    """Every cut and every spoilt byte is an error, or has left all pixels whole (the last check sums may be gone)."""
    ids = np.random.default_rng(0).integers(0, 5, (9, 30), dtype=np.uint8)
    data = _png(ids, [SUB] * 9)
    start = data.index(b'IDAT')
    damaged = [data[:keep] for keep in range(len(data))]
    for position in range(start, len(data)):
        damaged.append(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
    num_refused = 0
    for spoilt in damaged:
        try:
            assert np.array_equal(decode_ids(spoilt, 'x.png'), ids)
        except ValueError as error:
            assert str(error).startswith(('x.png is not a readable image', 'x.png is damaged'))
            num_refused += 1
    assert num_refused > 0.8 * len(damaged)


def test_too_few_pixels_and_another_size_are_refused():
    ids = np.zeros((9, 30), dtype=np.uint8)
    with pytest.raises(ValueError, match='damaged'):
        decode_ids(_png(ids, [NONE] * 9, cut=100), 'x.png')
    with pytest.raises(ValueError, match='is 30 x 9 pixels, its annotation 9 x 30'):
        decode_ids(_png(ids, [NONE] * 9), 'x.png', (30, 9))
    assert png_size(_png(ids, [NONE] * 9)) == (9, 30) and png_size(b'GIF89a') is None


def test_a_declared_size_is_not_believed():
    """A header of gigapixels over a few bytes costs no memory."""
    header = _chunk(b'IHDR', struct.pack('>IIBBBBB', 100_000, 100_000, 8, 0, 0, 0, 0))
    data = b'\x89PNG\r\n\x1a\n' + header + _chunk(b'IDAT', zlib.compress(b'\0' * 1000)) + _chunk(b'IEND', b'')
    with pytest.raises(ValueError, match='not a readable image'):
        decode_ids(data, 'x.png')
    with pytest.raises(ValueError):
        decode_ids(data, 'x.png', (480, 854))


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA', 'I;16'])
def test_more_than_one_channel_is_refused(tmp_path, mode):
    Image.new(mode, (20, 10)).save(tmp_path / 'x.png')
    with pytest.raises(ValueError, match=r'x\.png is (a colour image|a 16-bit image|an image of mode LA)'):
        read_ids(tmp_path / 'x.png')
