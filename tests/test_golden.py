"""Losses of 20 steps of every method and stage, against numbers on file: a refactor changes none of them.

`python tests/test_golden.py` writes the file anew; the change belongs in the CHANGELOG under Numbers, with its reason.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from recording import DOUBLE, recorded
from train_cases import RECIPES, write_training_videos

from mmliir.apis.configs import load_config
from mmliir.apis.train import train

GOLDEN = Path(__file__).with_name('golden') / 'losses.json'
STEPS = 20
#: recipe -> its stages
STAGES = {
    recipe: [stage['name'] for stage in load_config(config).get('stages') or [dict(name='train')]]
    for recipe, (config, _) in RECIPES.items()
}
CASES = [(recipe, stage) for recipe, stages in STAGES.items() for stage in stages]


def run(recipe: str, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Train all stages of a recipe in float64: stage -> loss -> its value at each step."""
    config, options = RECIPES[recipe]
    videos = write_training_videos(folder / 'videos')
    curves = {}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for stage in STAGES[recipe]:
            own = {
                **options,
                **DOUBLE,
                'train_cfg.max_iters': STEPS,
                'optim_wrapper.optimizer.lr': 1e-3,
                'custom_hooks': recorded(folder / stage),
            }
            train(config, folder / 'run', own, data_root=videos, stage=None if stage == 'train' else stage)
            steps = torch.load(folder / stage / 'rank_0.pt', weights_only=True)['steps']
            curves[stage] = {
                name: [float(step['losses'][name]) for step in steps] for name in sorted(steps[0]['losses'])
            }
    finally:
        torch.set_default_dtype(before)
    return curves


@pytest.fixture(scope='module')
def curves(tmp_path_factory):
    """Trained once a recipe."""
    known = {}

    def of(recipe):
        if recipe not in known:
            known[recipe] = run(recipe, tmp_path_factory.mktemp(recipe))
        return known[recipe]

    return of


@pytest.mark.parametrize('recipe, stage', CASES)
def test_losses_of_twenty_steps_are_those_on_file(curves, recipe, stage):
    expected = json.loads(GOLDEN.read_text())[recipe][stage]
    ours = curves(recipe)[stage]
    assert set(ours) == set(expected)
    for name, values in expected.items():
        assert len(values) == STEPS
        assert ours[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name


def test_the_file_holds_every_recipe_and_stage_and_curves_that_move():
    golden = json.loads(GOLDEN.read_text())
    assert {recipe: list(stages) for recipe, stages in golden.items()} == STAGES
    for stages in golden.values():
        for losses in stages.values():
            assert len(set(losses['loss'])) == STEPS
    assert golden['liir_paper']['inter']['negative_mass'][-1] > 0
    assert golden['liir_compat']['inter']['negative_mass'][-1] > 0
    assert golden['liir_compat']['branch']['loss_compact'][-1] > 0


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        golden = {recipe: run(recipe, Path(folder) / recipe) for recipe in RECIPES}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=1) + '\n')
    sys.stdout.write(f'{GOLDEN} written\n')
