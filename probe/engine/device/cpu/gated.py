"""Executor (b): one session for the whole network, an ``If`` a layer, the assignment a run-time input. The search's inner loop.

Each layer stands there in up to four forms: ``low`` (the menu's low precision), ``wide`` (FP32), ``switched`` (reads and stores with a switch
each, for kept tensors and for edges between precisions) and ``general`` (kept weights too). ONNX Runtime runs one of them; weights are
shared by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from probe import ir
from probe.engine.assignment import EXACT
from probe.engine.device.cpu.casts import constant_node
from probe.engine.device.cpu.emit import FLAGS, Emitted, LayerEmitter
from probe.engine.device.cpu.program import Program
from probe.engine.device.cpu.session import build
from probe.engine.layers import Layer, all_layers
from probe.engine.network import bodies_of
from probe.engine.rounding import Form, Plan
from probe.ort.errors import explain, is_ort_error
from probe.ort.values import to_value

if TYPE_CHECKING:
    import onnxruntime

_IR_VERSION = 10
_SELECTORS: tuple[Form, ...] = ("low", "wide", "switched")  # a flag each; none of them: general
# Element types that ONNX Runtime's If cannot return.
_NO_BRANCH = frozenset(("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1", "FLOAT8E8M0"))


@dataclass(frozen=True, slots=True)
class _Switches:
    """Where in the flags a layer's switches stand: one for each of ``_SELECTORS``, then its gates."""

    first: int
    gates: int


@dataclass(frozen=True, slots=True)
class Part:
    """Layers of a network that one session runs: all of them, or a run of consecutive ones.

    Attributes:
        layers: of the top-level graph, in execution order.
        reads: activations and inputs from outside, each once.
        returns: what is wanted of what the layers make, or of what they are given.
    """

    layers: tuple[Layer, ...]
    reads: tuple[ir.Value, ...]
    returns: tuple[ir.Value, ...]


class GatedExecutor:
    """A whole network, or a part of one, in one session, for FP32 and one low precision.

    Raises:
        InputError: ONNX Runtime refuses the graph.
    """

    def __init__(self, program: Program, precision: str, part: Part | None = None) -> None:
        """
        Args:
            precision: the low one of the menu: tf32, fp16 or bf16; fp32 for a menu of FP32 alone.
            part: of the network; None for the whole.
        """
        self.precision = precision
        self._network, self._rounding = program.network, program.rounding
        self._switches: dict[str, _Switches] = {}
        self.part = part or whole(program)
        self._layers = tuple(all_layers(self.part.layers))
        at = 0
        for layer in self._layers:
            gates = len(self._rounding.sites(layer, precision).gates) if precision != "fp32" else 0
            if gates:
                self._switches[layer.name] = _Switches(at, gates)
                at += len(_SELECTORS) + gates
        self._flags = at
        self._used: dict[str, tuple[ir.Value, str]] = {}
        nodes = self._emit(self.part.layers)
        inputs = [_described(value) for value in self.part.reads]
        if at:
            inputs.append(onnx.helper.make_tensor_value_info(FLAGS, onnx.TensorProto.BOOL, [at]))
        for value in self.part.returns:
            if value.is_initializer():
                self._used[value.name or ""] = (value, "")
        self._names = list(dict.fromkeys(value.name or "" for value in self.part.returns))
        outputs = [onnx.ValueInfoProto(name=value.name) for value in self.part.returns]
        protos, shared = program.weights.protos(self._used)
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in self._network.ir.opset_imports.items()]
        model = onnx.ModelProto(
            ir_version=_IR_VERSION, opset_import=opsets,
            graph=onnx.GraphProto(name="gated", node=nodes, input=inputs, output=outputs, initializer=protos),
        )  # fmt: skip
        try:
            self._session = build(
                model.SerializeToString(), shared, threads=program.threads, libraries=program.libraries
            )
        except Exception as error:
            raise self._explained(error, "build the network") from error

    def takes(self, plans: Mapping[str, Plan]) -> bool:
        """Whether an assignment lies inside the menu: FP32 and this low precision, tactic exact."""
        menu = {"fp32", self.precision}
        return all(
            plan.choice.tactic == EXACT and (plan.form == "plain" or plan.choice.precision in menu)
            for plan in plans.values()
        )

    def flags(self, plans: Mapping[str, Plan]) -> np.ndarray:
        """An assignment as the session takes it: bool [switches]."""
        flags = np.zeros(self._flags, np.bool_)
        for name, switch in self._switches.items():
            plan = plans[name]
            first = switch.first + len(_SELECTORS)
            flags[switch.first : first] = [plan.form == form for form in _SELECTORS]
            if plan.gates:
                flags[first : first + switch.gates] = plan.gates
        return flags

    def run(self, feeds: Mapping[str, onnxruntime.OrtValue], flags: np.ndarray) -> dict[str, onnxruntime.OrtValue]:
        """What the part returns, by name.

        Raises:
            InputError: ONNX Runtime fails.
        """
        given = dict(feeds)
        if self._flags:
            given[FLAGS] = to_value(flags)
        try:
            results = self._session.run_with_ort_values(self._names, given)
        except Exception as error:
            raise self._explained(error, "run the network") from error
        return dict(zip(self._names, results, strict=True))

    # --- building ----------------------------------------------------------------------------------------------------

    def _emit(self, layers: Sequence[Layer]) -> list[onnx.NodeProto]:
        nodes: list[onnx.NodeProto] = []
        for layer in layers:
            nodes.extend(self._branching(layer) if layer.kind == "if" else self._gated(layer))
        return nodes

    def _gated(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        switch = self._switches.get(layer.name)
        if not layer.outputs:
            return  # nobody reads what it makes, and an If returns at least one value
        if switch is None or any(value.dtype is not None and value.dtype.name in _NO_BRANCH for value in layer.outputs):
            # General is every form at once: which roundings happen is in the gates.
            first = switch.first + len(_SELECTORS) if switch is not None else 0
            yield from self._emitter(layer, "general" if switch is not None else "plain", "", first).nodes
            return
        forms: list[Form] = list(_SELECTORS)
        if self._rounding.sites(layer, self.precision).weights:
            forms.append("general")
        rest = self._form(layer, forms.pop(), switch)
        for position in reversed(range(len(forms))):
            outputs = [
                (value.name or "") + (f"|not {forms[position - 1]}" if position else "") for value in layer.outputs
            ]
            flag = f"probe:{forms[position]}|{layer.name}"
            chosen = onnx.helper.make_node("If", [flag], outputs)
            chosen.attribute.append(
                onnx.helper.make_attribute("then_branch", self._form(layer, forms[position], switch))
            )
            chosen.attribute.append(onnx.helper.make_attribute("else_branch", rest))
            nodes = [*_flag(switch.first + position, flag), chosen]
            if not position:
                yield from nodes
            rest = onnx.GraphProto(
                name=f"not {forms[position - 1]}",
                node=nodes,
                output=[onnx.ValueInfoProto(name=name) for name in outputs],
            )

    def _form(self, layer: Layer, form: Form, switch: _Switches) -> onnx.GraphProto:
        emitted = self._emitter(layer, form, f"|{form}", switch.first + len(_SELECTORS))
        outputs = [onnx.ValueInfoProto(name=emitted.names[id(value)]) for value in layer.outputs]
        return onnx.GraphProto(name=form, node=emitted.nodes, output=outputs, value_info=emitted.shapes)

    def _emitter(self, layer: Layer, form: Form, suffix: str, first_gate: int) -> Emitted:
        sites = self._rounding.sites(layer, self.precision)
        emitted = LayerEmitter(
            layer, form, self.precision, sites, opset=self._network.opset, suffix=suffix, first_gate=first_gate
        ).emit()
        self._used |= emitted.weights
        return emitted

    def _branching(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        node = layer.nodes[0]
        bodies = bodies_of(node)
        branches: dict[str, onnx.GraphProto] = {}
        for attribute, body in bodies.items():
            nodes = self._emit(layer.branches[attribute])
            outputs = []
            for position, value in enumerate(body.outputs):
                name = value.name or ""
                maker = value.producer()
                if value.is_initializer():
                    self._used[name] = (value, "")
                if maker is None or maker.graph is not body:  # a branch must make what it returns
                    copy = f"probe:{position}|{layer.name}/{attribute}"
                    nodes.append(onnx.helper.make_node("Identity", [name], [copy]))
                    name = copy
                outputs.append(onnx.ValueInfoProto(name=name))
            branches[attribute] = onnx.GraphProto(name=body.name or attribute, node=nodes, output=outputs)
        condition = node.inputs[0]
        assert condition is not None
        if condition.is_initializer():
            self._used[condition.name or ""] = (condition, "")
        outputs = [value.name or "" for value in node.outputs]
        chosen = onnx.helper.make_node("If", [condition.name or ""], outputs)
        chosen.attribute.extend(onnx.helper.make_attribute(name, graph) for name, graph in branches.items())
        yield chosen

    def _explained(self, error: Exception, doing: str) -> Exception:
        return explain(error, self._network.model, doing) if is_ort_error(error) else error


def whole(program: Program) -> Part:
    """All of a network."""
    graph = program.network.graph
    inputs = tuple(value for value in graph.inputs if not value.is_initializer())
    return Part(tuple(program.layers), inputs, tuple(graph.outputs))


def _flag(index: int, name: str) -> Iterator[onnx.NodeProto]:
    yield constant_node(f"{name}|at", np.int64(index))
    yield onnx.helper.make_node("Gather", [FLAGS, f"{name}|at"], [name])


def _described(value: ir.Value) -> onnx.ValueInfoProto:
    """A graph input without a shape: what is fed decides."""
    info = onnx.ValueInfoProto(name=value.name or "")
    if value.type is not None:
        info.type.CopyFrom(ir.type_proto(value.type))
    return info
