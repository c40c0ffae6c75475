"""The inputs of tests/golden/pck_official.json as files of the benchmarks, and tracks as an evaluation leaves them."""

import json
from pathlib import Path

import cv2
import numpy as np

from mmliir.datasets.badja import EVALUATED_JOINTS
from mmliir.datasets.masks import write_label_map

GOLDEN = Path(__file__).parents[1] / 'golden' / 'pck_official.json'


def write_tracks(pred_dir: Path, name: str, queries: np.ndarray, tracks: np.ndarray) -> Path:
    """tracks: (N, T, 2) (x, y)."""
    path = Path(pred_dir) / name / 'tracks.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = tracks.shape[:2]
    np.savez(
        path,
        queries=np.asarray(queries, np.float64),
        tracks=tracks.astype(np.float32),
        confidence=np.ones(shape, np.float32),
        visible=np.ones(shape, bool),
    )
    return path


def write_jhmdb_case(root: Path, clips: list[dict]) -> None:
    """Clips as {name: [class, clip], size: [H, W], truth: (T, 15, 2), prediction: (T, 15, 2)}, counted from 0."""
    from scipy.io import savemat

    for clip in clips:
        group, name = clip['name']
        frames = root / 'Rename_Images' / group / name
        frames.mkdir(parents=True)
        for t in range(len(clip['truth'])):
            cv2.imwrite(str(frames / f'{t + 1:05d}.png'), np.zeros((*clip['size'], 3), np.uint8))
        path = root / 'joint_positions' / group / name / 'joint_positions.mat'
        path.parent.mkdir(parents=True)
        savemat(path, {'pos_img': np.array(clip['truth'], float).transpose(2, 1, 0) + 1})
        listing = root / 'splits' / f'{group}_test_split1.txt'
        listing.parent.mkdir(exist_ok=True)
        with open(listing, 'a') as file:
            file.write(f'{name}.avi 2\n')


def write_badja_case(root: Path, videos: list[dict]) -> None:
    """Videos as {animal, size: [H, W], annotated: [A], joints: (A, 20, 2) whole (x, y), visible: (A, 20),
    ellipses: (A, 2, 4) of (x, y, half width, half height) of ids 1 and 2, prediction: (A, 20, 2)}."""
    for video in videos:
        animal, (height, width) = video['animal'], video['size']
        entries = []
        for a, number in enumerate(video['annotated']):
            places, visible = np.zeros((37, 2), int), np.zeros(37, bool)
            places[list(EVALUATED_JOINTS)] = np.array(video['joints'][a])[:, ::-1]
            visible[list(EVALUATED_JOINTS)] = video['visible'][a]
            entries.append(
                {
                    'image_path': f'DAVIS/JPEGImages/Full-Resolution/{animal}/{number:05d}.jpg',
                    'segmentation_path': f'DAVIS/Annotations/Full-Resolution/{animal}/{number:05d}.png',
                    'joints': places.tolist(),
                    'visibility': visible.tolist(),
                }
            )
        path = root / 'joint_annotations' / f'{animal}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entries))
        frames = root / 'DAVIS' / 'JPEGImages' / 'Full-Resolution' / animal
        frames.mkdir(parents=True)
        for number in range(video['annotated'][0], video['annotated'][-1] + 1):
            cv2.imwrite(str(frames / f'{number:05d}.jpg'), np.zeros((height, width, 3), np.uint8))
            ids = np.zeros((height, width), np.uint8)
            if number in video['annotated']:
                ids = draw_ellipses(video['ellipses'][video['annotated'].index(number)], (height, width))
            write_label_map(root / 'DAVIS' / 'Annotations' / 'Full-Resolution' / animal / f'{number:05d}.png', ids)


def draw_ellipses(ellipses: list, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8; ellipse k is id k + 1, the later ones in front."""
    y, x = np.mgrid[: size[0], : size[1]]
    ids = np.zeros(size, np.uint8)
    for number, (center_x, center_y, half_width, half_height) in enumerate(ellipses, start=1):
        ids[((x - center_x) / half_width) ** 2 + ((y - center_y) / half_height) ** 2 <= 1] = number
    return ids


def spread(annotated: list[int], values: np.ndarray) -> np.ndarray:
    """(A, N, 2) at annotated frames -> (N, T, 2) tracks; 0 between."""
    values = np.asarray(values, float)
    tracks = np.zeros((annotated[-1] - annotated[0] + 1, *values.shape[1:]))
    tracks[np.array(annotated) - annotated[0]] = values
    return tracks.transpose(1, 0, 2)
