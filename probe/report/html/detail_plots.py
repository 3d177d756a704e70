"""Pictures of one tensor pair: distribution over magnitude, error against magnitude, error by channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from probe.report.html.detail_axis import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    SLOT,
    TOP,
    Axis,
    axis_of,
    bins_of,
    columns,
    decade,
    drawing,
    exponents,
    frame,
    height,
    heights,
    legend,
    text,
)
from probe.report.html.element import Markup, element
from probe.report.numbers import count, number
from probe.results.detail import ChannelErrors, Detail, Histogram

_FOOT = 0.35  # decades that a count of one stands above the ground
_MOST_DECADES = 12  # of an error axis


# --- distribution


def histogram(detail: Detail, identity: str) -> Markup:
    """Golden as areas, actual as an outline, counts logarithmic; negative numbers hang below where there are any."""
    axis, sides = axis_of(detail), (detail.golden, detail.actual)
    most = max((n for side in sides for n in (*side.positive, *side.negative, *columns(side).values())), default=0)
    mirrored = any(n > 0 for side in sides for n in side.negative)
    ground = (TOP + BOTTOM) / 2 if mirrored else float(BOTTOM)
    full = (ground - TOP - 4) / (math.log10(max(most, 1)) + _FOOT)
    edges = exponents(detail, bins_of(detail))
    parts = frame(axis, "magnitude")
    parts += _counts(ground, full, most, mirrored=mirrored)
    for side, style in zip(sides, ("bar golden", "step actual"), strict=True):
        parts.append(_outline(axis, edges, side.positive, ground, -full, style))
        if mirrored:
            parts.append(_outline(axis, edges, side.negative, ground, full, style))
        parts += _columns(axis, side, ground, -full, style)
    if mirrored:
        parts += [
            element("path", d=f"M{LEFT} {ground}H{RIGHT}", class_="axis"),
            text(LEFT + 4, TOP + 12, "positive", "start"), text(LEFT + 4, BOTTOM - 6, "negative", "start"),
        ]  # fmt: skip
    return element(
        "figure",
        drawing(identity, "Distribution of golden and actual", _told(detail), parts),
        element("figcaption", legend((("bar golden", "golden"), ("step actual", "actual")))),
    )


def _rise(n: int) -> float:
    """Height of a count, in decades."""
    return math.log10(n) + _FOOT if n > 0 else 0.0


def _outline(
    axis: Axis, edges: Sequence[tuple[float, float]], counts: Sequence[int], ground: float, full: float, style: str
) -> Markup:
    filled = [at for at, n in enumerate(counts) if n > 0]
    if not filled:
        return Markup()
    drawn, last = [], None
    for at in range(filled[0], filled[-1] + 1):
        y = f"{ground + full * _rise(counts[at]):.1f}"
        if last is None:
            drawn.append(f"M{axis.x(edges[at][0]):.1f} {ground:.1f}")
        drawn.append(("" if y == last else f"V{y}") + f"H{axis.x(edges[at][1]):.1f}")
        last = y
    return element("path", d="".join(drawn) + f"V{ground:.1f}", class_=style)


def _columns(axis: Axis, side: Histogram, ground: float, full: float, style: str) -> list[Markup]:
    """NaN, Inf, zeros: beside the axis, upwards whatever their sign."""
    half = SLOT / 2 - 5
    return [
        element(
            "path",
            d=f"M{axis.slot(label) - half:.1f} {ground:.1f}V{ground + full * _rise(n):.1f}h{2 * half:.1f}V{ground:.1f}",
            class_=style,
        )
        for label, n in columns(side).items()
        if n > 0
    ]


def _counts(ground: float, full: float, most: int, *, mirrored: bool) -> list[Markup]:
    powers = range(len(str(max(most, 1))))
    stride = -(-len(powers) // (3 if mirrored else 6))
    parts = []
    for power in powers[::stride]:
        for sign in (-1, 1) if mirrored else (-1,):
            y = ground + sign * full * (power + _FOOT)
            parts.append(text(LEFT - 5, y + 4, _thousands(power), "end"))
    return [*parts, text(LEFT - 5, TOP - 12, "count", "end")]


def _thousands(power: int) -> str:
    return ("1", "10", "100", "1k", "10k", "100k", "1M", "10M", "100M", "1G")[power] if power < 10 else decade(power)


def _told(detail: Detail) -> str:
    """The picture in words."""
    held = detail.limits.precision.upper() if detail.limits is not None else ""
    sides = []
    for name, side in (("golden", detail.golden), ("actual", detail.actual)):
        special = ", ".join(f"{count(n)} {label}" for label, n in columns(side).items() if n > 0)
        numbers = sum(side.positive) + sum(side.negative)
        sides.append(f"{name}: {count(numbers)} by magnitude{', ' + special if special else ''}")
    return f"Elements by magnitude, both axes logarithmic{', with the limits of ' + held if held else ''}. {'; '.join(sides)}."


# --- error against magnitude


def error_by_magnitude(detail: Detail, identity: str, limit: float | None, words: str) -> Markup | None:
    """Largest and median error of the elements of a magnitude; beside them what rounding to the format costs. None without errors.

    Args:
        limit: error that fails, in units of the tensor; ``words`` says where it comes from.
    """
    known = [(at, e) for at, e in enumerate(detail.error_max) if e is not None]
    positive = [e for e in (*detail.error_max, *detail.error_median, limit) if e is not None and 0 < e < math.inf]
    if not known or not any(e > 0 for _, e in known):
        return None
    axis, edges = axis_of(detail), exponents(detail, bins_of(detail))
    axis = Axis(axis.low, axis.high, (), (), axis.held)
    rounding = _rounding(axis)
    seen = [math.log10(e) for e in positive] or [0.0]
    high = math.ceil(max(seen))
    low = max(math.floor(min(seen)), high - _MOST_DECADES)
    high = max(high, low + 2)
    parts = frame(axis, "magnitude of golden")
    for power, y in heights(low, high):
        parts += [
            element("path", d=f"M{LEFT} {y:.1f}H{RIGHT}", class_="grid"),
            text(LEFT - 5, y + 4, decade(power), "end"),
        ]
    parts.append(text(LEFT - 5, TOP - 12, "error", "end"))
    shown = [("stroke largest", "largest"), ("stroke median", "median")]
    if rounding:
        parts.append(_line(axis, rounding, low, high))
        shown.append(
            ("stroke rounding", f"rounding once to {detail.limits.precision.upper() if detail.limits else ''}")
        )
    if limit is not None and 0 < limit < math.inf:
        y = height(math.log10(limit), low, high)
        parts += [element("path", d=f"M{LEFT} {y:.1f}H{RIGHT}", class_="limit fail")]
        shown.append(("limit fail", words))
    for errors, style in ((detail.error_max, "stroke largest"), (detail.error_median, "stroke median")):
        parts.append(_dashes(axis, edges, errors, low, high, style))
    told = f"Largest and median error by the magnitude of golden, both axes logarithmic. The largest is {number(max(e for _, e in known))}."
    return element(
        "figure",
        drawing(identity, "Error against magnitude", told, parts),
        element("figcaption", legend(shown)),
    )


def _rounding(axis: Axis) -> list[tuple[float, float]]:
    """Half a unit in the last place at the ends of the axis and at the smallest normal number: (exponent of two, of the error)."""
    held = axis.held
    if held is None:
        return []
    least = math.log2(held.smallest_normal)
    last = math.log2(held.max)
    points = sorted({axis.low, min(max(least, axis.low), axis.high), min(last, axis.high)})
    return [(e, max(e, least) - held.mantissa_bits - 1) for e in points if e <= last]


def _line(axis: Axis, points: Sequence[tuple[float, float]], low: float, high: float) -> Markup:
    """Through points of exponents of two; cut where it leaves the picture."""
    log = math.log10(2.0)
    places = []
    for (x0, y0), (x1, y1) in pairwise(points):
        for share in (i / 24 for i in range(25)):
            power = (y0 + share * (y1 - y0)) * log
            if low <= power <= high:
                places.append(f"{axis.x(x0 + share * (x1 - x0)):.1f} {height(power, low, high):.1f}")
    return (
        element("path", d="M" + " ".join(dict.fromkeys(places)), class_="stroke rounding")
        if len(places) > 1
        else Markup()
    )


def _dashes(
    axis: Axis,
    edges: Sequence[tuple[float, float]],
    errors: Sequence[float | None],
    low: float,
    high: float,
    style: str,
) -> Markup:
    """A dash the width of its bin for each error; zero lies on the ground."""
    drawn = []
    for (left, right), e in zip(edges, errors, strict=False):
        if e is None or math.isnan(e):
            continue
        y = height(math.log10(e), low, high) if 0 < e < math.inf else TOP if e > 0 else BOTTOM
        drawn.append(f"M{axis.x(left) + 0.8:.1f} {y:.1f}H{axis.x(right) - 0.8:.1f}")
    return element("path", d="".join(drawn), class_=style) if drawn else Markup()


# --- channels


def channel_bars(channels: ChannelErrors, identity: str) -> Markup | None:
    """Error of each channel, or of groups of adjacent ones, and the range they have; logarithmic. None without errors."""
    places = min(len(channels.error), len(channels.range))
    errors, ranges = channels.error[:places], channels.range[:places]
    seen = [math.log10(x) for x in (*errors, *ranges) if 0 < x < math.inf]
    if not any(e > 0 for e in errors) or not seen:
        return None
    high = math.ceil(max(seen))
    low = max(math.floor(min(seen)) - 1, high - _MOST_DECADES)
    step = (RIGHT - LEFT) / places
    parts = []
    for power, y in heights(low, high):
        parts += [
            element("path", d=f"M{LEFT} {y:.1f}H{RIGHT}", class_="grid"),
            text(LEFT - 5, y + 4, decade(power), "end"),
        ]
    gap = min(2.0, step / 6)
    bars, extents = [], []
    for at, (error, extent) in enumerate(zip(errors, ranges, strict=True)):
        left, right = LEFT + at * step + gap, LEFT + (at + 1) * step - gap
        if error > 0:
            top = height(math.log10(error), low, high) if error < math.inf else TOP
            bars.append(f"M{left:.1f} {BOTTOM}V{top:.1f}H{right:.1f}V{BOTTOM}")
        if 0 < extent < math.inf:
            extents.append(f"M{left:.1f} {height(math.log10(extent), low, high):.1f}H{right:.1f}")
    parts += [
        element("path", d="".join(bars), class_="bar error"), element("path", d="".join(extents), class_="stroke extent"),
        element("path", d=f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", class_="axis"),
    ]  # fmt: skip
    stride = max(1, -(-places // 8))
    per_place = max(1, channels.per_place)
    parts += [text(LEFT + (at + 0.5) * step, BOTTOM + 15, f"{at * per_place:,}") for at in range(0, places, stride)]
    words = "channel" if per_place == 1 else f"channel, {per_place} a bar"
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 6, words))
    told = f"Largest error of each of {count(channels.count, 'channel')}, and their own range, logarithmic."
    return element(
        "figure",
        drawing(identity, "Error by channel", told, parts),
        element("figcaption", legend((("bar error", "largest error"), ("stroke extent", "range of the channel")))),
    )
