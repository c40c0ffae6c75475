"""The official DAVIS tool behind our interface, for whoever wants the original to say the number."""

import contextlib
import io
import warnings
from pathlib import Path

from .scores import ObjectScores, Statistics

OFFICIAL_TOOL = 'https://github.com/davisvideochallenge/davis2017-evaluation'


def official_class() -> type:
    """Import the official evaluation, or say how to get it."""
    try:
        with warnings.catch_warnings():  # importing it silences RuntimeWarning for the whole process
            import skimage.morphology  # noqa: F401  the tool itself imports it only when the first frame is scored
            from davis2017.evaluation import DAVISEvaluation
    except ImportError as error:
        raise ImportError(
            f'The official DAVIS tool is not importable ({error}). Get it with `git clone {OFFICIAL_TOOL}`, '
            'add the '
            'checkout to PYTHONPATH and `pip install scipy scikit-image tqdm`; or use backend mmliir, which '
            'gives the '
            'same numbers.'
        ) from error
    return DAVISEvaluation


def run_official(evaluation: type, root: Path, predictions: Path, name: str) -> list[ObjectScores]:
    """Return the tool's scores of one sequence, its exit turned into an error and its chatter kept back."""
    said = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter('ignore', RuntimeWarning)  # it divides 0 by 0 for an empty union
            tool = evaluation(str(root), 'semi-supervised', 'val', sequences=[name], codalab=True)
            result = tool.evaluate(str(predictions))
    except SystemExit as stop:
        raise ValueError(
            f'The official tool gave up on {name!r}: {" ".join(said.getvalue().split())}'
        ) from stop
    rows = {
        measure: [
            Statistics(*map(float, row)) for row in zip(*(result[measure][key] for key in ('M', 'R', 'D')))
        ]
        for measure in ('J', 'F')
    }
    return [ObjectScores(name, k, *pair) for k, pair in enumerate(zip(rows['J'], rows['F']), start=1)]
