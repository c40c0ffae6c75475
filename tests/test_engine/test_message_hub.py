"""The log's numbers are MMEngine's, read when somebody asks."""

import copy
import itertools

import pytest
import torch
from mmengine.logging import MessageHub

from mmliir.engine import DeferredMessageHub

NAMES = (f'hub-{number}' for number in itertools.count())


@pytest.fixture
def hub():
    return DeferredMessageHub(next(NAMES))


def test_buffers_equal_mmengines_after_any_mix_of_tensors_and_numbers(hub):
    theirs = MessageHub(next(NAMES))
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        for name, shape, dtype in (('a', (), torch.float32), ('b', (1, 1), torch.bfloat16), ('c', (1,), torch.float64)):
            value = torch.randn(shape, generator=generator).to(dtype)
            for own in (hub, theirs):
                own.update_scalar(name, value if step % 3 else float(value), 1 + step % 2)
    assert set(hub.log_scalars) == set(theirs.log_scalars)
    for name, buffer in theirs.log_scalars.items():
        for ours, expected in zip(hub.log_scalars[name].data, buffer.data, strict=True):
            assert ours.tolist() == expected.tolist(), name
    assert hub._resumed_keys == theirs._resumed_keys


def test_a_number_is_the_one_of_its_step_whatever_happens_to_the_tensor_later(hub):
    buffer = torch.ones(4)
    hub.update_scalar('x', buffer[2])
    buffer.zero_()
    assert hub.get_scalar('x').current() == 1.0


def test_the_graph_of_a_loss_and_the_memory_it_is_a_view_of_are_not_kept(hub):
    loss = torch.ones(1000, requires_grad=True).sum()
    hub.update_scalar('loss', loss)
    (_, kept, _), = hub._pending
    assert not kept.requires_grad and kept.untyped_storage().nbytes() == kept.element_size()


def test_asking_for_one_name_leaves_the_others_unread(hub):
    hub.update_scalar('time', 0.5)
    hub.update_scalar('loss', torch.ones((), device='meta'))  # cannot be read
    assert hub.get_scalar('time').current() == 0.5
    with pytest.raises(NotImplementedError, match='meta tensor'):
        hub.get_scalar('loss')


def test_a_checkpoint_holds_what_was_not_read_yet(hub):
    hub.update_scalar('loss', torch.tensor(0.25))
    assert copy.deepcopy(hub.state_dict())['log_scalars']['loss'].data[0].tolist() == [0.25]


def test_numbers_that_nobody_reads_do_not_pile_up(hub):
    for _ in range(10_000):
        hub.update_scalar('x', torch.zeros(()))
    assert len(hub._pending) < 5_000


def test_what_asks_for_the_current_hub_gets_it():
    own = DeferredMessageHub.get_instance(next(NAMES))
    assert MessageHub.get_current_instance() is own


def test_a_tensor_of_several_numbers_is_refused_by_name(hub):
    with pytest.raises(ValueError, match=r'grad: the log takes tensors of one element, got \(2,\)'):
        hub.update_scalar('grad', torch.zeros(2))
