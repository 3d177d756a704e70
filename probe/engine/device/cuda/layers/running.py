"""``RunsLayers``: the layers of a network one after the other, by kernels where there are some, on the CPU device's executor where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probe import ir
from probe.engine import tactics
from probe.engine.device.branches import not_run
from probe.engine.device.cuda.backend import Backend
from probe.engine.device.cuda.errors import OutOfMemory, Refused, Unsupported
from probe.engine.device.cuda.layers.attention_run import AttentionRun
from probe.engine.device.cuda.layers.fallback import FallbackExecutor
from probe.engine.device.cuda.layers.layer_run import LayerRun
from probe.engine.device.cuda.layers.refusals import (
    ON_HOST,
    as_spoken_of,
    is_repeatable,
    layer_refusal,
    refused_by_name,
    tactic_refusal,
)
from probe.engine.device.cuda.layers.siblings import Siblings
from probe.engine.device.cuda.ops.table import refusal
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.runs.one_run import OneRun, is_constant
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.device.cuda.runs.templates import Template, seen, template_of
from probe.engine.device.cuda.sums.comparing import handed_out
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.cuda.tensors.weights import DeviceWeights
from probe.engine.device.protocol import Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.network import Network, bodies_of
from probe.engine.rounding import Plan, Rounding

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]
_TEMPLATES = 1 << 14  # layers remembered as they were launched


class RunsLayers:
    """The part of a device that runs layers.

    Attributes:
        fallen: layers that ran on the CPU so far although they compute floats: name -> reason.
        falls: how often each of them did.
        on_host: integer layers, which run on the host by design as long as what they read lies there and never changes.
        reasons: why a layer ran on the host.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        backend: Backend,
        *,
        threads: int,
        libraries: tuple[Path, ...],
    ) -> None:
        super().__init__()
        self._network, self._rounding, self.backend = network, rounding, backend
        self.queue = Queue(backend, network.opset)
        self._weigh = DeviceWeights(network, self.queue)
        self._fallback = FallbackExecutor(
            network, layers, rounding, self._weigh.host, threads=threads, libraries=libraries
        )
        self._siblings = Siblings(layers, rounding, self._weigh)
        by_name = {layer.name: layer for layer in all_layers(layers)}
        self._refusals = {name: layer_refusal(layer) for name, layer in by_name.items()}
        self.on_host = {name for name, reason in self._refusals.items() if reason == ON_HOST}
        self._integer_kernels = {
            name for name in self.on_host if all(refusal(node) is None for node in by_name[name].nodes)
        }
        self._repeatable = {name for name, layer in by_name.items() if is_repeatable(layer)}
        self.reasons: dict[str, str] = {}
        self._faults = host_tensor(np.zeros(1, np.int32))
        self._templates: dict[Hashable, Template] = {}
        self.fallen: dict[str, str] = {}
        self.falls: Counter[str] = Counter()

    def _run_layers(self, layers: Sequence[Layer], run: OneRun) -> Iterator[Tapped]:
        values, left = run.values, run.left
        for layer in layers:
            if layer.kind == "if":
                yield from self._run_branch(layer, run)
            else:
                reads = {id(v): self._value_of(v, values) for v in layer.reads}
                wants_interior = run.tapped and run.interior
                made = self._siblings.made(layer, run, self._value_of)
                if made is None:
                    made = self._run_layer(
                        layer, reads, run.plans[layer.name], run.queue, wants_interior=wants_interior
                    )
                del reads
                if run.tapped:
                    for value in layer.tensors:
                        if id(value) in made:
                            yield from self._handed_out(value, made[id(value)], layer, run)
                values.update({id(v): made[id(v)] for v in layer.outputs if left[id(v)]})
                del made
            for value in layer.reads:
                if value.graph is layer.nodes[0].graph:
                    left[id(value)] -= 1
                    if not left[id(value)]:
                        values.pop(id(value), None)

    def _run_branch(self, layer: Layer, run: OneRun) -> Iterator[Tapped]:
        node, values = layer.nodes[0], run.values
        assert node.inputs[0] is not None
        condition = bool(self._value_of(node.inputs[0], values).array(run.queue.backend).reshape(-1)[0])
        taken = "then_branch" if condition else "else_branch"
        yield from self._run_layers(layer.branches[taken], run)
        if run.tapped:
            ran = {value.name for one in all_layers(layer.branches[taken]) for value in one.tensors}
            for attribute, branch in layer.branches.items():
                for tapped in (
                    not_run(branch, f"{layer.name}/{attribute}", ran, run.plans) if attribute != taken else ()
                ):
                    if run.noted is not None:
                        run.noted.note(tapped, None)
                    yield tapped
        for value, inner in zip(node.outputs, bodies_of(node)[taken].outputs, strict=True):
            if value.name:
                values[id(value)] = self._value_of(inner, values)
                if run.tapped and value.name != inner.name:
                    yield from self._handed_out(value, values[id(value)], layer, run)

    def _run_layer(self, layer: Layer, reads: Values, plan: Plan, queue: Queue, *, wants_interior: bool) -> Values:
        if isinstance(queue.backend, Tape) and layer.name in self._repeatable and queue.backend.fixed(reads.values()):
            made = self._run_layer(layer, reads, plan, queue.aside, wants_interior=wants_interior)
            queue.backend.keep(made.values())  # the same in every run: not computed again
            return made
        if isinstance(queue.backend, Tape):
            queue.backend.begin()
            return self._run_recorded(queue.backend, layer, reads, plan, queue, wants_interior=wants_interior)
        return self._run_anew(layer, reads, plan, queue, wants_interior=wants_interior)

    def _run_recorded(
        self, tape: Tape, layer: Layer, reads: Values, plan: Plan, queue: Queue, *, wants_interior: bool
    ) -> Values:
        """A layer while a run is recorded: as it was launched the last time, where that is known."""
        met = seen(tape, layer, plan, reads, interior=wants_interior)
        known = self._templates.get(met.key) if met is not None else None
        if met is not None and known is not None:
            return known.run(tape, queue, met, reads, layer.name)
        mark, before, queue.may_fault = tape.mark(), queue.may_fault, False
        made = self._run_anew(layer, reads, plan, queue, wants_interior=wants_interior)
        found = template_of(tape, mark, met, reads, made, may_fault=queue.may_fault) if met is not None else None
        if met is not None and found is not None:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[met.key] = found
        queue.may_fault |= before
        return made

    def _run_anew(self, layer: Layer, reads: Values, plan: Plan, queue: Queue, *, wants_interior: bool) -> Values:
        reason = self._refusals[layer.name] or tactic_refusal(layer, plan.choice.tactic)
        if reason == ON_HOST and self._belongs_on_device(layer, reads):
            reason = None
        if reason is None:
            plan, sites = as_spoken_of(layer, plan, self._rounding), self._rounding.sites(layer, plan.choice.precision)
            try:
                run = AttentionRun if layer.kind == "attention" and len(layer.nodes) > 1 else LayerRun
                return run(queue, layer, plan, sites, reads, self._weigh, wants_interior=wants_interior).run()
            except Unsupported as refused:
                reason = str(refused)
            except Refused as refused:
                raise refused_by_name(layer, plan.choice, str(refused)) from None
            except OutOfMemory as full:
                raise full.at(f"layer {layer.name}") from full
        if tactics.tactic_of(plan.choice.tactic).device:
            raise refused_by_name(layer, plan.choice, reason)
        self.reasons[layer.name] = reason
        if not isinstance(queue.backend, Tape):
            return self._on_cpu(layer, reads, plan, wants_interior=wants_interior)
        return queue.backend.host_step(
            layer, plan, reads, lambda given: self._on_cpu(layer, given, plan, wants_interior=wants_interior), interior=wants_interior,
        )  # fmt: skip

    def _on_cpu(self, layer: Layer, reads: Values, plan: Plan, *, wants_interior: bool) -> Values:
        if layer.name not in self.on_host:
            self.fallen[layer.name] = self.reasons[layer.name]
            self.falls[layer.name] += 1
        sites = self._rounding.sites(layer, plan.choice.precision)
        return self._fallback.run(layer, reads, plan, sites, self.backend, wants_interior=wants_interior)

    def _belongs_on_device(self, layer: Layer, reads: Values) -> bool:
        """Whether integers are computed by kernels: when they lie on the device, or change from run to run, and there are kernels."""
        return not is_constant(reads) and layer.name in self._integer_kernels

    # --- values ------------------------------------------------------------------------------------------------------

    def _value_of(self, value: ir.Value, values: Values) -> Tensor:
        return values[id(value)] if id(value) in values else self._weigh(value, "")

    def _handed_out(self, value: ir.Value, tensor: Tensor, layer: Layer, run: OneRun) -> Iterator[Tapped]:
        if run.shapes is not None and tensor.opaque is None:
            run.shapes[value.name or ""] = tensor.shape
            return
        shown = tensor if run.noted is None else run.noted.shown(tensor)
        for suffix, held, note in handed_out(shown, self.backend):
            status = "recorded" if held is not None else "unsupported"
            if run.shapes is not None and held is not None:
                run.shapes[f"{value.name}{suffix}"] = held.shape
            tapped = Tapped(f"{value.name}{suffix}", held, layer, run.plans[layer.name].choice, status, note)
            if run.noted is not None:
                run.noted.note(tapped, tensor)
            yield tapped
