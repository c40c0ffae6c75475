"""The file of followed points: its name, and reading it. `mmliir.evaluation.writers` writes it."""

from pathlib import Path

import numpy as np

TRACKS_NAME = 'tracks.npz'


def read_tracks(path: str | Path) -> dict[str, np.ndarray]:
    """Read what `PointWriter` of `mmliir.evaluation.writers` wrote; nothing in the file is executed.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no such file, or its arrays do not fit together.
    """
    path = Path(path)
    wanted = ('queries', 'tracks', 'confidence', 'visible')
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, struct and NumPy all have their own words for a damaged file
        raise ValueError(
            f'{path} does not hold the arrays {", ".join(wanted)} ({type(error).__name__}: {error}). Predict again.'
        ) from error
    points, frames = arrays['visible'].shape if arrays['visible'].ndim == 2 else (-1, -1)
    shapes = {'queries': (points, 3), 'tracks': (points, frames, 2), 'confidence': (points, frames)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f'{path}: {name} has the shape {arrays[name].shape}, `visible` {arrays["visible"].shape}: expected '
                '(N, 3) queries, (N, T, 2) tracks, (N, T) confidence and visible'
            )
    return arrays
