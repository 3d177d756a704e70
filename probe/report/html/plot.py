"""A logarithmic picture as inline SVG: axes, bands for zero and for NaN or Inf, limits, marks. Numbers in, markup out.

Drawn here and not by a charting library: a picture of 1,000 layers takes 40 kB and some milliseconds this way; Vega and what it needs would
put 0.8 MB of script into every page and half a second into opening it, and could not be walked through by keyboard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.report.html.element import Markup, element

WIDTH, HEIGHT = 960, 360  # of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 62, 946, 26, 316  # of the plotting area, bands included
_BAND = 30  # height of the bands for what a logarithm cannot show
_LOWEST, _HIGHEST = -10, 4  # decades that are ever drawn; what lies beyond goes into the bands


@dataclass(frozen=True, slots=True)
class Scale:
    """Positions on the picture. ``low`` and ``high`` are decades (powers of ten), ``places`` how many things stand side by side."""

    low: int
    high: int
    places: int
    cut_below: bool  # values below the lowest decade are in the lower band, not only zeros
    cut_above: bool

    @property
    def step(self) -> float:
        return (RIGHT - LEFT) / max(1, self.places)

    def x(self, place: int) -> float:
        return LEFT + (place + 0.5) * self.step

    def y(self, value: float) -> float:
        """Height of a value: NaN, Inf and what is too large in the upper band, zero and what is too small in the lower one."""
        if not math.isfinite(value) or value > 10.0**self.high:
            return TOP + _BAND / 2
        if value < 10.0**self.low:
            return BOTTOM - _BAND / 2
        top, bottom = TOP + _BAND, BOTTOM - _BAND
        return bottom - (math.log10(value) - self.low) / (self.high - self.low) * (bottom - top)


def scale_for(values: Iterable[float], places: int, limits: Sequence[float] = ()) -> Scale:
    """Whole decades around all positive finite values and limits."""
    seen = [v for v in (*values, *limits) if math.isfinite(v) and v > 0]
    lowest, highest = (min(seen), max(seen)) if seen else (1e-3, 1.0)
    low = max(_LOWEST, min(_HIGHEST - 2, math.floor(math.log10(lowest))))
    high = min(_HIGHEST, max(low + 2, math.ceil(math.log10(highest))))
    return Scale(low, high, places, cut_below=lowest < 10.0**low, cut_above=highest > 10.0**high)


def frame(scale: Scale, below: str) -> list[Markup]:
    """Grid, decades, the two bands, and the horizontal axis with its title ``below``."""
    parts = [
        element("rect", x=LEFT, y=TOP, width=RIGHT - LEFT, height=_BAND, class_="band"),
        element("rect", x=LEFT, y=BOTTOM - _BAND, width=RIGHT - LEFT, height=_BAND, class_="band"),
        _label(LEFT - 6, TOP + _BAND / 2 + 4, f"> 1e{scale.high}" if scale.cut_above else "NaN/Inf", "end"),
        _label(LEFT - 6, BOTTOM - _BAND / 2 + 4, f"< 1e{scale.low}" if scale.cut_below else "0", "end"),
    ]
    every = 1 if scale.high - scale.low <= 8 else 2
    for decade in range(scale.high, scale.low - 1, -every):
        y = round(scale.y(10.0**decade), 1)
        parts.append(element("path", d=f"M{LEFT} {y}H{RIGHT}", class_="grid"))
        if decade not in (scale.low, scale.high) or not (scale.cut_below or scale.cut_above):
            parts.append(_label(LEFT - 6, y + 4, _decade(decade), "end"))
    stride = _stride(scale.places)
    for place in (*([0] if stride > 2 else []), *range(stride - 1, scale.places, stride)):
        x = round(scale.x(place), 1)
        parts += [
            element("path", d=f"M{x} {BOTTOM}v4", class_="axis"),
            _label(x, BOTTOM + 17, str(place + 1), "middle"),
        ]
    parts += [
        element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="axis"),
        _label((LEFT + RIGHT) / 2, HEIGHT - 8, below, "middle"),
    ]
    return parts


def limit_line(scale: Scale, value: float, words: str, style: str) -> list[Markup]:
    """A limit across the picture; what lies above a ``fail`` limit is tinted."""
    y = round(scale.y(value), 1)
    parts = [
        element("path", d=f"M{LEFT} {y}H{RIGHT}", class_=f"limit {style}"),
        _label(LEFT + 6, y - 4, words, "start"),
    ]
    if style == "fail":
        parts.insert(0, element("rect", x=LEFT, y=TOP, width=RIGHT - LEFT, height=round(y - TOP, 1), class_="beyond"))
    return parts


def mark(scale: Scale, place: int, words: str, style: str) -> list[Markup]:
    """An upright line at a place, with a word above it."""
    x = round(scale.x(place), 1)
    anchor = "end" if x > RIGHT - 60 else "middle"
    return [
        element("path", d=f"M{x} {TOP}V{BOTTOM}", class_=f"mark {style}"),
        element("text", words, x=x, y=TOP - 8, text_anchor=anchor, class_=f"label {style}") if words else Markup(),
    ]


def dots(scale: Scale, points: Iterable[tuple[int, float | None]], style: str) -> Markup:
    """One path for all points: strokes of no length, whose caps (round or square, by style) are the dots."""
    drawn = "".join(f"M{scale.x(place):.1f} {scale.y(value):.1f}h0" for place, value in points if value is not None)
    return element("path", d=drawn, class_=f"dots {style}") if drawn else Markup()


def line(scale: Scale, points: Iterable[tuple[int, float | None]], style: str) -> Markup:
    """A line through all points that are neither zero nor unknown."""
    drawn = " ".join(f"{scale.x(place):.1f} {scale.y(value):.1f}" for place, value in points if value)
    return element("path", d=f"M{drawn}", class_=f"line {style}") if drawn else Markup()


def picture(
    identity: str, title: str, described: str, parts: Iterable[Markup], *, rows: str, scale: Scale, noun: str
) -> Markup:
    """The SVG, and what the script needs to walk through it: ``rows`` is the numbered table whose rows its places stand for."""
    drawing = element(
        "svg",
        element("title", title, id=f"{identity}-name"),
        element("desc", described, id=f"{identity}-description"),
        *parts,
        element("path", d=f"M-9 {TOP}V{BOTTOM}", class_="cursor"),
        class_="crowded" if scale.step < 8 else None,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{identity}-name {identity}-description",
    )
    stage = element(
        "div",
        drawing,
        class_="stage",
        data_plot=rows,
        data_noun=noun,
        data_left=LEFT,
        data_step=f"{scale.step:.6g}",
        data_places=scale.places,
        data_width=WIDTH,
    )
    return element("div", stage, element("div", class_="tip", hidden=True), class_="plot", id=identity)


def _label(x: float, y: float, words: str, anchor: str) -> Markup:
    return element("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_="label")


def _decade(power: int) -> str:
    return {0: "1", -1: "0.1", -2: "0.01", -3: "0.001", 1: "10", 2: "100"}.get(power, f"1e{power}")


def _stride(places: int) -> int:
    """Of the numbers below the axis: at most fourteen, at round steps."""
    for stride in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        if places / stride <= 14:
            return stride
    return 10 ** max(3, len(str(places)) - 2)
