"""``CudaDevice``: the layers of a network on a GPU, each tensor stored in the precision its layer has."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import onnx_ir as ir

from probe.engine import tactics
from probe.engine.assignment import Choice
from probe.engine.device.branches import not_run
from probe.engine.device.cuda.backend import Backend
from probe.engine.device.cuda.compiling.kept_kernels import KeptKernels
from probe.engine.device.cuda.errors import Missing, OutOfMemory, Refused, Unsupported
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
from probe.engine.device.cuda.runs.context import CudaContext, Means
from probe.engine.device.cuda.runs.one_run import OneRun, is_constant, with_interiors
from probe.engine.device.cuda.runs.prepared import Prepared
from probe.engine.device.cuda.runs.recording import Computed, Recording
from probe.engine.device.cuda.runs.replays import Replays
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.device.cuda.runs.templates import Template, seen, template_of
from probe.engine.device.cuda.sums.comparing import ComparesPairs, arrays_of, handed_out
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.cuda.tensors.weights import DeviceWeights
from probe.engine.device.cuda.tuning.tuner import CudaTuner
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.network import Network, bodies_of
from probe.engine.rounding import Plan, Rounding
from probe.ort.values import to_ort

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]
_TEMPLATES = 1 << 14  # layers remembered as they were launched


class CudaDevice(KeptKernels, ComparesPairs):
    """Kernels where there are some, the CPU device's executor for every other layer.

    Attributes:
        fallen: layers that ran on the CPU so far although they compute floats: name -> reason.
        falls: how often each of them did.
        on_host: integer layers, which run on the host by design as long as what they read lies there and never changes.
        reasons: why a layer ran on the host.
        replays: runs that are repeated as they were recorded.
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
        super().__init__()
        self._network, self._layers, self._rounding = network, layers, rounding
        self.backend = backend
        self.queue = Queue(backend, network.opset)
        self._weigh = DeviceWeights(network, self.queue)
        self._fallback = FallbackExecutor(
            network, layers, rounding, self._weigh.host, threads=threads, libraries=tuple(libraries)
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
        self._lock = RLock()
        self.replays = Replays(backend, self._compute)
        self.fallen: dict[str, str] = {}
        self.falls: Counter[str] = Counter()

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
        """As ``Device.run``. From the second run with inputs of the same shapes on, what the first one launched is repeated as CUDA graphs."""
        self.backend.enter()
        fed = self._fed(feeds)
        with self._lock:
            self.look_ahead(feeds, plans)
            found = self.replays.run(fed, plans, lambda: self._record(fed, plans)) if self.replays.enabled else None
            if found is not None and not (found[1] and self._faulted()):
                return self._named(found[0])
            running = self._stream(fed, plans, tapped=False, interior=False)
            while True:
                try:
                    next(running)
                except StopIteration as done:
                    return done.value

    def stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """As ``Device.stream``. The same kernels as in ``run``, launched one by one; a tensor is read when somebody asks for its values."""
        self.backend.enter()
        with self._lock:
            self.look_ahead(feeds, plans)
        return (yield from self._stream(self._fed(feeds), plans, tapped=True, interior=interior))

    def prepare(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, side_by_side: bool = False) -> Prepared:
        """A run made ready to be repeated with its inputs and outputs on the device, in memory of its own.

        Args:
            side_by_side: let layers that do not depend on each other run at the same time. Off: measured on an H200, it brought 1 % on
                BERT-base and nothing on ResNet-50.

        Raises:
            InputError: a layer fails; names it.
        """
        self.backend.enter()
        fed = self._fed(feeds)
        with self._lock:
            self.look_ahead(feeds, plans)
            _, recording = self._record(fed, plans)
            prepared = self.replays.prepare(recording, side_by_side=side_by_side)
            prepared.feed(fed)
        return prepared

    def feed(self, prepared: Prepared, feeds: Mapping[str, Array]) -> None:
        """Give a run made ready other inputs of the same shapes. Raises what ``Prepared.feed`` does."""
        self.backend.enter()
        prepared.feed(self._fed(feeds))

    def context(
        self, plans: Mapping[str, Plan], *, graphs: bool = True, marked: Callable[[str], None] | None = None
    ) -> CudaContext:
        """Inferences under one assignment on a stream of their own, beside those of other contexts.

        Args:
            graphs: False launches kernel by kernel.
            marked: told of the layer before each launch that is not part of a graph.
        """

        def record(feeds: Mapping[str, Array], fed: Mapping[str, Tensor]) -> Recording:
            with self._lock:
                self.backend.enter()
                self.look_ahead(feeds, plans)
                _, recording = self._record(fed, plans)
                self.backend.synchronize()  # weights are there, whatever stream reads them
            return recording

        anew = partial(self.run, plans=plans)
        means = Means(self.backend, self._fed, record, self._compute, self._named, anew, self._faults)
        return CudaContext(means, graphs=graphs, marked=marked)

    def shapes(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, tuple[int, ...]]:
        """Of every tensor that a run makes; of what stays inside fused layers as the network declares it, or by kernels that write it too,
        which may have to be compiled. Nothing but what decides on shapes leaves the device. Raises as ``run``."""
        self.backend.enter()
        found: dict[str, tuple[int, ...]] | None = None
        for interior in (False, True):
            with self._lock:
                left, made = Counter(self._fallback.uses), {}
                run = OneRun(self.queue, plans, self._valued(self._fed(feeds)), left, True, interior, made)
                deque(self._run_layers(self._layers, run), maxlen=0)
            found = made if interior else with_interiors(self._layers, made)
            if found is not None:
                break
        return found or {}

    @property
    def weight_bytes(self) -> int:
        """Of weights on the device so far, in every precision and order that they are read in."""
        return self._weigh.nbytes

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """As ``Device.evaluate``."""
        self.backend.enter()
        reads = {id(v): host_tensor(np.asarray(feeds[v.name or ""])) for v in layer.reads}
        made = self._run_layer(layer, reads, plan, self.queue, wants_interior=True)
        return {
            f"{value.name}{suffix}": array
            for value in layer.tensors
            if id(value) in made
            for suffix, array, _ in arrays_of(made[id(value)], self.backend)
            if array is not None
        }

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """As ``Device.supports``. A layer that is not supported runs all the same, on the CPU."""
        reason = tactics.supports(layer, precision, tactic)
        return reason or self._refusals[layer.name] or tactic_refusal(layer, tactic)

    def tuner(self, plan_of: Callable[[Layer, Choice], Plan]) -> CudaTuner:
        """As ``Tunes.tuner``."""
        return CudaTuner(self.backend, self.queue.opset, self._rounding, plan_of, self._layers)

    # --- running -----------------------------------------------------------------------------------------------------

    def _record(self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan]) -> tuple[dict[str, Tensor], Recording]:
        """Outputs of a run, and what it did."""
        tape, run = self._taped(self.backend, fed, plans, self.queue.launches)
        try:
            deque(self._run_layers(self._layers, run), maxlen=0)
            results = self._results(run)
            places = {name: tape.place(tensor) for name, tensor in results.items()}
        except BaseException:
            tape.abandon()
            raise
        arrays = {name: tensor.detached(self.backend) for name, tensor in results.items()}
        return arrays, tape.finish(places, checks_faults=run.queue.may_fault)

    def _taped(
        self, backend: Backend, fed: Mapping[str, Tensor], plans: Mapping[str, Plan], launches: dict[str, int]
    ) -> tuple[Tape, OneRun]:
        """A run that is to be recorded."""
        tape = Tape(backend)
        queue = Queue(
            tape, self.queue.opset, launches=launches, faults=self._faults, recording=True, outside=self.queue, sources=self.queue.sources,
            apart=self.queue.apart,
        )  # fmt: skip
        given = {name: tape.fed(name, tensor) for name, tensor in fed.items()}
        return tape, OneRun(queue, plans, self._valued(given), Counter(self._fallback.uses))

    def _imagine(self, feeds: Mapping[str, Array], backend: Backend, plans: Mapping[str, Plan]) -> int:
        self.backend.enter()
        with self._lock, self._weigh.placed():
            self._faults.address(self.backend)
            known, counted = len(self._templates), (dict(self.fallen), Counter(self.falls))
            tape, run = self._taped(backend, self._fed(feeds), plans, {})
            with suppress(Missing):
                deque(self._run_layers(self._layers, run), maxlen=0)
                self._results(run)
            tape.abandon()
            self.fallen, self.falls = counted  # layers on the host were computed for their shapes: that is no run
        return len(self._templates) - known

    def _faulted(self) -> bool:
        """Whether a kernel found an index out of range since it was last asked."""
        found = np.zeros(1, np.int32)
        self.backend.download(found.view(np.uint8), self._faults.address(self.backend))
        if found[0]:
            self.backend.upload(self._faults.address(self.backend), np.zeros(1, np.int32))
        return bool(found[0])

    def _compute(self, step: Computed, reads: Values) -> Values:
        """A step of a recording that is made on the host."""
        return self._on_cpu(step.layer, reads, step.plan, wants_interior=False)

    def _stream(
        self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan], *, tapped: bool, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        run = OneRun(self.queue, plans, self._valued(fed), Counter(self._fallback.uses), tapped, interior)
        yield from self._run_layers(self._layers, run)
        return self._named(self._results(run))

    def _results(self, run: OneRun) -> dict[str, Tensor]:
        """What the graph returns; floats are made wide on the device, which is faster than on the host."""
        found = {}
        for value in self._network.graph.outputs:
            tensor = self._value_of(value, run.values)
            on_device = (
                tensor.memory is not None or tensor.is_late
            )  # whether or not somebody has read it on the host, which NaNs would show
            if tensor.format is not None and tensor.format.is_float and on_device:
                run.queue.layer = "outputs"
                if isinstance(run.queue.backend, Tape):
                    run.queue.backend.begin()
                tensor = run.queue.convert(tensor, F32)
            found[value.name or ""] = tensor
        return found

    def _named(self, results: Mapping[str, Tensor]) -> dict[str, Array]:
        return {
            f"{name}{suffix}": array
            for name, tensor in results.items()
            for suffix, array, _ in arrays_of(tensor, self.backend)
            if array is not None
        }

    def _fed(self, feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        """Inputs of the network, by name."""
        ports = {port.name: port for port in self._network.model.inputs}
        fed: dict[str, Tensor] = {}
        for value in self._network.graph.inputs:
            name = value.name or ""
            if name in feeds:
                fed[name] = host_tensor(np.asarray(feeds[name]))
            elif name in ports:
                fed[name] = Tensor((), None, opaque=to_ort([ports[name]], feeds)[name])
        return fed

    def _valued(self, fed: Mapping[str, Tensor]) -> Values:
        return {id(value): fed[value.name or ""] for value in self._network.graph.inputs if value.name in fed}

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
                if attribute != taken:
                    yield from not_run(branch, f"{layer.name}/{attribute}", ran, run.plans)
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
        met = seen(tape, layer, plan, reads)
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
                run = AttentionRun if layer.kind == "attention" else LayerRun
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
            layer, plan, reads, lambda given: self._on_cpu(layer, given, plan, wants_interior=wants_interior)
        )

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
        for suffix, held, note in handed_out(tensor, self.backend):
            status = "recorded" if held is not None else "unsupported"
            if run.shapes is not None and held is not None:
                run.shapes[f"{value.name}{suffix}"] = held.shape
            yield Tapped(f"{value.name}{suffix}", held, layer, run.plans[layer.name].choice, status, note)
