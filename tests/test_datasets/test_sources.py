import numpy as np
import pytest

from mmliir.datasets import (
    AutoSource,
    BrokenMediaError,
    FrameFolderSource,
    PairIndex,
    VideoFileSource,
    VideoPairDataset,
    YouTubeVOSSource,
)
from mmliir.datasets.transforms import PackClip
from mmliir.testing.synthetic import (
    SceneSettings,
    generate_videos,
    write_frame_folders,
    write_youtube_vos_layout,
)

SETTINGS = SceneSettings(num_objects=1, num_distractors=0)


@pytest.fixture(scope='module')
def videos():
    return list(generate_videos(range(4), 11, (40, 56), SETTINGS))


def write_mp4(path, frames):
    av = pytest.importorskip('av')
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))


@pytest.fixture
def files(tmp_path, videos):
    (tmp_path / 'sub').mkdir()
    for video in videos:
        write_mp4(tmp_path / 'sub' / f'{video.name}.mp4', video.frames)
    return tmp_path


@pytest.fixture
def folders(tmp_path, videos):
    write_frame_folders(tmp_path, videos, suffix='.png')
    return tmp_path


def test_a_folder_of_frame_folders(folders, videos):
    source = FrameFolderSource(str(folders))
    assert source.names == [video.name for video in videos] and len(source) == 4
    assert source.num_frames(2) == 11 and source.frame_step == 1
    assert np.array_equal(source.read(2, 7), videos[2].frames[7])


def test_youtube_vos_with_all_frames_and_at_6_fps(tmp_path, videos):
    write_youtube_vos_layout(tmp_path, videos)
    source = YouTubeVOSSource(str(tmp_path))
    assert [source.num_frames(i) for i in range(4)] == [11] * 4 and source.frame_step == 1
    with pytest.raises(FileNotFoundError, match="use frames='all'"):
        YouTubeVOSSource(str(tmp_path), frames='6fps')
    write_youtube_vos_layout(tmp_path, videos, frames='6fps')
    source = YouTubeVOSSource(str(tmp_path), frames='6fps')
    assert source.num_frames(0) == 3 and source.frame_step == 5


@pytest.mark.parametrize('cache', [None, 'memory', 'disk'])
def test_video_files_with_each_cache(files, videos, cache, tmp_path_factory):
    cache_dir = str(tmp_path_factory.mktemp('cache')) if cache == 'disk' else None
    source = VideoFileSource(str(files), short_side=20, cache=cache, cache_dir=cache_dir)
    assert source.names == [f'sub/{video.name}.mp4' for video in videos]
    assert source.num_frames(1) == 11
    frame = source.read(1, 6)
    assert frame.shape == (20, 28, 3)
    plain = VideoFileSource(str(files)).read(1, 6)
    assert plain.shape == (40, 56, 3)
    small = plain.reshape(20, 2, 28, 2, 3).mean((1, 3))
    assert np.abs(frame - small).mean() < 10


def test_the_disk_cache_is_used_and_follows_the_file(files, videos, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp('cache')
    path = files / 'sub' / f'{videos[0].name}.mp4'
    VideoFileSource(str(files), cache='disk', cache_dir=str(cache_dir))
    before = {folder.name: folder.stat().st_mtime_ns for folder in cache_dir.iterdir()}
    VideoFileSource(str(files), cache='disk', cache_dir=str(cache_dir))
    assert before == {folder.name: folder.stat().st_mtime_ns for folder in cache_dir.iterdir()}
    write_mp4(path, videos[0].frames[:5])
    assert VideoFileSource(str(files), cache='disk', cache_dir=str(cache_dir)).num_frames(0) == 5


def test_the_layout_is_found_by_looking(tmp_path, videos):
    write_youtube_vos_layout(tmp_path / 'a', videos)
    assert isinstance(AutoSource(str(tmp_path / 'a')), YouTubeVOSSource)
    write_youtube_vos_layout(tmp_path / 'b', videos, frames='6fps')
    assert AutoSource(str(tmp_path / 'b')).frame_step == 5
    write_frame_folders(tmp_path / 'c', videos)
    assert isinstance(AutoSource(str(tmp_path / 'c')), FrameFolderSource)
    (tmp_path / 'd').mkdir()
    write_mp4(tmp_path / 'd' / 'x.mp4', videos[0].frames)
    assert isinstance(AutoSource(str(tmp_path / 'd')), VideoFileSource)
    write_mp4(tmp_path / 'c' / 'x.mp4', videos[0].frames)
    with pytest.raises(ValueError, match='expected one kind'):
        AutoSource(str(tmp_path / 'c'))


def test_missing_data_is_named(tmp_path):
    for source in (FrameFolderSource, VideoFileSource, YouTubeVOSSource, AutoSource):
        with pytest.raises(FileNotFoundError, match=r'docs/datasets.md#training-videos'):
            source(str(tmp_path))
        with pytest.raises(FileNotFoundError, match='nowhere'):
            source(str(tmp_path / 'nowhere'))


# -- broken clips -------------------------------------------------------------------------------------------


def test_broken_clips_are_counted_and_named_in_one_line(files):
    for name in ('bad1.mp4', 'bad2.mp4'):
        (files / name).write_bytes(b'not a video')
    with pytest.raises(BrokenMediaError, match=r'2 of 6 training videos are broken.*more than max_broken=1'):
        VideoFileSource(str(files), max_broken=1)
    with pytest.raises(BrokenMediaError, match='bad1.mp4'):
        VideoFileSource(str(files), on_broken='stop')
    with pytest.raises(BrokenMediaError, match='2 of 6'):
        VideoFileSource(str(files))  # a share: 5 % of 6
    source = VideoFileSource(str(files), max_broken=2)
    assert len(source) == 4 and [path.endswith(('bad1.mp4', 'bad2.mp4')) for path, _ in source.broken] == [True] * 2


def test_the_summary_is_printed(files, monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda text, *rest: lines.append(text))
    (files / 'bad.mp4').write_bytes(b'not a video')
    VideoFileSource(str(files), max_broken=0.5)
    assert len(lines) == 1 and '1 of 5' in lines[0] and 'bad.mp4' in lines[0]


def test_an_empty_folder_is_a_broken_clip(folders):
    (folders / 'empty').mkdir()
    source = FrameFolderSource(str(folders), max_broken=1)
    assert len(source) == 4 and len(source.broken) == 1


def pair_dataset(source):
    return VideoPairDataset(source, [PackClip()])


def test_a_damaged_frame_is_replaced_by_a_pair_of_another_video(folders, videos, monkeypatch):
    lines = []
    monkeypatch.setattr('mmliir.datasets.video_pairs.print_log', lambda text, *rest: lines.append(text))
    path = folders / videos[1].name / '00004.png'
    path.write_bytes(path.read_bytes()[:200])
    dataset = pair_dataset(FrameFolderSource(str(folders), max_broken=1))
    items = [dataset[PairIndex(1, 4, 6, seed)] for seed in range(40)]
    assert {item['data_samples']['video_id'] for item in items} == {0, 2, 3}
    assert all(np.diff(item['data_samples']['frame_ids'])[0] == 2 for item in items)
    assert len(lines) == 1 and '00004.png' in lines[0], 'named once'
    again = pair_dataset(FrameFolderSource(str(folders), max_broken=1))[PairIndex(1, 4, 6, 7)]
    assert again['data_samples'] == items[7]['data_samples']


def test_the_replacement_does_not_depend_on_what_the_worker_read_before(folders, videos):
    for video in videos[:2]:
        (folders / video.name / '00004.png').write_bytes(b'')

    experienced = pair_dataset(FrameFolderSource(str(folders), max_broken=2))
    experienced[PairIndex(0, 4, 6, 0)]
    one_by_one = [
        pair_dataset(FrameFolderSource(str(folders), max_broken=2))[PairIndex(1, 4, 6, seed)]['data_samples']
        for seed in range(40)
    ]
    assert [experienced[PairIndex(1, 4, 6, seed)]['data_samples'] for seed in range(40)] == one_by_one


def test_too_many_damaged_videos_stop_the_run(folders, videos):
    for video in videos[:2]:
        (folders / video.name / '00004.png').write_bytes(b'')
    dataset = pair_dataset(FrameFolderSource(str(folders), max_broken=1))
    dataset[PairIndex(0, 4, 6, 0)]
    with pytest.raises(BrokenMediaError, match='2 training videos are broken'):
        dataset[PairIndex(1, 4, 6, 0)]
    with pytest.raises(BrokenMediaError, match='00004.png'):
        pair_dataset(FrameFolderSource(str(folders), on_broken='stop'))[PairIndex(0, 4, 6, 0)]


@pytest.mark.real
def test_real_training_clips(data_root):
    source = AutoSource(str(data_root / 'train' / 'Videos'))
    assert len(source) == 58 and sum(source.num_frames(i) for i in range(58)) == 6745
    assert len(FrameFolderSource(str(data_root / 'train' / 'JPEGImages'))) == 43
