"""Look at a recording or a model without running anything."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.errors import InputError
from probe.results.inspect import (
    ControlFlowReport,
    DumpResult,
    InspectResult,
    ModelReport,
    NodeReport,
    OpCount,
    PortReport,
    RecordingReport,
    TensorValues,
    WeightCount,
)
from probe.results.tensors import RunHeader, TensorInfo

if TYPE_CHECKING:
    from probe.model import Model
    from probe.store.source import TensorSource

_EXACT_INTEGER = 1 << 53  # beyond it a float64, as JSON readers use, is not exact


def inspect_recording(
    path: str | Path, *, select: re.Pattern[str] | None = None, values: int = 0, command: str = ""
) -> InspectResult:
    """Header, inputs and tensors of a recording of any format; statistics are computed where the format stores none.

    Args:
        select: only tensors whose name it is found in.
        values: how many first elements of each selected tensor to read as well.

    Raises:
        InputError: no recording, a damaged one, or no name matches ``select``.
    """
    from probe.store.opening import open_source

    with closing(open_source(path)) as source:
        rows = source.rows()
        chosen = [row for row in rows if select is None or select.search(row.name)]
        if select is not None and not chosen:
            raise InputError(
                f"no tensor matches {select.pattern!r}",
                where=str(path),
                hint=f"{len(rows)} tensors are there; probe inspect {path} lists them",
            )
        report = RecordingReport(
            path=str(path),
            kind=source.kind,
            header=source.header,
            roles_known=source.roles_known,
            total_tensors=len(rows),
            total_bytes=sum(_bytes(row) for row in rows),
            statuses=dict(Counter(row.status for row in rows)),
            tensors=tuple(_with_statistics(source, row) for row in chosen),
            values=tuple(_first(source, row, values) for row in chosen if row.status == "recorded") if values else (),
            selected=select.pattern if select is not None else "",
        )
    return InspectResult(kind="recording", recording=report, command=command)


def _bytes(row: TensorInfo) -> int:
    if row.bytes is not None or row.status != "recorded":
        return row.bytes or 0
    from probe.precision import numpy_dtype

    return row.count * numpy_dtype(row.dtype).itemsize if row.dtype != "string" else 0


def _with_statistics(source: TensorSource, row: TensorInfo) -> TensorInfo:
    if row.status != "recorded" or row.nan is not None:
        return row
    from probe.store.opening import read_array
    from probe.store.statistics import range_statistics

    return replace(row, **range_statistics(read_array(source, row)))


def _first(source: TensorSource, row: TensorInfo, values: int) -> TensorValues:
    from probe.precision import ML_DTYPES

    reader = source.open(row)
    window = reader.window(0, min(values, row.count))
    if window.dtype.name in ML_DTYPES:
        window = window.astype("float32")
    reader.close()
    return TensorValues(row.name, row.input_id, tuple(_value(v) for v in window.tolist()))


def _value(value: Any) -> float | str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) and abs(value) > _EXACT_INTEGER:
        return str(value)
    return float(value)


def inspect_model(
    path: str | Path,
    *,
    select: re.Pattern[str] | None = None,
    passes: Literal["none", "safe", "all"] = "safe",
    fusion: Literal["none", "safe", "full"] = "safe",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    command: str = "",
) -> InspectResult:
    """What an ONNX model is made of, and the layers that the engine makes of it.

    Args:
        select: also list the nodes in whose identity or outputs it is found.
        passes: clean-up before layers are formed.
        fusion: which nodes are computed together.
        input_shapes: extents of dynamic inputs by name, from which those inside follow, and what layers cost.

    Raises:
        InputError: not a model probe can load, no node matches ``select``, an unknown level, or shapes that do not fit the inputs.
    """
    from probe.debug.inspect_layers import inspect_layers
    from probe.model import load

    model = load(path)
    nodes = model.nodes
    chosen = [n for n in nodes if select is not None and any(map(select.search, (n.identity, *n.outputs)))]
    if select is not None and not chosen:
        raise InputError(
            f"no node matches {select.pattern!r}", where=str(path), hint="it is searched in node names and in outputs"
        )
    ops = Counter((n.op, n.domain) for n in nodes)
    proto = model.proto
    layers, not_compiled = inspect_layers(model, passes=passes, fusion=fusion, input_shapes=input_shapes or {})
    report = ModelReport(
        path=str(path),
        sha256=model.sha256,
        bytes=Path(path).stat().st_size,
        external_bytes=sum(file.stat().st_size for file in model.external_files),
        external_files=tuple(str(file) for file in model.external_files),
        ir_version=proto.ir_version,
        producer=" ".join(x for x in (proto.producer_name, proto.producer_version) if x),
        opset=dict(model.opset),
        numerics=model.numerics,
        inputs=tuple(PortReport(p.name, p.dtype, p.shape) for p in model.inputs),
        outputs=tuple(PortReport(p.name, p.dtype, p.shape) for p in model.outputs),
        nodes=len(nodes),
        nodes_in_bodies=sum(1 for n in nodes if n.body),
        unnamed_nodes=sum(1 for n in nodes if not n.name),
        ops=tuple(OpCount(op, domain, n) for (op, domain), n in sorted(ops.items(), key=lambda kv: (-kv[1], kv[0]))),
        weights=_weights(model),
        control_flow=_control_flow(model),
        custom_domains=model.custom_domains,
        notes=model.notes,
        selected=select.pattern if select is not None else "",
        selected_nodes=tuple(NodeReport(n.identity, n.op, n.inputs, n.outputs, n.body) for n in chosen),
        layers=layers,
        not_compiled=not_compiled,
    )
    return InspectResult(kind="model", model=report, command=command)


def _weights(model: Model) -> tuple[WeightCount, ...]:
    """Stored tensors by type: initialisers, Constant nodes and other attributes, bodies included. No data is read."""
    from probe.model.elements import element_name, stored_bytes
    from probe.model.weights import stored_tensors

    counts: dict[str, list[int]] = {}
    for tensor, _ in stored_tensors(model.root, model.proto.functions):
        elements = math.prod(tensor.dims)
        entry = counts.setdefault(element_name(tensor.data_type) or "unknown", [0, 0, 0])
        entry[0] += 1
        entry[1] += elements
        entry[2] += stored_bytes(tensor.data_type, elements) or 0
    return tuple(WeightCount(name, *entry) for name, entry in sorted(counts.items(), key=lambda kv: -kv[1][2]))


def _control_flow(model: Model) -> tuple[ControlFlowReport, ...]:
    return tuple(
        ControlFlowReport(
            node=step.identity,
            op=step.node.op_type,
            bodies=tuple(body.branch for body in step.bodies),
            nodes=sum(1 for body in step.bodies for _ in body.in_execution_order()),
        )
        for scope in model.root.walk()
        for step in scope.steps
        if step.bodies
    )


def describe_dump(
    path: str | Path,
    *,
    header: RunHeader | None = None,
    seconds: float = 0.0,
    command: str = "",
    random_inputs: bool = False,
) -> DumpResult:
    """What a recording just made holds: counts, what is missing and why, non-finite tensors, whether its inputs were made up.

    Args:
        header: what is known of the run, for formats that do not keep it.
        seconds: how long it took to record.
        random_inputs: whether the inputs were made up; a dump folder says so itself.

    Raises:
        InputError: no recording, or a damaged one.
    """
    from probe.store.opening import open_source

    with closing(open_source(path)) as source:
        rows = source.rows()
        if source.kind == "dump" or header is None:
            header = source.header
        return DumpResult(
            path=str(path),
            kind=source.kind,
            header=header,
            tensors=len(rows),
            statuses=dict(Counter(row.status for row in rows)),
            not_recorded=tuple(row for row in rows if row.status in ("not_run", "unsupported")),
            bytes=sum(_bytes(row) for row in rows),
            nonfinite=tuple(dict.fromkeys(row.name for row in rows if row.nan or row.inf)),
            inputs=header.inputs,
            random_inputs=random_inputs or any(one.source.startswith("seed") for one in header.inputs),
            notes=header.notes,
            environment=dict(header.environment or {}),
            seconds=seconds,
            command=command,
        )
