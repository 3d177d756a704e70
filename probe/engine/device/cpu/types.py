"""Types of what operators make that onnx has no definition of (custom ones, ONNX Runtime's own), asked of ONNX Runtime node by node.

Without a type nobody knows that a tensor is to be rounded, nor what to declare where it enters a session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import onnx

from probe import ir
from probe.engine.device.cpu.session import build
from probe.engine.network import Network, bodies_of
from probe.ort.errors import is_ort_error

_IR_VERSION = 10
_TYPE = re.compile(r"(?P<kind>tensor|seq|optional)\((?P<inner>.*)\)")
# How ONNX Runtime spells element types where onnx's enumeration does not spell them so.
_SPELT = {"float": "FLOAT", "double": "DOUBLE"}


def complete_types(network: Network, libraries: Sequence[Path] = ()) -> None:
    """Give a type to every value that has none, as far as ONNX Runtime knows it. What nobody knows stays without.

    Args:
        libraries: of custom operators.
    """
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in network.ir.opset_imports.items()]
    _Asking(opsets, libraries).graph(network.graph)


class _Asking:
    def __init__(self, opsets: Sequence[onnx.OperatorSetIdProto], libraries: Sequence[Path]) -> None:
        self._opsets, self._libraries = opsets, libraries
        self._known: dict[bytes, list[str]] = {}  # graph of one node -> types of its outputs

    def graph(self, graph: ir.Graph) -> None:
        for node in graph:
            for body in bodies_of(node).values():
                self.graph(body)
            untyped = [value for value in node.outputs if value.name and value.type is None]
            if not untyped:
                continue
            if bodies_of(node):
                _take_from_body(node)
            elif all(value is None or _type_of(value) is not None for value in node.inputs):
                made = [value for value in node.outputs if value.name]
                for value, text in zip(made, self._ask(node), strict=False):
                    if value.type is None:
                        value.type = _parsed(text)

    def _ask(self, node: ir.Node) -> list[str]:
        """Types of a node's outputs in ONNX Runtime's words; none where it refuses the node, which whoever runs it will report."""
        proto = ir.node_proto(node)
        proto.name = ""
        del proto.input[:], proto.output[:]
        proto.input.extend("" if value is None else f"i{at}" for at, value in enumerate(node.inputs))
        proto.output.extend(f"o{at}" if value.name else "" for at, value in enumerate(node.outputs))
        inputs = []
        for at, value in enumerate(node.inputs):
            kind = _type_of(value)
            if kind is not None:
                inputs.append(onnx.ValueInfoProto(name=f"i{at}", type=ir.type_proto(kind)))
        outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
        graph = onnx.GraphProto(name="node", node=[proto], input=inputs, output=outputs)
        model = onnx.ModelProto(ir_version=_IR_VERSION, opset_import=self._opsets, graph=graph).SerializeToString()
        if model not in self._known:
            try:
                session = build(model, {}, threads=1, libraries=self._libraries)
            except Exception as error:
                if not is_ort_error(error):
                    raise
                self._known[model] = []
            else:
                self._known[model] = [output.type for output in session.get_outputs()]
        return self._known[model]


def _type_of(value: ir.Value | None) -> ir.Type | None:
    if value is not None and value.type is None and value.const_value is not None:
        return ir.TensorType(value.const_value.dtype)
    return value.type if value is not None else None


def _take_from_body(node: ir.Node) -> None:
    """If, Loop and Scan return what their bodies return; a Loop's body returns its condition first."""
    results = list(next(iter(bodies_of(node).values())).outputs)[1 if node.op_type == "Loop" else 0 :]
    for value, inner in zip(node.outputs, results, strict=False):
        if value.type is None:
            value.type = inner.type


def _parsed(text: str) -> ir.Type | None:
    """``tensor(float)``, ``seq(tensor(float))``: as onnx-ir has it; None for maps and opaque values."""
    match = _TYPE.fullmatch(text)
    if match is None:
        return None
    if match["kind"] == "tensor":
        element = ir.DataType.__members__.get(_SPELT.get(match["inner"], match["inner"].upper()))
        return ir.TensorType(element) if element is not None else None
    inner = _parsed(match["inner"])
    if inner is None:
        return None
    return ir.SequenceType(inner) if match["kind"] == "seq" else ir.OptionalType(inner)
