"""Constant folding: what depends on constants only is computed at build time, in float64, and rounded once to its declared type."""

from __future__ import annotations

import numpy as np

from probe import ir
from probe.engine.passes.edit import Edit
from probe.engine.passes.extents import FOLLOWED, known_integers
from probe.engine.passes.foldable import FOLDABLE, NotFoldable, evaluate, is_too_much_work
from probe.engine.passes.reading import alive, all_nodes, is_standard, static_shape
from probe.engine.passes.shapes import infer_node
from probe.engine.passes.weights import FLOATS, INTEGERS, stored

_GROWTH = 16  # results more than so many times larger than what they are made of stay computed,
_ALWAYS = 1 << 20  # unless they are smaller than this, in bytes
_WORK = 10**9  # multiplications of one matrix product: about half a second
_OPEN = frozenset(("NonZero", "Compress"))  # shapes depend on values, and are no larger than a few times the input


def fold_constants(edit: Edit) -> None:
    """Level safe: every runtime does it. A chain of nodes is one evaluation: what is between them is float64 and only what a remaining
    node reads is rounded. Integers exactly.

    Left alone: random and custom operators, If, Loop, Scan, quantisation (a weight stays with its DequantizeLinear), graph outputs, and
    results much larger than what they are made of (Expand, Tile, ConstantOfShape).
    """
    for node in all_nodes(edit.network):
        if not alive(node) or node.op_type not in FOLDABLE or not is_standard(node) or not _is_free(node):
            continue
        if all(value is None or stored(value) is not None for value in node.inputs):
            _fold(edit, node)
        elif node.op_type in FOLLOWED:
            _fold_extents(edit, node)


def _is_free(node: ir.Node) -> bool:
    """Whether a node's results may become initialisers: an output of a graph must be made by one of its nodes."""
    return bool(node.outputs) and not any(value.is_graph_output() for value in node.outputs)


def _fold(edit: Edit, node: ir.Node) -> None:
    versions = dict(edit.network.ir.opset_imports)
    types = _result_types(node, versions)
    if types is None or _is_too_large(node, versions) or is_too_much_work(node, _WORK):
        return
    try:
        results = evaluate(node, edit.network.opset, types)
    except NotFoldable as reason:
        edit.note(f"{node.name} depends on constants only and stays: {reason}")
        return
    if edit.take(f"computes {node.name}: {_shown(results[0])}", [node]):
        _replace(edit, node, results, types)


def _fold_extents(edit: Edit, node: ir.Node) -> None:
    """Lengths that are numbers, though other dimensions of the same tensor are not."""
    known, dtype = known_integers(node.outputs[0]), node.outputs[0].dtype
    if known is None or dtype is None or dtype not in INTEGERS or any(number is None for number in known.flat):
        return
    values = known.astype(dtype.numpy())
    if edit.take(f"computes {node.name}: {_shown(values)}", [node]):
        _replace(edit, node, [values], [dtype])


def _replace(edit: Edit, node: ir.Node, results: list[np.ndarray], types: list[ir.DataType]) -> None:
    read = list(dict.fromkeys(node.inputs))
    for value, values, dtype in zip(node.outputs, results, types, strict=True):
        if value.uses():
            value.replace_all_uses_with(edit.weight(value.name or "", values, dtype, fresh=False))
        edit.network.fold(value, edit.by)
    edit.remove(node)
    for value in read:
        edit.release(value)


def _result_types(node: ir.Node, versions: dict[str, int]) -> list[ir.DataType] | None:
    types = [value.dtype for value in node.outputs]
    if None in types:
        types = [
            ir.DataType(one.tensor_type.elem_type) if one is not None else None for one in infer_node(node, versions)
        ]
    known = [dtype for dtype in types if dtype is not None and dtype in FLOATS | INTEGERS]
    return known if len(known) == len(types) else None


def _is_too_large(node: ir.Node, versions: dict[str, int]) -> bool:
    made = 0
    for at, value in enumerate(node.outputs):
        shape = static_shape(value)
        if shape is None:
            found = infer_node(node, versions)[at]
            known = ir.read_shape(found) if found is not None else None
            if known is None or not known.is_static():
                if node.op_type in _OPEN:
                    continue
                return True  # cannot tell before it is there
            shape = known.numpy()
        made += int(np.prod(shape, dtype=np.float64)) * 8
    used = sum(values.nbytes for value in node.inputs if (values := stored(value)) is not None)
    return made > max(_GROWTH * used, _ALWAYS)


def _shown(values: np.ndarray) -> str:
    if values.size <= 4:
        return str(values.tolist())
    return f"{values.dtype} of shape {list(values.shape)}"
