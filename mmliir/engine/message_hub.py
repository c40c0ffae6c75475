"""The log's numbers, left on the device until somebody reads them."""

import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import Tensor

_MOST_PENDING = 4096


class DeferredMessageHub(MessageHub):
    """MMEngine's message hub, without its wait for the GPU at every number of every step.

    MMEngine calls `.item()` on each loss when it is noted. Here a tensor is kept as it is; whoever reads (the line of
    the log, a checkpoint) gets all kept ones by one copy. The numbers read are the same.

    It shares MMEngine's register of hubs, so that code which asks for the current one gets this one.

    Args:
        name: Of the hub.
        log_scalars, runtime_info, resumed_keys: As in MMEngine.
    """

    def __init__(
        self,
        name: str,
        log_scalars: dict | None = None,
        runtime_info: dict | None = None,
        resumed_keys: dict | None = None,
    ):
        super().__init__(name, log_scalars, runtime_info, resumed_keys)
        self._pending: list[tuple[str, Tensor, int]] = []
        self._unread: set[str] = set()  # the names in it

    def update_scalar(self, key, value, count=1, resumed=True):
        """Note a number; a tensor of one element on any device is read later."""
        if not isinstance(value, Tensor):
            if key in self._unread:
                self.read_pending()  # in the order in which they came
            super().update_scalar(key, value, count, resumed)
            return
        if value.numel() != 1:
            raise ValueError(f'{key}: the log takes tensors of one element, got {tuple(value.shape)}')
        self._set_resumed_keys(key, resumed)
        # A copy: what the tensor is a view of is not kept alive, nor can a later step write over it.
        self._pending.append((key, value.detach().reshape(()).clone(), count))
        self._unread.add(key)
        if len(self._pending) >= _MOST_PENDING:
            self.read_pending()

    def read_pending(self) -> None:
        """Wait for the kept numbers and put them in their buffers."""
        pending, self._pending = self._pending, []
        self._unread.clear()
        by_device: dict[torch.device, list[int]] = {}
        for place, (_, value, _) in enumerate(pending):
            by_device.setdefault(value.device, []).append(place)
        numbers = [0.0] * len(pending)
        for places in by_device.values():
            values = torch.stack([pending[place][1].double() for place in places]).tolist()
            for place, number in zip(places, values, strict=True):
                numbers[place] = number
        for (key, _, count), number in zip(pending, numbers, strict=True):
            if key in self._log_scalars:
                self._log_scalars[key].update(number, count)
            else:
                self._log_scalars[key] = HistoryBuffer([number], [count])

    @property
    def log_scalars(self):
        """All buffers, with what was kept."""
        self.read_pending()
        return self._log_scalars

    def get_scalar(self, key):
        """The buffer of a name; others' numbers stay where they are: the timer asks for its own at every step."""
        if key in self._log_scalars and key not in self._unread:
            return self._log_scalars[key]
        return super().get_scalar(key)

    def state_dict(self):
        """As in MMEngine, with what was kept."""
        self.read_pending()
        return super().state_dict()


DeferredMessageHub._instance_dict = MessageHub._instance_dict
