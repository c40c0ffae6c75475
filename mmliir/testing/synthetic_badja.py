"""A small BADJA in the official layout: bodies with 20 joints, the frames beside them as DAVIS has them."""

import json
import os
from pathlib import Path

import numpy as np

from mmliir.datasets.badja import EVALUATED_JOINTS
from mmliir.datasets.masks import write_label_map
from mmliir.testing.synthetic_jhmdb import JointedVideo, generate_jointed_video, write_images

NUM_FRAMES = 11
ANNOTATED = (0, 5, 10)
#: Place among the 20 of the joint that the first frame does not show.
HIDDEN_AT_FIRST = 19
_NUM_MODEL_JOINTS = 37
# Number of each animal's first annotated frame, as in the original: images before it are there, and not used.
_FIRST = {'bear': 2, 'dog': 0}


def write_badja(root: str | os.PathLike) -> dict[str, JointedVideo]:
    """Write two animals, 11 frames of 96 x 128 each, annotated in the first, the middle and the last.

    The last of the 20 joints is not visible in the first frame of 'bear'. The masks are palette images of id 1, those
    of 'dog' have an id 2 as well, whose colour has no red. Joints are whole pixels, as in the original.

    Args:
        root: Folder to write into.

    Returns:
        Animal -> the video of its clip; joints (11, 20, 2) are exact, and so up to half a pixel from the annotation.
    """
    root, videos = Path(root), {}
    for seed, (animal, first) in enumerate(_FIRST.items()):
        video = generate_jointed_video(10 + seed, NUM_FRAMES + first, (96, 128), len(EVALUATED_JOINTS))
        write_images(root / 'DAVIS' / 'JPEGImages' / 'Full-Resolution' / animal, video.frames, '.jpg')
        for number, mask in enumerate(video.masks):
            ids = mask.astype(np.uint8)
            if animal == 'dog':
                ids[:40] *= 2
            write_label_map(root / 'DAVIS' / 'Annotations' / 'Full-Resolution' / animal / f'{number:05d}.png', ids)
        entries = [_entry(animal, first + t, video.joints[first + t], t == 0 and animal == 'bear') for t in ANNOTATED]
        path = root / 'joint_annotations' / f'{animal}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entries))
        videos[animal] = JointedVideo(video.frames[first:], video.masks[first:], video.joints[first:])
    return videos


def _entry(animal: str, number: int, joints: np.ndarray, hide: bool) -> dict:
    places = np.zeros((_NUM_MODEL_JOINTS, 2), int)
    visible = np.zeros(_NUM_MODEL_JOINTS, bool)
    chosen = list(EVALUATED_JOINTS)
    places[chosen], visible[chosen] = np.rint(joints[:, ::-1]), True
    if hide:
        places[chosen[HIDDEN_AT_FIRST]], visible[chosen[HIDDEN_AT_FIRST]] = 0, False
    return {
        'segmentation_path': f'DAVIS/Annotations/Full-Resolution/{animal}/{number:05d}.png',
        'image_path': f'DAVIS/JPEGImages/Full-Resolution/{animal}/{number:05d}.jpg',
        'visibility': visible.tolist(),
        'joints': places.tolist(),
    }
