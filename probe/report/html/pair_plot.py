"""Error along the network, before and after: two lines over the same places, and where it got worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.report.html.element import Markup, element, name
from probe.report.html.plot import dots, frame, limit_line, line, mark, picture, scale_for
from probe.report.numbers import count, number
from probe.report.text import elide
from probe.results.diff import Criterion

_NUMBERED = 9  # starts of error that get a number on the picture; the rest get their line only


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the network, or a tensor: a row of the table below the picture."""

    name: str
    status: str
    before: float | None
    after: float | None
    starts_before: bool = False
    starts_after: bool = False


def pair_plot(places: Sequence[Place], acceptance: Iterable[Criterion], *, rows: str, noun: str) -> Markup | None:
    """The picture with its legend; None where nothing was compared.

    Args:
        acceptance: of the second result, for its limits.
        rows: the numbered table whose rows the places are.
        noun: what a place is, ``part`` or ``tensor``.
    """
    values = [v for one in places for v in (one.before, one.after) if v is not None]
    if not values:
        return None
    limits = [
        (c.threshold, c.level)
        for c in acceptance
        if c.metric == "range_rel" and c.op in ("<=", "<") and c.output is None
    ]
    scale = scale_for(values, len(places), [value for value, _ in limits])
    drawn = frame(scale, f"{noun}, in execution order (1 to {len(places):,})")
    for value, level in limits:
        drawn += limit_line(scale, value, f"{level}: {number(value)}", level)
    starts = [place for place, one in enumerate(places) if one.starts_after]
    for place, one in enumerate(places):
        if one.starts_before and not one.starts_after:
            drawn += mark(scale, place, "", "was")
    for at, place in enumerate(starts, start=1):
        drawn += mark(scale, place, f"({at})" if at <= _NUMBERED else "", "first")
    drawn += [
        line(scale, ((i, one.before) for i, one in enumerate(places)), "before"),
        dots(scale, ((i, one.before) for i, one in enumerate(places)), "before"),
        line(scale, ((i, one.after) for i, one in enumerate(places)), "after"),
        dots(scale, ((i, one.after) for i, one in enumerate(places) if one.status in ("same", "only_after")), "after"),
        dots(scale, ((i, one.after) for i, one in enumerate(places) if one.status == "better"), "better"),
        dots(scale, ((i, one.after) for i, one in enumerate(places) if one.status == "worse"), "worse"),
    ]
    title = "Error along the network, before and after"
    pictured = picture("pair-picture", title, _described(places, noun), drawn, rows=rows, scale=scale, noun=noun)
    was = any(one.starts_before and not one.starts_after for one in places)
    return element(
        "figure", pictured, element("figcaption", _legend(first=bool(starts), was=was), _starts(places, starts, rows))
    )


def _described(places: Sequence[Place], noun: str) -> str:
    """The picture in words, for those who do not see it."""
    worse, better = ([one for one in places if one.status == status] for status in ("worse", "better"))
    said = [f"{count(len(places), noun)} in execution order: {len(worse):,} worse, {len(better):,} better than before."]
    if worse:
        first = worse[0]
        said.append(
            f"The first that is worse is {elide(first.name, 60)}: {number(first.before)}, now {number(first.after)}."
        )
    return " ".join(said)


def _legend(*, first: bool, was: bool) -> Markup:
    said = [
        ("before", "before"),
        ("after", "after: as before"),
        ("worse", "after: worse"),
        ("better", "after: better"),
        *([("first", "(1), (2), ...: error starts here now")] if first else []),
        *([("was", "error started here before, and does not now")] if was else []),
    ]
    return element("ul", (element("li", _sample(style), words) for style, words in said), class_="legend")


def _sample(style: str) -> Markup:
    if style in ("first", "was"):
        drawn: list[Markup] = [element("path", d="M13 1V15", class_=f"mark {style}")]
    else:
        drawn = [element("path", d="M13 8h0", class_=f"dots {style}")]
        if style in ("before", "after"):
            drawn.insert(0, element("path", d="M1 8H25", class_=f"line {style}"))
    return element("svg", drawn, viewBox="0 0 26 16", class_="sample", aria_hidden="true")


def _starts(places: Sequence[Place], starts: Sequence[int], rows: str) -> Markup | None:
    """Where error starts now, as links into the table."""
    if not starts:
        return None
    links = [element("li", element("a", name(places[at].name, 90), href=f"#{rows}-{at}")) for at in starts[:_NUMBERED]]
    left = len(starts) - len(links)
    more = element("p", f"and {count(left, 'more place')}, marked in the table") if left else None
    return element("div", element("p", "Error starts in"), element("ol", links), more, class_="starts")
