"""The evaluation during training: the scores of the command, ranks that share the work, no silent gap."""

import json
import logging
import threading
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from replicas import write_replica

import mmliir.engine.hooks.propagation_eval_hook as module
from mmliir.apis.evaluate import build_method, evaluate
from mmliir.engine.hooks.propagation_eval_hook import PropagationEvalHook
from mmliir.evaluation.benchmarks import BENCHMARKS
from mmliir.testing.synthetic import generate_video, write_davis_layout

MODEL = dict(
    type='MAST',
    backbone=dict(type='CorrespondenceResNet18', base_channels=4),
    reconstruction_head=dict(type='ReconstructionHead', radius=2, loss=dict(type='ReconstructionLoss')),
)


@pytest.fixture
def task(tmp_path):
    videos = [generate_video(seed, 4, (32, 48), name=f'v{seed}') for seed in range(3)]
    root = str(tmp_path / 'davis')
    write_davis_layout(root, videos)
    return dict(
        name='davis2017',
        dataset=dict(type='DavisDataset', data_root=root),
        metric=dict(type='DavisMetric', data_root=root),
    )


@pytest.fixture(scope='module')
def config():
    return Config(dict(model=MODEL, protocol='quick'))


def runner(config, work_dir, rank=0, ranks=1):
    logged = {}
    return SimpleNamespace(
        model=build_method(config, 'untrained', device='cpu'),
        work_dir=str(work_dir),
        rank=rank,
        world_size=ranks,
        logged=logged,
        visualizer=SimpleNamespace(add_scalars=lambda scalars, step: logged.update(scalars)),
        logger=logging.getLogger('test'),
    )


def test_scores_are_those_of_the_command(config, task, tmp_path):
    run = runner(config, tmp_path / 'run')
    stale = tmp_path / 'run' / 'eval' / 'davis2017' / 'iter_7' / 'v0' / '00000.png'
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b'of an earlier run')
    PropagationEvalHook(task, 'quick').evaluate(run, 7)
    expected = evaluate(config, 'untrained', task, out_dir=tmp_path / 'command').result
    assert run.logged['davis2017/jf_mean'] == expected.metrics['jf_mean']
    saved = json.loads((stale.parents[1] / 'scores.json').read_text())
    notes = dict(notes=None)  # the command says more
    assert saved | notes == expected.to_dict() | notes


def test_two_ranks_share_the_sequences_and_one_folder(config, task, tmp_path, monkeypatch):
    meeting = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(module.dist, 'barrier', meeting.wait)
    runs = [runner(config, tmp_path / 'run', rank, 2) for rank in range(2)]
    errors = []

    def work(run):
        try:
            PropagationEvalHook(task, 'quick').evaluate(run, 7)
        except (ValueError, OSError, threading.BrokenBarrierError) as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    expected = evaluate(config, 'untrained', task, out_dir=tmp_path / 'command').result
    assert runs[0].logged['davis2017/jf_mean'] == expected.metrics['jf_mean'] and not runs[1].logged


def test_a_sequence_that_fails_is_named(config, task, tmp_path):
    frame = tmp_path / 'davis' / 'JPEGImages' / '480p' / 'v1' / '00002.jpg'
    frame.write_bytes(frame.read_bytes()[:200])
    with pytest.raises(ValueError, match='1 of 3 sequences.*v1: .*00002.jpg'):
        PropagationEvalHook(task, 'quick').evaluate(runner(config, tmp_path / 'run'), 7)


@pytest.mark.parametrize('benchmark', ['vip', 'vip_instance', 'jhmdb', 'tapvid_davis', 'youtube_vos_holdout'])
def test_every_kind_of_benchmark_is_scored_at_the_last_step(config, tmp_path, benchmark):
    pytest.importorskip('scipy')
    write_replica(benchmark, tmp_path / 'data')
    task, root = BENCHMARKS[benchmark], str(tmp_path)
    task = {
        key: {**part, 'data_root': f'{root}/{part["data_root"]}'} if isinstance(part, dict) else part
        for key, part in task.items()
    }
    task['dataset'].pop('sequences', None)
    run = runner(config, tmp_path / 'run')
    hook = PropagationEvalHook(task, dict(base='quick', changes={'radius': 3}), interval=5)
    hook.protocol = hook.protocol.at_short_side(32)
    run.iter, run.max_iters = 0, 2
    hook.after_train_iter(run, 0)
    assert not run.logged
    run.iter = 1
    hook.after_train_iter(run, 1)
    saved = json.loads((tmp_path / 'run' / 'eval' / benchmark / 'iter_2' / 'scores.json').read_text())
    headline = next(iter(saved['metrics']))
    assert 0 <= run.logged[f'{benchmark}/{headline}'] == saved['metrics'][headline] <= 1
