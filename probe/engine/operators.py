"""What the compiler makes of each operator of the ONNX standard: its kind, what it does to numbers, the tactics that compute it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from probe import ir
from probe.engine.assignment import RUN_PRECISIONS
from probe.engine.fusion.kinds import is_movement, kind_of
from probe.engine.layers import Layer
from probe.engine.rounding import is_exact
from probe.engine.tactics import TACTICS, candidates
from probe.results.ops import OpNumerics

_FLOATS = ("tensor(float)", "tensor(double)")


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator as the compiler sees it.

    Attributes:
        op: its name.
        domain: "" for the standard's own.
        since: version of its domain that it has had this form since; 0 where onnx does not define it.
        kind: as of a layer.
        numerics: ``rounds`` what it makes; ``exact``: rounded inputs make a rounded result; ``moves`` values unchanged; ``integers``: it
            makes no floating-point tensor; ``bodies``: what stands in its bodies decides. With attributes at their defaults.
        tactics: that can compute it, in any precision.
    """

    op: str
    domain: str
    since: int
    kind: str
    numerics: OpNumerics
    tactics: tuple[str, ...]


def operators(opset: int) -> Iterator[Operator]:
    """Every operator of the standard and its extensions (ai.onnx.ml, previews) at a version of the standard operators, by domain and name."""
    newest: dict[tuple[str, str], onnx.defs.OpSchema] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        known = newest.get((schema.domain, schema.name))
        if (schema.domain or schema.since_version <= opset) and (
            known is None or known.since_version < schema.since_version
        ):
            newest[schema.domain, schema.name] = schema
    for (domain, op), schema in sorted(newest.items()):
        if not schema.deprecated:
            yield operator(op, domain, schema)


def find_operator(op: str, domain: str, opset: int) -> Operator:
    """An operator by name; one that onnx does not define is ``other`` and rounds."""
    try:
        schema = onnx.defs.get_schema(op, domain) if domain else onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        schema = None
    return operator(op, domain, schema)


def operator(op: str, domain: str, schema: onnx.defs.OpSchema | None) -> Operator:
    """What is known of an operator, asked of the compiler with a node on float32 tensors."""
    node = _example(op, domain)
    kind = kind_of(node)
    layer = Layer(op, kind, "", (node,), (op,), (), (), (), ())
    able = {name for precision in RUN_PRECISIONS for name in candidates(layer, precision)}
    tactics = tuple(tactic.name for tactic in TACTICS if tactic.name in able)
    return Operator(op, domain, schema.since_version if schema else 0, kind, _numerics(node, kind, schema), tactics)


def _numerics(node: ir.Node, kind: str, schema: onnx.defs.OpSchema | None) -> OpNumerics:
    if kind in ("if", "loop"):
        return "bodies"
    if is_movement(node):
        return "moves"
    if schema is not None and not any(kind in text for kind in _FLOATS for one in schema.outputs for text in one.types):
        return "integers"
    return "exact" if is_exact(node) else "rounds"


def _example(op: str, domain: str) -> ir.Node:
    kind = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=f"x{at}", type=kind) for at in range(2)]
    node = ir.Node(domain, op, inputs, name=op)
    node.outputs[0].name, node.outputs[0].type = "y", kind
    return node
