"""``CudaDevice``: the layers of a network on a GPU, each tensor stored in the precision its layer has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from probe.engine import tactics
from probe.engine.assignment import EXACT
from probe.engine.device.cpu.session import Weights
from probe.engine.device.cuda.backend import Backend
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.fallback import FallbackExecutor
from probe.engine.device.cuda.formats import storage_of
from probe.engine.device.cuda.layer_run import LayerRun
from probe.engine.device.cuda.ops.table import refusal
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensor import Tensor, host_tensor
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.network import Network, bodies_of
from probe.engine.rounding import Plan, Rounding, multiplies
from probe.ort.values import from_ort, to_ort

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]
_ON_HOST = "integers: computed on the host"


class CudaDevice:
    """Kernels where there are some, the CPU device's executor for every other layer.

    Attributes:
        fallen: layers that ran on the CPU so far although they compute floats: name -> reason.
        falls: how often each of them did.
        on_host: integer layers, which run on the host by design.
    """

    name = "cuda"

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        backend: Backend,
        *,
        threads: int = 0,
        libraries: Sequence[Path] = (),
    ) -> None:
        self._network, self._layers, self._rounding = network, layers, rounding
        self.backend = backend
        self.queue = Queue(backend, network.opset)
        self._host_weights = Weights(network)
        self._weights: dict[tuple[int, str], Tensor] = {}
        self._fallback = FallbackExecutor(
            network, layers, rounding, self._host_weights, threads=threads, libraries=tuple(libraries)
        )
        self._refusals = {layer.name: _refusal(layer) for layer in all_layers(layers)}
        self.on_host = {layer.name for layer in all_layers(layers) if self._refusals[layer.name] == _ON_HOST}
        self.fallen: dict[str, str] = {}
        self.falls: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    # --- the protocol ------------------------------------------------------------------------------------------------

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """As ``Device.fallbacks``: layers without a kernel, and those that a kernel refused in a run so far. The CPU device computes them."""
        by: Any = "cpu"
        found = []
        for layer in all_layers(self._layers):
            reason = self.fallen.get(layer.name) or self._refusals[layer.name]
            if reason and layer.name not in self.on_host:
                lacking = [node.op_type for node in layer.nodes if refusal(node)]
                found.append(Fallback(layer.name, (lacking or [layer.nodes[0].op_type])[0], reason, by))
        return tuple(found)

    def run(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, Array]:
        """As ``Device.run``."""
        running = self._stream(feeds, plans, tapped=False, interior=False)
        while True:
            try:
                next(running)
            except StopIteration as done:
                return done.value

    def stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """As ``Device.stream``."""
        return self._stream(feeds, plans, tapped=True, interior=interior)

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """As ``Device.evaluate``."""
        self.backend.enter()
        reads = {id(v): host_tensor(np.asarray(feeds[v.name or ""])) for v in layer.reads}
        made = self._run_layer(layer, reads, plan, wants_interior=True)
        return {
            f"{value.name}{suffix}": array
            for value in layer.tensors
            if id(value) in made
            for suffix, array, _ in self._arrays(made[id(value)])
            if array is not None
        }

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """As ``Device.supports``. A layer that is not supported runs all the same, on the CPU."""
        reason = tactics.supports(layer, precision, tactic)
        return reason or self._refusals[layer.name] or _tactic_refusal(layer, tactic)

    # --- running -----------------------------------------------------------------------------------------------------

    def _stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, tapped: bool, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        self.backend.enter()
        values = self._fed(feeds)
        left = self._fallback.uses
        yield from self._run_layers(self._layers, values, left, plans, tapped=tapped, interior=interior)
        outputs: dict[str, Array] = {}
        for value in self._network.graph.outputs:
            for suffix, array, _ in self._arrays(self._value_of(value, values)):
                if array is not None:
                    outputs[f"{value.name}{suffix}"] = array
        return outputs

    def _fed(self, feeds: Mapping[str, Array]) -> Values:
        ports = {port.name: port for port in self._network.model.inputs}
        fed: Values = {}
        for value in self._network.graph.inputs:
            name = value.name or ""
            if name in feeds:
                fed[id(value)] = host_tensor(np.asarray(feeds[name]))
            elif name in ports:
                fed[id(value)] = Tensor((), None, opaque=to_ort([ports[name]], feeds)[name])
        return fed

    def _run_layers(
        self,
        layers: Sequence[Layer],
        values: Values,
        left: Counter[int],
        plans: Mapping[str, Plan],
        *,
        tapped: bool,
        interior: bool,
    ) -> Iterator[Tapped]:
        for layer in layers:
            if layer.kind == "if":
                yield from self._run_branch(layer, values, left, plans, tapped=tapped, interior=interior)
            else:
                reads = {id(v): self._value_of(v, values) for v in layer.reads}
                made = self._run_layer(layer, reads, plans[layer.name], wants_interior=tapped and interior)
                del reads
                if tapped:
                    for value in layer.tensors:
                        if id(value) in made:
                            yield from self._handed_out(value, made[id(value)], layer, plans)
                values.update({id(v): made[id(v)] for v in layer.outputs if left[id(v)]})
                del made
            for value in layer.reads:
                if value.graph is layer.nodes[0].graph:
                    left[id(value)] -= 1
                    if not left[id(value)]:
                        values.pop(id(value), None)

    def _run_branch(
        self,
        layer: Layer,
        values: Values,
        left: Counter[int],
        plans: Mapping[str, Plan],
        *,
        tapped: bool,
        interior: bool,
    ) -> Iterator[Tapped]:
        node = layer.nodes[0]
        assert node.inputs[0] is not None
        condition = bool(self._value_of(node.inputs[0], values).array(self.backend).reshape(-1)[0])
        taken = "then_branch" if condition else "else_branch"
        yield from self._run_layers(layer.branches[taken], values, left, plans, tapped=tapped, interior=interior)
        if tapped:
            ran = {value.name for one in all_layers(layer.branches[taken]) for value in one.tensors}
            for attribute, branch in layer.branches.items():
                if attribute != taken:
                    yield from _not_run(branch, f"{layer.name}/{attribute}", ran, plans)
        for value, inner in zip(node.outputs, bodies_of(node)[taken].outputs, strict=True):
            if value.name:
                values[id(value)] = self._value_of(inner, values)
                if tapped and value.name != inner.name:
                    yield from self._handed_out(value, values[id(value)], layer, plans)

    def _run_layer(self, layer: Layer, reads: Values, plan: Plan, *, wants_interior: bool) -> Values:
        sites = self._rounding.sites(layer, plan.choice.precision)
        reason = self._refusals[layer.name] or _tactic_refusal(layer, plan.choice.tactic)
        if reason is None:
            try:
                return LayerRun(self.queue, layer, plan, sites, reads, self._weigh, wants_interior=wants_interior).run()
            except Unsupported as refused:
                reason = str(refused)
        if layer.name not in self.on_host:
            self.fallen[layer.name] = reason
            self.falls[layer.name] += 1
        return self._fallback.run(layer, reads, plan, sites, self.backend, wants_interior=wants_interior)

    # --- values ------------------------------------------------------------------------------------------------------

    def _value_of(self, value: ir.Value, values: Values) -> Tensor:
        return values[id(value)] if id(value) in values else self._weigh(value, "")

    def _weigh(self, value: ir.Value, precision: str) -> Tensor:
        """A weight, on the device once for each precision it is read in."""
        key = (id(value), precision)
        if key not in self._weights:
            made = host_tensor(self._host_weights.array(value))
            if precision:  # a copy of its own, so that the wide one need not stay
                made = self.queue.convert(made, storage_of(precision), precision if precision == "tf32" else "")
            self._weights[key] = made
        return self._weights[key]

    def _arrays(self, tensor: Tensor) -> Iterator[tuple[str, Array | None, str]]:
        """As ``probe.ort.values.from_ort``: suffix of the name, array, note."""
        if tensor.opaque is not None:
            yield from from_ort(tensor.opaque)
        else:
            yield "", tensor.array(self.backend), ""

    def _handed_out(self, value: ir.Value, tensor: Tensor, layer: Layer, plans: Mapping[str, Plan]) -> Iterator[Tapped]:
        for suffix, array, note in self._arrays(tensor):
            status = "recorded" if array is not None else "unsupported"
            yield Tapped(f"{value.name}{suffix}", array, layer, plans[layer.name].choice, status, note)


def _refusal(layer: Layer) -> str | None:
    """Why a layer never runs on the device."""
    if layer.kind == "if":
        return None
    if layer.kind == "shape" and any(node.op_type not in ("Shape", "Size") for node in layer.nodes):
        return _ON_HOST
    return next((reason for node in layer.nodes if (reason := refusal(node)) is not None), None)


def _tactic_refusal(layer: Layer, tactic: str) -> str | None:
    """Why a layer whose nodes all have kernels is not computed so on the device."""
    others = [
        node.op_type for node in layer.nodes if multiplies(node) and node.op_type not in ("MatMul", "Gemm", "Conv")
    ]
    return f"no kernel computes {others[0]} with {tactic}" if tactic != EXACT and others else None


def _not_run(layers: Sequence[Layer], body: str, ran: set[str | None], plans: Mapping[str, Plan]) -> Iterator[Tapped]:
    """The tensors of a branch that was not taken, but for names that the other branch made."""
    for layer in all_layers(layers):
        for value in layer.tensors:
            if value.name not in ran:
                choice = plans[layer.name].choice
                yield Tapped(value.name or "", None, layer, choice, "not_run", f"{body} did not run")
