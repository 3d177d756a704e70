"""Mixed-precision ONNX: a network in FP16 or BF16 but for what is to be kept, typed strongly, with Casts where types meet.

What a strongly typed runtime (TensorRT from 11 on) takes as the only way to say "this stays FP32". The graph is the original one: same
nodes, same tensor names; local functions are inlined, as types differ from call to call, and nodes without a name get their identity for one.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from probe.errors import InputError
from probe.model.annotated import Annotated, annotate
from probe.model.load import read_model
from probe.model.mixed_casts import CastWriter
from probe.model.mixed_plan import MixedPlan, plan_mixed
from probe.model.schemas import is_float

if TYPE_CHECKING:
    from probe.model.model import Model

LowPrecision = Literal["fp16", "bf16"]
_LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_BF16_OPSET = 13  # the first whose Cast knows bfloat16
# protobuf ends at 2 GB and serialising holds everything twice: above this, weights go into a file beside the model.
_INSIDE_BYTES = 1_000_000_000
_SMALL_BYTES = 1024
_LISTED = 5


@dataclass(slots=True)
class Mixed:
    """A converted model.

    Attributes:
        ir: the graph; not to be changed.
        source: what it was converted from.
        kept_tensors: tensors stored in FP32 and never rounded, views of kept ones included.
        lifted: nodes that run in FP32 because they make or read a kept tensor.
        fp32_nodes: nodes that were kept themselves.
        without_low: node that stays FP32 because it cannot be otherwise -> why.
        spared: constants that stay FP32 where a node in FP32 reads them, since rounding would destroy them.
        shape_nodes: nodes left in FP32 because they only compute extents.
        casts: (tensor, type) of every Cast added.
        low_nodes: how many nodes run in the low precision.
        notes: what to know about the result, a sentence each.
    """

    ir: ir.Model
    source: Model
    precision: LowPrecision
    kept_tensors: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    fp32_nodes: tuple[str, ...] = ()
    without_low: dict[str, str] = field(default_factory=dict)
    spared: tuple[str, ...] = ()
    shape_nodes: tuple[str, ...] = ()
    casts: tuple[tuple[str, str], ...] = ()
    low_nodes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def in_fp32(self) -> tuple[str, ...]:
        """Every node that computes in FP32 on floats, why ever, data movement apart."""
        return tuple(dict.fromkeys((*self.lifted, *self.fp32_nodes, *self.without_low, *self.shape_nodes)))

    def model(self) -> Model:
        """The converted model, loaded, without a file.

        Raises:
            InputError: its weights are too large for one message; save it and load the file.
        """
        if _weight_bytes(self.ir) > _INSIDE_BYTES:
            raise InputError(
                "the converted model is too large to be held in one message", hint="save it, and load the file"
            )
        content = _serialise(self.ir, self.source)
        return read_model(
            self.source.path, memoryview(content), content=content, base_dir=self.source.base_dir,
            origin=f"converted to {self.precision}", source=self.source,
        )  # fmt: skip

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Write the model; it appears when it is whole. Weights beyond 1 GB in all, or of a model that had them beside it, go into
        ``NAME.data`` next to it.

        Returns:
            The files written.

        Raises:
            InputError: the folder cannot be written.
        """
        path = Path(path)
        beside = bool(self.source.external_files) or _weight_bytes(self.ir) > _INSIDE_BYTES
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}", where="-o") from None
        try:
            data = f"{path.name}.data"
            if beside:
                ir.save(self.ir, folder / path.name, external_data=data, size_threshold_bytes=_SMALL_BYTES)
                os.replace(folder / data, path.parent / data)
            else:
                (folder / path.name).write_bytes(_serialise(self.ir, self.source))
            os.replace(folder / path.name, path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}", where="-o") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return (path, path.parent / data) if beside else (path,)


def convert_mixed(
    model: Model,
    precision: LowPrecision,
    *,
    keep_tensors: Iterable[str] = (),
    keep_nodes: Iterable[str] = (),
    convert_io: bool = False,
) -> Mixed:
    """Convert a model to FP16 or BF16 with some of it kept in FP32.

    A kept tensor is stored in FP32 and never rounded between its producer and its consumers, which therefore run in FP32, their other
    tensors rounded (but for constants that rounding destroys: finite ones that become Inf, an epsilon that becomes 0); views of it are kept with it. A kept node runs in FP32 with its inputs cast up; what it makes is rounded by those that
    read it. Keeping If, Loop or Scan keeps all they hold. What only moves data takes the type of what it moves. Operators without a low type in
    their schema at the model's opset stay FP32, and so do scales of Resize and of quantisation, sequences, and arithmetic on extents.

    Args:
        keep_tensors: by recorded name: what nodes make, graph inputs, weights, constants.
        keep_nodes: by identity (``Model.nodes``).
        convert_io: also give graph inputs and outputs the low type; they keep theirs otherwise.

    Raises:
        InputError: bf16 before opset 13, an unknown precision, a kept name that is nowhere, or a model onnx-ir cannot represent.
    """
    check_precision(model, precision)
    source = model
    if model.half:
        from probe.model.upcast import upcast

        model = upcast(model)
    made, low = annotate(model), _LOW[precision]
    made.ir.opset_imports.setdefault("", 18)  # of a model without standard operators; Casts are some
    tensors = [value for name in dict.fromkeys(keep_tensors) for value in _tensors(made, name)]
    by_identity = made.nodes
    nodes = [_node(by_identity, name, made) for name in dict.fromkeys(keep_nodes)]
    port_types = _port_types(made, source, low, convert_io=convert_io, kept={id(value) for value in tensors})
    low_ports = [
        value for value in (*made.ir.graph.inputs, *made.ir.graph.outputs) if port_types.get(value.name or "") == low
    ]
    plan = plan_mixed(made.ir, low, kept=tensors, kept_nodes=nodes, low_ports_of_graph=low_ports)
    names = {id(value): name for name, values in made.tensors.items() for value in values}
    writer = CastWriter(made, plan, precision, port_types)
    writer.write()
    return _result(made, source, precision, plan, writer, names, nodes)


def check_precision(model: Model, precision: str) -> None:
    """Refuse a precision that the model cannot be written in.

    Raises:
        InputError: neither fp16 nor bf16, or bf16 before opset 13.
    """
    if precision not in _LOW:
        raise InputError(f"cannot convert to {precision!r}", hint="fp16 or bf16")
    opset = model.opset.get("", model.opset.get("ai.onnx", 0))
    if precision == "bf16" and opset < _BF16_OPSET:
        raise InputError(
            f"ONNX has bfloat16 from opset {_BF16_OPSET} on, and the model is of opset {opset}", where=str(model.path),
            hint="export it again with a newer opset, convert it with onnx.version_converter, or take fp16",
        )  # fmt: skip


def _result(
    made: Annotated,
    source: Model,
    precision: LowPrecision,
    plan: MixedPlan,
    writer: CastWriter,
    names: dict[int, str],
    kept_nodes: list[ir.Node],
) -> Mixed:
    modes = {node.name or "": plan.modes[id(node)] for node in made.nodes.values() if id(node) in plan.modes}
    kept_identities = {node.name or "" for node in kept_nodes}
    stuck = {name: why for name, why in plan.reasons.items() if name not in kept_identities}
    shapes = set(plan.shape_nodes)
    mixed = Mixed(
        made.ir, source, precision,
        kept_tensors=tuple(dict.fromkeys(names[key] for key in names if key in plan.kept)),
        lifted=tuple(name for name, mode in modes.items() if mode == "lifted"),
        fp32_nodes=tuple(name for name, mode in modes.items() if mode == "fp32" and name not in stuck and name not in shapes),
        without_low=stuck, spared=tuple(writer.spared), shape_nodes=tuple(plan.shape_nodes), casts=tuple(writer.casts),
        low_nodes=sum(mode == "low" for mode in modes.values()),
    )  # fmt: skip
    mixed.notes = tuple(_notes(mixed, writer, made))
    return mixed


def _notes(mixed: Mixed, writer: CastWriter, made: Annotated) -> list[str]:
    notes: list[str] = []
    reasons: dict[str, list[str]] = {}
    for node, why in mixed.without_low.items():
        reasons.setdefault(why, []).append(node)
    notes += [f"{_count(len(nodes), 'node')} FP32: {why} ({_some(nodes)})" for why, nodes in reasons.items()]
    if mixed.shape_nodes:
        notes.append(
            f"{_count(len(mixed.shape_nodes), 'node')} FP32, as they compute extents ({_some(mixed.shape_nodes)})"
        )
    notes += [f"constant {lost} in {mixed.precision}" for lost in writer.lost[:_LISTED]]
    if len(writer.lost) > _LISTED:
        notes.append(f"{len(writer.lost) - _LISTED} more constants become Inf or 0")
    if mixed.spared:
        notes.append(
            f"{_count(len(mixed.spared), 'constant')} FP32 where nodes in FP32 read them, as rounding would destroy them ({_some(mixed.spared)})"
        )
    if writer.repeated:
        notes.append(
            f"{_count(len(writer.repeated), 'tensor')} rounded between nodes that run in FP32: to keep as well saves Casts "
            f"({_some(writer.repeated)})"
        )
    if made.model is not mixed.source and mixed.source.proto.functions:
        notes.append("local functions were inlined, since types differ from call to call")
    return notes


def _port_types(
    made: Annotated, source: Model, low: ir.DataType, *, convert_io: bool, kept: set[int]
) -> dict[str, ir.DataType]:
    """The element type of each float input and output of the graph: as in ``source``, or the low one."""
    graph = made.ir.graph
    found: dict[str, ir.DataType] = {}
    ports = {port.name: port.dtype.upper() for port in (*source.inputs, *source.outputs)}
    names = {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}
    for value in (*graph.inputs, *graph.outputs):
        name = value.name or ""
        if is_float(value) and name in ports and not value.is_initializer():
            own = ir.DataType[names.get(ports[name], ports[name])]
            found[name] = low if convert_io and id(value) not in kept else own
    return found


def _tensors(made: Annotated, name: str) -> list[ir.Value]:
    found = made.tensors.get(name, [])
    if not found:
        raise _unknown("tensor", name, made.tensors)
    return found


def _node(nodes: dict[str, ir.Node], name: str, made: Annotated) -> ir.Node:
    if name not in nodes:
        raise _unknown("node", name, [identity for identity in nodes if identity], str(made.model.path))
    return nodes[name]


def _unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return InputError(f"no {kind} is called {name!r}", where=where, hint=f"did you mean {near[0]!r}?" if near else "")


def _serialise(model: ir.Model, source: Model) -> bytes:
    try:
        return ir.to_proto(model).SerializeToString()
    except ir.serde.SerdeError as error:
        raise InputError(f"onnx-ir cannot write the model: {error}", where=str(source.path)) from None


def _weight_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number:,} {noun}s are"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
