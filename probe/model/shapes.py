"""Types and shapes of all tensors, by ONNX's own inference; and the conflicts it finds.

Inference runs on the outline of the model (``wire.py``), where large weights have type and dims but no data, so its cost follows
the number of nodes and not the size of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.external import is_external
from probe.model.scopes import Scope, Step

if TYPE_CHECKING:
    import onnx

# One line an error; a conflict inside a body comes wrapped in one of the node that owns it, so the last match of a line counts.
_CONFLICT = re.compile(r".*\(op_type:([^,)]+)(?:, node name: (.*?))?\): (?:\[(\w+)\] )?(.*)")
# Inference wanted the data of a tensor that is large or external. ONNX Runtime will check with the data at hand.
_NEEDS_DATA = re.compile(
    r"Cannot parse data from external|external (data|tensor)|data type of initializer", re.IGNORECASE
)

# Their inference functions read the type of an input without asking whether it is known, and take the process down with them.
_FRAGILE = frozenset(("DictVectorizer", "EyeLike", "LabelEncoder", "RegexFullMatch", "TreeEnsemble"))
_HIDDEN = "probe.hidden"

_INDEX_TYPES = (6, 7)  # int32, int64
_SMALL = 1024  # elements
_INLINED = (
    "shapes depend on small constants in external data, which ONNX Runtime cannot use; they are read into the model"
)


def infer_types(proto: onnx.ModelProto, root: Scope, path: str, folder: Path) -> tuple[list[str], bool]:
    """Fill ``types`` of every scope with what inference finds.

    Models with custom operators are not checked for conflicts: what those make is unknown, and onnx then keeps its errors to itself.

    Args:
        proto: holds the graph of ``root``, nodes sorted, data sizes checked.
        path: of the model, for errors.
        folder: where its external data lies; small integer tensors such as Reshape targets are read from there if need be.

    Returns:
        Notes, such as declared shapes that are wrong and were ignored, as ONNX Runtime ignores them; and whether small constants
        had to be read from external data, where ONNX Runtime does not find them.

    Raises:
        InputError: two tensors of one node do not fit together, or a node's inputs have types it does not take.
    """
    copy = _prepare(proto, root)
    hidden = _hide_fragile(copy, root)
    notes: list[str] = []
    while True:
        found = _infer_strictly(copy, root, path, folder)
        notes = notes or found
        still = [entry for entry in hidden if not _reveal(*entry)]
        if len(still) == len(hidden):
            return notes, _INLINED in notes
        hidden = still


def _infer_strictly(copy: onnx.ModelProto, root: Scope, path: str, folder: Path) -> list[str]:
    import onnx

    try:
        _adopt(_infer(copy, path, strict=True), root)
        return []
    except onnx.shape_inference.InferenceError as error:
        first = error
    if _NEEDS_DATA.search(str(first)) and inline_indices(copy.graph, folder):
        return [_INLINED, *_infer_strictly(copy, root, path, folder)]
    # Exporters and batch-size edits leave declarations behind that contradict the graph. Without them, is there still a conflict?
    _drop_declarations(copy.graph)
    for scope in root.walk():
        _forget_shapes(scope)
    try:
        _adopt(_infer(copy, path, strict=True), root)
    except onnx.shape_inference.InferenceError as error:
        conflicts = [match for match in _CONFLICT.finditer(str(error)) if not _NEEDS_DATA.search(match.group(4))]
        if conflicts:
            raise _describe(conflicts, path) from None
        if not _NEEDS_DATA.search(str(error)):
            text = str(error).strip().removeprefix("[ShapeInferenceError] ").removeprefix("[TypeInferenceError] ")
            raise _rejected(text, path) from None
        _adopt(_infer(copy, path, strict=False), root)
        return []
    match = _CONFLICT.search(str(first))
    if match is None or _NEEDS_DATA.search(match.group(4)):
        return []
    name = match.group(2) or f"of type {match.group(1)}"
    return [f"declared shapes contradict the graph and are ignored (first at node {name}: {_conflict_text(match)})"]


def inline_indices(graph: onnx.GraphProto, folder: Path) -> bool:
    """Read small external integer tensors (Reshape targets, Slice bounds) into a graph and its bodies. Returns whether there were any.

    ONNX Runtime refuses a model in which they are external and shape inference needs them.
    """
    import onnx

    fetched = False
    for tensor in graph.initializer:
        if tensor.data_type in _INDEX_TYPES and math.prod(tensor.dims) <= _SMALL and is_external(tensor):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor, str(folder)), tensor.name))
            fetched = True
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                fetched |= inline_indices(attribute.g, folder)
    return fetched


def _rejected(text: str, path: str) -> InputError:
    return InputError(
        f"the types and shapes of the model do not fit: {text}", where=path, hint="export the model again"
    )


def _infer(proto: onnx.ModelProto, path: str, *, strict: bool) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=False)
    except (
        ValueError,
        IndexError,
        onnx.checker.ValidationError,
    ) as error:  # types that no release has given out, and such
        raise _rejected(str(error), path) from None


def _hide_fragile(copy: onnx.ModelProto, root: Scope) -> list[tuple[onnx.NodeProto, Step]]:
    """Turn nodes whose inference would crash on an input of unknown type into custom ones, which inference skips."""
    hidden = []
    for graph, scope in _pairs(copy.graph, root):
        for node, step in zip(graph.node, scope.steps, strict=True):
            if node.op_type in _FRAGILE and node.domain in ("", "ai.onnx.ml"):
                node.domain = _HIDDEN
                hidden.append((node, step))
    if hidden:
        copy.opset_import.add(domain=_HIDDEN, version=1)
    return hidden


def _reveal(node: onnx.NodeProto, step: Step) -> bool:
    """Undo ``_hide_fragile`` for a node if the types of all its inputs are known by now."""
    for name in step.inputs:
        home = step.scope.find(name)
        if home is None or not (
            name in home.initialisers or (name in home.types and home.types[name].WhichOneof("value"))
        ):
            return False
    node.domain = "" if step.node.domain == "ai.onnx" else step.node.domain
    return True


def _forget_shapes(scope: Scope) -> None:
    """Drop what inference will find again; declarations of custom operators' outputs are all there is and stay."""
    for name, step in scope.producers.items():
        if step.node.domain in ("", "ai.onnx", "ai.onnx.ml"):
            scope.types.pop(name, None)


def _prepare(proto: onnx.ModelProto, root: Scope) -> onnx.ModelProto:
    """A copy in which errors can name unnamed nodes, and in which inference does not stumble over what ONNX Runtime accepts."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    imported = {entry.domain for entry in copy.opset_import}
    for entry in copy.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    for graph, scope in _pairs(copy.graph, root):
        for node, step in zip(graph.node, scope.steps, strict=True):
            node.name = step.identity
            if node.domain == "ai.onnx":
                node.domain = ""
            if node.domain not in imported and node.domain != "":
                imported.add(node.domain)
                version = onnx.defs.onnx_ml_opset_version() if node.domain == "ai.onnx.ml" else 1
                copy.opset_import.add(domain=node.domain, version=version)
            if node.op_type == "MeanVarianceNormalization" and not node.domain:
                _say_axes(node)
    return copy


def _say_axes(node: onnx.NodeProto) -> None:
    """onnx infers nothing for the operator's function body unless the attribute stands there; these are its default."""
    import onnx

    if all(attribute.name != "axes" for attribute in node.attribute):
        node.attribute.append(onnx.helper.make_attribute("axes", [0, 2, 3]))


def _pairs(graph: onnx.GraphProto, scope: Scope) -> Iterator[tuple[onnx.GraphProto, Scope]]:
    """Every graph of a copy beside the scope it is a copy of."""
    yield graph, scope
    for node, step in zip(graph.node, scope.steps, strict=True):
        bodies = iter(step.bodies)
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _pairs(body, next(bodies))


def _drop_declarations(graph: onnx.GraphProto) -> None:
    """Remove declared shapes of whatever a node makes; types of graph outputs stay, and everything about custom operators."""
    custom = {name for node in graph.node if node.domain not in ("", "ai.onnx.ml") for name in node.output}
    kept = [value for value in graph.value_info if value.name in custom]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for value in graph.output:
        if value.name not in custom and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _drop_declarations(attribute.g)


def _adopt(inferred: onnx.ModelProto, root: Scope) -> None:
    for graph, scope in _pairs(inferred.graph, root):
        for declared in (graph.value_info, graph.input, graph.output):
            for value in declared:
                if value.HasField("type"):
                    scope.types[value.name] = value.type


def _describe(conflicts: list[re.Match[str]], path: str) -> InputError:
    first = conflicts[0]
    node = first.group(2) or f"of type {first.group(1)}"
    more = f" (and {len(conflicts) - 1} more, probably its consequences)" if len(conflicts) > 1 else ""
    kind = "types" if first.group(3) == "TypeInferenceError" else "shapes"
    return InputError(
        f"{kind} do not fit at node {node} ({first.group(1)}): {_conflict_text(first)}{more}",
        where=path,
        hint="check this node's inputs; if the model was edited, its tensors no longer belong together",
    )


def _conflict_text(match: re.Match[str] | None) -> str:
    return match.group(4).strip().removeprefix("[ShapeInferenceError] ").rstrip(".") if match else "unknown"
