"""Models, recordings and fresh dumps as terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from probe.report.numbers import count, number, seconds, shape, size
from probe.report.text import Column, Page, cells, command, elide, escape, fitted, table, wrap
from probe.report.words import headed_lines
from probe.results.inspect import (
    DumpResult,
    InspectResult,
    LayerReport,
    LayersReport,
    ModelReport,
    PortReport,
    RecordingReport,
)
from probe.results.tensors import TensorInfo


def inspect_page(result: InspectResult, page: Page, *, rows: int = 40, verbose: bool = False) -> list[str]:
    """The whole page of a model or a recording. ``rows`` bounds each table, ``verbose`` lifts the bound."""
    if result.model is not None:
        return _model(result.model, page, 1 << 30 if verbose else rows)
    assert result.recording is not None, "an InspectResult holds a model or a recording"
    return _recording(result.recording, page, 1 << 30 if verbose else rows)


def _facts(pairs: Sequence[tuple[str, str]], page: Page) -> list[str]:
    return [line for label, text in pairs if text for line in wrap(text, page.width, first=f"{label:<12}")]


_HIDES = "hide failures"  # how every warning about made-up inputs puts it


def _known(text: str) -> str:
    return escape(text) if text else ""


# --- models


def _model(m: ModelReport, page: Page, rows: int) -> list[str]:
    opset = ", ".join(f"{escape(domain or 'ai.onnx')} {version}" for domain, version in m.opset.items())
    external = (
        f" + {size(m.external_bytes)} in {count(len(m.external_files), 'external file')}" if m.external_files else ""
    )
    bodies = f", {count(m.nodes_in_bodies)} of them in bodies" if m.nodes_in_bodies else ""
    unnamed = f", {count(m.unnamed_nodes)} without a name" if m.unnamed_nodes else ""
    weights = ", ".join(
        f"{count(w.parameters)} {w.dtype} in {count(w.tensors, 'tensor')} ({size(w.bytes)})" for w in m.weights
    )
    lines = [page.paint(f"ONNX model {escape(m.path)}", "bold")]
    lines += _facts(
        [
            ("file", f"{size(m.bytes)}{external}, sha256 {m.sha256[:16]}"),
            ("made by", _known(m.producer)),
            ("opset", f"{opset} (IR version {m.ir_version})"),
            ("numerics", m.numerics),
            ("nodes", f"{count(m.nodes)}{bodies}{unnamed}"),
            ("parameters", f"{count(m.parameters)}: {weights}" if m.weights else "none"),
            ("bodies", _bodies(m, rows)),
            ("custom ops", ", ".join(escape(d) for d in m.custom_domains)),
        ],
        page,
    )
    for note in m.notes:
        lines += wrap(escape(note), page.width, first=f"{'note':<12}")
    lines += ["", *_ports("inputs", m.inputs, page, rows), "", *_ports("outputs", m.outputs, page, rows)]
    lines += ["", page.paint("operators", "bold")]
    named = [f"{escape(o.op if not o.domain else o.domain + '.' + o.op)} {count(o.count)}" for o in m.ops]
    lines += wrap(", ".join(named), page.width, first="  ")
    if m.layers is not None:
        lines += ["", *_layers(m.layers, page, rows)]
    elif m.not_compiled:
        lines += ["", *wrap(escape(m.not_compiled), page.width, first="no layers   ")]
    return lines + (_nodes(m, page, rows) if m.selected else [])


def _layers(report: LayersReport, page: Page, rows: int) -> list[str]:
    """What is computed together, what it costs, what was removed, and what was not fused and why."""
    title = f"{count(len(report.layers), 'layer')}, {count(report.working)} of them launch work"
    lines = [page.paint(title, "bold")]
    lines += table(_LAYER_COLUMNS, [_layer_row(layer) for layer in report.layers[:rows]], page)
    if len(report.layers) > rows:
        lines.append(f"  and {len(report.layers) - rows:,} more (-v)")
    kinds = Counter(layer.kind for layer in report.layers if layer.works)
    by_pass = ", ".join(f"{escape(name)} {count(n)}" for name, n in report.changes.items())
    removed = Counter((fate.status, fate.by) for fate in report.fates)
    lines += _facts(
        [
            ("work", ", ".join(f"{escape(kind)} {count(n)}" for kind, n in kinds.most_common())),
            ("operations", _sum(report, "flops")),
            ("bytes", _sum(report, "bytes")),
            (
                "passes",
                f"{escape(report.passes)}: {by_pass or 'nothing to change'}" if report.passes != "none" else "none",
            ),
            ("removed", ", ".join(f"{count(n)} {status} by {escape(by)}" for (status, by), n in removed.items())),
            ("fusion", f"{escape(report.fusion)}, {count(len(report.refusals))} refused"),
        ],
        page,
    )
    for refusal in report.refusals[:rows]:
        where = elide(" and ".join(refusal.nodes[-2:]), 60)
        lines += wrap(
            f"{escape(refusal.pattern)} at {where}: {escape(refusal.reason)}", page.width, first="  refused   "
        )
    if len(report.refusals) > rows:
        lines.append(f"  and {len(report.refusals) - rows:,} more (-v)")
    return lines


_LAYER_COLUMNS = (
    Column("layer", 0, "<"),
    Column("fusion", 22, "<"),
    Column("makes", 19, "<"),
    Column("flops", 9),
    Column("bytes", 8),
)


def _layer_row(layer: LayerReport) -> tuple[str, ...]:
    name = f"{layer.scope}: {layer.name}" if layer.scope else layer.name
    first = shape(layer.outputs[0].shape) if layer.outputs else ""
    more = f" +{len(layer.outputs) - 1}" if len(layer.outputs) > 1 else ""
    if not layer.works:
        return name, layer.pattern or layer.kind, first + more, "", ""
    flops = "-" if layer.flops is None else _operations(layer.flops)
    return name, layer.pattern or layer.kind, first + more, flops, "-" if layer.bytes is None else size(layer.bytes)


def _operations(value: int) -> str:
    """``812``, ``4.1 k``, ``11.5 G``"""
    return size(value).removesuffix("B").rstrip().replace("kB", "k") if value >= 1000 else str(value)


def _sum(report: LayersReport, what: Literal["flops", "bytes"]) -> str:
    """A total over the layers that launch work, and how many of them it leaves out."""
    known = [getattr(layer, what) for layer in report.layers if layer.works]
    missing = known.count(None)
    total = sum(n for n in known if n is not None)
    left_out = f", not counting {count(missing, 'layer')} of unknown size" if missing else ""
    hint = "; give sizes with --input-shapes" if missing and not report.input_shapes else ""
    return f"{_operations(total) if what == 'flops' else size(total)}{left_out}{hint}"


def _bodies(m: ModelReport, rows: int) -> str:
    """Which operators own bodies, and the largest of them."""
    if not m.control_flow:
        return ""
    ops = Counter(f.op for f in m.control_flow)
    largest = sorted(m.control_flow, key=lambda f: -f.nodes)[: rows if rows > 1000 else 3]  # all of them with -v
    named = ", ".join(
        f"{elide(f.node, 40)} ({', '.join(map(escape, f.bodies))}: {count(f.nodes, 'node')})" for f in largest
    )
    more = ", ..." if len(largest) < len(m.control_flow) else ""
    return f"{', '.join(f'{count(n)} {escape(op)}' for op, n in sorted(ops.items()))}; largest: {named}{more}"


def _nodes(m: ModelReport, page: Page, rows: int) -> list[str]:
    lines = ["", page.paint(f"{count(len(m.selected_nodes), 'node')} matching {elide(m.selected, 40)}", "bold")]
    for node in m.selected_nodes[:rows]:
        body = f" in {elide(node.body, 32)}" if node.body else ""
        lines.append(f"  {elide(node.node, page.width - 6 - cells(node.op) - cells(body))}  {escape(node.op)}{body}")
        for verb, names in (("reads", node.inputs), ("writes", node.outputs)):
            if any(names):
                said = ", ".join(elide(n, 48) for n in names[:8]) + (", ..." if len(names) > 8 else "")
                lines += wrap(said, page.width, first=f"    {verb:<7}")
    return lines if len(m.selected_nodes) <= rows else [*lines, f"  and {len(m.selected_nodes) - rows} more (-v)"]


def _ports(title: str, ports: Sequence[PortReport], page: Page, rows: int) -> list[str]:
    cells_of = [(p.name, p.dtype, shape(p.shape)) for p in ports]
    columns = [
        Column(title, 0, "<"),
        fitted("type", (c[1] for c in cells_of), align="<", most=16),
        fitted("shape", (c[2] for c in cells_of), align="<", most=36),
    ]
    lines = table(columns, cells_of[:rows], page)
    return lines if len(ports) <= rows else [*lines, f"  and {len(ports) - rows} more (-v)"]


# --- recordings


def _recording(r: RecordingReport, page: Page, rows: int) -> list[str]:
    h = r.header
    runner = ", ".join(escape(x) for x in (h.runner, h.device, h.precision) if x)
    digest = f" (sha256 {h.model_sha256[:16]})" if h.model_sha256 else ""
    kinds = {"dump": "dump", "npz": ".npz file", "polygraphy": "Polygraphy JSON"}
    lines = [page.paint(f"{kinds.get(r.kind, r.kind)} {escape(r.path)}", "bold")]
    lines += _facts(
        [
            ("holds", f"{_statuses(r.total_tensors, r.statuses)}; {size(r.total_bytes)}"),
            ("runner", runner),
            ("model", escape(h.model) + digest if h.model else ""),
            ("golden", _known(h.golden)),
            (
                "passes",
                ", ".join(
                    f"{n} {escape(v)}"
                    for n, v in (("passes", h.passes), ("fusion", h.fusion), ("interior", h.interior))
                    if v
                ),
            ),
            ("made with", ", ".join(f"{escape(k)} {escape(v)}" for k, v in (h.environment or {}).items())),
            ("command", _known(h.command)),
        ],
        page,
    )
    for note in h.notes:
        lines += wrap(escape(note), page.width, first=f"{'note':<12}")
    if h.inputs:
        lines += ["", *_inputs(r, page, rows)]
    lines += ["", *_tensors(r, page, rows)]
    for one in r.values:
        of = f" of input {elide(one.input_id, 24)}" if one.input_id and len({v.input_id for v in r.values}) > 1 else ""
        lines += ["", page.paint(f"first {count(len(one.values), 'value')} of {elide(one.name, 40)}{of}", "bold")]
        said = [escape(v) if isinstance(v, str) else f"{v:.7g}" for v in one.values]
        lines += wrap(", ".join(said) or "none: the tensor is empty", page.width, first="  ")
    return lines


def _statuses(total: int, statuses: Mapping[str, int]) -> str:
    others = [f"{n:,} {s.replace('_', ' ')}" for s, n in sorted(statuses.items()) if n and n != total]
    only = next((s.replace("_", " ") for s, n in statuses.items() if n == total and s != "recorded"), "")
    return count(total, "tensor") + (f" ({', '.join(others)})" if others else f", {only}" if only else "")


def _inputs(r: RecordingReport, page: Page, rows: int) -> list[str]:
    inputs = r.header.inputs
    columns = [
        Column("input sets", 0, "<"),
        fitted("from", (i.source for i in inputs), align="<", most=36),
        Column("sha256", 16, "<"),
    ]
    lines = table(columns, [(i.id, i.source, i.sha256[:16]) for i in inputs[:rows]], page)
    return lines if len(inputs) <= rows else [*lines, f"  and {len(inputs) - rows} more (-v)"]


def _tensors(r: RecordingReport, page: Page, rows: int) -> list[str]:
    matching = f" matching {elide(r.selected, 30)}" if r.selected else ""
    if not r.tensors:
        return [f"no tensors{matching}"]
    several = len({t.input_id for t in r.tensors}) > 1
    shown = r.tensors[:rows]
    body = [_tensor_row(t, several) for t in shown]
    columns = [
        Column("tensor", 0, "<"),
        fitted("type", (b[1] for b in body), align="<", most=10),
        fitted("shape", (b[2] for b in body), align="<", most=17),
        Column("min", 9),
        Column("max", 9),
        Column("mean", 9),
        fitted("", (b[6] for b in body), align="<", most=10),
    ]
    lines = table(columns, body, page)
    if len(r.tensors) > rows:
        lines.append(f"  and {len(r.tensors) - rows:,} more{matching} (-v, or --select REGEX)")
    return lines


def _tensor_row(t: TensorInfo, several: bool) -> tuple[str, ...]:
    mark = {"input": "input", "output": "output"}.get(t.role, "")
    if t.nan or t.inf:
        mark = f"{t.nan} NaN" if t.nan else f"{t.inf} Inf"
    if t.status not in ("recorded", "stats_only"):
        mark = t.status.replace("_", " ")
    name = f"{t.name} @ {t.input_id}" if several else t.name
    return (name, t.dtype, shape(t.shape), number(t.min), number(t.max), number(t.mean), mark)


# --- dumps just made


def dump_page(result: DumpResult, page: Page, *, verbose: bool = False) -> list[str]:
    """What was recorded and where, what was not and why, and what to do with it."""
    over = f" over {count(len(result.inputs), 'input set')}" if len(result.inputs) > 1 else ""
    what = f"{_statuses(result.tensors, result.statuses)}{over}, {size(result.bytes)} in {seconds(result.seconds)}"
    lines = headed_lines("RECORDED", ("green", "bold"), f"{escape(result.path)}: {what}", page)
    if result.nonfinite:
        names = ", ".join(elide(n, 40) for n in result.nonfinite[:4]) + (", ..." if len(result.nonfinite) > 4 else "")
        lines += wrap(
            f"{count(len(result.nonfinite), 'tensor')} with NaN or Inf: {names}", page.width, first="NOTE      "
        )
    shown = len(result.not_recorded) if verbose else 4
    for row in result.not_recorded[:shown]:
        said = f"{elide(row.name, 40)}: {row.status.replace('_', ' ')}" + (f", {escape(row.note)}" if row.note else "")
        lines += wrap(said, page.width, first="NOT HELD  ")
    if len(result.not_recorded) > shown:
        lines.append(f"NOT HELD  and {len(result.not_recorded) - shown:,} more (-v)")
    warning = "inputs are random data from a seed, which can hide failures: pass real ones with --inputs FILE.npz"
    warnings = [n for n in result.notes if _HIDES in n] or ([warning] if result.random_inputs else [])
    notes = [n for n in result.notes if _HIDES not in n]
    for label, texts in (("WARNING", warnings), ("NOTE", notes if verbose else notes[:6])):
        for text in texts:
            wrapped = wrap(escape(text), page.width, first=f"{label:<10}")
            wrapped[0] = (
                wrapped[0].replace("WARNING", page.paint("WARNING", "yellow", "bold"), 1)
                if label == "WARNING"
                else wrapped[0]
            )
            lines += wrapped
    if len(notes) > 6 and not verbose:
        lines.append(f"NOTE      and {len(notes) - 6} more (-v)")
    lines += ["", page.paint("what to do", "bold"), *command(("probe", "inspect", result.path), page.width)]
    if result.kind != "safetensors":
        lines += command(("probe", "diff", "ACTUAL", result.path), page.width)
    return lines
