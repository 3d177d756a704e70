"""What the colours, shapes and signs of the layer graph mean; only those that stand in the picture."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.html.element import Markup, element
from probe.report.html.graph_boxes import Thing
from probe.report.html.graph_layout import Layout
from probe.report.html.graph_scale import CLASSES, ErrorScale
from probe.report.numbers import number

_STEP = 46  # width of a class in the scale


def legend(things: Sequence[Thing], scale: ErrorScale, layout: Layout, precision: str) -> Markup:
    """Two lists: the scale, and the signs."""
    layers = [thing for thing in things if thing.layer is not None]
    signs = (
        ("first divergence: error starts here", any(t.starts for t in layers), _flag()),
        ("NaN or Inf that the golden lacks", any(t.broken for t in layers), _box("e8", hatched=True)),
        (
            f"thick frame: over the default limits for {precision}",
            any(t.layer.beyond for t in layers if t.layer),
            _box("e7 over"),
        ),
        (f"round ends: stays FP32, not {precision}", any(t.kept for t in layers), _box("e2", round_=True)),
        (
            "small, dashed: carries no error (computes shapes), or was not measured",
            any(t.quiet for t in layers),
            _small(),
        ),
        ("from #12: reads layer 12; no line is drawn", bool(layout.jumps), None),
    )
    listed = [element("li", sample, words) for words, there, sample in signs if there]
    columns = "Read each column downwards, then the next one. " if layout.columns > 1 else ""
    about = f"{columns}Numbers in boxes are accumulated errors; a line is what a layer makes, on its way to those that read it."
    return element(
        "div",
        _scale(scale),
        element("ul", listed, class_="legend") if listed else None,
        element("p", about),
        class_="keys",
    )


def _scale(scale: ErrorScale) -> Markup:
    """The classes side by side, with the errors that part them."""
    parts: list[Markup] = []
    for position in range(CLASSES):
        step = element("rect", x=position * _STEP + 1, y=2, width=_STEP, height=14)
        parts.append(element("g", element("title", scale.words(position)), step, class_=f"node e{position}"))
    for position, edge in enumerate(scale.edges, start=1):
        words = f"{edge:.2g}".replace("e-0", "e-")
        limit = scale.limited and position == CLASSES - 2
        parts.append(element("text", words, x=position * _STEP + 1, y=29, class_="tick limit" if limit else "tick"))
    described = f"Accumulated error: {', '.join(scale.words(position) for position in range(CLASSES))}"
    drawn = element(
        "svg", parts, viewBox=f"0 0 {CLASSES * _STEP + 2} 34", class_="ramp", role="img", aria_label=described
    )
    fails = f"fails from {number(scale.edges[-2])}" if scale.limited else None
    return element(
        "div", element("span", "accumulated error"), drawn, element("span", fails) if fails else None, class_="scale"
    )


def _box(style: str, *, hatched: bool = False, round_: bool = False) -> Markup:
    shape = {"x": 2, "y": 2, "width": 22, "height": 12, "rx": 6 if round_ else 2}
    second = element("rect", **shape, class_="hatched") if hatched else None
    return _sample(element("g", element("rect", **shape), second, class_=f"node {style}"))


def _small() -> Markup:
    return _sample(element("g", element("rect", x=8, y=3, width=10, height=10, rx=2), class_="node unknown"))


def _flag() -> Markup:
    flag = element("path", d="M22 8l-6 -7h-12v14h12z", class_="flag")
    return _sample(element("g", flag, element("text", "1", x=11, y=12, class_="flagged"), class_="node"))


def _sample(drawn: Markup) -> Markup:
    return element("svg", drawn, viewBox="0 0 26 16", class_="sample", aria_hidden="true")
