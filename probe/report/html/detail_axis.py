"""Magnitudes from left to right, a format's limits among them: the frame that the pictures of one tensor share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.precision import PRECISIONS, Precision
from probe.report.html.element import Markup, element
from probe.results.detail import Detail, Histogram

WIDTH, HEIGHT = 480, 268  # of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 46, 470, 28, 228  # of the plotting area
SLOT = 34  # width of a column for what has no magnitude on the axis
_EDGE = 1100  # exponents of two that no number reaches
_WHOLE_FORMAT = 60  # octaves: a format that spans fewer is shown from end to end
_LOG10_2 = math.log10(2.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """From exponent ``low`` to ``high`` of two, between ``left`` and ``right``; ``below`` and ``above`` are columns beside it, by label."""

    low: float
    high: float
    below: tuple[str, ...]
    above: tuple[str, ...]
    held: Precision | None

    @property
    def left(self) -> float:
        return LEFT + SLOT * len(self.below)

    @property
    def right(self) -> float:
        return RIGHT - SLOT * len(self.above)

    def x(self, exponent: float) -> float:
        """Place of ``2**exponent``; what lies outside is at the end."""
        share = (min(max(exponent, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)

    def slot(self, label: str) -> float:
        """Middle of the column of that label."""
        if label in self.below:
            return LEFT + SLOT * (self.below.index(label) + 0.5)
        return self.right + SLOT * (self.above.index(label) + 0.5)


def exponents(detail: Detail, bins: int) -> list[tuple[float, float]]:
    """Edges of the bins as exponents of two, wherever the file says they are."""
    low, step = min(max(detail.lowest, -_EDGE), _EDGE), min(max(detail.octaves, 1), 64)
    return [(low + i * step, low + (i + 1) * step) for i in range(bins)]


def bins_of(detail: Detail) -> int:
    """Bins of the longest list."""
    sides = (detail.golden, detail.actual)
    return max(len(detail.error_max), *(len(row) for side in sides for row in (side.positive, side.negative)))


def columns(histogram: Histogram) -> dict[str, int]:
    """What has no place among the magnitudes, by label."""
    return {
        "0": histogram.zeros, "less": histogram.below,
        "more": histogram.above, "Inf": histogram.inf, "NaN": histogram.nan,
    }  # fmt: skip


def axis_of(detail: Detail) -> Axis:
    """From the smallest to the largest magnitude; of a format of few octaves, such as FP16, from end to end."""
    held = PRECISIONS.get(detail.limits.precision) if detail.limits is not None else None
    edges = exponents(detail, bins_of(detail))
    low, high = (edges[0][0], edges[-1][1]) if edges else (-10.0, 1.0)
    if held is not None:
        first, last = _format_exponents(held)
        if last - first < _WHOLE_FORMAT:
            low, high = min(low, first - 3), max(high, last + 3)
        else:
            low, high = _with_limit(low, high, first, last)
    seen = {label for side in (detail.golden, detail.actual) for label, n in columns(side).items() if n > 0}
    return Axis(
        float(low), float(max(high, low + 4)),
        tuple(one for one in ("0", "less") if one in seen), tuple(one for one in ("more", "Inf", "NaN") if one in seen), held,
    )  # fmt: skip


def _format_exponents(held: Precision) -> tuple[float, float]:
    """Half its smallest number, below which everything is stored as zero, and its largest."""
    return math.log2(held.smallest_normal) - held.mantissa_bits - 1, math.log2(held.max)


def _with_limit(low: float, high: float, first: float, last: float) -> tuple[float, float]:
    """A limit that numbers come near or pass is shown with some room behind it."""
    return (min(low, first - 3) if low < first + 8 else low), (max(high, last + 3) if high > last - 8 else high)


def frame(axis: Axis, below: str) -> list[Markup]:
    """Zones of the format, decades, the columns beside the axis, its title."""
    parts = [*_zones(axis), *_decades(axis)]
    for label in (*axis.below, *axis.above):
        parts.append(
            element(
                "rect",
                x=round(axis.slot(label) - SLOT / 2 + 2, 1),
                y=TOP,
                width=SLOT - 4,
                height=BOTTOM - TOP,
                class_="band",
            )
        )
        parts.append(text(axis.slot(label), BOTTOM + 15, label))
    parts += [
        element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="axis"),
        text((axis.left + axis.right) / 2, HEIGHT - 6, below),
    ]
    return parts


def _zones(axis: Axis) -> list[Markup]:
    """Where the format stores zero, where it has fewer bits, where it overflows."""
    if axis.held is None:
        return []
    first, last = _format_exponents(axis.held)
    normal = math.log2(axis.held.smallest_normal)
    name = axis.held.name.upper()
    zones = (
        (axis.low, first, "lost", "→ 0"),
        (first, normal, "thin", "subnormal"),
        (last, axis.high, "lost", "→ Inf"),
    )
    parts = []
    for low, high, style, word in zones:
        left, right = axis.x(low), axis.x(high)
        if right - left < 1:
            continue
        parts.append(
            element(
                "rect",
                x=round(left, 1),
                y=TOP,
                width=round(right - left, 1),
                height=BOTTOM - TOP,
                class_=f"zone {style}",
            )
        )
        if right - left > 6.5 * len(word) or style == "lost":
            anchor = "start" if left <= axis.left else "end" if right >= axis.right else "middle"
            place = {"start": left, "end": right, "middle": (left + right) / 2}[anchor]
            parts.append(text(place, TOP - 6, word, anchor))
    held = (max(first, axis.low), min(last, axis.high))
    parts.append(text((axis.x(max(normal, held[0])) + axis.x(held[1])) / 2, TOP - 6, f"held by {name}"))
    return parts


def _decades(axis: Axis) -> list[Markup]:
    """Powers of ten below the axis, as many as there is room for."""
    first, last = math.ceil(axis.low * _LOG10_2), math.floor(axis.high * _LOG10_2)
    room = max(1, int((axis.right - axis.left) / 46))
    stride = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 1000) if (last - first) / n <= room)
    parts = []
    for power in range(first, last + 1):
        if power % stride:
            continue
        x = round(axis.x(power / _LOG10_2), 1)
        parts.append(element("path", d=f"M{x} {TOP}V{BOTTOM}", class_="grid"))
        if (x - axis.left > 16 or not axis.below) and (
            axis.right - x > 16 or not axis.above
        ):  # the columns have words there
            parts.append(text(x, BOTTOM + 15, decade(power)))
    return parts


def heights(low: int, high: int) -> list[tuple[int, float]]:
    """Decades of an upright axis, at most seven of them, with their places."""
    stride = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 1000) if (high - low) / n <= 6)
    return [(power, height(power, low, high)) for power in range(low, high + 1) if power % stride == 0]


def height(power: float, low: float, high: float) -> float:
    """Place of a power of ten on an upright axis; what lies outside is at the end."""
    return BOTTOM - (min(max(power, low), high) - low) / (high - low) * (BOTTOM - TOP)


def text(x: float, y: float, words: str, anchor: str = "middle") -> Markup:
    return element("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_="label")


def decade(power: int) -> str:
    """A power of ten in few letters."""
    return {0: "1", -1: "0.1", -2: "0.01", 1: "10", 2: "100"}.get(power, f"1e{power}")


def drawing(identity: str, title: str, described: str, parts: Iterable[Markup]) -> Markup:
    """An SVG with its name and its content in words."""
    return element(
        "svg",
        element("title", title, id=f"{identity}-name"),
        element("desc", described, id=f"{identity}-description"),
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_labelledby=f"{identity}-name {identity}-description",
    )  # fmt: skip


def legend(said: Sequence[tuple[str, str]]) -> Markup:
    """Signs with their words; a sign is the class it is drawn in, and an area where that begins with ``bar``."""
    items = []
    for style, words in said:
        drawn = "M1 3H25V13H1Z" if style.startswith("bar") else "M1 8H25"
        sample = element("path", d=drawn, class_=style)
        items.append(
            element("li", element("svg", sample, viewBox="0 0 26 16", class_="sample", aria_hidden="true"), words)
        )
    return element("ul", items, class_="legend")
