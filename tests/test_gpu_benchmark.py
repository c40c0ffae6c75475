"""tools/benchmarks/gpu.sh without a GPU: it runs through, a failure stays its section's own, reports say what is so."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from benchmark_programs import FOLDER, load_program

SCRIPT = FOLDER / 'gpu.sh'
pytestmark = pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash')


def _call(*arguments, **environment):
    command = ['bash', str(SCRIPT), '--python', sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False, timeout=550
    )


@pytest.mark.slow
def test_a_dry_run_measures_every_section(tmp_path):
    done = _call('--device', 'cpu', '--tiny', '--out', str(tmp_path), OMP_NUM_THREADS='1')
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report, page = json.loads((tmp_path / 'gpu.json').read_text()), (tmp_path / 'gpu.md').read_text()
    sections = report['sections']
    assert report['complete'] and report['tiny'] and report['device'] == 'cpu'
    assert list(sections) == ['machine', 'kernel', 'propagation', 'video', 'train_step', 'training', 'encoder']
    for name, section in sections.items():
        assert section['status'] == 'ok' or (name, section['status']) == ('kernel', 'left out'), (name, section)
        assert section['rows'] or section['status'] == 'left out'
        assert not any('error' in row for row in section['rows'])
        assert 0 < section['seconds'] <= report['seconds']
    versions, *rates = sections['machine']['rows']
    assert versions['torch'] == torch.__version__ and {row['name'] for row in rates} == {'float32', 'bfloat16', 'copy'}
    steps = {(row['name'], row['algorithm']): row for row in sections['propagation']['rows']}
    assert {('crw', 'crw'), ('liir', 'mast_shift'), ('liir', 'torch')} <= set(steps)
    rate = next(row['tflop_per_s'] for row in rates if row['name'] == 'float32')
    step = steps['liir', 'torch']
    assert step['share'] == pytest.approx(step['tflop_per_s'] / rate) and step['max_difference'] < 1e-3
    ways = {(row['name'], row['way']) for row in sections['train_step']['rows']}
    assert ('stage 2 (all)', 'bfloat16, compiled, CUDA graphs') in ways and ('stage 1 (intra)', 'float32') in ways
    assert [row['name'] for row in sections['training']['rows']] == ['intra', 'inter']
    assert all(row['steps'] >= 1 and row['loss_first'] > 0 for row in sections['training']['rows'])
    assert 'no number here means anything' in page and page.count('\n## ') == 7
    # Progress: time since the start and time left before every line.
    assert 's left] training: intra' in done.stdout


def test_without_a_gpu_it_says_so_before_anything_is_measured(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    done = _call('--out', str(tmp_path / 'out'))
    assert done.returncode == 2 and 'sees no GPU' in done.stderr and '--device cpu --tiny' in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'arguments,says',
    [
        (['--device', 'tpu'], 'expected cuda or cpu, got tpu'),
        (['--budget', '0'], "expected whole seconds above 0, got '0'"),
        (['--out'], '--out needs a value'),
        (['--quick'], 'unknown option --quick'),
        (['--python', 'no-such-python'], 'no-such-python not found'),
    ],
)
def test_wrong_options_are_named(arguments, says):
    done = _call(*arguments)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr


@pytest.fixture
def gpu(monkeypatch):
    return load_program('gpu', monkeypatch)


def _run_of(gpu, monkeypatch, tmp_path, bodies, parts):
    """A run whose sections are small programs in place of measurements."""
    sections = [gpu.Section(name, part, name, (gpu.NAME,)) for name, part in parts.items()]
    monkeypatch.setattr(gpu, 'SECTIONS', tuple(sections))
    for name, body in bodies.items():
        (tmp_path / f'{name}.py').write_text(
            'import json, os, sys, time\nresult = sys.argv[sys.argv.index("--result") + 1]\n'
            'def write(found): open(result, "w").write(json.dumps(found))\n' + body
        )
    lines_of = gpu.Run.lines_of

    def other_program(self, command, deadline):
        name = command[command.index('--section') + 1]
        return lines_of(self, [sys.executable, str(tmp_path / f'{name}.py'), *command[2:]], deadline)

    monkeypatch.setattr(gpu.Run, 'lines_of', other_program)
    args = argparse.Namespace(device='cpu', tiny=True, out=tmp_path, budget=8.0, sections=None)
    return gpu.Run(args)


def test_a_section_that_fails_hangs_or_dies_leaves_the_others_their_rows(gpu, monkeypatch, tmp_path):
    good = 'write({"rows": [{"name": "a row"}], "ended": "ok"})'
    bodies = {
        'dies': 'write({"rows": [{"name": "before"}]}); print("segmentation"); os.kill(os.getpid(), 11)',
        'hangs': (
            'import subprocess\n'
            'write({"rows": [{"name": "before"}]}); print("a row", flush=True)\n'
            'child = subprocess.Popen(["sleep", "60"]); print("child", child.pid, flush=True); time.sleep(60)'
        ),
        'row': 'write({"rows": [{"name": "a row", "error": "too little memory"}], "ended": "ok"})',
        'good': good,
    }
    run = _run_of(gpu, monkeypatch, tmp_path, bodies, {'dies': 2, 'hangs': 1, 'row': 2, 'good': 2})
    run.all()
    run.end()
    report = json.loads((tmp_path / 'gpu.json').read_text())
    found = {name: section['status'] for name, section in report['sections'].items()}
    assert found == {'dies': 'failed', 'hangs': 'timed out', 'row': 'failed', 'good': 'ok'}
    assert report['sections']['dies']['error'] == 'the process ended: segmentation'
    assert report['sections']['hangs']['rows'] == report['sections']['dies']['rows'] == [{'name': 'before'}]
    assert run.exit_code() == 1 and report['complete'] is False and run.elapsed < 8
    page = (tmp_path / 'gpu.md').read_text()
    assert 'not measured: too little memory' in page and '**timed out**' in page
    # What a section started ends with it.
    pid = int((tmp_path / 'hangs.log').read_text().split('child ')[1].split()[0])
    assert _gone(pid)


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            state = (f'/proc/{pid}/stat', open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0])
        except OSError:
            return True
        if state[1] == 'Z':
            return True
        time.sleep(0.1)
    return False


def test_a_run_that_is_killed_leaves_what_was_measured(gpu, monkeypatch, tmp_path):
    bodies = {'one': 'write({"rows": [{"name": "a row"}]}); print("a row", flush=True); time.sleep(60)'}
    run = _run_of(gpu, monkeypatch, tmp_path, bodies, {'one': 1})
    monkeypatch.setattr(run, 'say', lambda text: (_ for _ in ()).throw(SystemExit(1)) if 'a row' in text else None)
    with pytest.raises(SystemExit):
        run.all()
    run.end()
    (section,) = json.loads((tmp_path / 'gpu.json').read_text())['sections'].values()
    assert section['rows'] == [{'name': 'a row'}] and section['status'] == 'stopped'
    assert 'stopped with the whole run' in (tmp_path / 'gpu.md').read_text()


def test_signals_of_a_whole_family_are_taken_once(gpu, monkeypatch):
    """`timeout` signals a process and, where it was started by another `timeout`, its group again."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, 'SIGTERM', signal.SIGUSR1)
    signal.signal(signal.SIGTERM, gpu.stop)
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # while the report is written
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_that_fails_or_takes_too_long_is_an_error_of_its_row(monkeypatch, tmp_path):
    sections = load_program('gpu_sections', monkeypatch)
    fails = [sys.executable, '-c', 'import sys; sys.exit("no such video")']
    row = sections.attempt('video', lambda: sections.run_process('video', fails, 30.0))
    assert row['error'] == 'RuntimeError: video.py: exit code 1: no such video'
    sleeps = [sys.executable, '-c', 'import time; time.sleep(60)']
    row = sections.attempt('video', lambda: sections.run_process('video', sleeps, 1.0))
    assert 'did not end within the 1 s' in row['error']
    setup = sections.Setup('cpu', True, 4.0, None, {}, time.monotonic())
    assert 'not reached' in sections.attempt('v', lambda: sections.run_program(setup, 'whole_video', []))['error']


def test_missing_wheels_are_named_and_the_kernel_needs_no_engine(tmp_path):
    """Where only PyTorch is installed: features are compared, and what trains says which wheels it wants."""
    code = (
        'import importlib.util, sys\n'
        'sys.path.insert(0, sys.argv.pop(1))\n'
        'find, hidden = importlib.util.find_spec, {"mmengine", "mmcv", "cv2", "av", "isal"}\n'
        'importlib.util.find_spec = lambda name, *more: None if name in hidden else find(name, *more)\n'
        'class Hide:\n'
        '    def find_spec(self, name, *more):\n'
        '        if name.partition(".")[0] in hidden: raise ImportError(name)\n'
        'sys.meta_path.insert(0, Hide())\n'
        'import gpu\n'
        'for section in ("machine", "propagation", "training"):\n'
        '    result = gpu.Path(sys.argv[1]) / f"{section}.json"\n'
        '    gpu.measure_section(gpu.argparse.Namespace(\n'
        '        out=gpu.Path(sys.argv[1]), section=section, result=result, device="cpu", tiny=True, seconds=60.0))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(FOLDER), str(tmp_path)], capture_output=True, text=True, check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}
    assert found['machine']['ended'] == found['propagation']['ended'] == 'ok'
    assert len(found['propagation']['rows']) >= 5 and found['training']['ended'] == 'failed'
    assert 'mmengine>=0.10.7' in found['training']['error'] and 'opencv' in found['training']['error']


def test_shares_are_of_the_product_in_the_same_precision(gpu, monkeypatch):
    sections = load_program('gpu_sections', monkeypatch)
    rows = [
        {'name': 'float32', 'tflop_per_s': 50.0},
        {'name': 'TensorFloat-32', 'tflop_per_s': 400.0},
        {'name': 'bfloat16', 'tflop_per_s': 800.0},
        {'name': 'copy', 'gb_per_s': 4000.0},
    ]
    setup = sections.Setup('cuda', False, 60.0, None, {'machine': rows}, 0.0)
    assert setup.rate(sections.convolution_product(True, 'cuda')) == 800.0
    assert setup.rate(sections.convolution_product(False, 'cuda')) == 400.0  # PyTorch's default for convolutions
    case = sections.propagation.LIIR
    in_float32 = sections.shares_of_step(setup, case, torch.float32, 1e-3)
    # 12.5 GFLOP, and 32.9 MB of features, labels and result
    assert in_float32['share'] == pytest.approx(1e-12 * case.useful_flop() / 1e-3 / 50)
    assert in_float32['bandwidth_share'] == pytest.approx(25680 * 4 * (64 * 6 + 7 * 6) / 1e-3 / 4e12)
    assert in_float32['bound'] == 'products'
    assert sections.shares_of_step(setup, case, torch.bfloat16, 1e-3)['share'] < in_float32['share']


def test_a_wrong_result_is_not_timed(gpu, monkeypatch):
    sections = load_program('gpu_sections', monkeypatch)
    setup = sections.Setup('cpu', True, 60.0, None, {}, time.monotonic())
    monkeypatch.setattr(sections.propagation, 'prepare', lambda *_: lambda: torch.zeros(5, 11, 14))
    row = sections.step_row(setup, 'crw', 'crw', torch.float32)
    assert 'seconds' not in row and 'of the cells differ' in row['error']
    truth = torch.zeros(2, 3, 4)
    found = truth.clone()
    found[0, 1, 2] = float('nan')
    assert sections.agreement(found, truth)[1] == pytest.approx(1 / 12)
