"""The page of a measurement: times, where they go, what the machine would allow, memory."""

from __future__ import annotations

from probe.report.bench_facts import (
    MARKS,
    STATISTICS,
    WORDS,
    bench_facts,
    bench_sentence,
    caveats,
    next_steps,
    percent,
    phases,
    rate,
    slowest,
    sum_against_whole,
    three_digits,
    under_the_roof,
)
from probe.report.html.bench_plots import latency_plot, memory_plot, roofline_plot, time_plot
from probe.report.html.element import Child, Markup, bullets, name, section
from probe.report.html.parts import behind, facts, names, provenance, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count
from probe.results.bench import BenchResult, LayerTime

_ROWS = "layers-table"
_COLUMNS = (
    Column("Layer", about="named after its ONNX nodes"),
    Column("#", numeric=True, about="in execution order"),
    Column("Kind"),
    Column("Share %", numeric=True, about="of the sum of all layers' medians"),
    Column("Median ms", numeric=True, about="of the layer run by itself"),
    Column("Floor ms", numeric=True, about="the least that the measured ceilings allow"),
    Column("Of roof %", numeric=True, about="floor over median; above 100 its tensors came from a cache"),
    Column("GFLOP/s", numeric=True),
    Column("GB/s", numeric=True, about="bytes that cross its edge, each once"),
    Column("Bound"),
    Column("Live MB", numeric=True, about="tensors alive while it runs"),
)
_FILTERS = {
    "most": "that take 80 % of the time",
    "compute": "compute-bound",
    "memory": "memory-bound",
    "unknown": "cost not known",
    "idle": "that did not run",
}
_MOST = 0.8  # of the time


def bench_parts(result: BenchResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    most = _taking_most(result)
    rows = [_row(layer, position, layer.name in most) for position, layer in enumerate(result.layers, start=1)]
    table = data_table(_ROWS, count(len(rows), "layer"), _COLUMNS, rows, filters=_FILTERS, numbered=True)
    return [
        verdict(MARKS[result.status], WORDS[result.status], bench_sentence(result), (), ("probe bench", result.model, result.precision, result.device)),
        section("caveats", "Before these numbers are used", bullets(caveats(result), class_="caveats")),
        to_do(next_steps(result)),
        section("times", "Times", _times(result), latency_plot(result),
                about="Latency is from handing the inputs over to having the outputs back; compute is what the device takes of it."),
        section("time-by-layer", "Time by layer", time_plot(result, _ROWS),
                about=f"In a pass of its own, so that looking changes nothing above. {_first_up(sum_against_whole(result))}. Point at the picture, or "
                "walk through it with the arrow keys; Enter leads to the layer in the table."),
        section("roofline", "Roofline", roofline_plot(result, _ROWS),
                about=f"{_first_up(under_the_roof(result))}. A dot a layer, as large as its share of the time; far below the roof is where time can be won."),
        section("memory", "Memory along the network", memory_plot(result, _ROWS),
                about="Tensors alive while each layer runs, every one from its maker to its last reader; weights apart."),
        section("layers", "Layers", table if rows else None),
        provenance(bench_facts(result), result.model_sha256, result.command, result.environment),
    ]  # fmt: skip


def _times(result: BenchResult) -> Markup:
    """A row a phase, in ms; what the device does not have says why."""
    columns = (Column("ms"), *(Column(one, numeric=True) for one in STATISTICS))
    rows = []
    for label, spread, why in phases(result):
        cells = (
            [three_digits(1e3 * getattr(spread, one)) for one in STATISTICS]
            if spread is not None
            else ["-"] * len(STATISTICS)
        )
        rows.append(Row((label if spread is not None else f"{label} ({why})", *cells)))
    return data_table("times-table", "Times in milliseconds", columns, rows)


def _taking_most(result: BenchResult) -> set[str]:
    """The slowest layers that together take most of the time."""
    found: set[str] = set()
    taken = 0.0
    for layer in slowest(result):
        if taken >= _MOST:
            break
        found.add(layer.name)
        taken += layer.share or 0.0
    return found


def _row(layer: LayerTime, position: int, most: bool) -> Row:
    idle = not layer.runs
    bound = layer.bound or ("idle" if idle else "unknown")
    cells = (
        _behind(layer), str(position), layer.kind, _hundred(layer.share), _ms(layer.median), _ms(layer.floor),
        _hundred(layer.roofline), rate(layer.flops_per_second), rate(layer.bytes_per_second), "not run" if idle else layer.bound,
        "-" if layer.live_bytes is None else three_digits(layer.live_bytes / 1e6),
    )  # fmt: skip
    return Row(cells, ("most", bound) if most else (bound,))


def _behind(layer: LayerTime) -> Markup:
    """The name of a layer; opened, its nodes and what it costs."""
    said: list[tuple[str, Child]] = [
        ("name", name(layer.name)),
        ("ONNX nodes", names(layer.nodes if layer.nodes != (layer.name,) else ())),
        ("reads", names(layer.reads, 8)),
        ("writes", names(layer.outputs, 8)),
        ("computed by", f"{layer.tactic} in {layer.precision}{f', fused as {layer.pattern}' if layer.pattern else ''}"),
        ("cost", _cost(layer)),
        (
            "times",
            f"{_ms(layer.min)} ms at least, {_ms(layer.mean)} ms on average of {count(layer.runs, 'run')}"
            if layer.runs
            else None,
        ),
        ("branch", name(layer.scope) if layer.scope else None),
    ]
    return behind(name(layer.name, 64), facts(said))


def _cost(layer: LayerTime) -> str:
    flops = "FLOP not known" if layer.flops is None else f"{count(layer.flops)} FLOP"
    return f"{flops}, {'bytes not known' if layer.bytes is None else f'{count(layer.bytes)} bytes'}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else three_digits(1e3 * seconds)


def _hundred(share: float | None) -> str:
    return percent(share).removesuffix(" %")


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
