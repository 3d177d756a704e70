"""The drill-down: for each tensor that has a detail, what its values are, where it errs, and what that looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from probe.precision import PRECISIONS
from probe.report.diff_tables import severity
from probe.report.html.detail_plots import channel_bars, error_by_magnitude, histogram
from probe.report.html.element import Child, Markup, Section, element, name, section
from probe.report.numbers import count, number, shape
from probe.results.detail import ChannelErrors, Detail, Images
from probe.results.diff import Criterion, TensorDiff, WorstElement

_MOST_WORST = 20


def details(tensors: Sequence[TensorDiff], acceptance: Sequence[Criterion]) -> Section | None:
    """Outputs first, then in recorded order; each opens by itself, and by the links that ``detail_link`` makes."""
    held = [t for t in tensors if t.detail is not None]
    outputs = sorted((t for t in held if t.role == "output"), key=severity, reverse=True)
    ordered = [*outputs, *(t for t in held if t.role != "output")]
    return section(
        "details",
        "Tensors in detail",
        *(_one(tensor, tensor.detail, acceptance) for tensor in ordered if tensor.detail is not None),
        about="Outputs, where error starts, and the worst: distribution on the range of the format, error by magnitude and by channel, worst "
        "elements.",
    )


def detail_link(tensor: TensorDiff | None) -> Markup | None:
    """To the detail of a tensor, where it has one."""
    if tensor is None or tensor.detail is None:
        return None
    return element("a", "distribution, channels, worst elements", href=f"#{_identity(tensor)}")


def _identity(tensor: TensorDiff) -> str:
    """Of the part of the page: names may hold anything, and an id no space."""
    return f"detail-{hashlib.sha256(tensor.name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _one(tensor: TensorDiff, detail: Detail, acceptance: Sequence[Criterion]) -> Markup:
    identity = _identity(tensor)
    m = tensor.metrics
    facts = [tensor.role, tensor.precision or tensor.dtype_actual or "", shape(tensor.shape)]
    if m is not None:
        facts.append(f"range_rel {number(m.range_rel)}" if m.compared or not m.nonfinite_mismatch else "")
        if m.nonfinite_mismatch:
            facts.append(f"{count(m.nonfinite_mismatch)} NaN or Inf differ")
    limit, words = _limit(tensor, acceptance)
    pictures = [
        _pane("Distribution", histogram(detail, f"{identity}-values")),
        _pane("Error against magnitude", error_by_magnitude(detail, f"{identity}-errors", limit, words)),
        _pane("Error by channel", _channels(detail.channels, f"{identity}-channels")),
        _pane("Worst elements", _worst(tensor.worst)),
    ]
    body = element(
        "div",
        element("p", _sentence(tensor, detail), class_="said"),
        _images(detail.images),
        element("div", pictures, class_="panes"),
        id=identity,
        class_="drilled",
    )
    mark = "failed" if tensor.verdict == "failed" or tensor.beyond else "warned" if tensor.verdict == "warned" else None
    summary = element(
        "summary", name(tensor.name, 90), " ", element("span", " · ".join(filter(None, facts)), class_="facts")
    )
    return element("details", summary, body, class_=" ".join(filter(None, ("drill", mark))))


def _pane(heading: str, content: Markup | None) -> Markup | None:
    return element("div", element("h3", heading), content, class_="pane") if content else None


def _limit(tensor: TensorDiff, acceptance: Sequence[Criterion]) -> tuple[float | None, str]:
    """The error an output fails above, in units of the tensor."""
    m = tensor.metrics
    if m is None or tensor.role != "output":
        return None, ""
    bounds = [c.threshold for c in acceptance
              if c.metric == "range_rel" and c.level == "fail" and c.op in ("<=", "<") and c.output in (None, tensor.name)]  # fmt: skip
    if not bounds:
        return None, ""
    return min(bounds) * m.range, f"fails above {number(min(bounds))} of the range"


def _sentence(tensor: TensorDiff, detail: Detail) -> str:
    """What the pictures show, in words."""
    limits, m = detail.limits, tensor.metrics
    looked = max(detail.elements, 1)
    said = []
    if limits is not None and limits.precision in PRECISIONS:
        held, precision = PRECISIONS[limits.precision], limits.precision.upper()
        parts = [f"{_share(n, looked)} {what}" for n, what in (
            (limits.overflow, f"beyond its largest number, {held.max:.6g}"),
            (limits.subnormal, "subnormal, with fewer bits"),
            (limits.vanishing, "so small that zero is stored"),
        ) if n > 0]  # fmt: skip
        beyond = m is not None and m.range > held.max  # seen in the whole tensor, maybe not in a sample
        if parts:
            said.append(f"Golden in {precision}: {'; '.join(parts)}.")
        elif not beyond:
            which = "all of golden" if detail.elements >= detail.count else "all golden elements looked at"
            said.append(f"{precision} holds {which} as normal numbers.")
    if m is not None and m.range > 0:
        reach = f"Golden reaches {number(m.range)}"
        if limits is not None and limits.precision in PRECISIONS:
            room = PRECISIONS[limits.precision].max / m.range
            reach += f", {number(room)} times less than {limits.precision.upper()} can hold" if 1 < room < 1e6 else ""
            reach += f", {number(1 / room)} times more than {limits.precision.upper()} can hold" if room < 1 else ""
        said.append(f"{reach}; the largest error is {number(m.max_abs)}.")
    if detail.golden.zeros:
        said.append(f"{_share(detail.golden.zeros, looked)} of golden are zero.")
    if detail.elements < detail.count:
        said.append(
            f"Distribution and error by magnitude are from {count(detail.elements)} of {count(detail.count)} elements, spread evenly."
        )
    if detail.input_id and tensor.inputs > 1:
        said.append(f"Shown is input {detail.input_id}, the worst of {tensor.inputs}.")
    return " ".join(said)


def _share(n: int, looked: int) -> str:
    """``3 elements (0.01 %)``."""
    share = 100 * n / looked
    return f"{count(n, 'element')} ({f'{share:.2g}' if share < 10 else f'{min(share, 100):.0f}'} %)"


def _worst(elements: Sequence[WorstElement]) -> Markup | None:
    several = len({w.input_id for w in elements}) > 1
    rows: list[tuple[Child, ...]] = [
        (
            f"[{','.join(map(str, w.index))}]",
            f"{w.actual:.6g}",
            f"{w.golden:.6g}",
            number(w.error),
            *((w.input_id,) if several else ()),
        )
        for w in elements[:_MOST_WORST]
    ]
    return _table(
        "Elements with the largest error",
        ("Index", "Actual", "Golden", "Error", *(("Input",) if several else ())),
        rows,
    )


def _channels(channels: ChannelErrors | None, identity: str) -> Markup | None:
    drawn = channel_bars(channels, identity) if channels is not None else None
    if channels is None or drawn is None:
        return None
    rows: list[tuple[Child, ...]] = [
        (count(w.channel), number(w.error), number(w.range), number(w.error / w.range) if w.range > 0 else "inf")
        for w in channels.worst[:8]
    ]
    table = _table(
        f"Channels with the largest error, of {count(channels.count)}",
        ("Channel", "Error", "Range", "Error / range"),
        rows,
    )
    return element("div", drawn, table)


def _table(caption: str, titles: Sequence[str], rows: Sequence[tuple[Child, ...]]) -> Markup | None:
    if not rows:
        return None
    head = element(
        "tr", [element("th", title, scope="col", class_="number" if at else None) for at, title in enumerate(titles)]
    )
    body = [
        element("tr", [element("td", cell, class_="number" if at else None) for at, cell in enumerate(row)])
        for row in rows
    ]
    return element(
        "div",
        element("table", element("caption", caption), element("thead", head), element("tbody", body)),
        class_="small",
    )


def _images(images: Images | None) -> Markup | None:
    """Golden, actual and difference side by side."""
    if images is None:
        return None
    scale = f"{number(images.low)} black, {number(images.high)} white"
    reduced = f"; a pixel is the mean of {images.reduced} × {images.reduced}" if images.reduced > 1 else ""
    said = (
        ("golden", images.golden, f"golden: {scale}"),
        ("actual", images.actual, "actual, on the same scale"),
        ("difference", images.difference, f"difference × {images.amplification:g}, the largest of each pixel"),
    )
    shown = [
        element("figure", element("img", src=f"data:image/png;base64,{data}", alt=f"{what} as a picture", loading="lazy"),
                element("figcaption", words))
        for what, data, words in said
    ]  # fmt: skip
    about = f"Item {images.item} of the batch, {images.height} × {images.width}{reduced}; magenta where NaN or Inf."
    return element(
        "div",
        element("h3", "Pictures"),
        element("div", shown, class_="pictures"),
        element("p", about, class_="about"),
        class_="pane wide",
    )
