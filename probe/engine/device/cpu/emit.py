"""A layer as ONNX nodes, in one of its forms. Both executors are made of these, which is why they agree bit for bit.

Where a rounding can be switched at run time (forms ``switched`` and ``general``) an If rounds or hands on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from probe import ir
from probe.engine.device.cpu.casts import constant_node, if_node, rounding_nodes
from probe.engine.device.cpu.unsigned import SHIFTED, write_unsigned
from probe.engine.layers import Layer
from probe.engine.rounding import Form, Sites, is_exact, is_float, multiplies

FLAGS = "probe:flags"  # bool vector: every switch of a session


@dataclass(slots=True)
class Emitted:
    """The nodes of a layer."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # value (by id) -> what the nodes call it
    weights: dict[str, tuple[ir.Value, str]] = field(
        default_factory=dict
    )  # initialiser to supply -> (weight, precision, SHIFTED or "")
    shapes: list[onnx.ValueInfoProto] = field(default_factory=list)  # for the graph to declare beside the nodes


class LayerEmitter:
    """Emits one layer in one form.

    Args:
        precision: of the layer; what the casts round to.
        opset: version of the standard operators that the graph declares.
        suffix: put behind the name of everything the nodes make, so that several forms fit into one graph.
        first_gate: where in ``FLAGS`` the switches of ``sites.gates`` begin.
    """

    def __init__(
        self,
        layer: Layer,
        form: Form,
        precision: str,
        sites: Sites,
        *,
        opset: int,
        suffix: str = "",
        first_gate: int = 0,
    ) -> None:
        self._layer, self._form, self._precision, self._sites = layer, form, precision, sites
        self._suffix, self._opset = suffix, opset
        self._gate_of = {(kind, id(value)): first_gate + at for at, (kind, value) in enumerate(sites.gates)}
        self._reads = {id(value) for value in sites.reads}
        self._weights = {id(value) for value in sites.weights}
        self._stores = {id(value) for value in sites.stores}
        self._rounded: set[int] = set()  # values whose name stands for something already rounded
        self._read_as: dict[int, str] = {}  # value -> its rounded form for readers
        self._temporary = 0
        self._made = Emitted()

    def emit(self) -> Emitted:
        """The layer's nodes; ``names`` has what it makes, stored form."""
        made = self._made
        self._read_at_start(made.nodes)
        for node in self._layer.nodes:
            self._node(node, made.nodes)
        return made

    # --- rounding ----------------------------------------------------------------------------------------------------

    @property
    def _rounds(self) -> bool:
        return self._form in ("low", "switched", "general")

    @property
    def _switches(self) -> bool:
        return self._form in ("switched", "general")

    def _read_at_start(self, out: list[onnx.NodeProto]) -> None:
        """Round what comes from outside once, before the nodes (and bodies) that read it."""
        if not self._rounds:
            return
        for value in self._layer.reads:
            at_edge = id(value) in self._sites.at_edge or self._precision == "tf32" or self._switches
            if id(value) in self._reads and at_edge:
                self._read_as[id(value)] = self._round(value.name or "", value, "read", out)
        for value in self._layer.weights:
            if id(value) in self._weights and self._form == "general":
                wide, low = self._weight(value, ""), self._weight(value, self._precision)
                flag, chosen = self._flag(("weight", value), out), self._fresh()
                out.append(if_node(flag, chosen, _copy(low), _copy(wide), self._fresh))
                self._read_as[id(value)] = chosen

    def _round(self, name: str, value: ir.Value, kind: str, out: list[onnx.NodeProto], target: str = "") -> str:
        """Nodes that round ``name``; what they call it. In the switched forms the switch of (kind, value) decides."""
        element = int(value.dtype or ir.DataType.FLOAT)
        target = target or self._fresh()

        def rounded(result: str) -> list[onnx.NodeProto]:
            return rounding_nodes(name, result, element, self._precision, self._opset, self._fresh)

        if self._switches:
            out.append(if_node(self._flag((kind, value), out), target, rounded, _copy(name), self._fresh))
        else:
            out.extend(rounded(target))
        return target

    def _flag(self, gate: tuple[str, ir.Value], out: list[onnx.NodeProto]) -> str:
        index, flag = self._fresh(), self._fresh()
        out += (
            constant_node(index, np.int64(self._gate_of[gate[0], id(gate[1])])),
            onnx.helper.make_node("Gather", [FLAGS, index], [flag]),
        )
        return flag

    def _weight(self, value: ir.Value, precision: str) -> str:
        name = weight_name(value, precision)
        self._made.weights[name] = (value, precision)
        return name

    def _fresh(self) -> str:
        self._temporary += 1
        return f"probe:{self._temporary}|{self._layer.name}{self._suffix}"

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _node(self, node: ir.Node, out: list[onnx.NodeProto]) -> None:
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, name=node.name or "")
        proto.input.extend(self._used(node, value, out) for value in node.inputs)
        out += write_unsigned(node, proto, self._fresh, lambda value: self._weight(value, SHIFTED))
        for attribute in node.attributes.values():
            proto.attribute.append(self._attribute(attribute))
        stored: list[tuple[ir.Value, str, str]] = []
        floats = [value for value in node.inputs if is_float(value)]
        # Without a float input nothing is known: SequenceAt reads a sequence, whose elements nobody rounds.
        skip = self._form == "low" and is_exact(node) and bool(floats) and all(
            id(v) in self._rounded or self._is_rounded_outside(v) for v in floats
        )  # fmt: skip
        for value in node.outputs:
            if not value.name:
                proto.output.append("")
                continue
            name = value.name + self._suffix
            self._made.names[id(value)] = name
            if self._rounds and id(value) in self._stores and not skip:
                raw = self._fresh()
                stored.append((value, raw, name))
                proto.output.append(raw)
            else:
                if skip:
                    self._rounded.add(id(value))
                proto.output.append(name)
        out.append(proto)
        self._made.shapes += _undo_inference(node, proto)
        for value, raw, name in stored:
            self._round(raw, value, "store", out, target=name)
            if self._form == "low":
                self._rounded.add(id(value))

    def _is_rounded_outside(self, value: ir.Value | None) -> bool:
        """Low form: what the layer reads is stored low already, or was rounded at the start."""
        return value is not None and (id(value) in self._reads or id(value) in self._weights)

    def _used(self, node: ir.Node, value: ir.Value | None, out: list[onnx.NodeProto]) -> str:
        if value is None:
            return ""
        if self._rounds and self._precision == "tf32" and is_float(value):
            if not multiplies(node):
                return self._plain(value)
            if id(value) not in self._read_as and not value.is_initializer() and id(value) in self._reads:
                # A tensor of the layer's own: rounded for this reader, stored as it is. Not shared: it may be made in a body.
                return self._round(self._plain(value), value, "read", out)
        if id(value) in self._read_as:
            return self._read_as[id(value)]
        if value.is_initializer():
            low = (
                self._rounds and id(value) in self._weights
            )  # general: those that readers share were picked at the start
            return self._weight(value, self._precision if low else "")
        return self._plain(value)

    def _plain(self, value: ir.Value) -> str:
        if value.is_initializer():
            return self._weight(value, "")
        return self._made.names.get(id(value)) or value.name or ""

    def _attribute(self, attribute: ir.Attr) -> onnx.AttributeProto:
        if attribute.type == ir.AttributeType.GRAPH:
            return onnx.helper.make_attribute(attribute.name, self._body(attribute.as_graph()))
        if attribute.type == ir.AttributeType.GRAPHS:
            return onnx.helper.make_attribute(attribute.name, [self._body(body) for body in attribute.as_graphs()])
        return ir.attribute_proto(attribute)

    def _body(self, graph: ir.Graph) -> onnx.GraphProto:
        nodes: list[onnx.NodeProto] = []
        inputs: list[onnx.ValueInfoProto] = []
        for value in graph.inputs:
            name = f"{value.name}{self._suffix}"
            self._made.names[id(value)] = name
            info = ir.value_proto(value)
            info.name = name
            inputs.append(info)
        outside, self._made.shapes = self._made.shapes, []
        for node in graph:
            self._node(node, nodes)
        shapes, self._made.shapes = self._made.shapes, outside
        outputs = []
        for value in graph.outputs:
            name = self._result(value, graph, nodes)
            outputs.append(onnx.ValueInfoProto(name=name, type=_type_of(value)))
        name = graph.name or "body"
        return onnx.GraphProto(name=name, node=nodes, input=inputs, output=outputs, value_info=shapes)

    def _result(self, value: ir.Value, graph: ir.Graph, nodes: list[onnx.NodeProto]) -> str:
        """What a body returns, under a name that the body itself makes."""
        node = value.producer()
        name = self._read_as.get(id(value)) or self._plain(value)
        if node is not None and node.graph is graph and id(value) not in self._read_as:
            return name
        copy = self._fresh()
        nodes.append(onnx.helper.make_node("Identity", [name], [copy]))
        return copy


def _copy(name: str) -> Callable[[str], list[onnx.NodeProto]]:
    return lambda target: [onnx.helper.make_node("Identity", [name], [target])]


def _undo_inference(node: ir.Node, proto: onnx.NodeProto) -> list[onnx.ValueInfoProto]:
    """Declarations against shapes that ONNX Runtime infers wrongly: a graph then refuses to return the value. Where a declared rank
    and an inferred one contradict each other, it takes the shape as unknown.

    Attention: the fourth output is inferred as a scalar.
    """
    if (
        node.op_type != "Attention"
        or node.domain not in ("", "ai.onnx")
        or len(proto.output) < 4
        or not proto.output[3]
    ):
        return []
    element = int(node.outputs[3].dtype or ir.DataType.FLOAT)
    return [onnx.helper.make_tensor_value_info(proto.output[3], element, [None] * 4)]


def weight_name(value: ir.Value, precision: str) -> str:
    """What a graph calls a weight, as it is (""), rounded or shifted."""
    return f"{value.name}|{precision}" if precision else value.name or ""


def _type_of(value: ir.Value) -> onnx.TypeProto | None:
    """The type without the shape: an inner shape that was inferred for one call need not hold for another."""
    if value.type is None:
        return None
    return ir.type_proto(value.type)
