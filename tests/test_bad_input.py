"""Whatever is wrong with the input: one clear line, exit code 2, and nothing that was written is lost."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_cases import RAW_LAB, ROOT, SIZE, contents, make_frames, make_ids, run, start, write_frames
from PIL import Image

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import build_method
from mmliir.datasets import write_label_map
from mmliir.structures.palette import davis_palette
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.utils.pipeline import OVERLAP_VARIABLE

QUICKSTART = ROOT / 'configs' / 'liir_r18_quickstart.py'


@pytest.fixture
def clip(tmp_path):
    """Four frames and their first mask: (folder, mask)."""
    write_label_map(tmp_path / 'first.png', make_ids())
    return write_frames(tmp_path / 'clip'), tmp_path / 'first.png'


def propagate(video, mask, out, *more, config=RAW_LAB):
    return run('mmliir', 'propagate', video, '--mask', mask, '--out', out, '--config', config, *more)


def read_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == 'P'
        return np.array(image)


# -- masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(80, 112), (20, 28), (56, 40)])
def test_a_mask_of_another_size_than_the_frame_is_refused(clip, tmp_path, size):
    write_label_map(
        tmp_path / 'other.png', cv2.resize(make_ids(), size[::-1], interpolation=cv2.INTER_NEAREST)
    )
    error = propagate(clip[0], tmp_path / 'other.png', tmp_path / 'out').error()
    assert 'other.png' in error and f'{size[1]}x{size[0]}' in error and f'{SIZE[1]}x{SIZE[0]}' in error
    assert not (tmp_path / 'out').exists()


def _grey_alpha(ids):
    return Image.fromarray(np.stack([ids, np.full_like(ids, 255)], -1), 'LA')


MODES = {
    'L': Image.fromarray,
    'LA': _grey_alpha,
    'RGB': lambda ids: Image.fromarray(davis_palette()[ids]),
    'RGBA': lambda ids: Image.fromarray(davis_palette()[ids]).convert('RGBA'),
    'I;16': lambda ids: Image.fromarray(ids.astype(np.uint16)),
}


@pytest.mark.parametrize('mode', [*MODES, 'P', '1'])
def test_ids_of_every_kind_of_mask_reach_the_output(clip, tmp_path, mode):
    ids = make_ids()
    if mode == '1':
        Image.fromarray(ids > 0).save(tmp_path / 'mask.png')
        ids = (ids > 0).astype(np.uint8)
    elif mode == 'P':
        write_label_map(tmp_path / 'mask.png', ids)
    else:
        image = MODES[mode](ids)
        assert image.mode == mode
        image.save(tmp_path / 'mask.png')
    done = propagate(clip[0], tmp_path / 'mask.png', tmp_path / 'out')
    assert done.code == 0, done.err
    assert np.array_equal(read_ids(tmp_path / 'out' / '00000.png'), ids)
    assert set(np.unique(read_ids(tmp_path / 'out' / '00003.png'))) == set(np.unique(ids))


@pytest.mark.parametrize(
    'square,bar,note', [(5, 9, 'not consecutive: 5, 9'), (255, 0, 'one object with id 255')]
)
def test_ids_with_gaps_and_255_are_kept_and_noted(clip, tmp_path, square, bar, note):
    write_label_map(tmp_path / 'mask.png', make_ids(square, bar))
    done = propagate(clip[0], tmp_path / 'mask.png', tmp_path / 'out')
    assert done.code == 0 and note in done.err
    assert set(np.unique(read_ids(tmp_path / 'out' / '00003.png'))) == {0, square, bar}


def test_ids_over_255_are_refused(clip, tmp_path):
    Image.fromarray(make_ids().astype(np.uint16) * 300).save(tmp_path / 'mask.png')
    error = propagate(clip[0], tmp_path / 'mask.png', tmp_path / 'out').error()
    assert '300, 600' in error and '255' in error


def test_a_mask_without_object_is_refused(clip, tmp_path):
    write_label_map(tmp_path / 'mask.png', make_ids(0, 0))
    error = propagate(clip[0], tmp_path / 'mask.png', tmp_path / 'out').error()
    assert 'mask.png' in error and 'background' in error


def test_an_anti_aliased_mask_is_refused(clip, tmp_path):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    smooth = np.clip((15 - np.hypot(y - 20, x - 28)) * 25 + 128, 0, 255).astype(np.uint8)
    assert len(np.unique(smooth)) > 40
    Image.fromarray(smooth).save(tmp_path / 'mask.png')
    assert 'smoothed' in propagate(clip[0], tmp_path / 'mask.png', tmp_path / 'out').error()
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / 'colours.png')
    assert 'different colours' in propagate(clip[0], tmp_path / 'colours.png', tmp_path / 'out').error()


def test_masks_that_are_missing_damaged_or_for_frames_that_are_not_there(clip, tmp_path):
    video, mask = clip
    assert 'nowhere.png' in propagate(video, tmp_path / 'nowhere.png', tmp_path / 'out').error()
    (tmp_path / 'half.png').write_bytes(mask.read_bytes()[:-40])
    assert 'half.png' in propagate(video, tmp_path / 'half.png', tmp_path / 'out').error()
    (tmp_path / 'text.png').write_text('a mask')
    assert 'text.png' in propagate(video, tmp_path / 'text.png', tmp_path / 'out').error()
    assert 'frame 4' in propagate(video, mask, tmp_path / 'out', '--mask', f'4:{mask}').error()
    assert 'two masks for frame 0' in propagate(video, mask, tmp_path / 'out', '--mask', mask).error()
    assert not (tmp_path / 'out').exists()


# -- videos -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [1, 2])
def test_a_video_of_one_or_two_frames_is_propagated(clip, tmp_path, count):
    done = propagate(write_frames(tmp_path / 'short', count), clip[1], tmp_path / 'out')
    assert done.code == 0, done.err
    assert len(list((tmp_path / 'out').glob('*.png'))) == count
    assert np.array_equal(read_ids(tmp_path / 'out' / '00000.png'), make_ids())


def test_a_video_without_frames_or_not_there_is_refused(clip, tmp_path):
    (tmp_path / 'empty').mkdir()
    assert 'no frames' in propagate(tmp_path / 'empty', clip[1], tmp_path / 'out').error()
    assert 'does not exist' in propagate(tmp_path / 'no.mp4', clip[1], tmp_path / 'out').error()
    assert 'is one image' in propagate(clip[1], clip[1], tmp_path / 'out').error()
    assert not (tmp_path / 'out').exists()


def test_two_images_of_one_name_are_refused(clip, tmp_path, caplog):
    for path in list(clip[0].glob('*.png')):
        Image.open(path).save(path.with_suffix('.jpg'))
    assert '00000.jpg and 00000.png are two pictures of one frame' in propagate(*clip, tmp_path / 'out').error()
    # One second picture, of a rarer type, is left out and named.
    for path in list(clip[0].glob('*.jpg'))[1:]:
        path.unlink()
    assert propagate(*clip, tmp_path / 'out').code == 0 and '.jpg (the second picture of a frame' in caplog.text


@pytest.mark.parametrize('overlap', ['0', '1'])
def test_a_truncated_jpeg_stops_and_the_run_goes_on_once_it_is_whole(clip, tmp_path, monkeypatch, overlap):
    monkeypatch.setenv(OVERLAP_VARIABLE, overlap)
    video, out = write_frames(tmp_path / 'jpegs', suffix='.jpg'), tmp_path / 'out'
    whole = (video / '00002.jpg').read_bytes()
    (video / '00002.jpg').write_bytes(whole[: len(whole) // 2])
    error = propagate(video, clip[1], out).error()
    assert '00002.jpg' in error and '2 of 4 masks were written' in error
    before = contents(out)
    assert {'00000.png', '00001.png', 'run.json'} == set(before)
    (video / '00002.jpg').write_bytes(whole)
    assert propagate(video, clip[1], out).code == 0
    after = contents(out)
    assert before.items() <= after.items() and len(after) == 5


@pytest.mark.parametrize('header_first', [True, False])
def test_a_truncated_mp4_is_refused(clip, tmp_path, header_first):
    av = pytest.importorskip('av')
    path = tmp_path / 'clip.mp4'
    with av.open(str(path), 'w', options={'movflags': '+faststart'} if header_first else {}) as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.height, stream.width = SIZE
        for frame in make_frames(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert 'broken video' in propagate(path, clip[1], tmp_path / 'out').error()
    path.write_bytes(b'')
    assert 'clip.mp4' in propagate(path, clip[1], tmp_path / 'out').error()
    assert not (tmp_path / 'out').exists()


def test_a_video_file_of_no_pictures_is_refused(clip, tmp_path):
    av = pytest.importorskip('av')
    with av.open(str(tmp_path / 'none.mp4'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.height, stream.width = SIZE
        container.mux(stream.encode(None))
    assert 'none.mp4' in propagate(tmp_path / 'none.mp4', clip[1], tmp_path / 'out').error()


# -- checkpoints --------------------------------------------------------------------------------------------


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope='module')
def weights():
    return build_method(load_config(QUICKSTART), 'untrained', device='cpu').state_dict()


def test_checkpoints_that_are_missing_truncated_or_of_another_architecture(clip, tmp_path, weights):
    def attempt(*more):
        return propagate(*clip, tmp_path / 'out', '--protocol', 'quick', *more, config=QUICKSTART).error()

    assert 'has weights: give a checkpoint' in attempt()
    assert 'checkpoint not found' in attempt('--checkpoint', tmp_path / 'no.pth')
    torch.save({'state_dict': weights}, tmp_path / 'whole.pth')
    data = (tmp_path / 'whole.pth').read_bytes()
    for name, part in (('half.pth', data[: len(data) // 2]), ('empty.pth', b''), ('text.pth', b'weights')):
        (tmp_path / name).write_bytes(part)
        assert name in attempt('--checkpoint', tmp_path / name)
    narrower = ('model.backbone.base_channels=8', 'model.projection.in_channels=32')
    error = attempt('--checkpoint', tmp_path / 'whole.pth', '--cfg-options', *narrower)
    assert 'does not fit this model' in error and 'of another shape' in error
    torch.save({'weight': torch.zeros(2)}, tmp_path / 'other.pth')
    assert 'does not fit this model' in attempt('--checkpoint', tmp_path / 'other.pth')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('form', ['torch', 2, 4])
def test_a_checkpoint_that_would_execute_code_is_refused_and_does_not(clip, tmp_path, form, recwarn):
    value, path = {'state_dict': _Bomb(tmp_path / 'executed')}, tmp_path / 'bomb.pth'
    if form == 'torch':
        torch.save(value, path)
    else:
        path.write_bytes(pickle.dumps(value, protocol=form))
    error = propagate(*clip, tmp_path / 'out', '--checkpoint', path, config=QUICKSTART).error()
    assert 'bomb.pth' in error and ('could execute code; refused' in error or form == 4)
    assert not recwarn.list and not (tmp_path / 'executed').exists()
    if form != 'torch':  # it would have, read without care
        pickle.loads(path.read_bytes())
        assert (tmp_path / 'executed').exists()


# -- configs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'text,named',
    [
        ('modle = dict(type="RawColor")', "'modle'"),
        ('model = dict(type="RawColor", strides=8)\nprotocol = "quick"', "'strides'"),
        ('model = dict(type="RawColour")\nprotocol = "quick"', 'RawColour'),
        (
            'model = dict(type="RawColor", data_preprocessor=dict(type="VideoPreprocessor", colour="lab"))',
            "'colour'",
        ),
        ('model = dict(type="RawColor")\nprotocol = "crwr"', "'crwr'"),
        ('model = dict(type="RawColor")', 'give a protocol'),
        ('protocol = "quick"', 'no `model`'),
        ('model = dict(', 'mistyped.py'),
        ('_base_ = ["nowhere.py"]', 'nowhere.py'),
    ],
)
def test_a_mistyped_config_names_what_is_wrong(clip, tmp_path, text, named):
    (tmp_path / 'mistyped.py').write_text(text)
    more = () if 'protocol' in text or 'give a' in named else ('--protocol', 'quick')
    assert named in propagate(*clip, tmp_path / 'out', *more, config=tmp_path / 'mistyped.py').error()
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'option,named',
    [
        ('modle.stride=4', "'modle'"),
        ('model.strid=4', "'strid'"),
        ('model.stride.x=4', 'model.stride.x'),
        ('protocol=crwr', "'crwr'"),
    ],
)
def test_a_mistyped_option_names_what_is_wrong(clip, tmp_path, option, named):
    assert named in propagate(*clip, tmp_path / 'out', '--cfg-options', option).error()
    assert not (tmp_path / 'out').exists()


def test_a_config_that_is_not_there_lists_those_that_are(clip, tmp_path):
    assert 'raw_lab.py' in propagate(*clip, tmp_path / 'out', config=RAW_LAB.with_name('raw.py')).error()


def test_an_unknown_protocol_lists_those_that_are(clip, tmp_path):
    error = propagate(*clip, tmp_path / 'out', '--protocol', 'liir').error()
    assert 'liir_paper' in error and 'crw' in error


# -- output folders -----------------------------------------------------------------------------------------


def test_masks_of_another_run_are_refused_and_stay_and_those_of_the_same_run_are_kept(clip, tmp_path):
    out = tmp_path / 'out'
    assert propagate(*clip, out).code == 0
    before = contents(out)
    write_label_map(tmp_path / 'other.png', make_ids(2, 1))
    for mask, more in (
        (clip[1], ('--protocol', 'dino')),
        (clip[1], ('--max-frames', 3)),
        (clip[1], ('--cfg-options', 'model.stride=4')),
        (tmp_path / 'other.png', ()),
    ):
        assert 'other settings' in propagate(clip[0], mask, out, *more).error()
        assert contents(out) == before
    again = propagate(*clip, out)
    assert again.code == 0 and 'were there already' in again.out and contents(out) == before
    (out / '00002.png').unlink()
    assert propagate(*clip, out).code == 0 and contents(out) == before
    assert propagate(clip[0], tmp_path / 'other.png', out, '--overwrite').code == 0
    assert np.array_equal(read_ids(out / '00000.png'), make_ids(2, 1))


def test_masks_of_unknown_origin_are_refused_and_stay(clip, tmp_path):
    (tmp_path / 'out').mkdir()
    write_label_map(tmp_path / 'out' / 'mine.png', make_ids())
    before = contents(tmp_path / 'out')
    assert 'mine.png' in propagate(*clip, tmp_path / 'out').error()
    assert 'mine.png' in propagate(*clip, tmp_path / 'out', '--overwrite').error()
    assert contents(tmp_path / 'out') == before


def test_the_input_is_never_the_output(clip, tmp_path):
    video, mask = clip
    before = contents(tmp_path)
    assert 'would replace the input' in propagate(video, mask, video, '--overwrite').error()
    (tmp_path / 'first.png').rename(tmp_path / '00000.png')
    assert (
        'would replace the input' in propagate(video, tmp_path / '00000.png', tmp_path, '--overwrite').error()
    )
    (tmp_path / '00000.png').rename(tmp_path / 'first.png')
    assert contents(tmp_path) == before
    (tmp_path / 'file').write_text('mine')
    assert 'file' in propagate(*clip, tmp_path / 'file').error()
    assert (tmp_path / 'file').read_text() == 'mine'


def test_an_overlay_without_pyav_is_refused_before_anything_is_written(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'av', None)
    assert 'mmliir[video]' in propagate(*clip, tmp_path / 'out', '--overlay').error()
    assert not (tmp_path / 'out').exists()


# -- benchmarks ---------------------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path):
    videos = [generate_video(seed, 4, (48, 64), name=f'v{seed}') for seed in range(3)]
    write_davis_layout(tmp_path / 'davis', videos)
    return tmp_path / 'davis'


def evaluate(root, out, *more):
    return run(
        'tools/test.py', RAW_LAB, '--task', 'davis2017', '--data-root', root, '--out', out, '--jobs', 1, *more
    )


def test_a_sequence_that_fails_is_named_the_others_are_kept_and_scored(davis, tmp_path):
    frame, out = davis / 'JPEGImages' / '480p' / 'v1' / '00002.jpg', tmp_path / 'out'
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])
    part = evaluate(davis, out)
    assert part.code == 3 and 'INCOMPLETE: 1' in part.out and 'v1 (missing)' in part.out
    assert 'not scored: v1: ' in part.err and '00002.jpg' in part.err
    before = {name: data for name, data in contents(out).items() if name.endswith('.png')}
    assert {Path(name).parts[0] for name in before} == {'v0', 'v2'}
    frame.write_bytes(whole)
    done = evaluate(davis, out)
    assert done.code == 0 and 'data set' in done.out
    assert before.items() <= contents(out).items()


def test_a_first_mask_that_does_not_fit_its_frame_is_named(davis, tmp_path):
    write_label_map(davis / 'Annotations' / '480p' / 'v2' / '00000.png', make_ids())
    done = evaluate(davis, tmp_path / 'out')
    assert done.code == 3
    assert 'not scored: v2: ' in done.err and '56x40' in done.err and '64x48' in done.err
    alone = evaluate(davis, tmp_path / 'alone', '--sequences', 'v2').error()
    assert 'nothing to score' in alone and '56x40' in alone


def test_predictions_of_another_run_are_refused_and_stay(davis, tmp_path):
    out = tmp_path / 'out'
    assert evaluate(davis, out).code == 0
    before = contents(out)
    for more in (('--protocol', 'dino'), ('--cfg-options', 'model.stride=4'), ('--sequences', 'v0')):
        assert 'other settings' in evaluate(davis, out, *more).error()
        assert contents(out) == before


def test_predictions_never_replace_the_data_set(davis):
    before = contents(davis)
    for folder in ('Annotations', 'JPEGImages'):
        error = evaluate(davis, davis / folder / '480p', '--overwrite').error()
        assert 'would replace the data set' in error
    assert contents(davis) == before


def test_data_that_are_not_there_and_names_that_do_not_exist(davis, tmp_path):
    assert 'DAVIS not found at' in evaluate(tmp_path / 'nowhere', tmp_path / 'out').error()
    assert "'v9'" in evaluate(davis, tmp_path / 'out', '--sequences', 'v9').error()
    (davis / 'ImageSets' / '2017' / 'val.txt').write_text('v0\nlost\n')
    assert "'lost'" in evaluate(davis, tmp_path / 'out', '--sequences', 'lost').error()
    assert not (tmp_path / 'out').exists()
    assert 'not scored: lost: DAVIS frames not found' in evaluate(davis, tmp_path / 'part').err
    for more, said in ((('--protocol', 'liir'), 'there are liir_paper'), (('--task', 'davis2018'), 'invalid choice')):
        wrong = evaluate(davis, tmp_path / 'out', *more)
        assert wrong.code == 2 and said in wrong.err


def test_a_sequence_too_short_to_score_is_refused(tmp_path):
    write_davis_layout(tmp_path / 'davis', [generate_video(0, 2, (48, 64), name='two')])
    assert 'two' in evaluate(tmp_path / 'davis', tmp_path / 'out').error()


# -- the program itself -------------------------------------------------------------------------------------


def test_without_an_engine_the_command_says_which_to_install(tmp_path):
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine' / '__init__.py').write_text('raise ImportError("no engine here")')
    (tmp_path / 'mmliir').mkdir()
    script = tmp_path / 'mmliir' / 'mmliir'  # what pip makes of the entry point
    script.write_text('import sys\nfrom mmliir.cli import main\nsys.exit(main())\n')
    for command in ((script, '--version'), ('-m', 'mmliir', '--version')):
        done = start(*command, cwd=tmp_path / 'mmengine', path=tmp_path)
        assert done.returncode == 2 and done.stdout == ''
        assert done.stderr.startswith('mmliir: error: ') and done.stderr.count('\n') == 1
        assert "pip install 'mmliir[mm]'" in done.stderr
    done = start('-c', 'import mmliir', cwd=tmp_path / 'mmengine', path=tmp_path)
    assert done.returncode == 1 and 'ImportError: mmliir needs an engine' in done.stderr


def test_an_error_in_a_process_of_its_own_is_one_line(clip, tmp_path):
    command = [
        'propagate',
        clip[0],
        '--mask',
        tmp_path / 'no.png',
        '--out',
        tmp_path / 'out',
        '--config',
        RAW_LAB,
    ]
    done = start('-m', 'mmliir', *command, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr == f'mmliir: error: label map not found: {tmp_path / "no.png"}\n'
