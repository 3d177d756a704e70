"""``CpuTimeline``: the CPU device read by a clock. The host computes itself, so that there is no queue and nothing is copied far."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cpu.ceilings import measure_ceilings, one_node_session
from probe.engine.device.cpu.layered import LayeredExecutor
from probe.engine.device.cpu.program import Program
from probe.engine.device.timeline import Clock, Moments
from probe.ort.values import from_ort, to_ort, to_value
from probe.results.bench import Ceilings

if TYPE_CHECKING:
    import onnxruntime

    from probe.engine.device.cpu.device import CpuDevice
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan
    from probe.model.model import Model

Array = np.ndarray[Any, Any]
_CALLS = 200  # of an empty session: some milliseconds


class CpuTimeline:
    """As ``Timeline``. Latency is that of the gated session wherever it takes the assignment; layers are timed a session each."""

    def __init__(self, device: CpuDevice, program: Program, plans: Mapping[str, Plan], clock: Clock) -> None:
        """
        Args:
            program: that the device was made from.
        """
        self._device, self._program, self._plans, self._clock = device, program, plans, clock
        self._layered: _TimedLayers | None = None
        fallbacks = len(device.fallbacks)
        self._gated = not fallbacks and device.gated.takes(plans)
        self.executor = "one session for the whole network" if self._gated else "layer by layer, a session each"
        lacking = "1 layer has" if fallbacks == 1 else f"{fallbacks} layers have"
        why = f"{lacking} no kernel of ONNX Runtime" if fallbacks else "it has tactics other than exact"
        self.layerwise = not self._gated
        self.one_at_a_time = "" if self._gated else f"the network runs layer by layer here, because {why}"

    def context(self) -> CpuContext:
        """As ``Timeline.context``: inputs, outputs and everything between are its own; weights and threads of operators are shared."""
        return CpuContext(self._device, self._program.network.model, self._plans, self._clock, gated=self._gated)

    def shapes(self, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """As ``Timeline.shapes``."""
        values = to_ort(self._program.network.model.inputs, feeds)
        made = self._timed.stream(values, self._plans, interior=True)
        return {tapped.name: tapped.array.shape for tapped in made if tapped.array is not None}

    def layers(self, feeds: Mapping[str, Array]) -> dict[str, float]:
        """As ``Timeline.layers``. The first call also builds sessions."""
        timed = self._timed
        timed.spent = {}
        for _ in timed.stream(to_ort(self._program.network.model.inputs, feeds), self._plans, interior=False):
            pass
        return timed.spent

    def call_seconds(self) -> float:
        """As ``Timeline.call_seconds``: the median of calling a session that hands one number on."""
        session = one_node_session("Identity", 1, self._program.threads)
        taken = []
        for _ in range(_CALLS):
            begin = self._clock()
            session.run_with_ort_values(None, {"x0": to_value(np.ones(1, np.float32))})
            taken.append(self._clock() - begin)
        return statistics.median(taken)

    def held(self) -> None:
        """As ``Timeline.held``: ONNX Runtime does."""
        return

    def ceilings(self) -> Ceilings:
        """As ``Timeline.ceilings``, with as many threads as the network has."""
        return measure_ceilings(self._program.threads)

    @property
    def _timed(self) -> _TimedLayers:
        if self._layered is None:
            self._layered = _TimedLayers(self._program, self._clock)
        return self._layered


class CpuContext:
    """As ``Context``."""

    def __init__(
        self, device: CpuDevice, model: Model, plans: Mapping[str, Plan], clock: Clock, *, gated: bool
    ) -> None:
        self._device, self._ports, self._plans, self._clock = device, model.inputs, plans, clock
        self._flags = device.gated.flags(plans) if gated else None

    def run(self, feeds: Mapping[str, Array]) -> Moments:
        """As ``Context.run``."""
        begin = self._clock()
        values = to_ort(self._ports, feeds)
        fed = self._clock()
        made = self._compute(values)
        computed = self._clock()
        for value in made.values():
            from_ort(value)
        return Moments(begin, fed, computed, self._clock())

    def _compute(self, values: Mapping[str, onnxruntime.OrtValue]) -> dict[str, onnxruntime.OrtValue]:
        if self._flags is not None:
            return self._device.gated.run(values, self._flags)
        running = self._device.layered.stream(values, self._plans, interior=False)
        while True:
            try:
                next(running)
            except StopIteration as done:
                return done.value


class _TimedLayers(LayeredExecutor):
    """A session a layer, with the seconds each took.

    Attributes:
        spent: layer -> seconds of its latest run; of a layer that ran more than once in an inference, of all of them.
    """

    def __init__(self, program: Program, clock: Clock) -> None:
        super().__init__(program)
        self._clock = clock
        self.spent: dict[str, float] = {}

    def run_layer(
        self, layer: Layer, values: Mapping[int, onnxruntime.OrtValue], plan: Plan, *, wants_interior: bool
    ) -> dict[int, onnxruntime.OrtValue]:
        """As ``LayeredExecutor.run_layer``."""
        begin = self._clock()
        made = super().run_layer(layer, values, plan, wants_interior=wants_interior)
        self.spent[layer.name] = self.spent.get(layer.name, 0.0) + self._clock() - begin
        return made
