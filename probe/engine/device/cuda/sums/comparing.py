"""Tensors compared where they lie: ``Held`` hands one out without copying it, ``Comparing`` sums up many of them, asks for all answers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from probe.engine.device.cuda.errors import OutOfMemory, Unsupported
from probe.engine.device.cuda.runs.shared import Desks
from probe.engine.device.cuda.sums.agreement import Agreements, PendingColumns, PendingRows
from probe.engine.device.cuda.sums.counts import Counts
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, lying_last
from probe.engine.device.cuda.tensors.formats import F32, unpacked
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.pairs import Answer, Asked
from probe.ort.values import from_ort

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.protocol import Resident
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]
_COUNTED = (1 << 32) - 1  # elements: what an unsigned counter of a kernel holds
_ALIGNED = 16  # bytes that kernels load at a time


class Held:
    """A tensor of a run, for whoever looks at it. Stays on the device until its values are asked for.

    Attributes:
        dtype: of the array that stands for it.
        nbytes: on the device.
    """

    __slots__ = ("_backend", "_last", "_queue", "_tensor", "dtype", "nbytes", "shape")

    def __init__(self, tensor: Tensor, backend: Backend, queue: Queue | None = None) -> None:
        """
        Args:
            queue: of an image that is given as it lies, [images, rows, columns, channels]: brings it into dense order where somebody reads it.
        """
        assert tensor.format is not None
        self._backend, self._queue = backend, queue
        self._tensor, self._last = (tensor, None) if queue is None else (None, tensor)
        shape = tensor.shape
        self.shape = shape if queue is None else (shape[0], shape[-1], *shape[1:-1])
        self.dtype, self.nbytes = tensor.format.dtype, tensor.nbytes

    @property
    def tensor(self) -> Tensor:
        """It under its shape."""
        if self._tensor is None:
            assert self._last is not None and self._queue is not None
            self._tensor = dense_when_asked(self._queue, self._last)
        return self._tensor

    @property
    def last(self) -> Tensor | None:
        """[images, rows, columns, channels], where it is an image that lies so."""
        return self._last if self._tensor is None else lying_last(self._tensor)

    def turned(self, queue: Queue) -> Tensor:
        """[images, rows, columns, channels] of an image; where it did not lie so, it does from now on."""
        found = self.last
        if found is None:
            found = channels_last(queue, self.tensor)
            self._tensor, self._last, self._queue = None, found, queue
        return found

    @property
    def on_host(self) -> bool:
        """Whether its values lie on the host, too."""
        return self.tensor.on_host

    def array(self) -> Array:
        """Its values, copied to the host."""
        self._backend.enter()  # by whatever thread
        return self.tensor.array(self._backend)

    def window(self, start: int, stop: int) -> Array:
        """Elements of the flattened tensor; only they are copied to the host."""
        if self.tensor.on_host:
            return self.array().reshape(-1)[start:stop]
        form = self.tensor.format
        assert form is not None
        raw = np.empty((stop - start) * form.bytes, np.uint8)
        self._backend.enter()
        self._backend.download(raw, self.tensor.address(self._backend) + start * form.bytes)
        return unpacked(raw, form, (stop - start,))


def arrays_of(tensor: Tensor, backend: Backend) -> Iterator[tuple[str, Array | None, str]]:
    """As ``probe.ort.values.from_ort``: suffix of the name, array, note."""
    if tensor.opaque is not None:
        yield from from_ort(tensor.opaque)
    else:
        yield "", tensor.array(backend), ""


def shown(tensor: Tensor, backend: Backend) -> Array | Held:
    """What is handed out of a tensor that is an array."""
    return tensor.array(backend) if tensor.format is None or tensor.on_host else Held(tensor, backend)


def handed_out(tensor: Tensor, backend: Backend) -> Iterator[tuple[str, Array | Held | None, str]]:
    """As ``probe.ort.values.from_ort``: suffix of the name, what is handed out, note."""
    if tensor.opaque is not None:
        yield from from_ort(tensor.opaque)
    else:
        yield "", shown(tensor, backend), ""


class Comparing:
    """As ``Comparison``."""

    def __init__(self, queue: Queue, worst: int, desks: Desks | None = None) -> None:
        """
        Args:
            desks: as for ``Pairs``.
        """
        self._queue = queue
        self._pairs, self._counts, self._agreements = (
            Pairs(queue, max(1, worst), desks),
            Counts(queue),
            Agreements(queue),
        )
        self._asked: list[tuple[int, int | None, PendingRows | None, PendingColumns | None]] = []

    def hold(self, array: Array) -> Held | None:
        """As ``Comparison.hold``."""
        made = host_tensor(np.asarray(array, order="C"))  # ascontiguousarray would give a scalar an axis
        if made.format is not F32:
            return None
        backend = self._queue.backend
        try:
            made.address(backend)
        except OutOfMemory:
            return None
        return Held(Tensor(made.shape, F32, buffer=made.memory), backend)

    def add(self, actual: Resident, golden: Resident, asked: Asked) -> int | None:
        """As ``Comparison.add``."""
        one, other = cast("Held", actual), cast("Held", golden)
        backend, self._queue.layer = self._queue.backend, "comparing"
        if (asked.ulps is not None and not Counts.takes(asked.ulps)) or math.prod(one.shape) > _COUNTED:
            return None
        counts = rows = columns = None
        try:
            lying = one.last if not asked.columns and asked.agreement is None else None
            last = lying is not None and Pairs.takes_last(one.shape, asked.rows)
            x, y = (lying, other.turned(self._queue)) if lying is not None and last else (one.tensor, other.tensor)
            if (x.address(backend) | y.address(backend)) % _ALIGNED:
                return None
            pair = self._pairs.add(x, y, asked.how, asked.rows, worst=asked.worst, last=last)
            if asked.ulps is not None:
                counts = self._counts.add(x, y, asked.ulps, threshold=asked.how.threshold, range_=asked.how.range_)
            if asked.agreement is not None:
                rows = self._agreements.rows(x, y, asked.agreement)
            if asked.columns:
                columns = self._agreements.columns(x, y, asked.columns, asked.how.threshold)
        except (Unsupported, OutOfMemory):
            return None
        self._asked.append((pair, counts, rows, columns))
        return len(self._asked) - 1

    def answers(self) -> list[Answer]:
        """As ``Comparison.answers``."""
        pairs, counts = self._pairs.fetch(), self._counts.fetch()
        found = []
        for pair, count, rows, columns in self._asked:
            sums, worst = pairs[pair]
            found.append(
                Answer(
                    sums, counts[count] if count is not None else None, self._agreements.rows_of(rows) if rows is not None else None,
                    self._agreements.columns_of(columns) if columns is not None else None, worst,
                )
            )  # fmt: skip
        return found


class ComparesPairs:
    """The part of a device that compares."""

    queue: Queue
    _run_layer: Callable[..., dict[int, Tensor]]
    _desks: Desks | None = None

    def evaluate_held(
        self, layer: Layer, feeds: Mapping[str, Array | Resident], plan: Plan
    ) -> dict[str, Array | Resident]:
        """As ``Compares.evaluate_held``."""
        backend = self.queue.backend
        backend.enter()
        reads = {id(value): self._as_fed(feeds[value.name or ""]) for value in layer.reads}
        made = self._run_layer(layer, reads, plan, self.queue, wants_interior=False)
        found: dict[str, Array | Resident] = {}
        for value in layer.outputs:
            for suffix, held, _ in handed_out(made[id(value)], backend) if id(value) in made else ():
                if held is not None:
                    found[f"{value.name}{suffix}"] = held
        return found

    def _as_fed(self, given: Array | Resident) -> Tensor:
        """What a layer reads, floats wide, as from the host: so that the same kernels run."""
        if not isinstance(given, Held):
            return host_tensor(np.asarray(given))
        tensor = given.tensor if given.tensor.lies is None else given.tensor.settled()
        return self.queue.convert(tensor, F32) if tensor.format is not None and tensor.format.is_float else tensor

    def comparing(self, worst: int = 5) -> Comparing:
        """As ``Compares.comparing``."""
        self.queue.backend.enter()
        if self._desks is None:
            self._desks = Desks(self.queue.backend)
        return Comparing(self.queue, worst, self._desks)

    def room(self) -> int:
        """As ``Compares.room``."""
        self.queue.backend.enter()
        return self.queue.backend.room()
