"""A compiled encoder trains as the plain one does, and leaves no trace in checkpoints."""

import copy
import os
import shutil

import pytest
import torch
from model_cases import ALL_PARTS, build, pairs
from train_cases import LIIR_CONFIG, ONE_STAGE, write_training_videos

from mmliir.apis.train import train
from mmliir.registry import MODELS
from mmliir.utils.checkpoint import read_checkpoint

needs_inductor = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='inductor on a CPU needs a C++ compiler'
)
TRACED = {'backend': 'eager'}  # traced as for any other back end, but nothing is compiled


def losses_and_gradients(model, inputs):
    model.seed_step(0)
    losses = model.loss(inputs, {'video_id': torch.tensor([0, 1])})
    sum(value for name, value in losses.items() if name.startswith('loss')).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    'settings', [TRACED, pytest.param({}, marks=[pytest.mark.slow, needs_inductor])], ids=['traced', 'compiled']
)
def test_losses_and_gradients_are_those_of_the_plain_encoder(settings):
    plain, compiled = build().train(), build().train()
    compiled.compile_training(settings)
    inputs = pairs()
    (losses, gradients), (own_losses, own) = (losses_and_gradients(model, inputs) for model in (plain, compiled))
    assert set(own) == set(gradients)
    for ours, theirs in ((own_losses, losses), (own, gradients)):
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-11, msg=f'{name} differs')


def test_names_of_weights_and_parameters_stay():
    plain, compiled = build(), build()
    compiled.compile_training(TRACED)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in compiled.named_modules()] == [name for name, _ in plain.named_modules()]


def test_a_copy_runs_on_its_own_weights():
    model = build().train()
    model.compile_training(TRACED)
    images = pairs()[:, 0]
    before = model.encoder(images).detach()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.encoder.parameters():
            parameter.mul_(1.5)
    assert torch.equal(model.encoder(images), before)
    assert not torch.allclose(other.encoder(images), before)


def test_evaluation_at_other_sizes_compiles_nothing(monkeypatch):
    model = build(dtype=torch.float32)
    traced = []
    model.compile_training({'backend': lambda graph, _: traced.append(graph) or graph.forward})
    for side in (16, 20, 24):
        model.extract_feature(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert not traced
    model.train().encoder(pairs(dtype=torch.float32)[:, 0])
    assert traced


def test_the_momentum_encoder_is_compiled_too():
    model = MODELS.build(copy.deepcopy(ALL_PARTS))
    model.compile_training(TRACED)
    assert model.inter.momentum_encoder.encoder._compiled is not None


def test_a_feature_without_an_encoder_has_nothing_to_compile():
    with pytest.raises(ValueError, match='RawColor has no FeatureEncoder to compile'):
        MODELS.build(dict(type='RawColor')).compile_training({})


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Checkpoints of four steps, plain and as by `--cfg-options compile=...`; the latter resumed half-way, plain."""
    folder = tmp_path_factory.mktemp('compile')
    videos = write_training_videos(folder / 'videos')
    options = {**ONE_STAGE, 'train_cfg.max_iters': 4}
    plain = train(LIIR_CONFIG, folder / 'plain', options, data_root=videos)
    traced = train(LIIR_CONFIG, folder / 'traced', {**options, 'compile': dict(TRACED)}, data_root=videos)
    resumed = train(
        LIIR_CONFIG, folder / 'resumed', options, data_root=videos, resume=str(traced.with_name('iter_2.pth'))
    )
    return [read_checkpoint(path) for path in (plain, traced, resumed)]


@pytest.mark.slow
def test_a_compiled_run_writes_the_checkpoint_of_a_plain_one_which_a_plain_one_continues(runs):
    plain, traced, resumed = runs
    for other in (traced, resumed):
        assert list(other['state_dict']) == list(plain['state_dict'])
        assert not any('_orig_mod' in name for name in other['state_dict'])
        for name, value in plain['state_dict'].items():
            torch.testing.assert_close(other['state_dict'][name], value, rtol=1e-4, atol=1e-6)


def test_anything_else_than_settings_is_refused(tmp_path):
    videos = write_training_videos(tmp_path / 'videos')
    with pytest.raises(ValueError, match="compile must be None, True or a dict .* got 'yes'"):
        train(LIIR_CONFIG, tmp_path / 'run', {**ONE_STAGE, 'compile': 'yes'}, data_root=videos)
