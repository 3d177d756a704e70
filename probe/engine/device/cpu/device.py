"""``CpuDevice``: one semantics, two executors. Low precision is emulated: stored low, computed in FP32."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine import tactics
from probe.engine.device.cpu.fallback import lacks_kernel
from probe.engine.device.cpu.gated import GatedExecutor
from probe.engine.device.cpu.layered import LayeredExecutor
from probe.engine.device.cpu.session import Weights
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer
from probe.engine.network import Network
from probe.engine.rounding import Plan, Rounding
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

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        precision: str,
        *,
        threads: int = 0,
        libraries: Sequence[Path] = (),
    ) -> None:
        self._network, self._layers, self._rounding = network, layers, rounding
        self._precision, self._threads, self._libraries = precision, threads, tuple(libraries)
        self.weights = Weights(network)
        self.layered = LayeredExecutor(
            network, layers, rounding, self.weights, threads=threads, libraries=self._libraries
        )
        self._gated: GatedExecutor | None = None
        self._fallbacks: tuple[Fallback, ...] | None = None  # not known yet
        self.sessions_built = 0  # of the gated kind
        self.seconds: dict[str, float] = {}

    @property
    def gated(self) -> GatedExecutor:
        """The gated session, built on first use; ``seconds["gated session"]`` says what that took."""
        if self._gated is None:
            begin = time.perf_counter()
            self._gated = GatedExecutor(
                self._network, self._layers, self._rounding, self.weights, self._precision,
                threads=self._threads, libraries=self._libraries,
            )  # fmt: skip
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
        values = to_ort(self._network.model.inputs, feeds)
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
        values = to_ort(self._network.model.inputs, feeds)
        return _arrays((yield from self.layered.stream(values, plans, interior=interior)))

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """As ``Device.evaluate``."""
        return self.layered.evaluate(layer, {id(v): np.asarray(feeds[v.name or ""]) for v in layer.reads}, plan)

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """As ``Device.supports``."""
        return tactics.supports(layer, precision, tactic)


def _arrays(results: Mapping[str, onnxruntime.OrtValue]) -> dict[str, Array]:
    return {
        f"{name}{suffix}": array
        for name, value in results.items()
        for suffix, array, _ in from_ort(value)
        if array is not None
    }
