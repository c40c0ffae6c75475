"""The Triton back end of window_topk_attend: its kernel in Triton's interpreter against the loop over cells and against
PyTorch, compiled for GPUs that need not be there, and how it is chosen and refused.

The interpreter must be switched on before Triton is imported, so this file does it when it is collected; where Triton
is missing or was imported before, the tests that need it are skipped, with the count. In the interpreter NumPy
multiplies, and its sums may differ in the last bit from column to column: what must tie is made of small whole numbers.
"""

import importlib.util
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmliir.ops import MixturePrior, native, triton_attend, window_topk_attend
from mmliir.testing.reference_propagation import attend_loop

HAS_TRITON = importlib.util.find_spec('triton') is not None
if HAS_TRITON and 'triton' not in sys.modules:
    os.environ['TRITON_INTERPRET'] = '1'
NUM_RANDOM = 30


def _why_not():
    if not HAS_TRITON:
        return f'Triton is not installed: {NUM_RANDOM} random settings and 23 other cases go untested'
    if os.environ.get('MMLIIR_TRITON') == '0':
        return 'MMLIIR_TRITON=0'
    try:
        return '' if triton_attend.kernels().INTERPRETED else 'Triton was imported without its interpreter'
    except native.Unavailable as reason:
        return str(reason)


interpreted = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or 'Triton interprets')


def _inputs(height, width, channels=3, references=2, classes=2, kind='random', seed=0):
    """query, keys, values; 'whole': small whole numbers, whose products are exact and often tie."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((channels, height, width), (references, channels, height, width))
    if kind == 'whole':
        query, keys = (torch.randint(-2, 3, shape, generator=generator).float() for shape in shapes)
    else:
        query, keys = (torch.randn(shape, generator=generator) for shape in shapes)
    return query, keys, torch.randn((references, classes, height, width), generator=generator)


def _check(inputs, radius, atol=1e-5, **settings):
    fast = window_topk_attend(*inputs, radius, **settings, backend='triton')
    slow = attend_loop(*(one.float() for one in inputs), radius, **settings)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=atol)
    return fast


def _random_case(seed):
    draw = random.Random(seed)
    references = draw.choice([1, 2, 3])
    settings = {
        'shape': draw.choice(['square', 'circle', 'disc']),
        'topk_ties': draw.choice(['keep', 'share']),
        'temperature': draw.choice([1.0, 0.3, 2.5]),
        'topk': draw.choice([None, None, 1, 3, 5, 1000]),
        'topk_scope': draw.choice(['joint', 'joint', 'per_reference']),
        'normalise': draw.choice(['softmax', 'softmax', 'softmax_then_topk']),
        'border': draw.choice(['mask', 'zero_logit']),
    }
    size = draw.choice([(1, 1), (1, 5), (3, 2), (5, 3), (4, 7)])
    kind = draw.choice(['random', 'whole'])
    inputs = _inputs(
        *size, channels=draw.choice([1, 3, 33]), references=references, classes=draw.choice([1, 3, 33]), seed=seed,
        kind=kind,
    )  # fmt: skip
    if kind == 'whole':  # exact in half precision, too
        query, keys, values = inputs
        dtype = draw.choice([torch.float32, torch.float16])
        inputs = query.to(dtype), keys.to(dtype), values
    return inputs, [draw.choice([0, 1, 3, None]) for _ in range(references)], settings


@interpreted
@pytest.mark.parametrize('seed', range(NUM_RANDOM))
def test_equals_the_loop_over_cells(seed):
    inputs, radius, settings = _random_case(seed)
    _check(inputs, radius, **settings)


def test_the_random_settings_meet_every_choice():
    cases = [_random_case(seed) for seed in range(NUM_RANDOM)]
    for name, count in (('shape', 3), ('topk_ties', 2), ('topk', 5), ('topk_scope', 2), ('normalise', 2)):
        assert len({settings[name] for _, _, settings in cases}) == count, name
    assert {reach for _, radius, _ in cases for reach in radius} == {0, 1, 3, None}
    assert {inputs[0].dtype for inputs, _, _ in cases} == {torch.float32, torch.float16}
    assert any(len(set(radius)) == 3 for _, radius, _ in cases)


@interpreted
@pytest.mark.parametrize('settings', [{}, {'topk': 2}, {'topk': 2, 'topk_ties': 'share'}])
def test_several_tiles_and_blocks_of_keys_equal_pytorch_in_double_precision(settings):
    inputs = _inputs(8, 9, channels=5, references=1, classes=2, kind='whole')  # 6 tiles, 64 and 8 keys
    radius = [None]
    fast = window_topk_attend(*inputs, radius, **settings, backend='triton')
    exact = window_topk_attend(*(one.double() for one in inputs), radius, **settings, backend='torch')
    np.testing.assert_allclose(fast.numpy(), exact.numpy(), rtol=1e-4, atol=1e-5)


@interpreted
@pytest.mark.parametrize('normalise', ['softmax', 'softmax_then_topk'])
@pytest.mark.parametrize('topk_ties', ['keep', 'share'])
def test_more_keys_tie_than_a_list_holds(topk_ties, normalise):
    query, keys, values = _inputs(3, 6, references=3, kind='whole')
    keys[:] = keys[0, :, :1, :1]  # all 3 * 18 keys of a cell tie
    keys[2, :, 1, 2] *= 2  # better for some cells, and it comes after many of the ties
    _check((query, keys, values), [None, None, 2], topk=2, topk_ties=topk_ties, normalise=normalise)


@interpreted
def test_copies_of_a_reference_share_their_places():
    query, keys, values = _inputs(4, 4, kind='whole')
    copies = [0] * 6 + [1]
    radius = [None] + [2] * 6
    shared = _check((query, keys[copies], values[copies]), radius, topk=4, topk_ties='share')
    kept = _check((query, keys[copies], values[copies]), radius, topk=4)
    assert not torch.allclose(shared, kept)


@interpreted
@pytest.mark.parametrize('classes', [33, 70])
def test_value_channels_are_read_in_blocks(classes):
    _check(_inputs(3, 4, classes=classes), [1, None])


@interpreted
@pytest.mark.parametrize('topk', [None, 3])
def test_products_that_overflow_half_precision_are_defined(topk):
    query, keys, values = (one.half() for one in _inputs(3, 5, channels=4))
    query, keys = query * 300, keys * 300
    assert bool(torch.einsum('chw,rcij->rhwij', query, keys).isinf().any())
    read = _check((query, keys, values), [2, None], topk=topk, temperature=5000.0, atol=1e-3)
    assert read.dtype == torch.float32


@interpreted
@pytest.mark.parametrize('settings', [{}, {'topk': 3}, {'topk': 3, 'normalise': 'softmax_then_topk'}])
def test_large_logits_do_not_overflow(settings):
    query, keys, values = _inputs(3, 5)
    _check((query * 200, keys * 200, values), [2, 1], atol=1e-3, **settings)


@interpreted
def test_keys_may_come_one_by_one_and_inputs_may_be_views():
    query, keys, values = _inputs(4, 5, references=3)
    expected = window_topk_attend(query, keys, values, [2, 1, None], topk=3, backend='triton')
    assert torch.equal(window_topk_attend(query, list(keys), values, [2, 1, None], topk=3, backend='triton'), expected)
    views = [one.transpose(-1, -2).contiguous().transpose(-1, -2) for one in (query, keys, values)]
    assert torch.equal(window_topk_attend(*views, [2, 1, None], topk=3, backend='triton'), expected)


@interpreted
def test_nothing_is_written_outside_the_result():
    """A tile's cells outside the frame, and channels that fill up a block, must not land in a neighbour's place."""
    query, keys, values = _inputs(5, 3, classes=3)
    whole = _check((query, keys, values), [1, None])
    for channel in range(3):
        alone = _check((query, keys, values[:, channel, None]), [1, None])
        torch.testing.assert_close(whole[channel], alone[0], rtol=0, atol=0)


@interpreted
@pytest.mark.parametrize('where', ['query', 'keys', 'values'])
@pytest.mark.parametrize('topk', [None, 2])
@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning', 'ignore:All-NaN:RuntimeWarning')
def test_inputs_that_are_not_finite_are_refused(where, topk):
    for value in (float('nan'), float('inf')):
        inputs = dict(zip(('query', 'keys', 'values'), _inputs(3, 3), strict=True))
        inputs[where][..., 1, 1] = value
        with pytest.raises(ValueError, match=r"backend='triton' cannot serve: .*NaN or infinity.*backend='auto'"):
            window_topk_attend(**inputs, radius=[1, None], topk=topk, backend='triton')


@interpreted
def test_what_it_cannot_serve_is_named():
    query, keys, values = _inputs(5, 5, references=4)
    for inputs, settings, culprit in (
        ([one.double() for one in (query, keys, values)], {}, 'float64'),
        ((query, keys, values), {'offsets': [torch.zeros(2, 5, 5), None, None, None]}, 'displaced'),
        ((query, keys, values), {'prior': MixturePrior(2, 'moments')}, 'prior'),
        ((query, keys, values), {'topk': 65}, 'at most 64 keys, topk is 65'),
        ((query, keys.half(), values), {}, 'differ in dtype'),
        ((query.bfloat16(), keys.bfloat16(), values), {}, 'interpreter multiplies the bits of bfloat16'),
    ):
        with pytest.raises(ValueError, match=f"backend='triton' cannot serve.*{culprit}"):
            window_topk_attend(*inputs, [1] * 4, **settings, backend='triton')


# ------------------------------------------------------------------------------------------------ how it is chosen

@pytest.fixture
def fresh(monkeypatch):
    """Triton was not looked for yet."""
    triton_attend._import_kernels.cache_clear()
    yield monkeypatch
    triton_attend._import_kernels.cache_clear()


def test_without_triton_the_reason_is_named(fresh):
    fresh.setitem(sys.modules, 'triton', None)
    with pytest.raises(ValueError, match=r"backend='triton' cannot serve: Triton cannot be imported.*backend='auto'"):
        window_topk_attend(*_inputs(2, 2), [1, 1], backend='triton')


def test_an_old_triton_is_refused(fresh):
    fresh.setitem(sys.modules, 'triton', type(sys)('triton'))
    sys.modules['triton'].__version__ = '3.1.0'
    with pytest.raises(ValueError, match=r'needs Triton 3\.6 or later, this is 3\.1\.0'):
        window_topk_attend(*_inputs(2, 2), [1, 1], backend='triton')


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv('MMLIIR_TRITON', '0')
    with pytest.raises(ValueError, match='MMLIIR_TRITON=0 switches Triton off'):
        window_topk_attend(*_inputs(2, 2), [1, 1], backend='triton')


def test_auto_on_a_cpu_never_asks_for_triton(monkeypatch):
    monkeypatch.setattr(triton_attend, 'attend', lambda *args: pytest.fail('a CPU has its own back end'))
    inputs = _inputs(5, 6)
    expected = window_topk_attend(*inputs, [2, None], topk=3, backend='torch')
    torch.testing.assert_close(window_topk_attend(*inputs, [2, None], topk=3), expected)


def _run(code, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_the_operator_does_not_import_triton():
    assert _run("import sys, mmliir.ops; print('mmliir.ops.triton_kernels' in sys.modules)").strip() == 'False'


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mmliir.ops import triton_kernels

kernel, config = triton_kernels.attend_kernel.fn, triton_kernels.CONFIGS[0]
types = dict(query='*fp16', table='*i64', values='*fp32', out='*fp32', broken='*i32', temperature='fp32')
fixed = dict(SHAPE=1, ZERO_LOGIT=False, BEST={best}, SHARE=bool({best}), OVER_ALL=False, BLOCK_K=16, PRECISION='ieee')
fixed.update(config.kwargs)
signature = {{name: 'constexpr' if name in fixed else types.get(name, 'i32') for name in kernel.arg_names}}
source = ASTSource(kernel, signature, {{(kernel.arg_names.index(name),): value for name, value in fixed.items()}})
built = triton.compile(source, target=GPUTarget('cuda', {capability}, 32), options={{'num_warps': config.num_warps}})
print(len(built.asm['cubin']), 'mma.sync' in built.asm['ptx'] or 'wgmma' in built.asm['ptx'])
"""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON, reason='Triton is not installed: that the kernel compiles for a GPU goes untested')
@pytest.mark.parametrize('capability', [80, 90])
@pytest.mark.parametrize('best', [0, 8])
def test_the_kernel_compiles_for_a_gpu_that_is_not_there(capability, best, tmp_path):
    """What the interpreter accepts need not compile: types in a loop, shapes of products, registers."""
    code = _COMPILE.format(capability=capability, best=best)
    size, tensor_cores = _run(code, TRITON_INTERPRET='0', TRITON_CACHE_DIR=str(tmp_path)).split()
    assert int(size) > 0
    assert tensor_cores == 'True'  # half-precision features are multiplied as they are
