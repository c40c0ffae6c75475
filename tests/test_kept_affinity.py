"""A continued run compares cells with the code that it was begun with, or says why it cannot."""

import contextlib
import json
import logging

import numpy as np
import pytest
import torch
from command_cases import RAW_LAB, run
from compiler import needs_compiler
from replicas import videos

from mmliir.apis.affinity import Affinity, describe_affinity, settle_affinity
from mmliir.apis.propagate import propagate, write_propagation
from mmliir.ops import native
from mmliir.ops.native import build
from mmliir.testing.synthetic import write_davis_layout

pytestmark = pytest.mark.usefixtures('one_thread')
CPU = torch.device('cpu')


@pytest.fixture
def switch(monkeypatch):
    """A function that sets `MMLIIR_NATIVE`; nothing is loaded and nothing was said."""

    def forget() -> None:
        native._load_once.cache_clear()
        native._warned.clear()

    def turn(value: str) -> None:
        monkeypatch.setenv('MMLIIR_NATIVE', value)
        forget()

    forget()
    monkeypatch.delenv('MMLIIR_NATIVE', raising=False)
    yield turn
    forget()


@pytest.fixture
def nothing_built(monkeypatch, tmp_path):
    """A function that leaves neither a library nor a compiler."""

    def take() -> None:
        monkeypatch.setattr(build, 'PREBUILT', tmp_path / 'nowhere')
        monkeypatch.setenv('MMLIIR_CACHE', str(tmp_path / 'empty'))
        monkeypatch.setenv('PATH', str(tmp_path))
        monkeypatch.delenv('CXX', raising=False)
        native._load_once.cache_clear()

    return take


@pytest.fixture
def davis(tmp_path):
    write_davis_layout(tmp_path / 'data' / 'davis2017', videos())
    return tmp_path / 'data'


def _evaluate(root, out, *options, model='raw:lab'):
    common = ('--model', model, '--on', 'davis2017', '--protocol', 'quick', '--data-root', root, '--out', out)
    return run('mmliir', 'eval', *common, '--jobs', 1, '--no-report', *options)


def _folder(out):
    return out / 'davis2017' / 'quick'


def _card(folder):
    return json.loads((folder / 'run.json').read_text())


def _affinity(folder):
    return _card(folder)['input']['affinity']


def _drop_a_sequence(folder):
    """As a run that was killed leaves it."""
    name = sorted(path.name for path in folder.iterdir() if path.is_dir())[-1]
    for path in (folder / name).iterdir():
        path.unlink()
    (folder / name).rmdir()
    return name


@contextlib.contextmanager
def _watched(monkeypatch):
    """Which kind of code computed inside the block: 'torch' or the name of a library's level."""
    seen, real = set(), native.library

    def library():
        try:
            code = real()
        except native.Unavailable:
            seen.add('torch')
            raise
        seen.add(native.choice())
        return code

    with monkeypatch.context() as patch:
        patch.setattr(native, 'library', library)
        yield seen


def _write_card(folder, affinity):
    card = _card(folder)
    card['input']['affinity'] = affinity
    (folder / 'run.json').write_text(json.dumps(card))


@needs_compiler
def test_a_run_begun_with_pytorch_is_continued_with_it(davis, tmp_path, switch, monkeypatch, caplog):
    switch('0')
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    assert _affinity(folder) == 'torch on cpu'
    name = _drop_a_sequence(folder)
    switch('1')
    with _watched(monkeypatch) as seen:
        done = _evaluate(davis, tmp_path / 'out')
    assert done.code == 0, done.err
    assert caplog.text.count(f'{folder} was begun with torch on cpu: it is continued with it') == 1
    assert (folder / name).is_dir() and _affinity(folder) == 'torch on cpu'
    assert seen == {'torch'}
    assert native.choice() != '0'  # afterwards all is as it was


@needs_compiler
def test_a_run_begun_with_compiled_code_stops_where_there_is_none_and_says_how_to_go_on(
    davis, tmp_path, switch, nothing_built, caplog
):
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    begun = f'native ({native.describe()}) on cpu'
    assert _affinity(folder) == begun
    assert _evaluate(davis, tmp_path / 'out').code == 0
    name = _drop_a_sequence(folder)
    switch('0')
    text = _evaluate(davis, tmp_path / 'out').error()
    assert begun in text and 'MMLIIR_NATIVE=0 switches it off, unset it' in text and 'with torch' in text
    switch('1')
    nothing_built()
    text = _evaluate(davis, tmp_path / 'out').error()
    for part in (str(folder), begun, 'no C++ compiler', 'with torch', 'a wheel with compiled code', '--overwrite'):
        assert part in text
    assert not (folder / name).exists() and _affinity(folder) == begun
    done = _evaluate(davis, tmp_path / 'out', '--overwrite')
    assert done.code == 0 and _affinity(folder) == 'torch on cpu'
    assert caplog.text.count('propagation runs on PyTorch') == 1


@needs_compiler
def test_finished_predictions_are_scored_wherever_they_were_made(davis, tmp_path, switch, nothing_built, caplog):
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    _write_card(folder, 'native (x86-64-v9, 4096 bit) on cpu')
    nothing_built()
    done = _evaluate(davis, tmp_path / 'out')
    assert done.code == 0 and 'PyTorch' not in caplog.text
    assert _affinity(folder) == 'native (x86-64-v9, 4096 bit) on cpu'


@needs_compiler
@pytest.mark.slow  # where the lowest level is not built yet
def test_a_level_is_kept_where_this_processor_has_it(davis, tmp_path, switch, monkeypatch, caplog):
    lowest = native.supported()[-1]
    switch(lowest)
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    begun = _affinity(folder)
    assert begun.startswith(f'native ({lowest}')
    _drop_a_sequence(folder)
    switch('1')
    with _watched(monkeypatch) as seen:
        done = _evaluate(davis, tmp_path / 'out')
    assert done.code == 0 and seen == {lowest} and _affinity(folder) == begun
    assert ('continued with it' in caplog.text) is (len(native.supported()) > 1)


@needs_compiler
def test_a_level_that_this_processor_lacks_is_refused_with_both_names(davis, tmp_path, switch):
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    _write_card(folder, 'native (x86-64-v9, 4096 bit) on cpu')
    _drop_a_sequence(folder)
    text = _evaluate(davis, tmp_path / 'out').error()
    assert 'native (x86-64-v9, 4096 bit)' in text and f'with native ({native.level()})' in text
    assert ', '.join(native.supported()) in text and '--overwrite' in text


@needs_compiler
def test_cards_of_early_versions_name_no_level_and_stay_as_they_are(davis, tmp_path, switch, caplog):
    assert _evaluate(davis, tmp_path / 'out').code == 0
    folder = _folder(tmp_path / 'out')
    _write_card(folder, 'native on cpu')
    _drop_a_sequence(folder)
    done = _evaluate(davis, tmp_path / 'out')
    assert done.code == 0 and 'continued' not in caplog.text
    assert _affinity(folder) == 'native on cpu'


def test_another_run_is_still_refused_for_what_differs(davis, tmp_path, switch):
    switch('0')
    assert _evaluate(davis, tmp_path / 'out').code == 0
    switch('1')
    text = _evaluate(davis, tmp_path / 'out', model='raw:rgb').error()
    assert 'other settings' in text and 'affinity' not in text


@needs_compiler
def test_propagate_continues_with_what_its_masks_were_begun_with(tmp_path, switch, nothing_built, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (4, 24, 32, 3), dtype=np.uint8)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 4:16] = 1

    def write(folder):
        return write_propagation(propagate(frames, mask, RAW_LAB, protocol='quick'), folder)

    switch('0')
    write(tmp_path / 'torch')
    switch('1')
    write(tmp_path / 'native')
    for folder in ('torch', 'native'):
        (tmp_path / folder / '00002.png').unlink()
    with _watched(monkeypatch) as seen:
        made = propagate(frames, mask, RAW_LAB, protocol='quick')
        seen.clear()
        assert not write_propagation(made, tmp_path / 'torch').was_complete
    assert seen == {'torch'}
    assert _affinity(tmp_path / 'torch') == 'torch on cpu'
    nothing_built()
    with pytest.raises(ValueError, match=r'come from native \(.*no C\+\+ compiler.*--overwrite'):
        write(tmp_path / 'native')
    assert not (tmp_path / 'native' / '00002.png').exists()


def test_the_text_of_cards(switch, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(native, 'library', lambda: None)
    best = native.supported()[0]
    assert describe_affinity(CPU) == f'native ({native.describe()}) on cpu' and best in describe_affinity(CPU)
    assert describe_affinity(torch.device('cuda')) == 'torch on cuda'
    assert settle_affinity(tmp_path, CPU) == Affinity(describe_affinity(CPU), best)
    card = {'input': {'affinity': None}}
    with caplog.at_level(logging.WARNING):
        for begun, device, expected in (
            ('torch on cpu', 'cpu', Affinity('torch on cpu', '0')),
            ('native (aarch64, 128 bit) on cpu', 'cpu', Affinity('native (aarch64, 128 bit) on cpu', 'aarch64')),
            ('native (native) on cpu', 'cpu', Affinity('native (native) on cpu', 'native')),
            ('native on cpu', 'cpu', Affinity('native on cpu', best)),
            ('torch on cpu', 'cuda', Affinity('torch on cuda')),  # another device: another run, refused as such
            ('torch on cuda', 'cpu', Affinity(describe_affinity(CPU), best)),
            ('something new', 'cpu', Affinity(describe_affinity(CPU), best)),
            (3, 'cpu', Affinity(describe_affinity(CPU), best)),
        ):
            card['input']['affinity'] = begun
            (tmp_path / 'run.json').write_text(json.dumps(card))
            assert settle_affinity(tmp_path, torch.device(device)) == expected
    for odd in ({}, {'input': None}, {'input': {}}):
        (tmp_path / 'run.json').write_text(json.dumps(odd))
        assert settle_affinity(tmp_path, CPU).choice == best
    assert settle_affinity(None, CPU).choice == best
