"""TAP-Vid: every container reads back, coordinates and queries are the benchmark's, files that do not fit are named."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmliir.datasets import BrokenMediaError, TapVidDataset
from mmliir.datasets.tapvid import pixels_to_raster, raster_to_pixels, sample_queries
from mmliir.registry import DATASETS
from mmliir.structures import PointSample
from mmliir.testing.synthetic_tapvid import (
    NEVER_VISIBLE,
    VISIBLE_AT_THE_END,
    VISIBLE_LATE,
    VISIBLE_ONCE,
    encode_jpegs,
    generate_tracks,
    write_tapvid,
)

SUBSETS = ['davis', 'rgb_stacking', 'kinetics', 'robotap']
ROOT = Path(__file__).resolve().parents[2]


def sample_of(num_frames=6, num_tracks=2, size=(10, 12)):
    rng = np.random.default_rng(0)
    return {
        'video': rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8),
        'points': rng.random((num_tracks, num_frames, 2)).astype(np.float32),
        'occluded': np.zeros((num_tracks, num_frames), bool),
    }


def write_davis(folder, container) -> str:
    (folder / 'tapvid_davis.pkl').write_bytes(pickle.dumps(container, 4))
    return str(folder)


# -- containers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('subset', SUBSETS)
def test_every_container_gives_back_what_was_written(tmp_path, subset):
    videos = write_tapvid(tmp_path, subset)
    dataset = TapVidDataset(str(tmp_path), subset)
    assert dataset.names == [video.name for video in videos] and len(dataset) == 3
    assert (dataset.family, dataset.kind) == ('tapvid', 'points')
    for sample, video in zip(dataset, videos):
        assert isinstance(sample, PointSample) and sample.name == sample.frames.name == video.name
        assert sample.frame_names == tuple(f'{t:05d}' for t in range(8)) and not sample.both_ways
        frames = np.stack(list(sample.frames))
        if subset == 'kinetics':
            decoded = [Image.open(io.BytesIO(coded)).convert('RGB') for coded in encode_jpegs(video.frames)]
            np.testing.assert_array_equal(frames, np.stack([np.array(image) for image in decoded]))
        else:
            np.testing.assert_array_equal(frames, video.frames)
        assert frames.flags.writeable and sample.frames[-1].flags.writeable
        truth = dataset.truth(video.name)
        assert truth.num_tracks == 10 and truth.frame_size == (48, 64)
        np.testing.assert_allclose(truth.points, video.points[truth.track], atol=1e-7)
        np.testing.assert_array_equal(truth.visible, video.visible[truth.track])


@pytest.mark.parametrize('subset', SUBSETS)
def test_the_root_is_the_folder_of_the_files_or_its_parent(tmp_path, subset):
    write_tapvid(tmp_path, subset, num_videos=2)
    (folder,) = tmp_path.iterdir()
    assert TapVidDataset(str(folder), subset).names == TapVidDataset(str(tmp_path), subset).names


def test_shards_have_either_name_and_lists_are_numbered_across_them(tmp_path):
    for part in range(11):
        (tmp_path / f'tapvid_{part:04d}_of_0011.pkl').write_bytes(pickle.dumps([sample_of(num_frames=part + 2)] * 2))
    dataset = TapVidDataset(str(tmp_path), 'kinetics')
    assert dataset.names == [f'{number:04d}' for number in range(22)]
    assert [len(sample.frames) for sample in dataset] == [2 + number // 2 for number in range(22)]


def test_shards_may_be_dicts(tmp_path):
    for part in range(2):
        (tmp_path / f'{part:04d}_of_0002.pkl').write_bytes(pickle.dumps({f'clip_{part}': sample_of()}))
    assert TapVidDataset(str(tmp_path), 'kinetics').names == ['clip_0', 'clip_1']


@pytest.mark.parametrize('as_list', [False, True])
def test_jpegs_come_as_an_array_or_a_list_grey_or_colour(tmp_path, as_list):
    grey = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, 'JPEG')
    video = [buffer.getvalue()] * 6
    root = write_davis(tmp_path, {'a': sample_of() | {'video': video if as_list else np.array(video)}})
    frames = TapVidDataset(root).sample('a').frames
    assert frames[0].shape == (10, 12, 3) and frames[0].dtype == np.uint8
    assert (frames[0] == frames[0][..., :1]).all()


def test_frames_are_decoded_when_they_are_asked_for(tmp_path):
    sample = sample_of()
    coded = list(encode_jpegs(sample['video']))
    coded[3] = coded[3][:-40]
    root = write_davis(tmp_path, {'a': sample | {'video': np.array(coded)}})
    frames = TapVidDataset(root).sample('a').frames
    assert frames[2].shape == frames[4].shape == (10, 12, 3)
    with pytest.raises(BrokenMediaError, match=r"tapvid_davis.pkl, video 'a': frame 3 is damaged or cut off"):
        frames[3]
    with pytest.raises(IndexError, match='frame 6 of a: it has 6 frames'):
        frames[6]


@pytest.mark.parametrize('frame', [b'no picture', b'', encode_jpegs(np.zeros((1, 8, 8, 3), np.uint8))[0]])
def test_a_frame_that_is_no_jpeg_or_of_another_size_is_named(tmp_path, frame):
    sample = sample_of()
    coded = list(encode_jpegs(sample['video']))
    coded[2] = frame
    root = write_davis(tmp_path, {'a': sample | {'video': np.array(coded)}})
    with pytest.raises(BrokenMediaError, match='frame 2 is (no JPEG|8x8, frame 0 12x10)'):
        TapVidDataset(root).sample('a').frames[2]


def test_one_shard_is_open_at_a_time(tmp_path):
    write_tapvid(tmp_path, 'kinetics', num_videos=4)
    dataset = TapVidDataset(str(tmp_path), 'kinetics')
    first, opened = dataset.sample('0000'), dataset._opened[0]
    dataset.sample('0003')
    assert (opened.name, dataset._opened[0].name) == ('0000_of_0010.pkl', '0001_of_0010.pkl')
    assert first.frames[1].shape == (48, 64, 3)  # a sample outlives its shard


# -- coordinates ----------------------------------------------------------------------------------------------


def test_pixel_centres_of_a_4_by_4_frame_by_hand():
    """The four centres lie at 1/8, 3/8, 5/8, 7/8 of the frame; its borders half a pixel outside the outer centres."""
    raster = np.array([[0, 0.125], [0.375, 0.5], [0.625, 0.875], [1, 1]])
    pixels = np.array([[-0.5, 0], [1, 1.5], [2, 3], [3.5, 3.5]])
    np.testing.assert_array_equal(raster_to_pixels(raster, (4, 4)), pixels)
    np.testing.assert_array_equal(pixels_to_raster(pixels, (4, 4)), raster)


def test_a_query_lies_on_the_pixel_that_it_was_taken_from(tmp_path):
    sample = sample_of(size=(4, 4), num_tracks=3)
    sample['video'][:] = 0
    sample['video'][:, 2, 1] = 255  # row 2, column 1
    sample['points'][:] = ((1 + 0.5) / 4, (2 + 0.5) / 4)
    query = TapVidDataset(write_davis(tmp_path, {'a': sample})).sample('a').queries[0]
    np.testing.assert_array_equal(query, [0, 1, 2])
    frame = sample['video'][0]
    assert frame[int(query[2]), int(query[1])].tolist() == [255, 255, 255]


def test_x_goes_with_the_width(tmp_path):
    sample = sample_of(size=(10, 40), num_tracks=1)
    sample['points'][:] = (0.75, 0.5)
    queries = TapVidDataset(write_davis(tmp_path, {'a': sample})).sample('a').queries
    np.testing.assert_allclose(queries, [[0, 29.5, 4.5]])


def test_resized_frames_have_resized_queries(tmp_path):
    write_tapvid(tmp_path, 'davis', num_videos=1)
    plain = TapVidDataset(str(tmp_path)).truth('video 0')
    dataset = TapVidDataset(str(tmp_path), resize=(24, 128))
    truth, sample = dataset.truth('video 0'), dataset.sample('video 0')
    assert truth.frame_size == sample.frames.frame_size == sample.frames[0].shape[:2] == (24, 128)
    np.testing.assert_array_equal(truth.points, plain.points)
    np.testing.assert_allclose((truth.queries[:, 1:] + 0.5) / (2, 0.5), plain.queries[:, 1:] + 0.5)


# -- queries --------------------------------------------------------------------------------------------------


def test_first_queries_by_hand():
    visible = np.array([[0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)
    times, track = sample_queries(visible, 'first')
    assert (times.tolist(), track.tolist()) == ([2, 0, 4], [0, 2, 3])


def test_strided_queries_by_hand():
    visible = np.zeros((3, 12), bool)
    visible[0, [0, 1, 10]] = visible[1, [4, 6, 11]] = visible[2, [0, 5, 10]] = True
    times, track = sample_queries(visible, 'strided')
    assert (times.tolist(), track.tolist()) == ([0, 0, 5, 10, 10], [0, 2, 2, 0, 2])


@pytest.mark.parametrize('mode', ['first', 'strided'])
@pytest.mark.parametrize('shape', [(0, 7), (3, 7)])
def test_nothing_visible_gives_no_query(mode, shape):
    times, track = sample_queries(np.zeros(shape, bool), mode)
    assert len(times) == len(track) == 0


def test_the_odd_tracks_of_the_replica_are_what_they_say():
    videos = [generate_tracks(seed) for seed in range(4)]
    shares = [video.visible[:6].mean() for video in videos]
    assert min(shares) > 0.5 and min(shares) < 1  # covered at times, or out of the frame
    for video in videos:
        assert not video.visible[NEVER_VISIBLE].any()
        assert video.visible[VISIBLE_LATE].tolist() == [False, False] + [True] * 6
        assert video.visible[VISIBLE_ONCE].tolist() == [True] + [False] * 7
        assert video.visible[VISIBLE_AT_THE_END].tolist() == [False] * 7 + [True]


def test_a_visible_point_keeps_its_colour():
    """The truth of the replica is that of its pictures."""
    video = generate_tracks(1)
    for track, visible in zip(video.tracks.astype(int), video.visible):
        times = np.nonzero(visible)[0]
        colours = {tuple(video.frames[t, track[t, 1], track[t, 0]]) for t in times}
        assert len(colours) <= 1


def test_queries_of_the_two_modes(tmp_path):
    (video,) = write_tapvid(tmp_path, 'davis', num_videos=1)
    first = TapVidDataset(str(tmp_path)).truth(video.name)
    assert first.track.tolist() == [n for n in range(10) if n != 10 + NEVER_VISIBLE]
    for (t, x, y), n in zip(first.queries, first.track):
        assert video.visible[n, int(t)] and not video.visible[n, : int(t)].any()
        np.testing.assert_allclose((x, y), video.tracks[n, int(t)], atol=1e-5)
    dataset = TapVidDataset(str(tmp_path), query_mode='strided')
    strided = dataset.truth(video.name)
    asked = {(int(t), int(n)) for t, n in zip(strided.queries[:, 0], strided.track)}
    assert asked == {(t, n) for t in (0, 5) for n in range(10) if video.visible[n, t]}
    assert len(asked) == len(strided.track) and dataset.sample(video.name).both_ways


def test_a_video_may_be_left_without_queries(tmp_path):
    sample = sample_of() | {'occluded': np.ones((2, 6), bool)}
    sample = TapVidDataset(write_davis(tmp_path, {'a': sample})).sample('a')
    assert sample.queries.shape == (0, 3) and len(sample.frames) == 6


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name', ['..', '.', '', '../up', 'a/b', 'a\\b', '/etc', 'a\nb', 'a\0b', 'x' * 256, 3, None, b'a']
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match='tapvid_davis.pkl: the name of a video is'):
        TapVidDataset(write_davis(tmp_path, {'a': sample_of(), name: sample_of()}))


@pytest.mark.parametrize('name', ['bike-packing', 'zwei Wörter', '走', '..a', 'a..b', '.hidden'])
def test_a_name_that_can_be_a_folder_is_kept(tmp_path, name):
    assert TapVidDataset(write_davis(tmp_path, {name: sample_of()})).names == [name]


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / 'ran'

    class Attack:
        def __reduce__(self):
            return os.system, (f'touch {marker}',)

    root = write_davis(tmp_path, {'a': sample_of() | {'points': Attack()}})
    with pytest.raises(ValueError, match=rf"tapvid_davis.pkl asks for '{os.name}.system'"):
        TapVidDataset(root)
    assert not marker.exists()


@pytest.mark.parametrize('share', [0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_named(tmp_path, share):
    write_tapvid(tmp_path, 'davis', num_videos=1)
    path = tmp_path / 'tapvid_davis' / 'tapvid_davis.pkl'
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match='tapvid_davis.pkl .* is cut off, damaged or no pickle'):
        TapVidDataset(str(tmp_path))


@pytest.mark.parametrize('container', [{}, [], 5, np.zeros(3), 'text', None])
def test_a_container_of_something_else_is_named(tmp_path, container):
    with pytest.raises(ValueError, match='tapvid_davis.pkl: expected a dict or list of videos'):
        TapVidDataset(write_davis(tmp_path, container))


NAN = np.full((2, 6, 2), 0.5)
NAN[1, 4, 0] = np.nan


@pytest.mark.parametrize(
    'change, message',
    [
        ({'video': np.zeros((6, 10, 12), np.uint8)}, r'video: expected .* came \(6, 10, 12\) uint8'),
        ({'video': np.zeros((6, 10, 12, 3), np.float32)}, r'video: expected .* float32'),
        ({'video': np.zeros((6, 10, 12, 4), np.uint8)}, r'video: expected'),
        ({'video': np.zeros((0, 10, 12, 3), np.uint8)}, r'the video has 0 frames'),
        ({'video': np.zeros((9, 10, 12, 3), np.uint8)}, r'the video has 9 frames, its annotation 6'),
        ({'video': np.zeros((5, 10, 12, 3), np.uint8)}, r'the video has 5 frames, its annotation 6'),
        ({'video': 'x.mp4'}, r"video: expected .* came 'x.mp4'"),
        ({'points': np.zeros((2, 6), np.float32)}, r'points: expected \(N, T, 2\) floats, came \(2, 6\)'),
        ({'points': np.zeros((2, 6, 2), np.int64)}, r'points: expected .* int64'),
        ({'points': [[0.5, 0.5]]}, r'points: expected .* list'),
        ({'occluded': np.zeros((2, 5), bool)}, r'occluded: expected \(2, 6\) booleans .* came \(2, 5\)'),
        ({'occluded': np.zeros((2, 6))}, r'occluded: expected .* float64'),
        ({'points': NAN}, r'track 1 is visible in frame 4 at \[nan, 0.5\] \(1 such\)'),
        ({'points': np.full((2, 6, 2), np.inf)}, r'track 0 is visible in frame 0 at \[inf, inf\] \(12 such\)'),
    ],
)
def test_a_sample_that_does_not_fit_is_named_with_its_video(tmp_path, change, message):
    dataset = TapVidDataset(write_davis(tmp_path, {'good': sample_of(), 'bad': sample_of() | change}))
    assert dataset.truth('good').num_tracks == 2
    for ask in (dataset.truth, dataset.sample):
        with pytest.raises(ValueError, match=f"tapvid_davis.pkl, video 'bad': {message}"):
            ask('bad')


def test_positions_of_hidden_points_mean_nothing(tmp_path):
    occluded = np.zeros((2, 6), bool)
    occluded[1, 4] = True
    truth = TapVidDataset(write_davis(tmp_path, {'a': sample_of() | {'points': NAN, 'occluded': occluded}})).truth('a')
    assert np.isfinite(truth.queries).all() and np.isnan(truth.points[1, 4, 0])


@pytest.mark.parametrize('sample', [{'video': 1}, [1], None])
def test_a_sample_without_its_parts_is_named(tmp_path, sample):
    with pytest.raises(ValueError, match="video 'a': expected a dict with video, points and occluded"):
        TapVidDataset(write_davis(tmp_path, {'a': sample})).sample('a')


def test_files_that_are_not_there_are_named(tmp_path):
    for subset in SUBSETS:
        with pytest.raises(FileNotFoundError, match=f'TAP-Vid {subset} not found: looked for .*pkl'):
            TapVidDataset(str(tmp_path), subset)
    with pytest.raises(FileNotFoundError):
        TapVidDataset(str(tmp_path / 'absent'))


def test_a_missing_or_doubled_shard_is_named(tmp_path):
    for part in (0, 1, 3):
        (tmp_path / f'robotap_split{part}.pkl').write_bytes(pickle.dumps({f'v{part}': sample_of()}))
    with pytest.raises(FileNotFoundError, match='part 2 is missing from .*3 parts, the last is robotap_split3.pkl'):
        TapVidDataset(str(tmp_path), 'robotap')
    (tmp_path / 'robotap_split2.pkl').write_bytes(pickle.dumps({'v0': sample_of()}))
    with pytest.raises(ValueError, match="video 'v0' is in .*split0.pkl and in .*split2.pkl"):
        TapVidDataset(str(tmp_path), 'robotap')
    for name in ('0000_of_0010.pkl', 'tapvid_0000_of_0010.pkl'):
        (tmp_path / name).write_bytes(pickle.dumps([sample_of()]))
    with pytest.raises(ValueError, match='holds a part of TAP-Vid kinetics twice'):
        TapVidDataset(str(tmp_path), 'kinetics')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(subset='daviss'), "subset: expected one of davis, kinetics, rgb_stacking, robotap, came 'daviss'"),
        (dict(query_mode='last'), "query_mode: expected one of first, strided, came 'last'"),
        (dict(resize=(256,)), r'resize: expected \(height, width\)'),
        (dict(resize=(256, 0)), r'resize: expected \(height, width\)'),
        (dict(sequences=['bera']), "video 'bera' is not in .*did you mean 'bear'"),
        (dict(sequences=[]), 'expected a list of names'),
        (dict(sequences='bear'), 'expected a list of names'),
        (dict(sequences=['bear', 'bear']), 'a name is there twice: bear, bear'),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, arguments, message):
    root = write_davis(tmp_path, {'bear': sample_of()})
    with pytest.raises(ValueError, match=message):
        TapVidDataset(root, **arguments)


def test_sequences_are_kept_in_the_order_asked_for(tmp_path):
    root = write_davis(tmp_path, {name: sample_of(num_frames=n + 2) for n, name in enumerate('abc')})
    dataset = TapVidDataset(root, sequences=['c', 'a'])
    assert [len(sample.frames) for sample in dataset] == [4, 2] and dataset.num_in_files == 3
    assert dataset[-1].name == 'a'
    with pytest.raises(IndexError, match='sequence 2 of 2'):
        dataset[2]


# -- configs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['first', 'strided'])
@pytest.mark.parametrize('subset', SUBSETS)
def test_task_configs_say_what_their_names_say(tmp_path, subset, mode):
    write_tapvid(tmp_path, subset, num_videos=1)
    name = ('robotap' if subset == 'robotap' else f'tapvid_{subset}') + ('_strided' if mode == 'strided' else '')
    task = load_task(name)
    assert task['name'] == name
    dataset = DATASETS.build({**task['dataset'], 'data_root': str(tmp_path)})
    assert (dataset.subset, dataset.query_mode) == (subset, mode)
    assert {key: value for key, value in task['metric'].items() if key != 'type'} == {
        key: value for key, value in task['dataset'].items() if key != 'type'
    }


def load_task(name: str) -> dict:
    return Config.fromfile(ROOT / 'configs' / '_base_' / 'tasks' / f'{name}.py').task.to_dict()
