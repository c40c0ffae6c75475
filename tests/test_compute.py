"""Precision, threads and layout: chosen by what the machine is, and the networks that PyTorch would crash on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmliir.apis.configs import load_config
from mmliir.apis.train import prepare_config, settle_precision
from mmliir.models.methods.base import FeatureEncoder
from mmliir.utils import compute, machine


@pytest.fixture
def gain(monkeypatch):
    """Pretend that bfloat16 is this many times as fast as float32."""
    return lambda value: monkeypatch.setattr(compute, 'bfloat16_gain', lambda device_type: value)


@pytest.mark.parametrize('speed,chosen', [(0.15, 'float32'), (1.1, 'float32'), (3.0, 'bfloat16')])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(gain, speed, chosen):
    gain(speed)
    assert compute.choose_precision('auto', 'cpu') == chosen
    assert compute.choose_precision('float32', 'cpu') == 'float32'


def test_bfloat16_that_was_asked_for_is_given_and_its_cost_said(gain, caplog):
    gain(0.15)
    assert compute.choose_precision('bfloat16', 'cpu') == 'bfloat16'
    assert 'about 7 times as long' in caplog.text
    caplog.clear()
    gain(3.0)
    assert compute.choose_precision('bfloat16', 'cpu') == 'bfloat16' and not caplog.text


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16, got 'half'"):
        compute.choose_precision('half', 'cpu')


def test_the_measured_gain_is_that_of_the_code_that_runs():
    """With oneDNN held to AVX2 bfloat16 is emulated: slower than float32, whatever the processor can do."""
    program = 'from mmliir.utils.compute import bfloat16_gain as g; print(g("cpu"))'
    environment = {**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1


@pytest.mark.parametrize(
    'files,cores',
    [
        ({'cpu.max': '150000 100000\n'}, 1.5),
        ({'cpu.max': 'max 100000\n'}, None),
        ({'cpu/cpu.cfs_quota_us': '400000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 4.0),
        ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, None),
        ({'cpu.max': 'nonsense\n'}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_time_counts(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._cgroup_cores(tmp_path) == cores


def test_a_share_of_time_limits_cores_and_threads(monkeypatch, one_thread):
    monkeypatch.setattr(machine, '_cgroup_cores', lambda: 0.5)
    assert machine.usable_cores() == 1
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(3)
    assert compute.limit_threads() == 1
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    torch.set_num_threads(3)
    assert compute.limit_threads() == 3  # the user's own choice


def config(wrapper: str, **entries) -> Config:
    return Config(dict(optim_wrapper=dict(type=wrapper), train_dataloader={}, **entries))


@pytest.mark.parametrize(
    'wrapper,entries,asked,speed,precision,becomes',
    [
        ('DeferredOptimWrapper', {'precision': 'auto'}, None, 0.2, 'float32', 'DeferredOptimWrapper'),
        ('DeferredOptimWrapper', {'precision': 'auto'}, None, 4.0, 'bfloat16', 'AutocastOptimWrapper'),
        ('DeferredOptimWrapper', {'precision': 'float32'}, None, 4.0, 'float32', 'DeferredOptimWrapper'),
        ('DeferredOptimWrapper', {'precision': 'float32'}, 'bfloat16', 4.0, 'bfloat16', 'AutocastOptimWrapper'),
        ('AutocastOptimWrapper', {}, None, 4.0, 'bfloat16', 'AutocastOptimWrapper'),
        ('AutocastOptimWrapper', {}, 'auto', 0.2, 'float32', 'DeferredOptimWrapper'),
        ('AutocastOptimWrapper', {'precision': 'float32'}, None, 4.0, 'float32', 'DeferredOptimWrapper'),
        ('OptimWrapper', {}, None, 0.2, 'float32', 'OptimWrapper'),
        ('MineOptimWrapper', {}, None, 4.0, 'float32', 'MineOptimWrapper'),
    ],
)
def test_a_config_trains_in_the_precision_of_the_machine(gain, wrapper, entries, asked, speed, precision, becomes):
    gain(speed)
    cfg = config(wrapper, **entries)
    assert settle_precision(cfg, asked) == precision
    prepare_config(cfg, precision, launcher='none', auto_scale_lr=False)
    assert (cfg.optim_wrapper.type, cfg.precision) == (becomes, precision)


def test_bfloat16_needs_a_wrapper_that_can_be_replaced():
    with pytest.raises(ValueError, match='MineOptimWrapper'):
        prepare_config(config('MineOptimWrapper'), 'bfloat16', launcher='none', auto_scale_lr=False)


@pytest.mark.parametrize('asked,precision,said', [(None, 'bfloat16', 'as before'), ('float32', 'float32', 'until now')])
def test_a_resumed_run_keeps_its_precision_on_another_machine(gain, tmp_path, capsys, asked, precision, said):
    gain(0.2)
    path = tmp_path / 'iter_2.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'meta': {'precision': 'bfloat16'}}, path)
    cfg = config('DeferredOptimWrapper', precision='auto', resume=True, load_from=str(path))
    assert settle_precision(cfg, asked) == precision
    assert said in capsys.readouterr().err


def test_no_config_names_a_wrapper_of_one_precision():
    for path in sorted((Path(__file__).parents[1] / 'configs').glob('*.py')):
        cfg = load_config(path)
        if 'optim_wrapper' in cfg:
            assert cfg.optim_wrapper.type == 'DeferredOptimWrapper' and cfg.precision == 'auto', path


@pytest.mark.parametrize(
    'capability,variables,narrow',
    [
        ('AVX2', {}, True),
        ('DEFAULT', {}, True),
        ('AVX512', {}, False),
        ('AVX512', {'ONEDNN_MAX_CPU_ISA': 'AVX2'}, True),
        ('AVX512', {'ONEDNN_MAX_CPU_ISA': 'avx2_vnni'}, True),
        ('AVX512', {'DNNL_MAX_CPU_ISA': 'SSE41'}, True),
        ('AVX512', {'ONEDNN_MAX_CPU_ISA': 'AVX'}, True),
        ('AVX512', {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE'}, False),
    ],
)
def test_vectors_are_narrow_where_the_code_that_runs_has_no_avx512(monkeypatch, capability, variables, narrow):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(compute.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    for name in ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert compute._has_narrow_vectors() is narrow


def encoder(channels: int) -> FeatureEncoder:
    """The backbone of LIIR at a width."""
    backbone = dict(
        type='CorrespondenceResNet18', base_channels=channels, strides=(1, 2, 1, 1), width_multipliers=(1, 2, 4, 4),
        norm='BN',
    )  # fmt: skip
    return FeatureEncoder(backbone).train()


@pytest.mark.parametrize('narrow', [False, True])
@pytest.mark.parametrize('channels', [2, 4, 7, 8, 64])
def test_the_layout_is_the_fast_one_where_that_is_sound(monkeypatch, channels, narrow):
    monkeypatch.setattr(compute, '_has_narrow_vectors', lambda: narrow)
    contiguous = narrow or channels < 8
    found = encoder(channels)
    assert found.memory_format == (torch.contiguous_format if contiguous else torch.channels_last)
    assert found.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=found.memory_format)


def test_features_do_not_depend_on_the_layout(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(compute, '_has_narrow_vectors', lambda: False)
    first, images = encoder(8), torch.randn(2, 3, 32, 32)
    monkeypatch.setattr(compute, '_has_narrow_vectors', lambda: True)
    second = encoder(8)
    second.load_state_dict(first.state_dict())
    found = []
    for own in (first, second):
        out = own(images)
        out.square().mean().backward()
        found.append((out, own.backbone.conv1.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


_TRAIN = """
import sys, torch
sys.path.insert(0, {tests!r})
import mmliir.models
from test_compute import encoder
from mmliir.utils import compute
torch.set_num_threads(1)
for contiguous in (False, True):  # where networks are trained channels last if that is sound, and where never
    compute._has_narrow_vectors = lambda: contiguous
    for channels in (1, 2, 3, 4, 5, 6, 7, 8):
        made = encoder(channels)
        if channels == 4:
            made.compile_training({{}})
        for _ in range(20):
            made(torch.randn(4, 3, 32, 32)).square().mean().backward()
print('all trained')
"""


def test_the_smallest_networks_train_in_a_process_of_their_own():
    """Narrow ones end by a signal on AVX2 processors when they are trained channels last (until PyTorch is mended)."""
    program = _TRAIN.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and 'all trained' in done.stdout, (done.returncode, done.stderr[-2000:])
