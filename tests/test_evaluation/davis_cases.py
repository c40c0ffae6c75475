"""Masks from seeds for the DAVIS tests, and the script that asked the official tool for their scores.

To renew `tests/golden/davis_official.json` (only when a case changes; say why in the changelog), with a
checkout of https://github.com/davisvideochallenge/davis2017-evaluation and its needs on PYTHONPATH:

    python tests/test_evaluation/davis_cases.py
"""

import hashlib
import json
import math
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).parents[1] / 'golden' / 'davis_official.json'
# name: (seed, annotated frames, height, width, objects)
CASES = {
    'plain-480p': (1, 4, 480, 854, 2),
    'many-objects': (2, 8, 60, 107, 5),
    'tall': (3, 9, 107, 60, 3),
    'void': (4, 8, 72, 96, 2),
    'vanishing': (5, 10, 72, 96, 2),
    'empty-prediction': (6, 6, 40, 56, 2),
    'empty-truth': (7, 7, 40, 56, 1),
    'full-frame': (8, 6, 40, 56, 1),
    'borders': (9, 8, 40, 56, 2),
    'gap-in-ids': (10, 7, 40, 56, 3),
    'late-object': (11, 9, 40, 56, 1),
    'noise': (12, 7, 40, 56, 2),
    'three-frames': (13, 3, 40, 56, 2),
    'four-frames': (14, 4, 40, 56, 2),
    'five-frames': (15, 5, 40, 56, 2),
    'scored-255': (20, 257, 12, 20, 1),
    'scored-256': (16, 258, 12, 20, 1),
    'scored-257': (17, 259, 12, 20, 1),
    'scored-300': (18, 302, 12, 20, 1),
    'scored-351': (19, 353, 12, 20, 1),
}


def make_sequence(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (truth, prediction), both (T, H, W) uint8, of one case.

    Ellipses that drift and breathe; the prediction's drift off over time, so that scores fall from about one
    to about zero. The case's name says what else happens.
    """
    seed, num_frames, height, width, num_objects = CASES[name]
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.2, 0.8, (num_objects, 2)) * (height, width)
    radii = rng.uniform(0.12, 0.3, (num_objects, 2)) * min(height, width)
    drift = rng.uniform(-0.3, 0.3, (num_objects, 2)) * (height, width) / max(num_frames, 8)
    error = rng.uniform(-0.5, 0.5, (num_objects, 2)) * (height, width) / max(num_frames, 8)
    if name == 'borders':
        centres = np.array([[0.0, width - 1.0], [height - 1.0, width / 2]])
    truth = np.stack([_ellipses(height, width, centres + t * drift, radii) for t in range(num_frames)])
    moved = [centres + t * (drift + error * np.sin(1 + t / 7)) for t in range(num_frames)]
    prediction = np.stack([_ellipses(height, width, moved[t], radii * 0.95) for t in range(num_frames)])
    if name == 'void':
        truth[:, 20:30, 10:60] = 255
    elif name == 'vanishing':
        truth[4:6][truth[4:6] == 2] = 0
        prediction[5:8][prediction[5:8] == 2] = 0
    elif name == 'empty-prediction':
        prediction[:] = 0
    elif name == 'empty-truth':
        truth[2:5] = 0
        prediction[3] = 0
    elif name == 'full-frame':
        truth[2:4], prediction[3:5] = 1, 1
    elif name == 'gap-in-ids':
        truth[truth == 2], prediction[prediction == 2] = 0, 0
    elif name == 'late-object':
        truth[3:, 2:9, 3:12] = 2
    elif name == 'noise':
        speckle = rng.random(prediction.shape) < 0.02
        prediction[speckle] = rng.integers(0, num_objects + 1, prediction.shape, dtype=np.uint8)[speckle]
    return truth, prediction


def write_dataset(root: Path, names: list[str]) -> Path:
    """Write cases in the DAVIS-2017 layout; return the folder of the predictions."""
    predictions = root / 'predictions'
    lists = root / 'ImageSets' / '2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('\n'.join(names) + '\n')
    for name in names:
        truth, prediction = make_sequence(name)
        write_masks(root / 'Annotations' / '480p' / name, truth)
        write_masks(predictions / name, prediction)
    return predictions


def write_masks(folder: Path, masks: np.ndarray) -> None:
    """Write (T, H, W) uint8 as palette PNG files 00000.png, ..."""
    folder.mkdir(parents=True)
    palette = [(37 * k + c * 91) % 256 for k in range(256) for c in range(3)]
    for t, mask in enumerate(masks):
        image = Image.fromarray(mask)
        image.putpalette(palette)
        image.save(folder / f'{t:05d}.png', compress_level=1)


def digest(name: str) -> str:
    """Return a hash of a case's masks: when it changes, the golden numbers are of other masks."""
    truth, prediction = make_sequence(name)
    return hashlib.sha256(truth.tobytes() + prediction.tobytes()).hexdigest()


def _ellipses(height: int, width: int, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=np.uint8)
    for k, ((cy, cx), (ry, rx)) in enumerate(zip(centres, radii), start=1):
        mask[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = k
    return mask


def _ask_official() -> dict:
    from davis2017.evaluation import DAVISEvaluation

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        predictions = write_dataset(root, list(CASES))
        # codalab=True: do not ask for the JPEG frames.
        tool = DAVISEvaluation(str(root), 'semi-supervised', 'val', codalab=True)
        result = tool.evaluate(str(predictions))

    def number(value: float) -> float | None:
        return None if math.isnan(value) else float(value)

    objects = {}
    for k, name in enumerate(result['J']['M_per_object']):
        objects[name] = [number(result[measure][key][k]) for measure in 'JF' for key in 'MRD']
    return {
        'made_by': 'tests/test_evaluation/davis_cases.py, that is davisvideochallenge/davis2017-evaluation '
        'at '
        'ac7c43f, semi-supervised, on the masks whose SHA-256 is below (truth then prediction, uint8)',
        'columns': ['J mean', 'J recall', 'J decay', 'F mean', 'F recall', 'F decay'],
        'objects': objects,
        'masks_sha256': {name: digest(name) for name in CASES},
    }


if __name__ == '__main__':
    golden = json.dumps(_ask_official(), indent=1)
    GOLDEN.write_text(golden + '\n')
