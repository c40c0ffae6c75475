"""JHMDB: 15 joints of a person, given in the first frame, followed through short clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmliir.components import DATASETS
from mmliir.datasets.keypoints import FrameFiles
from mmliir.datasets.listing import is_clutter, list_pictures
from mmliir.datasets.named import NamedSamples, choose_sequences, is_folder_name, refuse_broken, without_files
from mmliir.structures import PointSample
from mmliir.utils.files import read_text

NUM_JOINTS = 15
#: The clips of split 1 that are for testing; published scores are means over them.
PUBLISHED_CLIPS = 268

_DOC = 'See docs/datasets.md#jhmdb.'
#: Where the frames of a clip lie, in the archive and as some repack it.
FRAME_FOLDERS = ('Rename_Images', 'Frames')
_LIST_FILES = ('val_list.txt', 'testlist_split1.txt', 'test.split.v2.txt')
# A file of joints has some ten kB; what claims more is no such file, and is not unpacked.
_MOST_FRAMES = 100_000
_NUMBERS = ('double', 'single', *(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64)))


@dataclass(frozen=True)
class JhmdbTruth:
    """The annotation of one clip, as long as its shorter part.

    Attributes:
        joints: (T, 15, 2) float64, (x, y) in pixels of the frames, 0-based, centres at integers. Joints outside the
            image are kept.
        frame_size: (H, W) in pixels.
        num_frames: Images that the clip has.
        num_annotated: Frames that the annotation has. T is the smaller of the two.
    """

    joints: np.ndarray
    frame_size: tuple[int, int]
    num_frames: int
    num_annotated: int


@dataclass(frozen=True)
class _Clip:
    frames: Path
    joints: Path


@DATASETS.register_module()
class JhmdbDataset(NamedSamples):
    """Clips of JHMDB as `PointSample`s: the 15 joints of the first frame are what is followed.

    Layout: `Rename_Images/<class>/<clip>/00001.png` (or `Frames/...`, as VFS has it),
    `joint_positions/<class>/<clip>/joint_positions.mat`, and the list: `splits/<class>_test_split1.txt` with lines
    `<clip>.avi 2` (1 is training, 2 testing), or one file of pairs of paths, `val_list.txt` (Spa-then-Temp, FGVC) or
    `testlist_split1.txt` (UVC), of which the last folders count, whatever machine the paths were written on.

    A clip is called `<class>__<clip>`: its predictions go to a folder of that name. A clip with more images than
    annotated frames, or fewer, is cut to the shorter. A joint outside the image is a query like any other.

    Args:
        data_root: Folder that holds Rename_Images and joint_positions, or the folder `JHMDB` that does.
        split: 1, 2 or 3; published scores are on 1.
        sequences: Names to keep, in this order; None for the whole list.

    Raises:
        FileNotFoundError: A folder, the list, or the images or joints of every clip of the list are missing; single
            clips are in `broken`.
        ValueError: An unknown split or sequence, or a list that cannot be read.
    """

    family = 'jhmdb'
    kind = 'points'

    def __init__(self, data_root: str | Path, split: int = 1, sequences: Sequence[str] | None = None) -> None:
        if split not in (1, 2, 3):
            raise ValueError(f'JHMDB split: expected 1, 2 or 3, came {split!r}.')
        self.data_root = Path(data_root)
        self.split = split
        root = find_jhmdb_root(self.data_root)
        listed, self.list_path = read_jhmdb_lists(root, split)
        self.num_sequences_in_split = len(listed)
        self.names = choose_sequences(list(listed), sequences, str(self.list_path))
        frames = next((root / name for name in FRAME_FOLDERS if (root / name).is_dir()), root / FRAME_FOLDERS[0])
        self._clips = {
            name: _Clip(
                frames.joinpath(*listed[name]), root.joinpath('joint_positions', *listed[name], 'joint_positions.mat')
            )
            for name in self.names
        }
        self.broken = self._without_files()

    def sample(self, name: str) -> PointSample:
        """Return one clip by name. Frames are read when they are asked for.

        Raises:
            ImportError: SciPy is not installed.
            ValueError: The joints cannot be read, or the folder holds no image.
        """
        paths, joints = self._read(name)
        frames = FrameFiles(paths[: len(joints)])
        queries = np.concatenate([np.zeros((NUM_JOINTS, 1)), joints[0]], axis=1)
        return PointSample(name, frames, frames.frame_names, queries)

    def truth(self, name: str) -> JhmdbTruth:
        """Return the annotation of one clip; raises as `sample`."""
        paths, joints = self._read(name)
        return JhmdbTruth(joints[: len(paths)], FrameFiles(paths).frame_size, len(paths), len(joints))

    def truth_points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the true places of `sample(name).queries`, (15, T, 2) of (x, y) in pixels, and which are in the image.

        Returns:
            (15, T, 2) float64 and (15, T) bool.
        """
        truth = self.truth(name)
        height, width = truth.frame_size
        places = truth.joints.transpose(1, 0, 2)
        inside = ((places >= -0.5) & (places < (width - 0.5, height - 0.5))).all(axis=-1)
        return places.copy(), inside

    def _read(self, name: str) -> tuple[list[Path], np.ndarray]:
        """All images of a clip, and all its joints; the one may be longer than the other."""
        refuse_broken(self.broken, name)
        clip = self._clips[name]
        joints = read_joint_positions(clip.joints)
        paths = list(list_pictures(clip.frames).files)
        if not paths:
            raise ValueError(f'{name}: no image in {clip.frames}. Extract the clip again. {_DOC}')
        return paths, joints

    def _without_files(self) -> dict[str, str]:
        """Clip of the list -> what of it is missing."""
        where = f'complete the data set, or name the sequences of {self.list_path} that are there. {_DOC}'
        joints = {name: clip.joints for name, clip in self._clips.items()}
        images = {name: clip.frames for name, clip in self._clips.items()}
        return without_files('JHMDB joints', joints, Path.is_file, where) | without_files(
            'JHMDB images', images, Path.is_dir, where
        )


def read_joint_positions(path: str | Path) -> np.ndarray:
    """Read the joints of a clip. Only numbers are unpacked: nothing in the file is executed.

    Args:
        path: `joint_positions.mat` with `pos_img` (2, 15, T), x then y, counted from 1.

    Returns:
        (T, 15, 2) float64, (x, y), counted from 0.

    Raises:
        ImportError: SciPy is not installed.
        FileNotFoundError: No such file.
        ValueError: It is no such file.
    """
    loadmat, whosmat = _import_scipy()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'JHMDB joints not found at {path}. {_DOC}')
    try:
        kinds = {name: (shape, kind) for name, shape, kind in whosmat(path, appendmat=False)}
        if 'pos_img' in kinds:
            _check_kind(*kinds['pos_img'])
            positions = loadmat(path, variable_names=['pos_img'], appendmat=False)['pos_img']
    except NotImplementedError as error:
        raise ValueError(
            f'{path} is a MATLAB 7.3 file (HDF5), which SciPy does not read. JHMDB ships version 5: download it again, '
            f'or write `save(file, "pos_img", "-v7")` in MATLAB. {_DOC}'
        ) from error
    except Exception as error:  # zlib, struct, SciPy and our own check have their own words for a wrong file
        reason = f'{type(error).__name__}: {error}'
        raise ValueError(f'{path} does not hold the joints of a clip ({reason}). {_DOC}') from error
    if 'pos_img' not in kinds:
        raise ValueError(f'{path} has no variable pos_img; it has {", ".join(sorted(kinds)) or "none"}. {_DOC}')
    if np.iscomplexobj(positions):
        raise ValueError(f'{path}: pos_img holds complex numbers. Download the file again. {_DOC}')
    positions = np.asarray(positions, np.float64).reshape(2, NUM_JOINTS, -1)
    if not np.isfinite(positions).all():
        frame = int(np.argwhere(~np.isfinite(positions).all(axis=(0, 1)))[0, 0])
        raise ValueError(f'{path}: a joint of frame {frame} is NaN or infinite. Download the file again. {_DOC}')
    return positions.transpose(2, 1, 0) - 1.0


def _check_kind(shape: tuple[int, ...], kind: str) -> None:
    """MATLAB drops the last axis where T is 1."""
    fits = len(shape) in (2, 3) and shape[:2] == (2, NUM_JOINTS) and 1 <= (*shape, 1)[2] <= _MOST_FRAMES
    if not fits or kind not in _NUMBERS:
        raise ValueError(f'pos_img is {kind} of the shape {shape}, expected numbers of the shape (2, {NUM_JOINTS}, T)')


def find_jhmdb_root(data_root: Path) -> Path:
    """Return the folder that holds joint_positions: `data_root` itself, or JHMDB in it.

    Raises:
        FileNotFoundError: Neither.
    """
    for root in (data_root, data_root / 'JHMDB'):
        if (root / 'joint_positions').is_dir():
            return root
    raise FileNotFoundError(
        f'JHMDB not found at {data_root}: looked for the folder joint_positions in it and in its folder JHMDB. {_DOC}'
    )


def read_jhmdb_lists(root: Path, split: int) -> tuple[dict[str, tuple[str, str]], Path]:
    """Return name -> (class, clip) in the order of the lists, and where they are."""
    found = (root / 'splits').glob(f'*_test_split{split}.txt')
    lists = sorted(path for path in found if not is_clutter(path.name))
    pairs = [root / folder / name for folder in ('', 'splits') for name in _LIST_FILES] if split == 1 else []
    pair_list = next((path for path in pairs if path.is_file()), None)
    if lists:
        where, clips = root / 'splits', [clip for path in lists for clip in _read_split_file(path, split)]
    elif pair_list is not None:
        where, clips = pair_list, _read_pair_file(pair_list)
    else:
        raise FileNotFoundError(
            f'list of JHMDB clips not found: looked for {root / "splits"}/<class>_test_split{split}.txt'
            + (f' and for {", ".join(_LIST_FILES)} in {root} and {root / "splits"}' if pairs else '')
            + f'. {_DOC}'
        )
    if not clips:
        raise ValueError(f'{where} names no clip for testing in split {split}. {_DOC}')
    return {f'{group}__{clip}': (group, clip) for group, clip in clips}, where


def _read_split_file(path: Path, split: int) -> list[tuple[str, str]]:
    """Lines `<clip>.avi 1|2` -> (class, clip) of those with 2; the class is in the name of the file."""
    group = path.name.removesuffix(f'_test_split{split}.txt')
    clips = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        file, part = line.rsplit(None, 1) if len(line.split()) > 1 else (line, '')
        clip = file.removesuffix('.avi')
        if part not in ('1', '2') or not is_folder_name(clip) or not is_folder_name(group):
            raise ValueError(f'{path}: expected lines `<clip>.avi 1` or `<clip>.avi 2`, came {line!r}. {_DOC}')
        if part == '2':
            clips.append((group, clip))
    return clips


def _read_pair_file(path: Path) -> list[tuple[str, str]]:
    """Lines of two paths, of the joints and of the images in either order -> (class, clip)."""
    clips = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        joints = [part for part in line.split() if part.endswith('.mat')]
        parts = joints[0].split('/')[-3:] if len(joints) == 1 else []
        if len(parts) != 3 or not all(map(is_folder_name, parts)):
            raise ValueError(
                f'{path}: expected lines `.../<class>/<clip>/joint_positions.mat <folder of images>`, came {line!r}. '
                f'{_DOC}'
            )
        clips.append((parts[0], parts[1]))
    return clips


def _import_scipy():
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise ImportError(
            'the joints of JHMDB are MATLAB files, which need SciPy: pip install scipy (the extra `jhmdb`)'
        ) from error
    return loadmat, whosmat
