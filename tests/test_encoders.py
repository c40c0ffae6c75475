"""mmliir/apis/encoders.py: compiled encoders give the features, and where nothing can be compiled the model serves."""

import logging

import pytest
import torch

from mmliir.apis import encoders
from mmliir.apis.configs import load_config
from mmliir.apis.encoders import CompiledEncoder, make_encoder, settle_compile
from mmliir.apis.evaluate import build_method, describe_input
from mmliir.propagation import get_protocol

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return build_method(load_config('configs/liir_r18_quickstart.py'), 'untrained', 0, 'cpu')


def _frames(height=32, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)


class _Recorded:
    """Stands in for `torch.compile`: notes the mode, counts calls, gives the same memory each time, as graphs do."""

    def __init__(self, monkeypatch, error=None):
        self.modes, self.calls, self.error, self.memory = [], 0, error, None
        monkeypatch.setattr(torch, 'compile', self._compile)

    def _compile(self, function, mode='default'):
        self.modes.append(mode)

        def run(frames):
            self.calls += 1
            if self.error is not None:
                raise self.error
            found = function(frames)
            self.memory = found if self.memory is None else self.memory.copy_(found)
            return self.memory

        return run


def test_features_are_those_of_the_model_but_for_rounding(model, monkeypatch):
    recorded = _Recorded(monkeypatch)
    encode = make_encoder(model, 'float32', compiled=True)
    assert torch.equal(encode(_frames()), model.extract_feature(_frames()))
    assert recorded.modes == ['default'] and not encode(_frames()).requires_grad


def test_what_a_recorded_graph_overwrites_is_kept(model, monkeypatch):
    """On a GPU the memory that a frame's features came in is that of the next frame's."""
    _Recorded(monkeypatch)
    steps = []
    monkeypatch.setattr(torch.compiler, 'cudagraph_mark_step_begin', lambda: steps.append(1))
    encode = CompiledEncoder(model)
    encode._records_graphs = True
    first = encode(_frames(seed=1))
    kept = first.clone()
    second = encode(_frames(seed=2))
    assert torch.equal(first, kept) and not torch.equal(first, second) and len(steps) == 2


def test_a_gpu_records_graphs(model, monkeypatch):
    recorded = _Recorded(monkeypatch)
    monkeypatch.setattr(type(model), 'device', torch.device('cuda'))
    assert CompiledEncoder(model)._records_graphs and recorded.modes == ['reduce-overhead']


def test_without_a_compiler_the_encoder_runs_as_it_is_and_the_log_says_so(monkeypatch, caplog):
    recorded = _Recorded(monkeypatch, torch._dynamo.exc.TorchDynamoException('no working C++ compiler\nmore'))
    encoders._why_nothing_compiles.cache_clear()
    with caplog.at_level(logging.WARNING, encoders.__name__):
        assert settle_compile(True, torch.device('cpu')) is False
        assert settle_compile(False, torch.device('cpu')) is False
    encoders._why_nothing_compiles.cache_clear()
    assert recorded.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        'the encoder is not compiled, it runs as it is: no working C++ compiler'
    ]


def test_a_model_that_cannot_be_compiled_is_an_error(model, monkeypatch):
    _Recorded(monkeypatch, torch._dynamo.exc.TorchDynamoException('no rule for this layer\nmore'))
    with pytest.raises(ValueError, match='leave --compile out: no rule for this layer$'):
        make_encoder(model, 'float32', compiled=True)(_frames())


def test_an_error_of_the_model_is_not_taken_for_one_of_the_compiler(model, monkeypatch):
    _Recorded(monkeypatch, RuntimeError('CUDA out of memory'))
    with pytest.raises(RuntimeError, match='out of memory'):
        make_encoder(model, 'float32', compiled=True)(_frames())


@pytest.mark.parametrize('compiled', [False, True])
def test_autocast_gives_features_in_bfloat16(model, monkeypatch, compiled):
    _Recorded(monkeypatch)
    found = make_encoder(model, 'bfloat16', compiled)(_frames())
    truth = model.extract_feature(_frames())
    assert found.dtype == torch.bfloat16 and truth.dtype == torch.float32
    assert (found.float() - truth).abs().max() < 0.05 * truth.abs().max()


def test_a_run_with_other_code_is_another_run(monkeypatch):
    class Identity:
        details = {}

    protocol = get_protocol('quick')
    monkeypatch.setenv('MMLIIR_NATIVE', '0')
    plain, compiled = (describe_input(protocol, Identity, 'float32', own, torch.device('cpu')) for own in (False, True))
    assert plain['compiled'] is False and compiled == plain | {'compiled': True}
    assert plain['affinity'] == 'torch on cpu'
    assert describe_input(protocol, Identity, 'float32', False, torch.device('cuda'))['affinity'] == 'torch on cuda'


@pytest.fixture
def colours():
    """Colour conversion and block means: compiled in seconds."""
    torch._dynamo.reset()
    yield build_method(load_config('configs/frozen/raw_lab.py'), None, 0, 'cpu')
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_code_gives_the_features(colours):
    if not settle_compile(True, torch.device('cpu')):
        pytest.skip('nothing can be compiled here')
    encode = make_encoder(colours, 'float32', compiled=True)
    torch.testing.assert_close(encode(_frames()), colours.extract_feature(_frames()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiler_that_is_not_there_is_no_error(caplog):
    import torch._inductor.config as settings
    from torch._inductor.utils import fresh_inductor_cache

    torch._dynamo.reset()
    encoders._why_nothing_compiles.cache_clear()
    with fresh_inductor_cache(), settings.patch({'cpp.cxx': ('/nowhere/g++',)}), caplog.at_level(logging.WARNING):
        assert not settle_compile(True, torch.device('cpu'))
    encoders._why_nothing_compiles.cache_clear()
    assert 'the encoder is not compiled' in caplog.text
