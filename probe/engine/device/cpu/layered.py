"""Executor (a): a session a layer, built when it is first needed. For taps, local error, odd tactics: whatever looks at single layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx

from probe import ir
from probe.engine.assignment import FP32, Choice
from probe.engine.device.branches import not_run
from probe.engine.device.cpu.casts import BF16_OPSET
from probe.engine.device.cpu.emit import FLAGS, LayerEmitter
from probe.engine.device.cpu.fallback import ReferenceSession, lacks_kernel, op_refused
from probe.engine.device.cpu.nodewise import run_nodewise
from probe.engine.device.cpu.program import Program
from probe.engine.device.cpu.session import build
from probe.engine.device.cpu.unsigned import write_unsigned
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.network import Network, bodies_of
from probe.engine.rounding import Form, Plan
from probe.engine.tactics import concerns
from probe.errors import InputError
from probe.ort.errors import explain, is_ort_error
from probe.ort.values import from_ort, owned_value, to_value

if TYPE_CHECKING:
    import onnxruntime

Array = np.ndarray[Any, Any]
_IR_VERSION = 10
_PLAIN = Plan(FP32, "plain")


@dataclass(slots=True)
class _Session:
    session: onnxruntime.InferenceSession | ReferenceSession
    inputs: tuple[ir.Value, ...]
    names: dict[int, str]  # value (by id) -> output of the session
    gated: bool


class LayeredExecutor:
    """Runs layers one after the other, each in a session of its own; control flow of If in Python."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._network, self._layers, self._rounding = program.network, program.layers, program.rounding
        self._weights = program.weights
        self._sessions: dict[tuple[str, Form, str], _Session] = {}
        self._opsets = [onnx.helper.make_opsetid(d, v) for d, v in self._network.ir.opset_imports.items()]
        self._uses = _uses(self._layers, self._network)
        self._fallbacks: dict[str, Fallback] = {}  # by layer
        self._refusals: dict[str, InputError] = {}  # by layer: why it falls back

    @property
    def uses(self) -> Counter[int]:
        """How often each value is read by layers, by ``id``; what graphs return is never let go. The caller's own, to count down."""
        return Counter(self._uses)

    @property
    def sessions(self) -> int:
        """Built so far."""
        return len(self._sessions)

    def fallbacks(self) -> tuple[Fallback, ...]:
        """Layers that ONNX Runtime has no kernel for. Builds a session for every layer that has none yet.

        Raises:
            InputError: a layer is refused for another reason.
        """
        layers = [layer for layer in all_layers(self._layers) if layer.kind != "if"]
        for layer in layers:
            try:
                self._session(layer, _PLAIN)
            except InputError as error:
                if layer.name not in self._fallbacks:
                    raise
                lacking = self._fallbacks[layer.name]
                self._fallbacks[layer.name] = Fallback(layer.name, lacking.op, error.what, by="nothing")
        return tuple(self._fallbacks[layer.name] for layer in layers if layer.name in self._fallbacks)

    def stream(
        self, feeds: Mapping[str, onnxruntime.OrtValue], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, onnxruntime.OrtValue]]:
        """Every tensor the layers store, in execution order; in the end (as the generator's return value) the graph outputs by name.

        Args:
            interior: hand out what stays inside fused layers too.

        Raises:
            InputError: ONNX Runtime refuses a layer or fails in it; names the layer.
        """
        inputs = {value.name: value for value in self._network.graph.inputs}
        values = {id(inputs[name]): fed for name, fed in feeds.items()}
        yield from self._run_layers(self._layers, values, self.uses, plans, interior=interior)
        return {value.name or "": self._value_of(value, values) for value in self._network.graph.outputs}

    def _run_layers(
        self,
        layers: Sequence[Layer],
        values: dict[int, onnxruntime.OrtValue],
        left: Counter[int],
        plans: Mapping[str, Plan],
        *,
        interior: bool,
    ) -> Iterator[Tapped]:
        for layer in layers:
            if layer.kind == "if":
                yield from self._run_branch(layer, values, left, plans, interior=interior)
            else:
                made = self.run_layer(layer, values, plans[layer.name], wants_interior=interior)
                for value in layer.tensors:
                    if id(value) in made:
                        yield from _handed_out(value, made[id(value)], layer, plans[layer.name].choice)
                values.update({id(v): made[id(v)] for v in layer.outputs if left[id(v)]})
                del made
            for value in _own_reads(layer):
                left[id(value)] -= 1
                if not left[id(value)]:
                    values.pop(id(value), None)

    def _run_branch(
        self,
        layer: Layer,
        values: dict[int, onnxruntime.OrtValue],
        left: Counter[int],
        plans: Mapping[str, Plan],
        *,
        interior: bool,
    ) -> Iterator[Tapped]:
        node = layer.nodes[0]
        assert node.inputs[0] is not None
        condition = bool(self._value_of(node.inputs[0], values).numpy().reshape(-1)[0])
        taken = "then_branch" if condition else "else_branch"
        yield from self._run_layers(layer.branches[taken], values, left, plans, interior=interior)
        ran = {value.name for one in all_layers(layer.branches[taken]) for value in one.tensors}
        for attribute, branch in layer.branches.items():
            if attribute != taken:
                yield from not_run(branch, f"{layer.name}/{attribute}", ran, plans)
        for value, inner in zip(node.outputs, bodies_of(node)[taken].outputs, strict=True):
            if value.name:
                values[id(value)] = self._value_of(inner, values)
                if value.name != inner.name:
                    yield from _handed_out(value, values[id(value)], layer, plans[layer.name].choice)

    def _value_of(self, value: ir.Value, values: Mapping[int, onnxruntime.OrtValue]) -> onnxruntime.OrtValue:
        if id(value) in values:
            return values[id(value)]
        return self._weights.value(value)

    def run_layer(
        self, layer: Layer, values: Mapping[int, onnxruntime.OrtValue], plan: Plan, *, wants_interior: bool
    ) -> dict[int, onnxruntime.OrtValue]:
        """What one layer makes of what it reads, by ``id`` of the values.

        Raises:
            InputError: ONNX Runtime refuses the layer or fails in it; names it.
        """
        if concerns(layer, plan.choice.tactic):
            arrays = {id(v): self._value_of(v, values).numpy() for v in layer.reads}
            return {key: owned_value(array) for key, array in self.run_tactic(layer, arrays, plan).items()}
        session = self._session(layer, plan)
        feeds = {v.name or "": self._value_of(v, values) for v in session.inputs}
        if session.gated:
            feeds[FLAGS] = to_value(np.array(plan.gates, np.bool_))
        wanted = layer.tensors if wants_interior else layer.outputs
        fetched = [id(v) for v in wanted if id(v) in session.names]
        if not fetched:  # nobody reads what it makes; to ONNX Runtime no names mean all of them
            return {}
        try:
            results = session.session.run_with_ort_values([session.names[key] for key in fetched], feeds)
        except Exception as error:
            raise self._explained(error, layer) from error
        return dict(zip(fetched, results, strict=True))

    def run_tactic(self, layer: Layer, reads: Mapping[int, Array], plan: Plan) -> dict[int, Array]:
        """A layer by a tactic other than exact: its products in numpy, every other node in a session of its own."""
        sites = self._rounding.sites(layer, plan.choice.precision)
        return run_nodewise(layer, reads, plan, sites, self._weights, partial(self._run_node, layer))

    def evaluate(self, layer: Layer, reads: Mapping[int, Array], plan: Plan) -> dict[str, Array]:
        """All tensors of one layer on given reads.

        Raises:
            InputError: ONNX Runtime fails in the layer.
        """
        values = {key: to_value(array) for key, array in reads.items()}
        made = self.run_layer(layer, values, plan, wants_interior=True)
        arrays: dict[str, Array] = {}
        for value in layer.tensors:
            if id(value) in made:
                for suffix, array, _ in from_ort(made[id(value)]):
                    if array is not None:
                        arrays[f"{value.name}{suffix}"] = array
        return arrays

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _session(self, layer: Layer, plan: Plan) -> _Session:
        form = "plain" if plan.form == "wide" else plan.form  # the same graph: nothing is rounded
        key = (layer.name, form, plan.choice.precision if form != "plain" else "")
        if key not in self._sessions:
            self._sessions[key] = self._build(layer, form, plan.choice.precision)
        return self._sessions[key]

    def _build(self, layer: Layer, form: Form, precision: str) -> _Session:
        sites = self._rounding.sites(layer, precision)
        refusal = self._refusals.get(layer.name)
        # The reference implementation of onnx before 1.19 truncates to bfloat16: there it is rounded by arithmetic.
        opset = self._network.opset if refusal is None else min(self._network.opset, BF16_OPSET - 1)
        emitted = LayerEmitter(layer, form, precision, sites, opset=opset).emit()
        inputs = [_described(value) for value in layer.reads]
        gated = form in ("switched", "general") and bool(sites.gates)
        if gated:
            inputs.append(onnx.helper.make_tensor_value_info(FLAGS, onnx.TensorProto.BOOL, [len(sites.gates)]))
        outputs = [
            onnx.ValueInfoProto(name=emitted.names[id(value)]) for value in layer.tensors if id(value) in emitted.names
        ]
        protos, weights = self._weights.protos(emitted.weights)
        graph = onnx.GraphProto(
            name=layer.name,
            node=emitted.nodes,
            input=inputs,
            output=outputs,
            initializer=protos,
            value_info=emitted.shapes,
        )
        model = onnx.ModelProto(ir_version=_IR_VERSION, opset_import=self._opsets, graph=graph)
        if refusal is not None:
            arrays = {name: self._weights.array(*weight) for name, weight in emitted.weights.items()}
            session = ReferenceSession(model, arrays, layer, refusal)
            return _Session(session, layer.reads, emitted.names, gated)
        try:
            session = self._start(model, weights)
        except Exception as error:
            refusal = self._explained(error, layer)
            if not isinstance(refusal, InputError) or not self._falls_back(layer, form, error, refusal):
                raise refusal from error
            return self._build(layer, form, precision)
        return _Session(session, layer.reads, emitted.names, gated)

    def _start(
        self, model: onnx.ModelProto, weights: Mapping[str, onnxruntime.OrtValue]
    ) -> onnxruntime.InferenceSession:
        program = self._program
        return build(model.SerializeToString(), weights, threads=program.threads, libraries=program.libraries)

    def _falls_back(self, layer: Layer, form: Form, error: Exception, refusal: InputError) -> bool:
        """Whether ONNX Runtime refuses a layer because it lacks one of its operators; then it is listed."""
        if not lacks_kernel(error):
            return False
        if form == "plain":
            self._refusals[layer.name] = refusal
            self._fallbacks[layer.name] = Fallback(layer.name, op_refused(layer, error), refusal.what)
        else:  # a refusal of the casts around the nodes is no lack of the layer's operators
            self._session(layer, _PLAIN)
        return layer.name in self._fallbacks

    def _run_node(self, layer: Layer, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One node as it stands, for layers that run node by node."""
        key = (f"node {id(node)}", "plain", "")
        if key not in self._sessions:
            proto = ir.node_proto(node)
            del proto.input[:], proto.output[:]
            proto.input.extend("" if v is None else f"i{at}" for at, v in enumerate(node.inputs))
            proto.output.extend(f"o{at}" if v.name else "" for at, v in enumerate(node.outputs))
            counter = count()
            before = write_unsigned(node, proto, lambda: f"t{next(counter)}")
            described = [
                onnx.helper.make_tensor_value_info(f"i{at}", int(v.dtype or 1), None)
                for at, v in enumerate(node.inputs)
                if v is not None
            ]
            graph = onnx.GraphProto(
                name="node", node=[*before, proto], input=described,
                output=[onnx.ValueInfoProto(name=name) for name in proto.output if name],
            )  # fmt: skip
            model = onnx.ModelProto(ir_version=_IR_VERSION, opset_import=self._opsets, graph=graph)
            try:
                session = self._start(model, {})
            except Exception as error:
                refusal = self._explained(error, layer)
                if not isinstance(refusal, InputError) or not lacks_kernel(error):
                    raise refusal from error
                session = ReferenceSession(model, {}, layer, refusal)
            self._sessions[key] = _Session(session, (), {}, gated=False)
        feeds = {f"i{at}": to_value(array) for at, array in enumerate(inputs) if array is not None}
        return [cast(Array, from_ort(v)[0][1]) for v in self._sessions[key].session.run_with_ort_values(None, feeds)]

    def _explained(self, error: Exception, layer: Layer) -> Exception:
        if not is_ort_error(error) or isinstance(error, InputError):
            return error
        found = explain(error, self._network.model, f"run layer {layer.name}")
        return InputError(found.what, where=f"{found.where}; layer {layer.name}", hint=found.hint)


def _described(value: ir.Value) -> onnx.ValueInfoProto:
    """A graph input without a shape: what is fed decides."""
    info = onnx.ValueInfoProto(name=value.name or "")
    if value.type is not None:
        info.type.CopyFrom(ir.type_proto(value.type))
    return info


def _handed_out(value: ir.Value, made: onnxruntime.OrtValue, layer: Layer, choice: Choice) -> Iterator[Tapped]:
    for suffix, array, note in from_ort(made):
        yield Tapped(
            f"{value.name}{suffix}", array, layer, choice, "recorded" if array is not None else "unsupported", note
        )


def _own_reads(layer: Layer) -> list[ir.Value]:
    """What a layer reads of its own graph. What a branch reads from around it, its If reads too, and holds until it is done."""
    return [value for value in layer.reads if value.graph is layer.nodes[0].graph]


def _uses(layers: Sequence[Layer], network: Network) -> Counter[int]:
    found: Counter[int] = Counter(id(value) for layer in all_layers(layers) for value in _own_reads(layer))
    found.update(id(value) for graph in network.graphs() for value in graph.outputs)
    return found
