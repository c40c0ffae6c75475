"""What makes the host wait for a GPU, found without one: models lie on the meta device, whose tensors have no values.

Reading a value there is impossible, as it is a wait on a GPU; what a GPU would do but only after waiting (a copy that
blocks, a result whose size depends on values) is looked up by the name of the operator.
"""

import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operators that read values of a device tensor: their result, or its size, goes to the host.
READERS = {
    '_local_scalar_dense', 'item', 'is_nonzero', 'nonzero', 'nonzero_numpy', 'equal', 'allclose', 'masked_select',
    '_unique', '_unique2', 'unique_dim', 'unique_consecutive', 'bincount', 'repeat_interleave',
}  # fmt: skip
COPIES = {'_to_copy', 'copy_', '_copy_from'}


class WaitError(AssertionError):
    """The host would wait for the GPU here."""


class NoWaiting(TorchDispatchMode):
    """Raise at every operator on meta tensors that would wait for the device.

    Attributes:
        seen: Number of other operators on the device.
        transfers: (type, elements) of every copy from host to device.
    """

    def __init__(self):
        super().__init__()
        self.seen = 0
        self.transfers: list[tuple[torch.dtype, int]] = []
        self._numbers = _NoNumbers()

    def __enter__(self):
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        reason = _waits(func.overloadpacket.__name__, args, kwargs)
        if reason is not None:
            raise WaitError(f'{func}: {reason}')
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.seen += any(leaf.is_meta for leaf in results)
        if func.overloadpacket.__name__ in COPIES and any(leaf.is_meta for leaf in results):
            sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            self.transfers += [(source.dtype, source.numel()) for source in sources if not source.is_meta]
        return out


class _NoNumbers(TorchFunctionMode):
    """Raise where numbers of the host become a tensor on the device: below this level the copy is not seen."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and out.is_meta:
            raise WaitError(f'{func.__name__}: numbers of the host become a tensor on the device by a blocking copy')
        return out


def _waits(name: str, args, kwargs) -> str | None:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    device = torch.device(kwargs['device']) if kwargs.get('device') is not None else None
    on_device = [tensor for tensor in tensors if tensor.is_meta]
    on_host = [tensor for tensor in tensors if not tensor.is_meta]
    if name in COPIES:
        crosses = (on_device and on_host) or (device is not None and any(t.device != device for t in tensors))
        blocking = not kwargs.get('non_blocking') and not (name == 'copy_' and len(args) > 2 and args[2])
        return 'a blocking copy between host and device' if crosses and blocking else None
    if not on_device:
        return None
    if name in READERS:
        return 'reads values of the device'
    if name in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            return 'the size of what a mask selects is read from the device'
    if any(tensor.dim() > 0 for tensor in on_host):
        return 'tensors of host and device in one operator'
    return None


class _Autocast(torch.autocast):
    """`torch.autocast`, which knows no meta device."""

    def __init__(self, device_type, *args, **kwargs):
        super().__init__('cpu' if device_type == 'meta' else device_type, *args, **kwargs)


@contextlib.contextmanager
def models_on_meta():
    """The Runner puts models on the meta device; weights are not drawn."""
    with (
        mock.patch('mmengine.runner.runner.get_device', return_value='meta'),
        mock.patch('mmliir.engine.runner.CorrespondenceRunner._init_model_weights'),
        mock.patch('torch.autocast', _Autocast),
    ):
        yield
