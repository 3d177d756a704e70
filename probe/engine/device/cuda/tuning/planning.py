"""What a layer would launch, without memory and without launching: its kernels, and the tactics there are for its products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.errors import Missing, Refused, Unsupported
from probe.engine.device.cuda.layers.attention_run import AttentionRun
from probe.engine.device.cuda.layers.layer_run import LayerRun
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import dense_when_asked
from probe.engine.device.cuda.tensors.formats import Format, format_of, storage_of
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor, host_tensor

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.device.cuda.backend import Argument, Backend, Batch, Event, Graph, Kernel, Shape
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan, Sites

Array = np.ndarray[Any, Any]
_SMALL = 1 << 12  # bytes of a weight whose values may decide what is launched
_AXES = 4  # of an image
# Where imagined memory begins: beyond every address of a GPU (57 bits), so that one of a weight is never taken for one of a run that is planned
_NOWHERE = 1 << 60


class Planning:
    """A ``Backend`` that has no memory and remembers what it was to launch.

    Args:
        like: whose architecture and limits it has.

    Attributes:
        launched: kernel -> the most shared memory that a launch asks for, in the order they first come.
    """

    imagined = True

    def __init__(self, like: Backend) -> None:
        self.arch, self.name = like.arch, like.name
        self.multiprocessors, self.shared_limit = like.multiprocessors, like.shared_limit
        self.launched: dict[Kernel, int] = {}
        self._next = _NOWHERE

    def enter(self) -> None:
        """As ``Backend.enter``."""

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``: an address that nothing lies at."""
        address, self._next = self._next, self._next + -(-max(nbytes, 1) // 256) * 256
        return address

    def free(self, address: int) -> None:
        """As ``Backend.free``."""

    def room(self) -> int:
        """As ``Backend.room``: as much as anybody wants."""
        return 1 << 62

    def upload(self, address: int, array: Array) -> None:
        """As ``Backend.upload``: nothing is kept."""

    def download(self, array: Array, address: int, *, wait: bool = True) -> None:
        """As ``Backend.download``.

        Raises:
            Missing: always.
        """
        raise Missing("what is launched depends on values that are not there yet")

    def pinned(self, nbytes: int) -> Array:
        """As ``Backend.pinned``."""
        return np.empty(nbytes, np.uint8)

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """As ``Backend.launch``: it is noted."""
        del arguments, what
        self.launched[source] = max(self.launched.get(source, 0), shape.shared_bytes)

    def synchronize(self) -> None:
        """As ``Backend.synchronize``."""

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> Graph:
        """As ``Backend.capture``."""
        raise NotImplementedError("nothing is run here")

    def seconds(self, work: Callable[[], None]) -> float:
        """As ``Backend.seconds``."""
        raise NotImplementedError("nothing is run here")

    def event(self) -> Event:
        """As ``Backend.event``."""
        raise NotImplementedError("nothing is run here")

    handle = 1

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        """As ``Backend.copy``: nothing is there."""

    def wait_for(self, handle: int) -> None:
        """As ``Backend.wait_for``."""

    def beside(self, stream: Any = None) -> Planning:
        """As ``Backend.beside``."""
        del stream
        return self


def run_layer(
    queue: Queue, layer: Layer, plan: Plan, sites: Sites, reads: Mapping[int, Tensor], weigh: Callable[..., Tensor]
) -> dict[int, Tensor]:
    """A layer as the device runs it.

    Raises:
        Unsupported: a kernel does not take these shapes.
        Refused: the tactic that the plan names does not.
    """
    run = AttentionRun if layer.kind == "attention" else LayerRun
    return run(queue, layer, plan, sites, reads, weigh, wants_interior=False).run()


class Planned:
    """What a layer would launch and offer on reads of some shapes and formats.

    Attributes:
        sources: kernels with the shared memory they ask for.
        offers: of each product, the tactics there are.
        reason: why it cannot be said; "" when it can.
    """

    def __init__(
        self, backend: Backend, opset: int, layer: Layer, plan: Plan, sites: Sites, reads: Mapping[int, Tensor]
    ) -> None:
        """
        Args:
            reads: made by ``imagined``.
        """
        planning = Planning(backend)
        queue = Queue(planning, opset, recording=True, offers=[])
        self.reason = ""
        try:
            run_layer(queue, layer, plan, sites, reads, Weightless(queue))
        except (Unsupported, Refused, Missing) as error:
            self.reason = str(error) or type(error).__name__
        self.sources, self.offers = planning.launched, tuple(map(tuple, queue.offers or ()))

    @property
    def tactics(self) -> tuple[str, ...]:
        """That compute every product of the layer, in the order offered."""
        if self.reason or not self.offers:
            return ()
        first, *others = self.offers
        return tuple(dict.fromkeys(name for name in first if all(name in other for other in others)))


def imagined(
    backend: Backend,
    value: ir.Value,
    shape: Sequence[int],
    format: Format | None,  # noqa: A002 - the word of the room
    *,
    last: bool = False,
) -> Tensor:
    """A tensor without memory.

    Args:
        last: an image whose channels lie last.

    Raises:
        Unsupported: of a type that kernels do not know.
    """
    if format is None:
        raise Unsupported(f"{value.name} is of a type that kernels do not know")
    planning = Planning(backend)
    if last and len(shape) == _AXES:
        images, channels, rows, columns = shape
        there = _empty(planning, (images, rows, columns, channels), format)
        return dense_when_asked(Queue(planning, 0), there)
    return _empty(planning, tuple(shape), format)


def read_format(value: ir.Value, precision: str) -> Format | None:
    """What a layer of a precision reads a tensor in, when its neighbours have the same."""
    own = format_of(value)
    return storage_of(precision) if own is not None and own.is_float else own


def _empty(planning: Planning, shape: tuple[int, ...], format: Format) -> Tensor:  # noqa: A002
    made = Tensor(shape, format)
    return Tensor(shape, format, buffer=Buffer(planning, made.nbytes))


class Weightless:
    """Weights without memory, each once in each precision; the values of small ones."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._known: dict[tuple[int, str], Tensor] = {}

    def __call__(self, value: ir.Value, precision: str) -> Tensor:
        key = (id(value), precision)
        if key not in self._known:
            self._known[key] = self._made(value, precision)
        return self._known[key]

    def _made(self, value: ir.Value, precision: str) -> Tensor:
        stored, form = value.const_value, format_of(value)
        if stored is None or form is None:
            raise Unsupported(f"{value.name} is of a type that kernels do not know")
        if not precision and (not form.is_float or stored.nbytes <= _SMALL):
            return host_tensor(stored.numpy())
        form = storage_of(precision) if form.is_float and precision else form
        shape = tuple(int(extent) for extent in stored.shape.numpy())
        return self._queue.empty(shape, form)
