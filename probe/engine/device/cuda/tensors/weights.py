"""``DeviceWeights``: a network's initialisers on the GPU, each once for every precision it is read in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from probe.engine.device.cpu.session import Weights
from probe.engine.device.cuda.tensors.formats import storage_of
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.network import Network


class DeviceWeights:
    """Made on first use; a weight stays where it was computed.

    Attributes:
        host: the same weights on the host.
    """

    def __init__(self, network: Network, queue: Queue) -> None:
        self.host = Weights(network)
        self._queue = queue
        self._made: dict[tuple[int, str], Tensor] = {}
        self._placing = False

    def __call__(self, value: ir.Value, precision: str) -> Tensor:
        """A weight rounded to a precision, or as it is ("").

        Raises:
            InputError: its external data is gone.
        """
        key = (id(value), precision)
        if key not in self._made:
            made = host_tensor(self.host.array(value))
            if precision:  # a copy of its own, so that the wide one need not stay
                made = self._queue.convert(made, storage_of(precision), precision if precision == "tf32" else "")
            self._made[key] = made
        if self._placing and self._made[key].format is not None:
            self._made[key].address(self._queue.backend)
        return self._made[key]

    @contextmanager
    def placed(self) -> Iterator[None]:
        """While it lasts, every weight that is asked for is on the device, whoever reads it there."""
        self._placing = True
        try:
            yield
        finally:
            self._placing = False

    @property
    def nbytes(self) -> int:
        """On the device so far, in every precision and order that they are read in."""
        held = [one for tensor in self._made.values() for one in (tensor, *(tensor.kept or {}).values())]
        return sum(one.memory.nbytes for one in held if one.memory is not None)
