"""Two gloo ranks compute what one process computes on the same global batch, with all parts on."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_cases import LIIR_CONFIG, MAST_CONFIG, environment, write_training_videos

from mmliir.apis.configs import load_config
from mmliir.apis.train import stage_configs

SCRIPT = Path(__file__).with_name('ranks_script.py')
STEPS = 10
pytestmark = pytest.mark.slow  # three processes that import torch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def run(command, folder):
    done = subprocess.run(
        [sys.executable, *command], env=environment(), cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope='module', params=['liir_paper', 'liir_compat', 'liir_enqueue', 'liir_query'])
def records(request, tmp_path_factory):
    """(one process with a batch of 4, rank 0 and rank 1 of two processes with a batch of 2)."""
    return run_both(request.param, tmp_path_factory.mktemp('ranks'))


def run_both(recipe, folder):
    """What `records` gives."""
    videos = write_training_videos(folder / 'videos')
    common = [str(SCRIPT), recipe, videos]
    run([*common, str(folder / 'one'), '4', str(STEPS), 'none'], folder)
    torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1']
    torchrun += [f'--master_port={free_port()}']
    run([*torchrun, *common, str(folder / 'two'), '2', str(STEPS), 'pytorch'], folder)
    paths = [folder / 'one/records/rank_0.pt', *(folder / f'two/records/rank_{r}.pt' for r in range(2))]
    return [torch.load(path, weights_only=True) for path in paths]


def close(ours, theirs, name):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=lambda text: f'{name}: {text}')


def test_losses_equal_one_process(records):
    one, *ranks = records
    for step in range(STEPS):
        expected = one['steps'][step]['losses']
        assert {'loss', 'loss_reconstruction', 'loss_compact', 'negative_mass'} <= set(expected)
        first = 2 if 'loss_reconstruction_inter' in expected else 1  # that bank of 5 waits until it is full
        assert (expected['negative_mass'] > 0) == (step >= first)
        for rank in ranks:
            for name, value in expected.items():
                close(rank['steps'][step]['losses'][name], value, f'step {step} {name}')


def test_gradients_equal_one_process(records):
    one, *ranks = records
    for step in range(STEPS):
        expected = one['steps'][step]['gradients']
        assert any(name.endswith('position_map') for name in expected)
        assert all(gradient.any() for gradient in expected.values()) or step == 0  # zero-initialised blocks
        for rank in ranks:
            for name, value in expected.items():
                close(rank['steps'][step]['gradients'][name], value, f'step {step} {name}')


def test_bank_holds_the_same_frames_in_the_same_order_on_every_rank(records):
    one, *ranks = records
    for step in range(STEPS):
        expected = one['steps'][step]['bank']
        for rank in ranks:
            bank = rank['steps'][step]['bank']
            assert (bank['filled'], bank['next_slot']) == (expected['filled'], expected['next_slot'])
            assert torch.equal(bank['video_ids'], expected['video_ids'])
            close(bank['features'].double(), expected['features'].double(), f'step {step} bank')
    assert expected['filled'] == 5 and len(set(expected['video_ids'].tolist())) > 1


@pytest.mark.parametrize('part', ['encoder.', 'inter.momentum_encoder.'])
def test_weights_and_statistics_after_the_steps_equal_one_process(records, part):
    one, *ranks = records
    expected = {name: value for name, value in one['weights'].items() if name.startswith(part)}
    branch = any(name.startswith('inter.projection.') for name in one['weights'])  # its copy has no batch norm
    assert expected and (branch or any(name.endswith('running_var') for name in expected))
    for rank in ranks:
        for name, value in expected.items():
            close(rank['weights'][name], value, name)


def test_ranks_are_equal_to_the_bit(records):
    _, first, second = records
    for name, value in first['weights'].items():
        if 'running' not in name:
            assert torch.equal(second['weights'][name], value), name


def test_wrapped_models_look_for_no_unused_parameters():
    """DistributedDataParallel then stops at the second step when a parameter got no gradient in the first."""
    for config in (LIIR_CONFIG, MAST_CONFIG):
        for _, stage in stage_configs(load_config(config), Path('work')):
            assert stage.model_wrapper_cfg.find_unused_parameters is False
            assert stage.model_wrapper_cfg.broadcast_buffers is False


@pytest.mark.parametrize('recipe', ['liir_intra', 'liir_intra_traced'])
def test_the_first_stage_gives_every_parameter_the_gradient_of_one_process(recipe, tmp_path):
    one, *ranks = run_both(recipe, tmp_path)
    for step in range(STEPS):
        expected = one['steps'][step]['gradients']
        assert 'loss_compact' not in one['steps'][step]['losses']
        assert all(gradient.any() for gradient in expected.values()) or step == 0  # zero-initialised blocks
        for rank in ranks:
            assert set(rank['steps'][step]['gradients']) == set(expected)
            for name, value in expected.items():
                close(rank['steps'][step]['gradients'][name], value, f'step {step} {name}')
    for rank in ranks:
        assert not any('_orig_mod' in name for name in rank['weights'])
        for name, value in one['weights'].items():
            close(rank['weights'][name], value, name)
