"""``CudaTimeline``: what the GPU tells of time. Copies and kernels by events on the stream, what the host does by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.backend import Batch, Launch
from probe.engine.device.cuda.ceilings import measure_ceilings
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.ranges import Ranges
from probe.engine.device.cuda.runs.prepared import Diverged, Prepared
from probe.engine.device.cuda.runs.recording import Launched
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.timeline import Clock, Held, Moments
from probe.results.bench import Ceilings

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.device import CudaDevice
    from probe.engine.device.cuda.runs.context import CudaContext
    from probe.engine.device.cuda.tensors.tensor import Tensor
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]
_CALLS = 200  # of a kernel that does next to nothing


class CudaTimeline:
    """As ``Timeline``.

    Args:
        graphs: False launches kernel by kernel, which is what graphs are to be compared with.
        ranges: NVTX ranges of inferences and, kernel by kernel, of their layers.
    """

    one_at_a_time = ""

    def __init__(
        self, device: CudaDevice, plans: Mapping[str, Plan], clock: Clock, *, graphs: bool = True, ranges: bool = False
    ) -> None:
        self._device, self._plans, self._clock, self._graphs = device, plans, clock, graphs
        self._contexts: list[CudaContext] = []
        self._ranges = ranges
        self._timed: dict[Hashable, tuple[Prepared, Callable[[], dict[str, float]]]] = {}

    @property
    def executor(self) -> str:
        """As ``Timeline.executor``; of the run that was repeated last."""
        last = next((one.prepared for one in self._contexts if one.prepared is not None), None)
        note = next((one.note for one in self._contexts if one.note), "")
        if last is None:
            return f"kernels launched one by one: {note}" if note else "CUDA graphs"
        if last.graphs == 1:
            return f"one CUDA graph of {last.launches} kernels"
        if last.graphs:
            return f"{last.graphs} CUDA graphs of {last.launches} kernels altogether, layers on the host between them"
        return f"{last.launches} kernels launched one by one: {note}"

    @property
    def layerwise(self) -> bool:
        """As ``Timeline.layerwise``: whatever is not one graph."""
        return any(one.prepared is None or one.prepared.graphs != 1 for one in self._contexts)

    def context(self) -> _Timed:
        """As ``Timeline.context``: a stream, memory and pinned buffers of its own.

        Raises:
            InputError: no library for ranges.
        """
        ranges = Ranges() if self._ranges else None
        made = self._device.context(self._plans, graphs=self._graphs, marked=ranges.layer if ranges else None)
        self._contexts.append(made)
        return _Timed(made, self._clock, ranges)

    def shapes(self, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """As ``Timeline.shapes``."""
        return self._device.shapes(feeds, self._plans)

    def layers(self, feeds: Mapping[str, Array]) -> dict[str, float]:
        """As ``Timeline.layers``: noted on the stream whenever the layer changes, in one run. What makes outputs wide is called ``outputs``."""
        key = tuple((name, array.shape) for name, array in feeds.items())
        if key in self._timed:
            prepared, once = self._timed[key]
            try:
                self._device.feed(prepared, feeds)
                return once()
            except Diverged:
                del self._timed[key]
        prepared = self._device.prepare(feeds, self._plans)
        once = prepared.timed_layers(self._clock)
        self._timed[key] = prepared, once
        return once()

    def call_seconds(self) -> float:
        """As ``Timeline.call_seconds``: what noting the time adds to a kernel that does next to nothing, in a graph of many."""
        backend = self._device.backend
        backend.enter()
        launches, _held = _small_launches(backend)
        noted = backend.capture([Batch(launches)], timed=True)
        plain = backend.capture([Batch(launches)])
        both: list[tuple[float, float]] = []
        for _ in range(5):
            noted.launch()
            each = sum(seconds for _, seconds in noted.seconds())
            both.append((each, backend.seconds(plain.launch)))
        return max(0.0, min(each for each, _ in both) - min(whole for _, whole in both)) / len(launches)

    def held(self) -> Held | None:
        """As ``Timeline.held``."""
        last = next((one.prepared for one in self._contexts if one.prepared is not None), None)
        if last is None:
            return None
        layout, used = last.layout, last.in_use()
        return Held(
            layout.nbytes, layout.peak_bytes, self._device.weight_bytes, last.pinned_bytes,
            live={layer: one.alive for layer, one in used.items()}, workspace=max((one.workspace for one in used.values()), default=0),
        )  # fmt: skip

    def ceilings(self) -> Ceilings:
        """As ``Timeline.ceilings``, in every precision that a layer has; the most frequent first."""
        found = [plan.choice.precision for plan in self._plans.values()]
        return measure_ceilings(self._device.backend, sorted(set(found), key=lambda one: -found.count(one)))


class _Timed:
    """As ``Context``."""

    def __init__(self, context: CudaContext, clock: Clock, ranges: Ranges | None) -> None:
        self._context, self._clock, self._ranges = context, clock, ranges

    def run(self, feeds: Mapping[str, Array]) -> Moments:
        """As ``Context.run``."""
        with self._ranges.range("inference") if self._ranges is not None else nullcontext():
            return self._context.measured(feeds, self._clock)[1]


def _small_launches(backend: Backend) -> tuple[tuple[Launch, ...], list[Tensor]]:
    """A kernel that reads and writes a few numbers, again and again, each time as if of another layer; and the memory it does so in."""
    tape = Tape(backend)
    queue = Queue(tape, 18)
    held = [queue.empty((256,), F32)]
    held.append(queue.convert(held[0], F32, "tf32"))
    (step,) = (one for one in tape.finish({}, checks_faults=False).steps if isinstance(one, Launched))
    return tuple(Launch(step.source, step.shape, step.arguments, f"call {at}") for at in range(_CALLS)), held
