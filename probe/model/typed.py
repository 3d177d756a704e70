"""A strongly typed model as an FP32 graph that computes the same: every tensor declared FP16 or BF16 is rounded where it is made.

ONNX Runtime's CPU provider computes FP16 graphs in FP32 and so shows neither overflow nor rounding; a pair of Casts, FP32 -> FP16 -> FP32, it
honours at every optimisation level. With such a pair behind everything declared low, it computes what the types say.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from probe.errors import InputError
from probe.model.annotated import annotate, values_of
from probe.model.graphs import graphs_of
from probe.model.load import read_model
from probe.model.model import Model
from probe.model.scopes import is_constant
from probe.model.upcast import upcast

_HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
_PRECISION = {"float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True)
class Typed:
    """What ``typed_model`` made.

    Attributes:
        model: FP32 throughout; its tensors have the names of the original.
        original: what it stands for, local functions inlined.
        stored: recorded name of a tensor -> fp16 or bf16, for those stored so.
        unknown: tensors of which no type is known, and which are therefore not rounded.
    """

    model: Model
    original: Model
    stored: dict[str, str]
    unknown: tuple[str, ...]


def typed_model(model: Model) -> Typed:
    """Make the roundings that a model's types imply explicit.

    Raises:
        InputError: the graph uses the bits of half-precision numbers, or onnx-ir cannot represent the model.
    """
    declared = annotate(model)
    model = declared.model
    stored: dict[str, str] = {}
    unknown: list[str] = []
    for name, values in declared.tensors.items():
        for value in values:
            if value.type is None:
                unknown.append(name)
            elif isinstance(value.type, ir.TensorType) and (half := _half_of(value.type.dtype)):
                stored[name] = _PRECISION[half]
    if not stored:
        return Typed(model, model, stored, tuple(unknown))
    wide = upcast(model)
    rounding = annotate(wide)
    _round_all(rounding.ir, declared.ir)
    try:
        content = ir.to_proto(rounding.ir).SerializeToString()
    except ir.serde.SerdeError as error:
        raise InputError(f"onnx-ir cannot write the model: {error}", where=str(model.path)) from None
    made = read_model(
        model.path, memoryview(content), content=content, base_dir=wide.base_dir, origin="typed", source=wide
    )
    return Typed(made, model, stored, tuple(unknown))


def _half_of(dtype: ir.DataType) -> str:
    return next((name for name, half in _HALVES.items() if half == dtype), "")


def _round_all(wide: ir.Model, declared: ir.Model) -> None:
    """Put a pair of Casts behind every value that a node of ``wide`` makes and ``declared``, the same graph, stores in half precision.

    What graphs and bodies are fed needs none: it was rounded where it was made, or comes from the user in its type.
    """
    taken = {value.name for graph in graphs_of(wide.graph) for value in values_of(graph)}
    pairs = list(zip(graphs_of(wide.graph), graphs_of(declared.graph), strict=True))
    for graph, like in pairs:
        for node, typed in list(zip(graph, like, strict=True)):
            for value, declaration in zip(node.outputs, typed.outputs, strict=True):
                if value.name and (half := _half_to_round(declaration)):
                    _round_output(graph, node, value, half, taken)


def _half_to_round(declared: ir.Value) -> ir.DataType | None:
    """The half-precision type of a value that is computed; weights and constants are exact as they are."""
    node = declared.producer()
    if declared.is_initializer() or (
        node is not None and node.op_type == "Constant" and node.domain in ("", "ai.onnx")
    ):
        return None
    kind = declared.type
    return kind.dtype if isinstance(kind, ir.TensorType) and kind.dtype in _HALVES.values() else None


def _round_output(graph: ir.Graph, node: ir.Node, value: ir.Value, half: ir.DataType, taken: set[str | None]) -> None:
    name = value.name
    value.name = _unused(f"{name}|unrounded", taken)
    graph.insert_after(node, _pair(value, half, name or "", taken))


def _pair(value: ir.Value, half: ir.DataType, name: str, taken: set[str | None]) -> list[ir.Node]:
    """Two Casts that make ``name`` of ``value`` for everyone who reads or returns it."""
    low = ir.Value(name=_unused(f"{name}|{half.name.lower()}", taken), type=ir.TensorType(half), shape=value.shape)
    rounded = ir.Value(name=name, type=value.type, shape=value.shape)
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    down = ir.node("Cast", [value], {"to": int(half)}, outputs=[low], name=low.name)
    up = ir.node(
        "Cast", [low], {"to": int(ir.DataType.FLOAT)}, outputs=[rounded], name=_unused(f"{name}|rounded", taken)
    )
    return [down, up]


def _unused(wanted: str, taken: set[str | None]) -> str:
    fresh, number = wanted, 1
    while fresh in taken:
        number += 1
        fresh = f"{wanted}'{number}"
    taken.add(fresh)
    return fresh


def makers_of(model: Model) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Recorded name -> identities of the nodes that make the tensor, recorded names of what they read; in execution order."""
    from probe.model.names import TensorNames

    names = TensorNames(model.root)
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for step in model.root.in_execution_order():
        if is_constant(step):
            continue
        reads = names.reads(step)
        for output in step.outputs:
            nodes, before = found.get(names.of(step.scope, output), ((), ()))
            found[names.of(step.scope, output)] = (
                tuple(dict.fromkeys((*nodes, step.identity))),
                tuple(dict.fromkeys((*before, *reads))),
            )
    return found
