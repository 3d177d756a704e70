"""``CpuDevice``: one semantics, two executors. Low precision is emulated: stored low, computed in FP32."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine import tactics
from probe.engine.device.cpu.fallback import lacks_kernel
from probe.engine.device.cpu.gated import GatedExecutor
from probe.engine.device.cpu.layered import LayeredExecutor
from probe.engine.device.cpu.program import Program
from probe.engine.device.cpu.resuming import CpuTrace
from probe.engine.device.cpu.segments import build_segments, choose_cuts, measure_layers, worth_cutting
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer
from probe.engine.rounding import Plan
from probe.errors import InputError
from probe.ort.values import from_ort, to_ort

if TYPE_CHECKING:
    import onnxruntime

Array = np.ndarray[Any, Any]


class CpuDevice:
    """ONNX Runtime's FP32 kernels between roundings; numpy for tactics they do not have.

    Runs without a tap go through the gated session while the assignment lies inside its menu (FP32 and ``precision``), everything
    else through a session a layer. Both give the same bits.
    """

    name = "cpu"

    def __init__(self, program: Program, precision: str) -> None:
        """
        Args:
            precision: the low one of the gated session's menu.
        """
        self._program, self._precision = program, precision
        self.weights = program.weights
        self.layered = LayeredExecutor(program)
        self._gated: GatedExecutor | None = None
        self.segments: list[GatedExecutor] = []  # none: not cut yet, or
        self._too_little = -1  # bytes that were not enough for any cut that pays
        self._fallbacks: tuple[Fallback, ...] | None = None  # not known yet
        self.sessions_built = 0  # of the gated kind
        self.seconds: dict[str, float] = {}

    @property
    def threads(self) -> int:
        """Of one operator; 0: as many as there are cores."""
        return self._program.threads

    @property
    def gated(self) -> GatedExecutor:
        """The gated session, built on first use; ``seconds["gated session"]`` says what that took."""
        if self._gated is None:
            begin = time.perf_counter()
            self._gated = GatedExecutor(self._program, self._precision)
            self.sessions_built += 1
            self.seconds["gated session"] = time.perf_counter() - begin
        return self._gated

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """As ``Device.fallbacks``: layers on onnx's reference implementation. A network with one has no gated session."""
        if self._fallbacks is None:
            try:
                self.gated  # noqa: B018 - one session tells for all layers
            except InputError as error:
                found = (
                    self.layered.fallbacks() if error.__cause__ is not None and lacks_kernel(error.__cause__) else ()
                )
                if not found:
                    raise
                self._fallbacks = found
            else:
                self._fallbacks = ()
        return self._fallbacks

    def run(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, Array]:
        """As ``Device.run``."""
        values = to_ort(self._program.network.model.inputs, feeds)
        if not self.fallbacks and self.gated.takes(plans):
            return _arrays(self.gated.run(values, self.gated.flags(plans)))
        running = self.layered.stream(values, plans, interior=False)
        while True:
            try:
                next(running)
            except StopIteration as done:
                return _arrays(done.value)

    def stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """As ``Device.stream``."""
        values = to_ort(self._program.network.model.inputs, feeds)
        return _arrays((yield from self.layered.stream(values, plans, interior=interior)))

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """As ``Device.evaluate``."""
        return self.layered.evaluate(layer, {id(v): np.asarray(feeds[v.name or ""]) for v in layer.reads}, plan)

    # --- resuming ----------------------------------------------------------------------------------------------------

    def trace(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], limit: int) -> CpuTrace | None:
        """As ``Resumes.trace``."""
        if self.fallbacks or not self.gated.takes(plans):
            return None
        arrays = {name: np.array(array) for name, array in feeds.items()}  # the caller may write to his own
        values = to_ort(self._program.network.model.inputs, arrays)
        if not self.segments and limit > self._too_little:
            self.segments = self._cut(values, plans, limit)
            self._too_little = -1 if self.segments else limit
        if not self.segments:
            return None
        trace = CpuTrace(self.segments, values, arrays)
        trace.run(plans)
        trace.hold(limit)
        return trace if trace.bytes <= limit else None

    def _cut(
        self, values: Mapping[str, onnxruntime.OrtValue], plans: Mapping[str, Plan], limit: int
    ) -> list[GatedExecutor]:
        flags = self.gated.flags(plans)
        spent = []
        for _ in range(2):  # the first run also sets up threads and memory
            begin = time.perf_counter()
            self.gated.run(values, flags)
            spent.append(time.perf_counter() - begin)
        if not worth_cutting(min(spent)):
            return []
        costs = measure_layers(self.layered, self._program.layers, values, plans)
        cuts = choose_cuts(self._program, costs, min(spent), limit)
        begin = time.perf_counter()
        segments = build_segments(self._program, self._precision, cuts) if cuts else []
        self.seconds["segments"] = time.perf_counter() - begin
        return segments

    def run_from(self, trace: CpuTrace, plans: Mapping[str, Plan]) -> dict[str, Array]:
        """As ``Resumes.run_from``."""
        if not self.gated.takes(plans):
            return self.run(trace.arrays, plans)
        made = trace.run(plans)
        results = {}
        for value in self._program.network.graph.outputs:
            name = value.name or ""
            results[name] = made[name] if name in made else self.weights.value(value)
        return {name: array.copy() for name, array in _arrays(results).items()}  # what is held stays as it is

    def estimate_from(self, trace: CpuTrace, plans: Mapping[str, Plan]) -> float:
        """As ``Resumes.estimate_from``."""
        return trace.estimate(plans) if self.gated.takes(plans) else float("inf")

    # --- asking ------------------------------------------------------------------------------------------------------

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """As ``Device.supports``."""
        return tactics.tactic_of(tactic).elsewhere(self.name) or tactics.supports(layer, precision, tactic)


def _arrays(results: Mapping[str, onnxruntime.OrtValue]) -> dict[str, Array]:
    return {
        f"{name}{suffix}": array
        for name, value in results.items()
        for suffix, array, _ in from_ort(value)
        if array is not None
    }
