"""Scores of every benchmark: the same under every back end, and the same as before there was more than one."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from command_cases import run
from compiler import needs_compiler
from replicas import SCORED, write_replicas

pytestmark = pytest.mark.usefixtures('one_thread')
#: Scores by the PyTorch path, {protocol: {benchmark: {metric: fraction}}}.
GOLDEN = json.loads((Path(__file__).parent / 'golden' / 'scores.json').read_text())
#: Of those that tables print: processors round differently. Where this was written all scores were equal to the bit.
HALF_A_DIGIT = 5e-4
# Cells of a generated background are equal, and which of them are a cell's best ten is then left to rounding. Noise
# that depends on the frame alone makes all cells different.
FEATURE = '''
import torch

class Noisy(torch.nn.Module):
    def forward(self, frames):
        cells = torch.nn.functional.avg_pool2d(frames.float() / 255, 4, ceil_mode=True)
        noise = torch.Generator().manual_seed(int(frames.sum()))
        return cells + 0.1 * torch.randn(cells.shape, generator=noise)

def noisy():
    return Noisy()
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A data root with a small copy of every benchmark that is scored here."""
    pytest.importorskip('scipy')
    return write_replicas(tmp_path_factory.mktemp('data'), SCORED)


@pytest.fixture(scope='module')
def evaluate(data, tmp_path_factory) -> Callable[[str, str], dict[str, dict[str, float]]]:
    """(protocol, MMLIIR_NATIVE) -> benchmark -> metric -> fraction, of `mmliir eval` as it is typed; each once."""
    feature = tmp_path_factory.mktemp('feature') / 'feature.py'
    feature.write_text(FEATURE)

    @functools.cache
    def scores(protocol: str, switch: str) -> dict[str, dict[str, float]]:
        out = tmp_path_factory.mktemp('out')
        options = ('--model', f'{feature}:noisy', '--stride', 4, '--on', ','.join(SCORED), '--short-side', 48)
        common = ('--protocol', protocol, '--data-root', data, '--out', out, '--jobs', 1, '--no-report')
        with mock.patch.dict(os.environ, {'MMLIIR_NATIVE': switch}):
            done = run('mmliir', 'eval', *options, *common)
        assert done.code == 0, done.err
        summaries = {name: out / name / f'{protocol}@48' / 'summary.json' for name in SCORED}
        return {name: json.loads(path.read_text())['result']['metrics'] for name, path in summaries.items()}

    return scores


@pytest.mark.parametrize('protocol', GOLDEN)
def test_every_score_is_what_it_was(protocol, evaluate):
    scores = evaluate(protocol, '0')
    assert set(scores) == set(GOLDEN[protocol]) == set(SCORED)
    for benchmark, expected in GOLDEN[protocol].items():
        assert scores[benchmark] == pytest.approx(expected, abs=HALF_A_DIGIT), benchmark


@needs_compiler
@pytest.mark.parametrize('protocol', GOLDEN)
def test_compiled_code_gives_the_scores_of_pytorch(protocol, evaluate):
    ours, expected = evaluate(protocol, '1'), evaluate(protocol, '0')
    for benchmark in SCORED:
        assert ours[benchmark] == pytest.approx(expected[benchmark], abs=HALF_A_DIGIT), benchmark
