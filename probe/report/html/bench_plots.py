"""Pictures of a measurement as SVG of our own: time by layer, the roofline, memory along the network, latency over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from probe.report.bench_facts import duration, percent, slowest, three_digits
from probe.report.html.element import Markup, element, name
from probe.report.html.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, picture
from probe.report.numbers import count, size
from probe.report.text import elide
from probe.results.bench import BenchResult, LayerTime

_BOUNDS = (("compute", "compute"), ("memory", "memory"), ("", "unknown"))  # what sets the floor, and its style
_NAMED = 6  # layers that a picture names
_DOTS = 2000  # of the latency picture
_LOWEST_DECADES = 3  # that the roofline spans on each axis at least


def time_plot(result: BenchResult, rows: str) -> Markup | None:
    """Time by layer, a bar each, in the order of the numbered table ``rows``; None where no layer was timed."""
    layers = result.layers
    times = [layer.median for layer in layers if layer.median is not None]
    if not times:
        return None
    unit, scale = _time_unit(max(times))
    y = _linear(max(times))
    across = Scale(0, 1, len(layers), cut_below=False, cut_above=False)
    parts = [*_axis(y, max(times), lambda value: f"{value / scale:g}", unit), *_places(across)]
    for bound, style in _BOUNDS:
        bars = [(at, layer.median) for at, layer in enumerate(layers) if layer.median and layer.bound == bound]
        parts.append(_bars(across, bars, y, style))
    first = slowest(result)[0]
    described = (
        f"{count(len(times), 'layer')} in execution order, {duration(result.layers_sum)} in sum. The slowest is {elide(first.name, 60)}: "
        f"{duration(first.median)}, {percent(first.share)} of the sum."
    )
    drawn = picture("time-picture", "Time by layer", described, parts, rows=rows, scale=across, noun="layer")
    held = any(layer.bound for layer in layers)
    said = [
        *([("compute", "compute-bound: the product ceiling sets the least time")] if held else []),
        *([("memory", "memory-bound: the bandwidth ceiling does")] if held else []),
        ("unknown", "cost not known" if held else "median of a layer run by itself"),
    ]
    shown = {style for bound, style in _BOUNDS if any(layer.runs and layer.bound == bound for layer in layers)}
    legend = _legend([one for one in said if one[0] in shown], "bar")
    return element("figure", drawn, element("figcaption", legend, _slowest(result, rows)))


def memory_plot(result: BenchResult, rows: str) -> Markup | None:
    """Bytes alive while each layer runs, and what the plan needs; None where it was not looked at."""
    plan = result.memory
    alive = [(at, layer.live_bytes) for at, layer in enumerate(result.layers) if layer.live_bytes is not None]
    if plan is None or not alive:
        return None
    top = max(plan.arena, *(held for _, held in alive))
    y = _linear(top)
    across = Scale(0, 1, len(result.layers), cut_below=False, cut_above=False)
    half = across.step / 2
    steps = "".join(
        f"M{across.x(at) - half:.1f} {BOTTOM}V{y(held):.1f}h{across.step:.2f}V{BOTTOM}" for at, held in alive
    )
    parts = [
        *_axis(y, top, lambda value: size(round(value)), ""),
        *_places(across),
        element("path", d=steps, class_="held"),
    ]
    at = y(plan.arena)
    parts += [
        element("path", d=f"M{LEFT} {at:.1f}H{RIGHT}", class_="roof plan"),
        _text(RIGHT - 6, at - 5 if at > TOP + 12 else at + 14, f"plan: {size(plan.arena)}", "end"),
    ]
    described = (
        f"Memory of tensors alive at each of {count(len(alive), 'layer')}: at most {size(plan.peak_live)}, at {elide(plan.peak_layer, 60)}; one "
        f"block of {size(plan.arena)} holds all."
    )
    drawn = picture(
        "memory-picture", "Memory along the network", described, parts, rows=rows, scale=across, noun="layer"
    )
    return element("figure", drawn)


def roofline_plot(result: BenchResult, rows: str) -> Markup | None:
    """FLOP/s over FLOP/byte under the ceilings, both logarithmic, dots by share of time; None where nothing is held against ceilings."""
    roofs = result.ceilings
    shown = [
        (at, layer, layer.flops / layer.bytes, layer.flops_per_second)
        for at, layer in enumerate(result.layers)
        if layer.flops and layer.bytes and layer.flops_per_second and layer.bound
    ]
    if roofs is None or not shown:
        return None
    ridge = roofs.flops_per_second / roofs.bytes_per_second
    x_low, x_high = _decades([ridge, *(one[2] for one in shown)])
    y_low, y_high = _decades([roofs.flops_per_second, *(one[3] for one in shown)])

    def x(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def y(rate: float) -> float:
        return BOTTOM - (math.log10(rate) - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    parts: list[Markup] = []
    for power in range(x_low, x_high + 1):
        parts += [element("path", d=f"M{x(10.0**power):.1f} {TOP}V{BOTTOM}", class_="grid"),
                  _text(x(10.0**power), BOTTOM + 17, f"{10.0**power:g}", "middle")]  # fmt: skip
    for power in range(y_low, y_high + 1):
        parts += [element("path", d=f"M{LEFT} {y(10.0**power):.1f}H{RIGHT}", class_="grid"),
                  _text(LEFT - 6, y(10.0**power) + 4, f"{10.0 ** (power - 9):g}", "end")]  # fmt: skip
    start = max(10.0**x_low, 10.0**y_low / roofs.bytes_per_second)
    slope = f"M{x(start):.1f} {y(start * roofs.bytes_per_second):.1f}L{x(ridge):.1f} {y(roofs.flops_per_second):.1f}H{RIGHT}"
    middle = 10.0 ** ((math.log10(start) + math.log10(ridge)) / 2)
    parts += [
        element("path", d=slope, class_="roof"),
        _text(
            x(ridge) + 6,
            y(roofs.flops_per_second) - 6,
            f"{three_digits(roofs.flops_per_second / 1e9)} GFLOP/s",
            "start",
        ),
        _text(
            x(middle) - 6,
            y(middle * roofs.bytes_per_second) - 6,
            f"{three_digits(roofs.bytes_per_second / 1e9)} GB/s",
            "end",
        ),
        _text((LEFT + RIGHT) / 2, HEIGHT - 8, "FLOP per byte", "middle"),
        _text(LEFT, TOP - 10, "GFLOP/s", "end"),
        element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="axis"),
    ]
    parts += [
        _dot(layer, x(intensity), y(rate))
        for _, layer, intensity, rate in sorted(shown, key=lambda one: -(one[1].share or 0.0))
    ]
    worst = max(shown, key=lambda one: (one[1].median or 0.0) - (one[1].floor or 0.0))[1]
    described = (
        f"{count(len(shown), 'layer')} under a roof of {three_digits(roofs.flops_per_second / 1e9)} GFLOP/s and "
        f"{three_digits(roofs.bytes_per_second / 1e9)} GB/s. Furthest from it in time is {elide(worst.name, 60)}."
    )
    legend = _legend(
        [("compute", "compute-bound"), ("memory", "memory-bound; above the slope its tensors came from a cache")], "dot"
    )
    gains = sorted(shown, key=lambda one: (one[1].floor or 0.0) - (one[1].median or 0.0))[:_NAMED]
    listed = [
        _listed(at, layer, f"{duration((layer.median or 0) - (layer.floor or 0))} above its floor", rows)
        for at, layer, *_ in gains
    ]
    most = element("div", element("p", "Where most could be gained"), element("ol", listed), class_="starts")
    return element(
        "figure", _chart("roofline-picture", "Roofline", described, parts), element("figcaption", legend, most)
    )


def latency_plot(result: BenchResult) -> Markup | None:
    """Every inference by the moment it began: a machine that warms up, throttles or is interrupted shows here."""
    if len(result.times) < 2:
        return None
    times = result.times[:: -(-len(result.times) // _DOTS)]
    top, last = max(one.latency for one in times), max(one.begin for one in times) or 1.0
    unit, scale = _time_unit(top)
    y = _linear(top)
    drawn = "".join(f"M{LEFT + one.begin / last * (RIGHT - LEFT):.1f} {y(one.latency):.1f}h0" for one in times)
    parts = [*_axis(y, top, lambda value: f"{value / scale:g}", unit)]
    for words, value in (("median", result.latency.median), ("p99", result.latency.p99)):
        at = y(value)
        parts += [element("path", d=f"M{LEFT} {at:.1f}H{RIGHT}", class_="roof plan"),
                  _text(RIGHT - 6, at - 4, f"{words} {duration(value)}", "end")]  # fmt: skip
    parts += [
        element("path", d=drawn, class_="dots inference"),
        _text(LEFT, BOTTOM + 17, "0", "middle"),
        _text(RIGHT, BOTTOM + 17, duration(last), "end"),
        _text((LEFT + RIGHT) / 2, HEIGHT - 8, "time since the first", "middle"),
    ]
    described = (
        f"{count(result.inferences, 'inference')} over {duration(result.measured_seconds)}: from {duration(result.latency.min)} to "
        f"{duration(result.latency.max)}, median {duration(result.latency.median)}."
    )
    return element("figure", _chart("latency-picture", "Latency of each inference", described, parts))


# --- pieces


def _chart(identity: str, title: str, described: str, parts: Iterable[Markup]) -> Markup:
    """A picture that is looked at and not walked through: what it shows stands in a table, too."""
    drawing = element(
        "svg",
        element("title", title, id=f"{identity}-name"),
        element("desc", described, id=f"{identity}-description"),
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{identity}-name {identity}-description",
    )
    return element("div", element("div", drawing, class_="stage still", tabindex=0), class_="plot", id=identity)


def _linear(top: float) -> Callable[[float], float]:
    highest = _ticks(top)[-1]
    return lambda value: BOTTOM - value / highest * (BOTTOM - TOP)


def _ticks(top: float) -> list[float]:
    """From zero in round steps to the first that is no less than ``top``."""
    if not top > 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one * 4 >= top * (1 - 1e-9))
    return [step * at for at in range(math.ceil(top / step - 1e-9) + 1)]


def _axis(y: Callable[[float], float], top: float, words: Callable[[float], str], unit: str) -> list[Markup]:
    parts = []
    for value in _ticks(top):
        at = y(value)
        parts += [
            element("path", d=f"M{LEFT} {at:.1f}H{RIGHT}", class_="grid"),
            _text(LEFT - 6, at + 4, words(value) if value else "0", "end"),
        ]
    if unit:
        parts.append(_text(LEFT - 6, TOP - 10, unit, "end"))
    return [*parts, element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="axis")]


def _places(scale: Scale) -> list[Markup]:
    """Numbers below the axis, at most fourteen, at round steps."""
    stride = next(one for one in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if scale.places / one <= 14)
    marked = [*([0] if stride > 2 else []), *range(stride - 1, scale.places, stride)]
    return [
        *(_text(scale.x(place), BOTTOM + 17, str(place + 1), "middle") for place in marked),
        _text((LEFT + RIGHT) / 2, HEIGHT - 8, f"layer, in execution order (1 to {scale.places:,})", "middle"),
    ]


def _bars(scale: Scale, bars: Sequence[tuple[int, float]], y: Callable[[float], float], style: str) -> Markup:
    """One path for all bars of a style."""
    if not bars:
        return Markup()
    drawn = "".join(f"M{scale.x(at):.1f} {BOTTOM}V{y(value):.1f}" for at, value in bars)
    return element(
        "path", d=drawn, class_=f"timebar {style}", stroke_width=f"{max(0.7, min(40.0, 0.8 * scale.step)):.2f}"
    )


def _dot(layer: LayerTime, x: float, y: float) -> Markup:
    radius = 3 + 17 * math.sqrt(layer.share or 0.0)
    said = f"{elide(layer.name, 80)}: {duration(layer.median)}, {percent(layer.share)} of the time, {percent(layer.roofline)} of the roof"
    return element(
        "circle",
        element("title", said),
        cx=f"{x:.1f}",
        cy=f"{y:.1f}",
        r=f"{radius:.1f}",
        class_=f"roofdot {layer.bound}",
    )


def _slowest(result: BenchResult, rows: str) -> Markup:
    places = {id(layer): at for at, layer in enumerate(result.layers)}
    listed = [
        _listed(places[id(one)], one, f"{duration(one.median)}, {percent(one.share)}", rows)
        for one in slowest(result)[:_NAMED]
    ]
    return element("div", element("p", "Slowest layers"), element("ol", listed), class_="starts")


def _listed(at: int, layer: LayerTime, said: str, rows: str) -> Markup:
    return element("li", element("a", name(layer.name, 80), href=f"#{rows}-{at}"), f": {said}")


def _legend(said: Sequence[tuple[str, str]], sign: str) -> Markup:
    items = []
    for style, words in said:
        drawn = (
            element("path", d="M13 1V15", class_=f"timebar {style}", stroke_width=8)
            if sign == "bar"
            else element("circle", cx=13, cy=8, r=6, class_=f"roofdot {style}")
        )
        items.append(
            element("li", element("svg", drawn, viewBox="0 0 26 16", class_="sample", aria_hidden="true"), words)
        )
    return element("ul", items, class_="legend")


def _time_unit(largest: float) -> tuple[str, float]:
    return ("s", 1.0) if largest >= 1 else ("ms", 1e-3) if largest >= 1e-3 else ("us", 1e-6)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Whole decades around all values, at least three."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.05)
    return low, max(high, low + _LOWEST_DECADES)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return element("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_="label")
