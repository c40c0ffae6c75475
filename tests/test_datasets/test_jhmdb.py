import pickle
import shutil

import numpy as np
import pytest

from mmliir.datasets import JhmdbDataset
from mmliir.datasets.jhmdb import read_joint_positions
from mmliir.evaluation.writers import WRITERS
from mmliir.registry import DATASETS
from mmliir.testing.synthetic_jhmdb import write_jhmdb

sio = pytest.importorskip('scipy.io')


@pytest.fixture
def replica(tmp_path):
    return tmp_path, write_jhmdb(tmp_path)


def joints_file(root, name):
    group, clip = name.split('__')
    return root / 'joint_positions' / group / clip / 'joint_positions.mat'


def test_a_sample_gives_the_frames_and_the_joints_of_the_first(replica):
    root, videos = replica
    dataset = DATASETS.build(dict(type='JhmdbDataset', data_root=str(root)))
    assert dataset.names == list(videos) == ['clap__hands_clap_u_nm', 'wave__an_arm_wave_u_cm']
    assert (dataset.family, dataset.kind) == ('jhmdb', 'points') and dataset.kind in WRITERS
    for sample, video in zip(dataset, videos.values(), strict=True):
        assert sample.queries.shape == (15, 3) and np.all(sample.queries[:, 0] == 0)
        assert sample.queries[:, 1:] == pytest.approx(video.joints[0], abs=1e-9)  # the file counts from 1
        assert len(sample.frames) == 6 and sample.frame_names == tuple(f'{t:05d}' for t in range(1, 7))
        assert all(np.array_equal(sample.frames[t], video.frames[t]) for t in range(6))
        assert not sample.both_ways


def test_truth_is_as_long_as_the_shorter_of_images_and_annotation(replica):
    root, videos = replica
    short, long = videos
    truth = JhmdbDataset(root).truth(long)
    assert (truth.num_frames, truth.num_annotated, truth.frame_size) == (8, 6, (60, 80))
    assert truth.joints == pytest.approx(videos[long].joints, abs=1e-9)
    for number in (5, 6):
        (root / 'Rename_Images' / short.replace('__', '/') / f'{number:05d}.png').unlink()
    dataset = JhmdbDataset(root)
    assert len(dataset.truth(short).joints) == len(dataset.sample(short).frames) == 4
    assert dataset.truth(short).num_annotated == 6


def test_a_joint_outside_the_image_is_a_query_like_any_other(replica):
    root, videos = replica
    sample = JhmdbDataset(root)[1]
    assert sample.queries[-1, 1] > 79 and np.isfinite(sample.queries).all()


@pytest.mark.parametrize('form', ['val_list.txt', 'testlist_split1.txt', 'test.split.v2.txt'])
def test_lists_of_paths_name_the_same_clips_wherever_they_were_written(replica, form):
    root, videos = replica
    shutil.rmtree(root / 'splits')
    lines = []
    for name in reversed(videos):
        clip = name.replace('__', '/')
        paths = f'joint_positions/{clip}/joint_positions.mat', f'Rename_Images/{clip}'
        start = 'JHMDB/' if form == 'val_list.txt' else '/media/xt/DATA/JHMDB/'
        lines.append(' '.join(start + path for path in (paths if form != 'test.split.v2.txt' else paths[::-1])))
    (root / form).write_text('\n'.join(lines) + '\n')
    assert JhmdbDataset(root).names == list(reversed(videos))
    with pytest.raises(FileNotFoundError, match='test_split2.txt'):
        JhmdbDataset(root, split=2)


def test_the_folder_above_and_the_other_name_of_the_images_are_found(tmp_path):
    videos = write_jhmdb(tmp_path / 'JHMDB', split=3)
    (tmp_path / 'JHMDB' / 'Rename_Images').rename(tmp_path / 'JHMDB' / 'Frames')
    assert JhmdbDataset(tmp_path, split=3).names == list(videos)


def test_training_clips_are_left_out_and_sequences_keep_their_order(replica):
    root, videos = replica
    first, second = videos
    assert JhmdbDataset(root, sequences=[second, first]).names == [second, first]
    dataset = JhmdbDataset(root, sequences=[second])
    assert len(dataset) == 1 and dataset.num_sequences_in_split == 2


def test_samples_travel_to_workers(replica):
    root, _ = replica
    sample = pickle.loads(pickle.dumps(JhmdbDataset(root)[0]))
    assert sample.frames[5].shape == (60, 80, 3)


def test_what_is_missing_is_named(replica, tmp_path):
    root, videos = replica
    first, second = videos
    with pytest.raises(FileNotFoundError, match='looked for the folder joint_positions'):
        JhmdbDataset(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='expected 1, 2 or 3'):
        JhmdbDataset(root, split=4)
    with pytest.raises(ValueError, match=f"did you mean '{first}'"):
        JhmdbDataset(root, sequences=[first + 'x'])
    with pytest.raises(ValueError, match=f'there twice: {first}, {first}'):
        JhmdbDataset(root, sequences=[first, first])
    with pytest.raises(ValueError, match='came the string'):
        JhmdbDataset(root, sequences=first)
    joints_file(root, second).unlink()
    with pytest.raises(FileNotFoundError, match='JHMDB joints not found at .*1 missing of 1'):
        JhmdbDataset(root, sequences=[second])
    assert list(JhmdbDataset(root).broken) == [second]
    with pytest.raises(ValueError, match='JHMDB joints not found at '):
        JhmdbDataset(root).sample(second)
    shutil.rmtree(root / 'Rename_Images' / 'wave')
    assert 'JHMDB images not found at ' in JhmdbDataset(root).broken[second]
    assert len(JhmdbDataset(root, sequences=[first])) == 1
    for path in (root / 'Rename_Images' / 'clap').rglob('*.png'):
        path.unlink()
    with pytest.raises(ValueError, match='no image in'):
        JhmdbDataset(root, sequences=[first])[0]


@pytest.mark.parametrize(
    'line', ['../../etc.avi 2', 'a/b.avi 2', '..avi 2', '.avi 2', 'clip.avi', 'clip.avi 3', '.. 2', '\\x.avi 2']
)
def test_lists_with_names_that_are_no_folders_are_refused(replica, line):
    root, _ = replica
    (root / 'splits' / 'wave_test_split1.txt').write_text(line + '\n')
    with pytest.raises(ValueError, match='expected lines'):
        JhmdbDataset(root)


@pytest.mark.parametrize('line', ['a/../joint_positions.mat x', 'joint_positions.mat x', 'a/b/c.png x', '/a//x.mat y'])
def test_lists_of_paths_that_lead_elsewhere_are_refused(replica, line):
    root, _ = replica
    shutil.rmtree(root / 'splits')
    (root / 'val_list.txt').write_text(line + '\n')
    with pytest.raises(ValueError, match='expected lines'):
        JhmdbDataset(root)


@pytest.mark.parametrize(
    'content,message',
    [
        ({'other': np.ones(3)}, 'has no variable pos_img; it has other'),
        ({'pos_img': np.ones((2, 14, 5))}, r'shape \(2, 14, 5\)'),
        ({'pos_img': np.ones((15, 2, 5))}, r'shape \(15, 2, 5\)'),
        ({'pos_img': np.ones((2, 15, 0))}, 'pos_img is double of the shape'),
        ({'pos_img': np.array([[{'a': 1}]], dtype=object)}, 'pos_img is cell'),
        ({'pos_img': {'x': np.ones((2, 15, 3))}}, 'pos_img is struct'),
        ({'pos_img': np.full((2, 15, 4), np.nan)}, 'a joint of frame 0 is NaN or infinite'),
        ({'pos_img': np.full((2, 15, 4), 1j)}, 'complex'),
        ({'pos_img': np.array(['(2, 15)'])}, 'pos_img is char'),
    ],
)
def test_joints_that_are_none_are_refused(tmp_path, content, message):
    path = tmp_path / 'joint_positions.mat'
    sio.savemat(path, content)
    with pytest.raises(ValueError, match=message) as error:
        read_joint_positions(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / 'joint_positions.mat'
    hdf5 = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(124) + b'\x00\x02IM' + b'\x89HDF\r\n\x1a\n'
    path.write_bytes(hdf5)
    with pytest.raises(ValueError, match='MATLAB 7.3 file'):
        read_joint_positions(path)
    sio.savemat(path, {'pos_img': np.ones((2, 15, 40))}, do_compression=True)
    whole = path.read_bytes()
    for content in (b'', b'hello', whole[:150], b'cposix\nsystem\n(S"true"\ntR.' * 40):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='does not hold the joints|no variable pos_img'):
            read_joint_positions(path)
    with pytest.raises(FileNotFoundError, match='JHMDB joints not found'):
        read_joint_positions(tmp_path / 'none.mat')


def test_objects_in_the_file_are_never_looked_at(tmp_path, monkeypatch):
    """Only pos_img is unpacked, and only after its header says that it is numbers."""
    path = tmp_path / 'joint_positions.mat'
    sio.savemat(path, {'pos_img': np.ones((2, 15, 3)), 'trap': {'f': np.array([1, 2], dtype=object)}})
    asked = []
    loadmat = sio.loadmat

    def watched(*args, **kwargs):
        asked.append(kwargs['variable_names'])
        return loadmat(*args, **kwargs)

    monkeypatch.setattr(sio, 'loadmat', watched)
    assert np.all(read_joint_positions(path) == 0) and asked == [['pos_img']]
    sio.savemat(path, {'pos_img': np.array([[1, 'a']], dtype=object)})
    with pytest.raises(ValueError, match='pos_img is cell'):
        read_joint_positions(path)
    assert asked == [['pos_img']]


def test_one_annotated_frame_is_read_though_matlab_drops_its_axis(tmp_path):
    path = tmp_path / 'joint_positions.mat'
    sio.savemat(path, {'pos_img': np.arange(30.0).reshape(2, 15)})
    joints = read_joint_positions(path)
    assert joints.shape == (1, 15, 2) and joints[0, 3].tolist() == [2.0, 17.0]


def test_without_scipy_the_error_says_how_to_install_it(replica, monkeypatch):
    root, _ = replica
    monkeypatch.setitem(__import__('sys').modules, 'scipy.io', None)
    dataset = JhmdbDataset(root)  # names need no SciPy
    with pytest.raises(ImportError, match='pip install scipy'):
        dataset[0]
