"""Error along the network: what each layer adds and what has accumulated, in execution order."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.html.element import Markup, element, name
from probe.report.html.plot import dots, frame, limit_line, line, mark, picture, scale_for
from probe.report.numbers import count, number
from probe.report.text import elide
from probe.results.diff import Criterion
from probe.results.run import LayerError, RunResult

_NUMBERED = 9  # first divergences that get a number on the picture; the rest get their line only


def error_plot(result: RunResult, layers: Sequence[LayerError], *, rows: str) -> Markup | None:
    """The picture with its legend and the places where error starts; None where nothing was measured.

    Args:
        layers: what stands side by side, as in the numbered table ``rows``.
    """
    values = [v for x in layers for v in (x.accumulated, x.injected, x.local) if v is not None]
    if not values:
        return None
    limits = [(c.threshold, c.level) for c in result.acceptance if _is_limit(c)]
    scale = scale_for(values, len(layers), [value for value, _ in limits])
    parts = frame(scale, f"layer, in execution order (1 to {len(layers):,})")
    for value, level in limits:
        parts += limit_line(scale, value, f"{level}: {number(value)}", level)
    first = {one: at for at, one in enumerate(result.first_divergence, start=1)}
    for place, layer in enumerate(layers):
        at = first.get(layer.name)
        if at is not None:
            parts += mark(scale, place, f"({at})" if at <= _NUMBERED else "", "first")
    broken = next((place for place, layer in enumerate(layers) if layer.nonfinite), None)
    if broken is not None:
        starts = layers[broken].name in first
        parts += mark(scale, broken, "" if starts else "NaN/Inf", "nonfinite")
    parts += [
        line(scale, ((i, x.accumulated) for i, x in enumerate(layers)), "accumulated"),
        dots(scale, ((i, x.accumulated) for i, x in enumerate(layers)), "accumulated"),
        dots(scale, ((i, x.injected) for i, x in enumerate(layers)), "injected"),
        dots(scale, ((i, x.local) for i, x in enumerate(layers)), "local"),
    ]
    drawn = picture("error-picture", "Error along the network", _described(result, layers, broken), parts, rows=rows, scale=scale,
                    noun="layer")  # fmt: skip
    return element(
        "figure",
        drawn,
        element("figcaption", _legend(first=bool(first), nonfinite=broken is not None), _starts(result, layers, rows)),
    )


def _is_limit(criterion: Criterion) -> bool:
    return criterion.metric == "range_rel" and criterion.op in ("<=", "<") and criterion.output is None


def _described(result: RunResult, layers: Sequence[LayerError], broken: int | None) -> str:
    """The picture in words, for those who do not see it."""
    worst = max(layers, key=lambda x: x.injected or 0.0)
    parts = [
        f"{count(len(layers), 'layer')} in execution order, error relative to the range of the golden, logarithmic."
    ]
    if result.first_divergence:
        parts.append(
            f"Error first exceeds the acceptance in {', '.join(elide(n, 60) for n in result.first_divergence[:3])}."
        )
    if broken is not None:
        parts.append(f"NaN or Inf that the golden lacks first appear in {elide(layers[broken].name, 60)}.")
    if worst.injected:
        parts.append(f"The layer that adds most is {elide(worst.name, 60)}: {number(worst.injected)}.")
    return " ".join(parts)


def _legend(*, first: bool, nonfinite: bool) -> Markup:
    """What the signs mean; each with a sample of it."""
    said = [
        ("accumulated", "accumulated: in the running network, against the golden"),
        ("injected", "injected: by this layer alone, from exact inputs that it rounds"),
        ("local", "local: by its own arithmetic and storage, without the rounding of its inputs"),
        *([("first", "(1), (2), ...: first divergence; error starts here")] if first else []),
        *([("nonfinite", "first NaN or Inf that the golden lacks")] if nonfinite else []),
    ]
    return element("ul", (element("li", _sample(style), words) for style, words in said), class_="legend")


def _sample(style: str) -> Markup:
    if style in ("first", "nonfinite"):
        drawn = element("path", d="M13 1V15", class_=f"mark {style}")
    elif style == "accumulated":
        drawn = [
            element("path", d="M1 8H25", class_="line accumulated"),
            element("path", d="M13 8h0", class_="dots accumulated"),
        ]
    else:
        drawn = element("path", d="M13 8h0", class_=f"dots {style}")
    return element("svg", drawn, viewBox="0 0 26 16", class_="sample", aria_hidden="true")


def _starts(result: RunResult, layers: Sequence[LayerError], rows: str) -> Markup | None:
    """The first divergences by name, as links into the table."""
    places = {layer.name: place for place, layer in enumerate(layers)}
    known = [one for one in result.first_divergence if one in places][:_NUMBERED]
    if not known:
        return None
    links = [element("li", element("a", name(one, 90), href=f"#{rows}-{places[one]}")) for one in known]
    left = len(result.first_divergence) - len(known)
    more = element("p", f"and {count(left, 'more layer')}, marked in the table") if left else None
    return element("div", element("p", "Error starts in"), element("ol", links), more, class_="starts")
