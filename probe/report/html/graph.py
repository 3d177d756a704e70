"""The layer graph of a run: every layer a box in the colour of its error, every tensor a line from its layer to those that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probe.report.html.element import Markup, element
from probe.report.html.graph_boxes import Thing, drawn_box, drawn_jumps, port_width
from probe.report.html.graph_layout import Layout, Line, laid_out
from probe.report.html.graph_legend import legend
from probe.report.html.graph_scale import ErrorScale, error_scale
from probe.report.numbers import count, number
from probe.report.text import elide
from probe.results.run import LayerError, RunResult

_ROOM = 1108.0  # width of the page, in its pixels
_MOST_INPUTS = 24  # that get an arrow each; the states of a decoder would hide its layers


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes of boxes, in pixels: of layers, of those that carry no error, of graph inputs and outputs (as wide as their names); and from row
    to row.

    ``abreast``: how many boxes a row has room for. All are tried: with fewer a column gets longer, but more columns fit.
    """

    name: str
    layer: tuple[float, float]
    quiet: tuple[float, float]
    port: tuple[float, float]
    drop: float
    abreast: tuple[float, ...]


_NAMED = _Style("named", layer=(104.0, 18.0), quiet=(10.0, 10.0), port=(0.0, 14.0), drop=12.0, abreast=(3.4, 1.2))
_SMALL = _Style("small", layer=(22.0, 12.0), quiet=(8.0, 8.0), port=(14.0, 8.0), drop=8.0, abreast=(8.0,))
_MOST_NAMED = 400  # layers that are drawn with names
_HIGHEST_NAMED = 2000.0  # pixels of a picture with names


def layer_graph(result: RunResult, layers: Sequence[LayerError], *, rows: str) -> Markup | None:
    """The picture with its legend; None where there are no layers.

    Args:
        layers: in execution order, as in the numbered table ``rows``, to whose rows the boxes lead.
    """
    if not layers:
        return None
    things, readers = _things(result, layers)
    style, layout = _fitting(things, readers)
    scale = error_scale(result.acceptance)
    described = _described(result, layers, scale)
    drawn = [_pattern(), *(_line(line) for line in layout.lines)]
    sources: list[list[int]] = [[] for _ in things]
    for source, several in enumerate(readers):
        for reader in several:
            sources[reader].append(source)
    for at, box in enumerate(layout.boxes):
        drawn.append(
            drawn_box(
                things, at, box, scale, named=style.name == "named", rows=rows, sources=sources[at], readers=readers[at]
            )
        )
    drawn += drawn_jumps(things, layout) if style.name == "named" else []
    svg = element(
        "svg",
        *drawn,
        class_=f"graph {style.name}",
        width=round(layout.width),
        height=round(layout.height),
        viewBox=f"0 0 {layout.width:g} {layout.height:g}",
        role="group",
        aria_label=described,
    )
    stage = element("div", svg, class_="stage")
    return element(
        "figure",
        element(
            "div", stage, element("div", class_="tip", hidden=True), class_="plot", id="graph-picture", data_graph=rows
        ),
        element("figcaption", legend(things, scale, layout, result.precision)),
    )


def _fitting(things: Sequence[Thing], readers: Sequence[Sequence[int]]) -> tuple[_Style, Layout]:
    """With names where that makes a picture of modest height, else small."""
    if len(things) <= _MOST_NAMED:
        layout = _best(things, readers, _NAMED)
        if layout.height <= _HIGHEST_NAMED:
            return _NAMED, layout
    return _SMALL, _best(things, readers, _SMALL)


def _best(things: Sequence[Thing], readers: Sequence[Sequence[int]], style: _Style) -> Layout:
    """The lowest of some drawings."""
    sizes = [_size(thing, style) for thing in things]
    tried = (laid_out(sizes, readers, row=most * style.layer[0], room=_ROOM, drop=style.drop) for most in style.abreast)
    return min(tried, key=lambda one: one.height)


def _size(thing: Thing, style: _Style) -> tuple[float, float]:
    if thing.layer is None:
        return (port_width(thing) if style.name == "named" else style.port[0]), style.port[1]
    return style.quiet if thing.quiet else style.layer


def _things(result: RunResult, layers: Sequence[LayerError]) -> tuple[list[Thing], list[list[int]]]:
    """Graph inputs, layers, graph outputs; and of each, those that read it.

    Connections go forward in execution order; a tensor that both branches of an If make comes from both. Layers that have no row are passed
    through: what reads them hangs on what they read.
    """
    rows = {layer.name: position for position, layer in enumerate(layers)}
    starts = {one: at for at, one in enumerate(result.first_divergence, start=1)}
    made: dict[str, list[int]] = {}  # tensor -> things that it comes from
    things: list[Thing] = []
    sources: list[list[int]] = []
    inputs = dict.fromkeys(_inputs(result))
    for name in inputs if len(inputs) <= _MOST_INPUTS else ():
        made[name] = [len(things)]
        things.append(Thing(name, port="input"))
        sources.append([])
    for layer in result.layers:
        above = list(dict.fromkeys(one for name in layer.reads for one in made.get(name, ())))
        position = rows.get(layer.name)
        if position is None:
            origin = above
        else:
            origin = [len(things)]
            kept = layer.precision == "fp32" != result.precision
            things.append(Thing(layer.name, layer, position, starts.get(layer.name, 0), kept))
            sources.append(above)
        for name in layer.outputs:
            made[name] = list(dict.fromkeys((*made.get(name, ()), *origin)))
    for name in result.outputs:
        if made.get(name):
            sources.append(made[name])
            things.append(Thing(name, port="output"))
    readers: list[list[int]] = [[] for _ in things]
    for reader, several in enumerate(sources):
        for source in several:
            readers[source].append(reader)
    return things, readers


def _inputs(result: RunResult) -> list[str]:
    """What layers read and nothing makes. What a pass folded away is no input."""
    made = {name for layer in result.layers for name in layer.outputs} | {tensor.name for tensor in result.tensors}
    return [name for layer in result.layers for name in layer.reads if name not in made]


def _pattern() -> Markup:
    """Hatching for NaN and Inf, which must not be a matter of colour."""
    stripes = element("path", d="M-1 1l2 -2M0 6l6 -6M5 7l2 -2", class_="stripes")
    return element("defs", element("pattern", stripes, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse"))


def _line(line: Line) -> Markup:
    drawn = []
    for (x, y), (to_x, to_y) in line.bends:
        if abs(x - to_x) < 0.05:
            drawn.append(f"M{x:.1f} {y:.1f}V{to_y:.1f}")
        else:
            middle = (y + to_y) / 2
            drawn.append(f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
    drawn += ["M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in turn) for turn in line.turns]
    return element("path", d="".join(drawn), class_="edge", data_of=line.source)


def _described(result: RunResult, layers: Sequence[LayerError], scale: ErrorScale) -> str:
    """The picture in words."""
    parts = [f"Layer graph: {count(len(layers), 'layer')}, each coloured by its accumulated error."]
    if result.first_divergence:
        parts.append(f"Error starts in {', '.join(elide(one, 60) for one in result.first_divergence[:3])}.")
    beyond = sum(layer.accumulated is not None and not layer.accumulated < scale.edges[-2] for layer in layers)
    if beyond and scale.limited:
        parts.append(f"{count(beyond, 'layer')} beyond {number(scale.edges[-2])}.")
    return " ".join(parts)
