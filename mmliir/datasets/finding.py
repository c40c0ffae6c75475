"""Find the videos below a folder: folders of frames and video files, and nothing that lies beside them.

Beside frames there are masks, flow, depth, previews. They are known by the names of their folders (`Annotations`,
`flow_fw`; see `names_other_than_frames`) and, PNG alone, by what is in them: an image of ids. Everything left out is in
one line of the log.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmliir.datasets.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Listing,
    is_clutter,
    is_image_of_ids,
    names_other_than_frames,
    pick_frames,
    sort_naturally,
    walk_folders,
)
from mmliir.datasets.pictures import warn_once
from mmliir.utils.files import shown_path
from mmliir.utils.words import number_of

_DOC = 'See docs/datasets.md#training-videos.'
_BY_NAME = 'masks, flow, depth or previews by their name'
_BY_CONTENT = 'masks by what is in them: indexed or grey PNG of few values'
_BESIDE_VIDEOS = 'pictures beside video files'
_OTHER_RESOLUTION = 'the same videos at another resolution; give that folder to train on them'
_TWICE = 'links to files that are there already'
_FRAMES_PARENT = 'JPEGImages'
_USUAL_RESOLUTION = '480p'
_RESOLUTION = re.compile(r'\d+p|full-resolution', re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class FoundVideos:
    """What lies below a folder.

    Attributes:
        folders: Name -> path of the folders of frames, in natural order.
        files: Name -> path of the video files, in natural order.
        left_out: (path below the folder, why), one entry a folder or file that could be taken for a video.
        num_files: All files that were seen.
    """

    folders: dict[str, Path]
    files: dict[str, Path]
    left_out: tuple[tuple[str, str], ...]
    num_files: int


def look_for_videos(root: str | os.PathLike) -> FoundVideos:
    """Look through a folder, links followed and each real folder once; see the top of this file for what counts.

    An empty folder directly below `root`, beside others, is listed too: it is a broken clip.
    """
    root = Path(root)
    listings: dict[str, Listing] = {}
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    num_files = 0
    for path, subfolders, names in walk_folders(root):
        here = path.relative_to(root).as_posix()
        num_files += len(names)
        videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES) and not is_clutter(name)]
        files |= {(path / name).relative_to(root).as_posix(): path / name for name in videos}
        if path == root:
            continue
        listing = pick_frames(path, names)
        is_empty = path.parent == root and not names and not subfolders
        if videos and len(listing.files) < 2:
            if listing.files:
                left_out[here] = _BESIDE_VIDEOS
        elif listing.files or is_empty:
            listings[here] = listing
    others = _other_folders(listings, bool(files))
    left_out |= {name: why for name, why in others.items() if name in listings}
    folders = {name: listings[name].folder for name in sort_naturally(listings) if name not in others}
    not_videos = _other_files(files, bool(folders))
    left_out |= not_videos
    files = {name: files[name] for name in sort_naturally(files) if name not in not_videos}
    return FoundVideos(folders, files, tuple((name, left_out[name]) for name in sort_naturally(left_out)), num_files)


def find_frame_folders(data_root: str | os.PathLike) -> dict[str, Path]:
    """Return name -> path of every folder of frames below `data_root`, in natural order; what is left out is logged.

    Raises:
        FileNotFoundError: No such folder, or no frames below it.
    """
    found = look_for_videos(existing_root(data_root))
    if not found.folders:
        raise FileNotFoundError(
            f'no frame folders below {shown_path(data_root)}: expected <video>/<number>.jpg (looked for '
            f'{", ".join(IMAGE_SUFFIXES)}{_told(found)}). Give the folder above the videos. {_DOC}'
        )
    warn_of_left_out(data_root, found)
    return found.folders


def find_video_files(data_root: str | os.PathLike) -> dict[str, Path]:
    """Return name -> path of every video file at or below `data_root`, in natural order; what is left out is logged.

    Raises:
        FileNotFoundError: No such folder, or no video file in it.
    """
    found = look_for_videos(existing_root(data_root))
    if not found.files:
        raise FileNotFoundError(
            f'no video files below {shown_path(data_root)}: looked for {", ".join(VIDEO_SUFFIXES)} among '
            f'{found.num_files} files{_told(found)}. {_DOC}'
        )
    warn_of_left_out(data_root, found)
    return found.files


def warn_of_left_out(data_root: str | os.PathLike, found: FoundVideos) -> None:
    """Log in one line what lies below a folder and is no video."""
    if found.left_out:
        warn_once(f'LEFT OUT below {shown_path(data_root)}{_told(found)}. {_DOC}')


def existing_root(data_root: str | os.PathLike) -> Path:
    """Return it as a path, or raise `FileNotFoundError` where it is no folder."""
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(f'training videos not found: {shown_path(root)} is not a folder. {_DOC}')
    return root


def _other_folders(listings: dict[str, Listing], are_files: bool) -> dict[str, str]:
    """Name -> why of the folders that are no videos; none of them where nothing else, nor a video file, is left."""
    others = {name: _BY_NAME for name in listings if _named_otherwise(name) is not None}
    rest = [name for name in listings if name not in others]
    others |= {name: _BY_CONTENT for name in rest if _holds_ids(listings[name].files)}
    others |= _other_resolutions([name for name in listings if name not in others])
    return others if are_files or len(others) < len(listings) else {}


def _other_files(files: dict[str, Path], are_folders: bool) -> dict[str, str]:
    """The same of video files; a file that several links lead to is taken once, itself rather than a link."""
    others = {name: _BY_NAME for name in files if _named_otherwise(name.rpartition('/')[0]) is not None}
    if len(others) == len(files) and not are_folders:
        others = {}
    seen = set()
    for name in sorted(sort_naturally(files), key=lambda name: files[name].is_symlink()):
        real = os.path.realpath(files[name])
        if name not in others and real in seen:
            others[name] = _TWICE
        seen.add(real)
    return others


def _named_otherwise(name: str) -> str | None:
    """The path of the first folder of `name` that holds no frames by its name."""
    parts = name.split('/')
    return next(('/'.join(parts[: i + 1]) for i, part in enumerate(parts) if names_other_than_frames(part)), None)


def _holds_ids(paths: Sequence[Path]) -> bool:
    """Whether a folder holds PNG alone, and the first, the middle and the last are images of ids."""
    if not paths or any(path.suffix.lower() != '.png' for path in paths):
        return False
    return all(is_image_of_ids(paths[place]) for place in {0, len(paths) // 2, len(paths) - 1})


def _other_resolutions(names: Sequence[str]) -> dict[str, str]:
    """Of `JPEGImages/480p/<video>` and `JPEGImages/Full-Resolution/<video>` the second."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        parts = name.split('/')
        if _FRAMES_PARENT in parts[:-2]:
            at = parts.index(_FRAMES_PARENT) + 1
            if _RESOLUTION.fullmatch(parts[at]):
                video = '/'.join(parts[:at]), '/'.join(parts[at + 1 :])
                found.setdefault(video, {})[parts[at]] = name
    others = {}
    for at_resolution in found.values():
        kept = min(at_resolution, key=lambda text: (text != _USUAL_RESOLUTION, not text[0].isdecimal(), text))
        others |= {name: _OTHER_RESOLUTION for text, name in at_resolution.items() if text != kept}
    return others


def _told(found: FoundVideos) -> str:
    """': Annotations (24 folders; masks by their name), ...', or '' where nothing was left out."""
    groups: Counter[tuple[str, str]] = Counter()
    for name, why in found.left_out:
        top = _named_otherwise(name) if why == _BY_NAME else name.rpartition('/')[0] or name
        groups[top or name, why] += 1
    parts = [
        f'{shown_path(top)} ({number_of(count, "place")}: {why})' for (top, why), count in groups.most_common(_SHOWN)
    ]
    more = f', and {len(groups) - _SHOWN} more' if len(groups) > _SHOWN else ''
    return f': left out {", ".join(parts)}{more}' if parts else ''
