"""Shapes and types again, after passes: a Reshape whose target became a constant has a known shape now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe import ir
from probe.engine.network import Network, bodies_of
from probe.engine.passes.extents import known_integers
from probe.engine.passes.reading import dims, integer, is_op, is_standard

if TYPE_CHECKING:
    import onnx

_FLOWS = frozenset(("If", "Loop", "Scan"))  # their shapes come out of their bodies, which a node at a time cannot see
# Inference functions that ask for the type of an input without asking whether it is known; they take the process down.
_FRAGILE = frozenset(("EyeLike", "RegexFullMatch"))
_SMALL = 1024  # elements: what may be a shape, a list of axes, repeats


def infer_shapes(network: Network) -> None:
    """Infer, node by node, the outputs whose shape is not known in full. Weights are not touched: ``ShapeInferencePass`` would write and
    parse the whole graph each time, and touch every initialiser."""
    versions = dict(network.ir.opset_imports)
    _infer(network.graph, versions)


def _infer(graph: ir.Graph, versions: dict[str, int]) -> None:
    for node in graph:
        for body in bodies_of(node).values():
            _infer(body, versions)
        if all(
            value.type is not None and value.shape is not None and value.shape.is_static() for value in node.outputs
        ):
            continue
        for value, found in zip(node.outputs, infer_node(node, versions), strict=True):
            if found is not None:
                _refine(value, found)
        if is_op(node, "Reshape") and not node.inputs[1].is_initializer():  # type: ignore[union-attr]
            _reshape(node)


def infer_node(node: ir.Node, versions: dict[str, int]) -> list[onnx.TypeProto | None]:
    """Types of what a node makes, from the types of what it reads and the values of its small constants; None for each not known."""
    import onnx

    unknown: list[onnx.TypeProto | None] = [None] * len(node.outputs)
    if not is_standard(node) or node.op_type in _FLOWS:
        return unknown
    if node.op_type in _FRAGILE and any(value is not None and value.type is None for value in node.inputs):
        return unknown
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get("", 1), "")
    except onnx.defs.SchemaError:
        return unknown
    proto = ir.node_proto(node)
    proto.input[:] = ["" if value is None else f"i{at}" for at, value in enumerate(node.inputs)]
    proto.output[:] = [f"o{at}" for at in range(len(node.outputs))]
    types, data = {}, {}
    for name, value in zip(proto.input, node.inputs, strict=True):
        if value is None:
            continue
        types[name] = _type_proto(value)
        constant = value.const_value if value.is_initializer() else None
        if constant is not None and constant.size <= _SMALL and types[name].HasField("tensor_type"):
            data[name] = ir.tensor_proto(constant)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    try:
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return unknown  # a branch that never runs may hold what does not fit; ONNX Runtime says so if it runs
    return [found.get(name) for name in proto.output]


def _reshape(node: ir.Node) -> None:
    """A target that is computed from the shapes of what is fed: its length is the rank, and some of it may be numbers."""
    target = known_integers(node.inputs[1])
    if target is None or target.ndim != 1:
        return
    read = dims(node.inputs[0]) or ()
    copies = integer(node, "allowzero", 0) == 0
    sizes = [
        (read[at] if at < len(read) else None)
        if size == 0 and copies
        else size
        if size is not None and size >= 0
        else None
        for at, size in enumerate(target)
    ]
    _add(node.outputs[0], ir.Shape(sizes))


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    import onnx

    if value.type is None:
        return onnx.TypeProto()
    return ir.type_proto(value.type, value.shape if type(value.type) is ir.TensorType else None)


def _refine(value: ir.Value, found: onnx.TypeProto) -> None:
    """Add what was found to what is known; what is known stays."""
    kind = ir.read_type(found)
    if value.type is None:
        value.type = kind
    shape = ir.read_shape(found)
    if shape is not None and kind == value.type:
        _add(value, shape)


def _add(value: ir.Value, shape: ir.Shape) -> None:
    if value.shape is None:
        value.shape = shape
    elif len(value.shape) == len(shape):
        value.shape = ir.Shape(
            [
                mine if isinstance(mine, int) else new if isinstance(new, int) else mine
                for mine, new in zip(value.shape, shape, strict=True)
            ]
        )
