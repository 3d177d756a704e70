"""The page of a run: why it fails, error along the network, outputs, layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probe.report.html.detail_parts import detail_link, details
from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.error_plot import error_plot
from probe.report.html.graph import layer_graph
from probe.report.html.parts import behind, facts, names, outputs, provenance, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.run_facts import run_facts
from probe.report.run_page import layer_flag, run_sentence, where_found
from probe.report.run_steps import next_steps
from probe.report.words import WORDS
from probe.results.diff import TensorDiff
from probe.results.run import LayerError, RunFinding, RunResult

_COLUMNS = (
    Column("Layer", about="named after its ONNX nodes"),
    Column("#", numeric=True, about="in execution order"),
    Column("Kind"),
    Column("Precision"),
    Column("Accumulated", numeric=True, about="range_rel of its worst output in the running network"),
    Column("Injected", numeric=True, about="range_rel from exact inputs that it rounds"),
    Column("Local", numeric=True, about="what its own arithmetic and storage add"),
    Column("Gain", numeric=True, about="noise to signal out / in: above 1 it amplifies error that arrives"),
    Column("Flag"),
)
_FILTERS = {
    "first": "where error starts",
    "beyond": "over the default limits",
    "nonfinite": "NaN or Inf",
    "fp32": "in FP32",
    "measured": "measured by themselves",
    "idle": "skipped: in branches not taken",
}


def run_parts(result: RunResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    layers = [layer for layer in result.layers if layer.note != "not selected"]
    first = set(result.first_divergence)
    idle = {tensor.name for tensor in result.tensors if tensor.status == "not_run"}
    detailed = [tensor for tensor in result.tensors if tensor.detail is not None]
    rows = [_row(result, layer, position, first, idle, detailed) for position, layer in enumerate(layers, start=1)]
    plotted = error_plot(result, layers, rows="layers-table")
    table = data_table("layers-table", count(len(rows), "layer"), _COLUMNS, rows, filters=_FILTERS, numbered=True)
    return [
        verdict(result.verdict, WORDS[result.verdict], run_sentence(result), result.reasons[1:],
                ("probe run", result.model, result.precision, result.device)),
        to_do(next_steps(result)),
        section("why", "Why", findings(f for f in result.findings if f.fatal)),
        section("network", "Error along the network", plotted,
                about=f"Largest error of a layer's output over the golden's range (range_rel). {_judged(result)}Point at it, or walk through it with the arrow keys; "
                "Enter leads to the layer in the table."),
        section("graph", "Layer graph", layer_graph(result, layers, rows="layers-table"),
                about="Layers in the colour of their accumulated error. Point at one, or walk along the lines with the arrow keys; Enter leads to "
                "the layer in the table."),
        outputs([t for t in result.tensors if t.role == "output"]),
        section("layers", "Layers", table if rows else None,
                about="Accumulated, injected and local are range_rel, as in the picture above; a gain above 1 amplifies error that arrives; "
                "- is not measured. Open a row for its ONNX nodes, what it reads and why."),
        details(result.tensors, result.acceptance),
        section("noticed", "Also noticed", findings(f for f in result.findings if not f.fatal)),
        provenance(run_facts(result), result.model_sha256, result.command, result.environment),
    ]  # fmt: skip


def _judged(result: RunResult) -> str:
    """Limits are drawn across all layers, and a verdict may pass with a layer above them."""
    return "" if result.strict_layers or not result.acceptance else "Only outputs are judged by the limits. "


def findings(several: Iterable[RunFinding]) -> Markup | None:
    """Each finding with where it is and what to try."""
    return bullets(
        (
            [
                element("p", "harmless: " if finding.keep and not finding.fatal else None, finding.message),
                facts([("where", where_found(finding)), ("try", finding.cure)]),
            ]
            for finding in several
        ),
        class_="findings",
    )


def _row(
    result: RunResult, layer: LayerError, position: int, first: set[str], idle: set[str], detailed: Sequence[TensorDiff]
) -> Row:
    stood_still = bool(layer.outputs) and idle.issuperset(layer.outputs)
    flagged = "skipped" if stood_still else layer_flag(layer, result, first)
    tags = [tag for tag, holds in (("first", layer.name in first), ("beyond", layer.beyond), ("nonfinite", layer.nonfinite > 0),
                                   ("fp32", layer.precision == "fp32"), ("measured", layer.injected is not None), ("idle", stood_still)) if holds]  # fmt: skip
    numbers = (number(layer.accumulated), number(layer.injected), number(layer.local), number(layer.gain))
    style = "failed" if layer.name in first else "warned" if layer.beyond or layer.nonfinite else ""
    return Row(
        (_behind(layer, detailed), str(position), layer.kind, layer.precision, *numbers, flagged), tuple(tags), style
    )


def _behind(layer: LayerError, detailed: Sequence[TensorDiff]) -> Markup:
    """The name of a layer; opened, its nodes and what it was made of."""
    nodes: Sequence[str] = layer.nodes if layer.nodes != (layer.name,) else ()
    said: list[tuple[str, Child]] = [
        ("name", name(layer.name)),
        ("ONNX nodes", names(nodes)),
        ("reads", names(layer.reads, 8)),
        ("writes", names(layer.outputs, 8)),
        ("worst output", name(layer.worst_output) if layer.worst_output and len(layer.outputs) > 1 else None),
        ("worst input", layer.worst_input),
        ("NaN or Inf", f"{count(layer.nonfinite, 'element')} differ from the golden" if layer.nonfinite else None),
        ("computed by", f"{layer.tactic}{f', fused as {layer.pattern}' if layer.pattern else ''}"),
        ("floor", f"{number(layer.floor)} in FP32 against the golden" if layer.floor is not None else None),
        ("branch", name(layer.scope) if layer.scope else None),
        ("note", layer.note),
        (
            "in detail",
            bullets(
                [name(one.name, 60), ": ", detail_link(one)]
                for one in detailed
                if one.name in layer.outputs or one.layer == layer.name
            ),
        ),
    ]
    return behind(name(layer.name, 64), facts(said))
