"""The commands end to end, as a user types them, on generated videos."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_cases import RAW_LAB, ROOT, contents, make_frames, make_ids, run, start, write_frames
from PIL import Image

from mmliir.apis import Propagation, propagate
from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import build_method
from mmliir.apis.propagate import write_propagation
from mmliir.datasets import VideoFile, write_label_map
from mmliir.propagation import get_protocol, propagate_video
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.utils.pipeline import OVERLAP_VARIABLE
from mmliir.version import __version__
from mmliir.visualization import overlay_labels

#: Parts of other programs, which are not run by themselves.
PARTS = ('common.py', 'gpu_sections.py', 'gpu_training.py')
TOOLS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'tools').rglob('*.py') if path.name not in PARTS)


def read_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == 'P'
        return np.array(image)


@pytest.fixture
def first(tmp_path):
    write_label_map(tmp_path / 'first.png', make_ids(3, 7))
    return tmp_path / 'first.png'


# -- tools/test.py and mmliir score -------------------------------------------------------------------------


def test_a_benchmark_is_propagated_scored_continued_and_scored_again(tmp_path):
    root, out = tmp_path / 'davis', tmp_path / 'out'
    write_davis_layout(root, [generate_video(seed, 5, (48, 64), name=f'v{seed}') for seed in range(2)])

    def evaluate():
        return run(
            'tools/test.py', RAW_LAB, '--task', 'davis2017', '--data-root', root, '--out', out, '--jobs', 1
        )

    done = evaluate()
    assert done.code == 0, done.err
    for word in ('v0', 'v1', 'J&F', 'data set', str(out)):
        assert word in done.out
    assert sorted(path.name for path in (out / 'v1').iterdir()) == [f'{n:05d}.png' for n in range(5)]
    assert np.array_equal(
        read_ids(out / 'v1' / '00000.png'), read_ids(root / 'Annotations' / '480p' / 'v1' / '00000.png')
    )
    scores = json.loads((out / 'scores.json').read_text())
    assert scores['run_card'] == json.loads((out / 'run.json').read_text())
    assert 0 < scores['metrics']['jf_mean'] < 1

    # A second run computes only what is missing.
    before = contents(out)
    kept = (out / 'v0' / '00004.png').stat().st_mtime_ns
    (out / 'v1' / '00003.png').unlink()
    again = evaluate()
    assert again.code == 0 and again.out.split('GiB')[0][:-5] == done.out.split('GiB')[0][:-5]  # but for the memory
    assert contents(out) == before
    assert (out / 'v0' / '00004.png').stat().st_mtime_ns == kept

    scored = run(
        'mmliir', 'score', 'davis2017', '--pred', out, '--data-root', root, '--out', tmp_path / 's.json'
    )
    assert scored.code == 0, scored.err
    alone = json.loads((tmp_path / 's.json').read_text())
    assert {name: alone[name] for name in scores['metrics']} == scores['metrics']
    assert alone['run_card'] == scores['run_card'] and alone['missing'] == scores['missing'] == []
    assert alone['metrics'] == scores['metrics'] and len(alone['sequences'][0]['objects']) == 2
    assert scored.out.strip() in done.out


# -- mmliir propagate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('overlap', ['0', '1'])
def test_a_video_file_and_its_frames_in_a_folder_are_propagated_alike(tmp_path, first, monkeypatch, overlap):
    monkeypatch.setenv(OVERLAP_VARIABLE, overlap)
    av = pytest.importorskip('av')
    path = tmp_path / 'clip.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=12)  # lossless
        stream.height, stream.width, stream.pix_fmt = *make_frames().shape[1:3], 'bgr0'
        for frame in make_frames(5):
            picture = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(format='bgr0')
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    folder = write_frames(tmp_path / 'frames', 5)
    for video, out in ((path, tmp_path / 'a'), (folder, tmp_path / 'b')):
        done = run(
            'mmliir', 'propagate', video, '--mask', first, '--out', out, '--config', RAW_LAB, '--overlay'
        )
        assert done.code == 0, done.err
        assert '5 masks written' in done.out and f'overlay: {out / "overlay"}' in done.out
    names = [f'{number:05d}.png' for number in range(5)]
    for name in names:
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
    assert sorted(contents(tmp_path / 'a')) == [*names, 'overlay.mp4', 'run.json']
    overlay = VideoFile(tmp_path / 'a' / 'overlay.mp4')
    assert len(overlay) == 5 and overlay.frame_rate == 12
    drawn = overlay_labels(make_frames(5)[4], read_ids(tmp_path / 'a' / names[4]))
    assert np.abs(overlay[4].astype(float) - drawn).mean() < 10  # lossy; frame 3 is at a mean of 20
    card = json.loads((tmp_path / 'a' / 'run.json').read_text())
    assert card['model'] == 'raw_lab' and card['data']['num_frames'] == 5


def test_frames_of_12_bits_in_16_are_propagated_as_those_of_8(tmp_path, first, caplog):
    folder = tmp_path / 'deep'
    folder.mkdir()
    for number, frame in enumerate(make_frames(3)):
        cv2.imwrite(str(folder / f'{number:05d}.png'), frame[..., ::-1].astype(np.uint16) << 4)
    said = []
    for frames, name, more in (
        (write_frames(tmp_path / 'frames', 3), 'a', ()),
        (folder, 'b', ()),
        (folder, 'c', ('--bit-depth', 12)),
        (folder, 'd', ('--bit-depth', 16)),
    ):
        out = tmp_path / name
        done = run('mmliir', 'propagate', frames, '--mask', first, '--out', out, '--config', RAW_LAB, *more)
        assert done.code == 0, done.err
        said.append('16 bits are stored, 12 are used' in caplog.text)
        caplog.clear()
    assert said == [False, True, False, False]
    masks = {name: (tmp_path / name / '00002.png').read_bytes() for name in 'abcd'}
    assert masks['a'] == masks['b'] == masks['c'] != masks['d']
    assert '--bit-depth' in run('mmliir', 'propagate', '--help').out
    error = run('mmliir', 'propagate', folder, '--mask', first, '--out', out, '--config', RAW_LAB, '--bit-depth', 5)
    assert 'bit_depth: expected 8 to 16' in error.error()


def test_masks_follow_the_objects_and_keep_their_ids(tmp_path, first):
    folder = write_frames(tmp_path / 'frames')
    done = run(
        *('mmliir', 'propagate', folder, '--mask', first, '--out', tmp_path / 'out', '--config', RAW_LAB),
        *('--cfg-options', 'model.stride=2'),
    )
    assert done.code == 0 and 'not consecutive: 3, 7' in done.err
    truth = np.zeros_like(make_ids())
    truth[8:24, 14:30], truth[26:36, 30:50] = 3, 7
    last = read_ids(tmp_path / 'out' / '00003.png')
    assert set(np.unique(last)) == {0, 3, 7}
    for number in (3, 7):
        both = ((last == number) & (truth == number)).sum()
        assert both / ((last == number) | (truth == number)).sum() > 0.8


def test_late_objects_fewer_frames_and_another_input_size(tmp_path, first):
    folder, late = write_frames(tmp_path / 'frames', 5, bar_from=2), tmp_path / 'late.png'
    write_label_map(late, make_ids(0, 9))
    write_label_map(first, make_ids(3, 0))
    done = run(
        *('mmliir', 'propagate', folder, '--mask', first, '--mask', f'2:{late}', '--out', tmp_path / 'out'),
        *('--config', RAW_LAB, '--max-frames', 4, '--short-side', 80, '--amp'),
    )
    assert done.code == 0, done.err
    found = [set(np.unique(read_ids(tmp_path / 'out' / f'{n:05d}.png'))) for n in range(4)]
    assert found == [{0, 3}, {0, 3}, {0, 3, 9}, {0, 3, 9}]
    assert not (tmp_path / 'out' / '00004.png').exists()


def test_an_untrained_encoder_propagates_too(tmp_path, first):
    config = ROOT / 'configs' / 'liir_r18_quickstart.py'
    done = run(
        *('mmliir', 'propagate', write_frames(tmp_path / 'frames', 2), '--mask', first, '--config', config),
        *('--out', tmp_path / 'out', '--checkpoint', 'untrained', '--seed', 4),
    )
    assert done.code == 0, done.err
    assert json.loads((tmp_path / 'out' / 'run.json').read_text())['seed'] == 4


def test_arrays_stream_through_the_function(tmp_path):
    frames, ids = make_frames(4), make_ids(3, 7)
    result = propagate(frames, ids, RAW_LAB, protocol='quick', device='cpu')
    assert isinstance(result, Propagation) and len(result) == 4 and result.notes == ()
    maps = list(result)

    taken = []

    class Frames:
        name = 'counted'

        def __len__(self):
            return len(frames)

        def __getitem__(self, index):
            taken.append(index)
            return frames[index]

    stream = iter(propagate(Frames(), {0: ids}, RAW_LAB, protocol=get_protocol('quick'), device='cpu'))
    taken.clear()
    assert np.array_equal(next(stream), ids) and np.array_equal(next(stream), maps[1])
    assert max(taken) == 1  # the third frame is not read before it is asked for
    assert np.array_equal(np.stack([*stream]), np.stack(maps[2:]))
    for wrong, said in ((ids[None], r'\(H, W\)'), (ids * 0, 'no object'), (ids.astype(int) * 99, '255')):
        with pytest.raises(ValueError, match=said):
            propagate(frames, wrong, RAW_LAB, device='cpu')


def test_the_function_gives_what_propagation_gives():
    frames, ids = make_frames(4), make_ids(3, 7)
    result = list(propagate(frames, ids, RAW_LAB, protocol='crw', options={'model.stride': 4}, device='cpu'))
    model = build_method(load_config(RAW_LAB, {'model.stride': 4}), None, device='cpu')
    expected = propagate_video(frames, model.extract_feature, {0: ids}, get_protocol('crw'), 4)
    assert np.array_equal(np.stack(result), np.stack(list(expected)))


def test_where_the_objects_are_lost_is_said(tmp_path):
    def written(name, kept):
        result = propagate(make_frames(4), make_ids(3), RAW_LAB, device='cpu')
        maps = [np.full_like(make_ids(3), number in kept) for number in range(4)]
        return write_propagation(dataclasses.replace(result, label_maps=iter(maps)), tmp_path / name)

    assert written('a', {0, 1, 2, 3}).empty_from is None and written('b', {0, 3}).empty_from is None
    assert written('c', {0}).empty_from == '00001' and written('d', {0, 2}).empty_from == '00003'


def test_masks_are_written_one_after_the_other(tmp_path):
    seen = []
    result = propagate(make_frames(3), make_ids(), RAW_LAB, device='cpu')
    written = write_propagation(
        result,
        tmp_path,
        progress=lambda done, total: seen.append((done, total, len([*tmp_path.glob('*.png')]))),
    )
    assert seen == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]
    assert written.num_masks == 3 and not written.was_complete


def test_a_bound_on_memory_that_is_too_small_names_the_smallest(tmp_path, first):
    write_frames(tmp_path / 'frames', 3)
    arguments = ['propagate', tmp_path / 'frames', '--mask', first, '--config', RAW_LAB]
    failed = run('mmliir', *arguments, '--out', tmp_path / 'out', '--max-memory', '1KiB')
    assert failed.code == 2 and 'max_memory 1 KiB is too small' in failed.err and 'or more' in failed.err
    done = run('mmliir', *arguments, '--out', tmp_path / 'enough', '--max-memory', '1GiB')
    assert done.code == 0, done.err


# -- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('command', [(), ('propagate',), ('score',), ('convert',)])
def test_the_help_of_every_command(command):
    done = run('mmliir', *command, '--help')
    assert done.code == 0 and 'usage: mmliir' in done.out
    assert 'example' in done.out or not command


@pytest.mark.parametrize('tool', TOOLS)
def test_the_help_of_every_tool(tool):
    done = run(tool, '--help')
    assert done.code == 0 and 'usage:' in done.out


def test_the_module_is_the_command(tmp_path):
    done = start('-m', 'mmliir', '--version', cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f'mmliir {__version__}\n', '')
