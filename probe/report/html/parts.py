"""What every kind of result shows the same way: verdict, what to do, outputs, where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from probe.report.diff_tables import flag, severity
from probe.report.html.detail_parts import detail_link
from probe.report.html.element import Child, Markup, bullets, element, joined, lines, name, section
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import cosine, count, number, shape
from probe.report.steps import Step
from probe.report.text import command
from probe.report.words import nonfinite, why_not_compared
from probe.results.diff import TensorDiff

MOST_ROWS = 2000  # of one table: beyond it a page takes long to open and nobody reads on
_MORE_REASONS = 6


def verdict(mark: str, word: str, sentence: str, more: Sequence[str], about: Sequence[str]) -> Markup:
    """The head of the page: the verdict in one sentence, further reasons, and what was judged."""
    shown = [element("li", text) for text in more[:_MORE_REASONS]]
    if len(more) > _MORE_REASONS:
        shown.append(element("li", f"and {count(len(more) - _MORE_REASONS, 'more reason')}"))
    return element(
        "header",
        element("p", *(element("span", fact) for fact in about if fact), class_="judged"),
        element("h1", element("span", word, class_="badge"), " ", element("span", sentence)),
        element("ul", shown, class_="reasons") if shown else None,
        class_=f"verdict {mark}",
    )


def to_do(steps: Iterable[Step]) -> Markup | None:
    """Reasons, each with the command to copy."""
    items = [element("li", element("p", step.why), shell(step.words, step.raw)) for step in steps]
    return section("to-do", "What to do next", element("ol", items, class_="steps") if items else None)


def shell(words: Sequence[str], raw: str = "") -> Markup | None:
    """A command to copy, broken before its options."""
    if not (words or raw):
        return None
    written = [raw] if raw else command(words, 96, indent="")
    return element("div", element("pre", element("code", lines(written)), tabindex=0), class_="command")


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup | None:
    """Labels and what is to be said under them; empty ones are left out, what follows under the same label is not labelled again."""
    grouped: list[tuple[str, list[Markup]]] = []
    for label, said in pairs:
        if not (body := joined(said)):
            continue
        if not grouped or grouped[-1][0] != label:
            grouped.append((label, []))
        grouped[-1][1].append(element("dd", body))
    made = [element("div", element("dt", label), *bodies) for label, bodies in grouped]
    return element("dl", made) if made else None


def provenance(
    pairs: Sequence[tuple[str, str]], model_sha256: str, command_line: str, environment: Mapping[str, str]
) -> Markup | None:
    """Everything that makes the result what it is, so that someone else can get it again."""
    versions = ", ".join(f"{what} {version}" for what, version in environment.items())
    more: list[tuple[str, Child]] = [
        ("model SHA-256", element("code", model_sha256, class_="hash") if model_sha256 else None),
        ("versions", versions),
        ("command", element("code", command_line) if command_line else None),
    ]
    return section("provenance", "Where this comes from", facts([*pairs, *more]))


TENSOR_COLUMNS = (
    Column("Tensor"),
    Column("range_rel", numeric=True, about="largest error over the range of the golden"),
    Column("cosine", numeric=True),
    Column("max_abs", numeric=True, about="largest error"),
    Column("p99.9", numeric=True, about="error that 99.9 % of the elements do not exceed"),
    Column("SQNR dB", numeric=True, about="signal to quantisation noise"),
    Column("Flag"),
)
_MARKS = {"FAIL": "failed", "NaN": "failed", "Inf": "failed", "finite": "failed", "warn": "warned", "over": "warned"}


def tensor_rows(tensors: Iterable[TensorDiff]) -> list[Row]:
    """Rows of ``TENSOR_COLUMNS``; what a row has no room for stands behind the name."""
    rows = []
    for tensor in tensors:
        m = tensor.metrics
        flagged = flag(tensor) if m is not None else tensor.status.replace("_", " ")
        numbers = (
            (number(m.range_rel), cosine(m.cosine), number(m.max_abs), number(m.p999), number(m.sqnr_db))
            if m is not None
            else ("", "", "", "", "")
        )
        tags = (*(("beyond",) if tensor.beyond or tensor.verdict == "failed" else ()),
                *(("nonfinite",) if m is not None and m.nonfinite_mismatch else ()),
                *(("uncompared",) if m is None else ()))  # fmt: skip
        rows.append(Row((_behind(tensor), *numbers, flagged), tags, _MARKS.get(flagged, "")))
    return rows


TENSOR_FILTERS = {"beyond": "beyond the acceptance", "nonfinite": "NaN or Inf", "uncompared": "not compared"}


def _behind(tensor: TensorDiff) -> Markup:
    """The name of a tensor; opened, what is known about it."""
    m = tensor.metrics
    worst = [
        f"[{','.join(map(str, w.index))}]: {w.actual:.6g}, golden {w.golden:.6g}"
        + (f", input {w.input_id}" if w.input_id and tensor.inputs > 1 else "")
        for w in tensor.worst[:3]
    ]
    said: list[tuple[str, Child]] = [
        ("name", name(tensor.name)),
        ("type", f"{tensor.dtype_golden or tensor.dtype_actual or '?'} {shape(tensor.shape)}"
                 + (f", actual {tensor.dtype_actual}" if tensor.dtype_actual not in (None, tensor.dtype_golden) else "")),
        ("nodes", names(tensor.nodes)),
        ("layer", name(tensor.layer) if tensor.layer and tensor.layer not in tensor.nodes else None),
        ("elements", f"{count(m.compared)} of {count(m.count)} compared" if m is not None else why_not_compared(tensor)),
        ("golden", f"{number(m.golden_min)} to {number(m.golden_max)}" if m is not None else None),
        ("actual", f"{number(m.actual_min)} to {number(m.actual_max)}" if m is not None else None),
        ("NaN, Inf", nonfinite(tensor)),
        ("masks", f"{count(m.sentinels, 'value')} up to {number(m.sentinel_value)} kept out of the range"
                  if m is not None and m.sentinels else None),
        ("worst at", bullets(worst)),
        ("inputs", f"worst on {tensor.worst_input}; fails on {len(tensor.failing_inputs)} of {tensor.inputs}"
                   if tensor.inputs > 1 and tensor.worst_input else None),
        ("in detail", detail_link(tensor)),
    ]  # fmt: skip
    return behind(name(tensor.name, 72), facts(said))


def behind(summary: Markup, more: Child) -> Markup:
    """Something short that opens to something longer."""
    return element("details", element("summary", summary), more)


def names(listed: Sequence[str], most: int = 24) -> Markup | None:
    """Names, one a line, and how many more there are."""
    shown: list[Child] = [name(one) for one in listed[:most]]
    if len(listed) > most:
        shown.append(f"and {count(len(listed) - most)} more, which the JSON file lists")
    return bullets(shown, class_="names")


def outputs(tensors: Sequence[TensorDiff], title: str = "Outputs") -> Markup | None:
    """The tensors that the verdict speaks of, worst first."""
    ordered = sorted(tensors, key=severity, reverse=True)
    if not ordered:
        return None
    table = data_table("outputs-table", count(len(ordered), "output"), TENSOR_COLUMNS, tensor_rows(ordered[:MOST_ROWS]),
                       filters=TENSOR_FILTERS)  # fmt: skip
    about = (
        "range_rel is the largest error over the range of the golden; 99.9 % of the elements are off by no more than p99.9. "
        "Open a row for types, ranges and the worst elements."
    )
    return section("outputs", title, table, cut_short(len(ordered)), about=about)


def cut_short(rows: int, which: str = "worst") -> Markup | None:
    """Says so where a table does not hold everything."""
    if rows <= MOST_ROWS:
        return None
    return element(
        "p", f"The {which} {count(MOST_ROWS)} of {count(rows)} are listed; the JSON file has all.", class_="about"
    )
