"""Load an ONNX model: parse its outline, check every rule, sort, infer types. Weights are looked at, not read."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model import formats
from probe.model.check import check_loops, check_names, check_shadowing, check_text, order_nodes
from probe.model.elements import (
    BFLOAT16,
    DOUBLE,
    FLOAT,
    FLOAT16,
    UNKNOWN,
    element_name,
    elements_of,
    shape_of,
    type_name,
)
from probe.model.external import ExternalFiles
from probe.model.functions import check_functions
from probe.model.model import Half, Model, NodeInfo, Numerics, Port, Stamp, map_file
from probe.model.operators import check_operators, read_opsets
from probe.model.scopes import Scope, build_scopes, repeated_names
from probe.model.shapes import infer_types
from probe.model.weights import check_tensors, stored_tensors
from probe.model.wire import WireError, read_outline

if TYPE_CHECKING:
    import onnx

_PROTOBUF_LIMIT = 2**31 - 1  # bytes
_QUANTISING = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
                         "MatMulInteger"))  # fmt: skip


def load(path: str | Path) -> Model:
    """Read and check an ONNX model. Costs milliseconds whatever its size: weights are left on disk.

    Any opset from 7 that the installed onnx knows; external data; bodies of If, Loop and Scan; local functions; custom domains
    (listed in ``Model.custom_domains``). Nodes in the wrong order are sorted.

    Raises:
        InputError: not an ONNX model, damaged, or one that no runtime could run; says what, where and what to try.
    """
    path = Path(path)
    stamp = _regular_file(path)
    with map_file(path, stamp) as data:
        return read_model(path, data, stamp=stamp)


def read_model(
    path: Path,
    data: memoryview,
    *,
    stamp: Stamp | None = None,
    content: bytes | None = None,
    base_dir: Path | None = None,
    origin: str = "",
    source: Model | None = None,
    digest: str = "",
) -> Model:
    """``load`` for bytes already at hand; ``content`` is kept by the model when no file holds them.

    Args:
        digest: SHA-256 of the file that the model came from, where ``path`` is another.

    Raises:
        InputError: as ``load``.
    """
    where = str(path)
    proto = _parse(path, data)
    if not proto.HasField("graph"):
        raise InputError(
            "the file holds no graph: it is no ONNX model, or empty", where=where, hint="export the model again"
        )
    opset = read_opsets(proto, where)
    root = build_scopes(proto.graph)
    check_text(root, proto.functions, where)
    check_names(root, where)
    notes = order_nodes(root, where)
    root = build_scopes(proto.graph) if notes else root
    repeated = [step.node.name for scope in root.walk() for step in repeated_names(scope)]
    if repeated:
        notes.append(
            f"several nodes are named {repeated[0]!r}; nodes without a name of their own go by type and first output"
        )
    needs_rewrite = bool(notes)
    check_shadowing(root, where)
    check_functions(proto.functions, root, where)
    check_loops(root, where)
    custom = check_operators(root, opset, proto.functions, where)
    folder = base_dir if base_dir is not None else path.parent
    files = ExternalFiles(folder)
    check_tensors(root, proto.functions, files, data, where)
    _check_inputs(root, where)
    inference_notes, inlined = infer_types(proto, root, where, folder)
    notes += inference_notes
    numerics, half = _numerics(root, proto)
    return Model(
        path,
        proto,
        root,
        inputs=tuple(_port(root, name) for name in root.inputs),
        outputs=tuple(_output(root, value) for value in proto.graph.output),
        nodes=tuple(_nodes(root)),
        opset=opset,
        numerics=numerics,
        half=half,
        custom_domains=custom,
        external_files=files.paths,
        notes=tuple(notes),
        origin=origin,
        needs_rewrite=needs_rewrite or inlined,
        stamp=stamp,
        content=content,
        base_dir=base_dir,
        source=source,
        digest=digest,
    )


def _regular_file(path: Path) -> Stamp:
    """Stamp of a readable, non-empty regular file of a size protobuf can hold."""
    where = str(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.onnx")][:3] if path.parent.is_dir() else []
        hint = f"models in {path.parent}: {', '.join(sorted(near))}" if near else "check the path"
        raise InputError("no such file", where=where, hint=hint) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open the model: {getattr(error, 'strerror', error)}", where=where) from None
    if stat.S_ISDIR(status.st_mode):
        near = sorted(p.name for p in path.glob("*.onnx"))[:3]
        hint = f"pass one of its files: {', '.join(near)}" if near else "pass the .onnx file"
        raise InputError("this is a folder, not a model", where=where, hint=hint)
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is not a regular file", where=where, hint="pass the .onnx file")
    if status.st_size == 0:
        raise InputError("the file is empty", where=where, hint="the export or the copy did not finish; repeat it")
    if status.st_size > _PROTOBUF_LIMIT:
        if known := formats.recognise(path, _head(path)):
            raise InputError(f"this is not an ONNX model: the file is {known[0]}", where=where, hint=known[1])
        raise InputError(
            f"the file has {status.st_size / 1e9:.1f} GB; an ONNX file cannot exceed 2 GB, so this is none",
            where=where,
            hint="larger models keep their weights beside the .onnx file, as external data: pass that file",
        )
    return Stamp(status.st_size, status.st_mtime_ns)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise InputError(f"cannot open the model: {error.strerror}", where=str(path)) from None


def _parse(path: Path, data: memoryview) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    known = formats.recognise(path, bytes(data[:512]))
    copy_again = "copy or export the file again"
    try:
        outline = read_outline(data)
    except WireError as error:
        if known or not error.is_onnx:
            what, hint = known or ("of an unknown kind", "pass an .onnx file")
            raise InputError(f"this is not an ONNX model: the file is {what}", where=str(path), hint=hint) from None
        if error.truncated:
            what = f"the file is truncated: at byte {error.offset} of {len(data)}, {error}"
            raise InputError(what, where=str(path), hint=copy_again) from None
        raise InputError(
            f"the file is damaged at byte {error.offset}: {error}", where=str(path), hint=copy_again
        ) from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(outline)
    except DecodeError:
        raise InputError("the file is damaged: protobuf cannot decode it", where=str(path), hint=copy_again) from None
    return proto


def _check_inputs(root: Scope, where: str) -> None:
    for name in root.inputs:
        proto = root.types.get(name)
        if proto is None or (dtype := type_name(proto)) == UNKNOWN or UNKNOWN in dtype:
            number = proto.tensor_type.elem_type if proto is not None else 0
            what = (
                f"graph input {name!r} has no type"
                if not number
                else f"graph input {name!r} has the unknown type {number}"
            )
            raise InputError(what, where=where, hint="export the model again")


def _output(root: Scope, value: onnx.ValueInfoProto) -> Port:
    """A graph output as declared; what the file leaves open is filled in from inference."""
    inferred = _port(root, value.name)
    if not value.HasField("type") or type_name(value.type) == UNKNOWN:
        return inferred
    shape = shape_of(value.type)
    return Port(value.name, type_name(value.type), inferred.shape if shape is None else shape)


def _port(root: Scope, name: str) -> Port:
    proto = root.types.get(name)
    if proto is not None:
        return Port(name, type_name(proto), shape_of(proto))
    tensor = root.initialisers.get(name)  # an initialiser may be a graph output
    if tensor is not None:
        return Port(name, element_name(tensor.data_type) or UNKNOWN, tuple(tensor.dims))
    return Port(name, UNKNOWN, None)


def _nodes(root: Scope) -> Iterator[NodeInfo]:
    for step in root.in_execution_order():
        node = step.node
        domain = "" if node.domain == "ai.onnx" else node.domain
        yield NodeInfo(
            step.identity, node.name, node.op_type, domain, tuple(node.input), tuple(node.output), step.scope.path
        )


def _numerics(root: Scope, proto: onnx.ModelProto) -> tuple[Numerics, Half]:
    """What the model computes in. Any half-precision tensor counts: its rounding would be part of a golden run as it is."""
    elements: Counter[int] = Counter()  # element type -> elements stored so
    for tensor, _ in stored_tensors(root, proto.functions):
        elements[tensor.data_type] += prod(tensor.dims)
    declared = {element for scope in root.walk() for kind in scope.types.values() for element in elements_of(kind)}
    halves = [kind for kind in (FLOAT16, BFLOAT16) if kind in declared or elements[kind]]
    half: Half = ""
    if halves:
        half = "bfloat16" if max(halves, key=lambda kind: elements[kind]) == BFLOAT16 else "float16"
    if any(step.node.op_type in _QUANTISING for step in root.in_execution_order()):
        return "qdq", half
    return half or ("float64" if elements[DOUBLE] > elements[FLOAT] else "float32"), half
