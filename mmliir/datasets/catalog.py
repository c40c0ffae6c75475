"""Every data set that the benchmarks need: what it is, where it comes from, under which licence, how to find it.

What is said about others' pages was true when it was written; a link that is known to be dead is named as such, so that
nobody looks for the mistake at home. Nothing is downloaded from here.
"""

from collections.abc import Mapping
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
        about: What it is, one sentence.
        homepage: Of its makers.
        sources: Where to get it, a sentence or two each; the official place first.
        licence: What is known of its terms, and 'not verified' where nothing is.
        counts: Published numbers, in words.
        layout: What a complete folder holds, a line each.
        section: Of docs/datasets.md, as a link names it.
        benchmarks: Name of each benchmark that it serves -> sequences that published scores are means over, None
            where that depends on a choice of ours.
        size: Of the download, in words; None where it is not known for certain.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    markers: tuple[str, ...]
    about: str
    homepage: str
    sources: tuple[str, ...]
    licence: str
    counts: str
    layout: tuple[str, ...]
    section: str
    benchmarks: Mapping[str, int | None]
    size: str | None = None


_DAVIS_LICENCE = 'CC BY-NC 4.0 as the files that come with it say: attribution, nothing commercial'
# Not train/JPEGImages: anybody's training frames lie in a folder of that name.
_YOUTUBE_VOS_MARKERS = (
    'valid/JPEGImages',
    'valid_all_frames/JPEGImages',
    'train_all_frames/JPEGImages',
    'valid/meta.json',
    'train/meta.json',
)
_YOUTUBE_VOS = dict(
    about='Objects in videos of the web; some enter late, some are of categories that no training video has.',
    homepage='https://youtube-vos.org',
    licence=(
        'annotations CC BY 4.0; the videos belong to their uploaders, and the site allows research that is not '
        'commercial: read the terms there'
    ),
    layout=(
        'valid/JPEGImages/<video>/<frame>.jpg               every 5th frame: these are scored',
        'valid/Annotations/<video>/<frame>.png              where objects are given',
        'valid/meta.json                                    videos, objects, categories',
        'valid_all_frames/JPEGImages/<video>/<frame>.jpg    every frame',
        'train/JPEGImages, train/Annotations, train/meta.json, train_all_frames/JPEGImages',
    ),
    section='youtube-vos',
)
_YOUTUBE_VOS_SERVER = (
    'The truth of valid is with the evaluation server alone, and CodaLab, which ran it, has closed: look at the '
    'homepage for its successor. The benchmark youtube_vos_holdout, on train of 2018, needs no server.'
)
_TAPVID = dict(
    homepage='https://tapvid.github.io',
    section='tap-vid',
)
_TAPVID_PAGE = 'https://github.com/google-deepmind/tapnet/tree/main/tapnet/tapvid'
_TAPVID_FILES = 'https://storage.googleapis.com/dm-tapnet'

CATALOG: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            'davis2016',
            'DAVIS 2016',
            ('davis2016', 'DAVIS2016', 'DAVIS-2016', 'DAVIS', 'davis'),
            ('ImageSets/2016/*.txt', 'ImageSets/480p/*.txt'),
            about='Short videos with one moving object or group, its mask given in every frame.',
            homepage='https://davischallenge.org/davis2016/code.html',
            sources=('https://davischallenge.org/davis2016/code.html: the archive of images and annotations.',),
            licence=_DAVIS_LICENCE,
            counts='val: 20 sequences, 1,376 frames; train: 30 sequences, 2,079 frames',
            layout=(
                'JPEGImages/480p/<sequence>/00000.jpg ...',
                'Annotations/480p/<sequence>/00000.png ...    0 and 255',
                'ImageSets/480p/val.txt                       pairs of paths; or ImageSets/2016/val.txt, names',
            ),
            section='davis',
            benchmarks={'davis2016': 20},
        ),
        DataSet(
            'davis2017',
            'DAVIS 2017',
            ('davis2017', 'DAVIS2017', 'DAVIS-2017', 'DAVIS', 'davis', 'davis2017_like'),
            ('ImageSets/2017/*.txt',),
            about='Short videos with several objects, the mask of each given in every frame.',
            homepage='https://davischallenge.org/davis2017/code.html',
            sources=(
                'https://davischallenge.org/davis2017/code.html: "TrainVal - Images and Annotations (480p)"; for '
                'test-dev "Test-Dev 2017 (480p)". BADJA takes its frames from here too.',
            ),
            licence=_DAVIS_LICENCE,
            counts='val: 30 sequences, 1,999 frames, 61 objects; train: 60 sequences; test-dev: 30 sequences',
            layout=(
                'JPEGImages/480p/<sequence>/00000.jpg ...',
                'Annotations/480p/<sequence>/00000.png ...    value = object id, 255 = void',
                'ImageSets/2017/val.txt                       one name a line',
            ),
            section='davis',
            benchmarks={'davis2017': 30, 'davis2017_test_dev': 30},
        ),
        DataSet(
            'youtube_vos2018',
            'YouTube-VOS 2018',
            ('youtube_vos2018', 'YouTube-VOS-2018', 'ytvos2018', 'youtube_vos/2018', 'YouTube-VOS/2018', 'ytvos/2018'),
            _YOUTUBE_VOS_MARKERS,
            sources=(
                'https://youtube-vos.org/dataset/vos/ (registration), version 2018: valid.zip and valid_all_frames.zip '
                'to evaluate, train_all_frames.zip (or train.zip, 6 fps) to train.',
                _YOUTUBE_VOS_SERVER,
            ),
            counts='train: 3,471 videos (94,588 frames at 6 fps); valid: 474 videos, 894 objects',
            benchmarks={'youtube_vos2018': 474, 'youtube_vos_holdout': None},
            **_YOUTUBE_VOS,
        ),
        DataSet(
            'youtube_vos2019',
            'YouTube-VOS 2019',
            ('youtube_vos2019', 'YouTube-VOS-2019', 'ytvos2019', 'youtube_vos/2019', 'YouTube-VOS/2019', 'ytvos/2019'),
            _YOUTUBE_VOS_MARKERS,
            sources=(
                'https://youtube-vos.org/dataset/vos/ (registration), version 2019: the same files as for 2018.',
                _YOUTUBE_VOS_SERVER,
            ),
            counts='train: 3,471 videos; valid: 507 videos',
            benchmarks={'youtube_vos2019': 507},
            **_YOUTUBE_VOS,
        ),
        DataSet(
            'vip',
            'VIP (human parts)',
            ('vip', 'VIP', 'VIP_Fine', 'VIP/VIP_Fine'),
            ('lists/*.txt', 'VIP_Fine/lists/*.txt'),
            about='People in videos of the web: 19 classes of clothes and parts of the body, and their instances.',
            homepage='https://www.sysu-hcp.net/lip/video_parsing.php',
            sources=(
                'VIP_Fine, from the makers\' page (https://www.sysu-hcp.net/lip/video_parsing.php leads to cloud '
                'drives). The page has been broken at times: see https://github.com/HCPLab-SYSU/ATEN.',
            ),
            licence='not verified',
            counts='404 videos; val: 50 videos, 2,445 frames (one of every 25), 19 classes and background',
            layout=(
                'Images/<video>/000000000001.jpg, 000000000026.jpg ...   one of every 25 frames',
                'Annotations/Category_ids/<video>/*.png                  classes 0 to 19, 255 = void',
                'Annotations/Instance_ids/<video>/*.png, *.txt           instances, and the class of each',
                'lists/val_videos.txt                                    one name a line',
                'Category_ids and Instance_ids may also lie beside Images.',
            ),
            section='vip',
            benchmarks={'vip': 50, 'vip_instance': 50},
        ),
        DataSet(
            'jhmdb',
            'JHMDB',
            ('jhmdb', 'JHMDB'),
            ('joint_positions', 'JHMDB/joint_positions'),
            about='Clips of people in action, 320 x 240, 15 joints in every frame.',
            homepage='http://jhmdb.is.tue.mpg.de',
            sources=(
                'http://jhmdb.is.tue.mpg.de, the official page, answers "not found" (reported since 2025). It had '
                'Rename_Images.tar.gz, joint_positions.zip and splits.zip.',
                'No official mirror is known. Copies that others offer are not checked by us: `mmliir data doctor` '
                'says whether one is whole.',
            ),
            licence='not verified',
            counts='928 clips of 21 actions; split 1: 268 clips to test on',
            layout=(
                'Rename_Images/<action>/<clip>/00001.png ...',
                'joint_positions/<action>/<clip>/joint_positions.mat',
                'splits/<action>_test_split1.txt                  lines `<clip>.avi 2`: 2 is for testing',
                'instead of splits: val_list.txt (Spa-then-Temp, FGVC) or testlist_split1.txt (UVC)',
            ),
            section='jhmdb',
            benchmarks={'jhmdb': 268},
        ),
        DataSet(
            'badja',
            'BADJA',
            ('badja', 'BADJA'),
            ('joint_annotations/*.json',),
            about='20 joints of animals, in about every fifth frame of DAVIS videos.',
            homepage='https://github.com/benjiebob/BADJA',
            sources=(
                'https://github.com/benjiebob/BADJA: the folder joint_annotations. The frames are those of DAVIS 2017 '
                'TrainVal, at any resolution (https://davischallenge.org/davis2017/code.html).',
                'badja_extra_videos.zip of the README (mi.eng.cam.ac.uk) is gone; published scores do not need it.',
            ),
            licence='annotations MIT; the frames are those of DAVIS, CC BY-NC 4.0',
            counts='7 animals of DAVIS (95 annotated frames) and 4 more files that published scores leave out',
            layout=(
                'joint_annotations/<animal>.json',
                'DAVIS/JPEGImages/Full-Resolution/<animal>/00000.jpg, DAVIS/Annotations/Full-Resolution/<animal>/...',
                'instead of DAVIS/: a folder davis2017, davis2016 or DAVIS beside this one; 480p will do',
            ),
            section='badja',
            benchmarks={'badja': 7},
        ),
        DataSet(
            'tapvid_davis',
            'TAP-Vid DAVIS',
            ('tapvid_davis', 'tapvid/tapvid_davis', 'tapvid', 'TAP-Vid'),
            ('tapvid_davis.pkl', 'tapvid_davis/tapvid_davis.pkl'),
            about='Points on the 30 videos of DAVIS 2017 val, followed by people.',
            sources=(f'{_TAPVID_FILES}/tapvid_davis.zip, linked at {_TAPVID_PAGE}.',),
            licence='annotations CC BY 4.0; the videos are those of DAVIS',
            counts='30 videos',
            layout=('tapvid_davis.pkl    a dict: video -> frames, points, occluded',),
            benchmarks={'tapvid_davis': 30, 'tapvid_davis_strided': 30},
            **_TAPVID,
        ),
        DataSet(
            'tapvid_rgb_stacking',
            'TAP-Vid RGB-stacking',
            ('tapvid_rgb_stacking', 'tapvid/tapvid_rgb_stacking', 'tapvid', 'TAP-Vid'),
            ('tapvid_rgb_stacking.pkl', 'tapvid_rgb_stacking/tapvid_rgb_stacking.pkl'),
            about='Points on rendered videos of a robot that stacks blocks; the truth is exact.',
            sources=(f'{_TAPVID_FILES}/tapvid_rgb_stacking.zip, linked at {_TAPVID_PAGE}.',),
            licence='CC BY 4.0, videos and annotations',
            counts='50 videos of 250 frames, 256 x 256',
            layout=('tapvid_rgb_stacking.pkl    a list of frames, points, occluded',),
            benchmarks={'tapvid_rgb_stacking': 50, 'tapvid_rgb_stacking_strided': 50},
            size='2.5 GB unpacked',
            **_TAPVID,
        ),
        DataSet(
            'tapvid_kinetics',
            'TAP-Vid Kinetics',
            ('tapvid_kinetics', 'tapvid/tapvid_kinetics', 'tapvid', 'TAP-Vid'),
            ('*_of_*.pkl', 'tapvid_kinetics/*_of_*.pkl'),
            about='Points on ten-second videos of YouTube (Kinetics-700 validation), followed by people.',
            sources=(
                f'{_TAPVID_FILES}/tapvid_kinetics.zip has the points (csv) alone. The videos are to be fetched from '
                f'YouTube, where they vanish one by one; generate_tapvid.py at {_TAPVID_PAGE} packs both into ten '
                'pickles. A score then says how many videos it is a mean over.',
            ),
            licence='annotations CC BY 4.0; each video under the licence of its uploader',
            counts='1,189 videos in papers, "1000" in the README',
            layout=('0000_of_0010.pkl ... 0009_of_0010.pkl    lists of JPEG frames, points, occluded',),
            benchmarks={'tapvid_kinetics': 1189, 'tapvid_kinetics_strided': 1189},
            **_TAPVID,
        ),
        DataSet(
            'robotap',
            'RoboTAP',
            ('robotap', 'tapvid/robotap', 'tapvid', 'TAP-Vid'),
            ('robotap*.pkl', 'robotap/robotap*.pkl'),
            about='Points on videos of robots at work, followed by people.',
            sources=(f'{_TAPVID_FILES}/robotap/robotap.zip, linked at {_TAPVID_PAGE}.',),
            licence='CC BY 4.0, videos and annotations',
            counts='265 videos',
            layout=('robotap_split0.pkl, robotap_split1.pkl ...    dicts: video -> frames, points, occluded',),
            benchmarks={'robotap': 265, 'robotap_strided': 265},
            **_TAPVID,
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


def find_all(data_root: str | Path) -> dict[str, Path]:
    """Every data set that is in a folder, or is the folder: name -> its folder, in the order of the catalog.

    A folder that could be of several years is of the one that its name or its parent's has.

    Raises:
        FileNotFoundError: No such folder.
    """
    if not Path(data_root).is_dir():
        raise FileNotFoundError(f'--data-root {data_root}: no such folder')
    found = {}
    for name in CATALOG:
        try:
            found[name] = find_data(name, data_root)
        except OSError:
            continue
    if found.get('youtube_vos2018') == found.get('youtube_vos2019') is not None:
        folder = found['youtube_vos2018'].resolve()
        years = [year for year in ('2018', '2019') if year in folder.name or year in folder.parent.name]
        for year in {'2018', '2019'} - set(years) if years else ():
            del found[f'youtube_vos{year}']
    return found


def has_data(name: str, folder: str | Path) -> bool:
    """Whether a folder looks like this data set."""
    folder = Path(folder)
    return folder.is_dir() and any(next(folder.glob(marker), None) is not None for marker in CATALOG[name].markers)
