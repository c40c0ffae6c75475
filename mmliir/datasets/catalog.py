"""Every data set that the benchmarks need: what it is, where it comes from, under which licence, how to find it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: As in `data/<name>`.
        title: For people.
        folders: Usual names of its folder, best first.
        markers: Paths below the folder (patterns of `Path.glob`), one of which a complete folder has.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    markers: tuple[str, ...]


CATALOG: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            'davis2016',
            'DAVIS 2016',
            ('davis2016', 'DAVIS2016', 'DAVIS-2016', 'DAVIS', 'davis'),
            ('ImageSets/2016/*.txt', 'ImageSets/480p/*.txt'),
        ),
        DataSet(
            'davis2017',
            'DAVIS 2017',
            ('davis2017', 'DAVIS2017', 'DAVIS-2017', 'DAVIS', 'davis', 'davis2017_like'),
            ('ImageSets/2017/*.txt',),
        ),
        DataSet(
            'youtube_vos2018',
            'YouTube-VOS 2018',
            ('youtube_vos2018', 'YouTube-VOS-2018', 'ytvos2018', 'youtube_vos/2018', 'YouTube-VOS/2018', 'ytvos/2018'),
            ('valid/JPEGImages', 'valid_all_frames/JPEGImages', 'train/JPEGImages'),
        ),
        DataSet(
            'youtube_vos2019',
            'YouTube-VOS 2019',
            ('youtube_vos2019', 'YouTube-VOS-2019', 'ytvos2019', 'youtube_vos/2019', 'YouTube-VOS/2019', 'ytvos/2019'),
            ('valid/JPEGImages', 'valid_all_frames/JPEGImages', 'train/JPEGImages'),
        ),
        DataSet(
            'vip',
            'VIP (human parts)',
            ('vip', 'VIP', 'VIP_Fine', 'VIP/VIP_Fine'),
            ('lists/*.txt', 'VIP_Fine/lists/*.txt'),
        ),
        DataSet('jhmdb', 'JHMDB', ('jhmdb', 'JHMDB'), ('joint_positions', 'JHMDB/joint_positions')),
        DataSet('badja', 'BADJA', ('badja', 'BADJA'), ('joint_annotations/*.json',)),
        DataSet(
            'tapvid_davis',
            'TAP-Vid DAVIS',
            ('tapvid_davis', 'tapvid/tapvid_davis', 'tapvid', 'TAP-Vid'),
            ('tapvid_davis.pkl', 'tapvid_davis/tapvid_davis.pkl'),
        ),
        DataSet(
            'tapvid_rgb_stacking',
            'TAP-Vid RGB-stacking',
            ('tapvid_rgb_stacking', 'tapvid/tapvid_rgb_stacking', 'tapvid', 'TAP-Vid'),
            ('tapvid_rgb_stacking.pkl', 'tapvid_rgb_stacking/tapvid_rgb_stacking.pkl'),
        ),
        DataSet(
            'tapvid_kinetics',
            'TAP-Vid Kinetics',
            ('tapvid_kinetics', 'tapvid/tapvid_kinetics', 'tapvid', 'TAP-Vid'),
            ('*_of_*.pkl', 'tapvid_kinetics/*_of_*.pkl'),
        ),
        DataSet(
            'robotap',
            'RoboTAP',
            ('robotap', 'tapvid/robotap', 'tapvid', 'TAP-Vid'),
            ('robotap*.pkl', 'robotap/robotap*.pkl'),
        ),
    )
}


def find_data(name: str, data_root: str | Path) -> Path:
    """The folder of a data set.

    Args:
        name: Of the data set.
        data_root: The folder itself, or one that holds it under one of its usual names.

    Raises:
        FileNotFoundError: Neither; names the folders and the files that were looked for.
    """
    entry, data_root = CATALOG[name], Path(data_root)
    if not data_root.is_dir():
        raise FileNotFoundError(f'--data-root {data_root}: no such folder')
    candidates = [*(data_root / folder for folder in entry.folders), data_root]
    for folder in candidates:
        if has_data(name, folder):
            return folder
    raise FileNotFoundError(
        f'{entry.title} not found in {data_root}: looked for {" or ".join(entry.markers)} in it and in its folders '
        f'{", ".join(entry.folders)}. `mmliir data list` says where to get it; see docs/datasets.md.'
    )


def has_data(name: str, folder: str | Path) -> bool:
    """Whether a folder looks like this data set."""
    folder = Path(folder)
    return folder.is_dir() and any(next(folder.glob(marker), None) is not None for marker in CATALOG[name].markers)
