"""The page of a diff: where it starts, what was noticed, outputs, every tensor; and of two diffs, what got worse."""

from __future__ import annotations

from probe.report.diff_facts import diff_facts
from probe.report.diff_page import headline
from probe.report.diff_tables import severity
from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.parts import (
    MOST_ROWS,
    TENSOR_COLUMNS,
    TENSOR_FILTERS,
    cut_short,
    facts,
    names,
    outputs,
    provenance,
    tensor_rows,
    to_do,
    verdict,
)
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.regression_page import largest_change, regression_sentence
from probe.report.steps import next_steps, unmatched
from probe.report.words import NOT_COMPARED, WORDS, nonfinite
from probe.results.diff import DiffResult, RegressionResult, TensorChange, TensorDiff


def diff_parts(result: DiffResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    own = [t for t in result.tensors if t.role == "output"] if result.roles_known else list(result.tensors)
    inside = [t for t in result.tensors if t.role != "output"] if result.roles_known else []
    ordered = sorted(inside, key=severity, reverse=True)
    table = data_table("tensors-table", count(min(len(ordered), MOST_ROWS), "tensor"), TENSOR_COLUMNS, tensor_rows(ordered[:MOST_ROWS]),
                       filters=TENSOR_FILTERS)  # fmt: skip
    sides = (f"{result.actual.path} against {result.golden.path}", result.actual.precision)
    model = result.golden.model_sha256 or result.actual.model_sha256
    return [
        verdict(result.verdict, WORDS[result.verdict], headline(result), result.reasons[1:], ("probe diff", *sides)),
        to_do(next_steps(result)),
        _starts(result),
        section("noticed", "Findings", _findings(result)),
        outputs(own, "Outputs" if result.roles_known else "Tensors"),
        section("tensors", "Tensors inside", table if inside else None, cut_short(len(inside)), about="Worst first; open a row for its nodes, "
                "ranges and worst elements."),
        section("names", "Names without a partner", _unmatched(result)),
        provenance(diff_facts(result), model, result.command, result.environment),
    ]  # fmt: skip


def _starts(result: DiffResult) -> Markup | None:
    """The first divergences with what made them and what they read."""
    there = {t.name: t for t in result.tensors}
    items = []
    for one in result.first_divergence[:6]:
        tensor = there.get(one)
        reads = [there[r] for r in tensor.reads if r in there] if tensor is not None else []
        said: list[tuple[str, Child]] = [
            ("made by", names(tensor.nodes, 6) if tensor is not None else None),
            ("reads", bullets([name(r.name, 72), ": ", _error(r)] for r in reads[:6])),
        ]
        items.append([name(one), ": " if tensor is not None else "", _error(tensor), facts(said)])
    left = len(result.first_divergence) - len(items)
    more = element("p", f"and {count(left, 'more place')} where error arises") if left else None
    return section("starts", "Where error starts", bullets(items, class_="findings"), more)


def _error(tensor: TensorDiff | None) -> str:
    if tensor is None:
        return ""
    if tensor.metrics is None:
        return NOT_COMPARED.get(tensor.status, tensor.status)
    odd = nonfinite(tensor)
    return f"range_rel {number(tensor.metrics.range_rel)}{f', {odd}' if odd else ''}"


def _findings(result: DiffResult) -> Markup | None:
    ordered = sorted(result.findings, key=lambda f: not f.fatal)
    return bullets(
        (
            [
                element("p", element("strong", "fatal: ") if one.fatal else None, one.message),
                facts([("tensor", name(one.tensor) if one.tensor and one.tensor not in one.message else None),
                       ("node", name(one.node) if one.node and one.node not in one.message else None), ("try", one.cure)]),
            ]
            for one in ordered
        ),
        class_="findings",
    )  # fmt: skip


def _unmatched(result: DiffResult) -> list[Child]:
    missing, extra = unmatched(result)
    said: list[tuple[str, Child]] = [
        ("only in golden", names([t.name for t in missing])),
        ("only in actual", names([t.name for t in extra])),
    ]
    columns = (Column("Golden"), Column("Actual"), Column("Similar", numeric=True), Column("Shape"))
    rows = [
        Row((name(s.golden, 72), name(s.actual, 72), f"{s.similarity:.0%}", "same" if s.same_shape else "differs"))
        for s in result.suggestions[:MOST_ROWS]
    ]
    alike = (
        data_table("alike-table", "Names that look alike; nothing was paired by these", columns, rows) if rows else None
    )
    return [facts(said) if missing or extra else None, alike]


# --- two results


_CHANGE_COLUMNS = (
    Column("Tensor"),
    Column("Role"),
    Column("Before", numeric=True, about="range_rel"),
    Column("After", numeric=True, about="range_rel"),
    Column("After / before", numeric=True),
    Column("Verdict before"),
    Column("Verdict after"),
    Column("Change"),
)
_CHANGES = {
    "worse": "what got worse",
    "better": "what got better",
    "only_before": "only before",
    "only_after": "only after",
    "same": "as before",
    "output": "outputs",
}


def regression_parts(result: RegressionResult) -> list[Markup | None]:
    """Before and after: what got worse first, then the rest."""
    order = list(_CHANGES)
    ordered = sorted(result.changes, key=largest_change, reverse=True)
    ordered.sort(key=lambda c: order.index(c.status))
    rows = [_change(c) for c in ordered[:MOST_ROWS]]
    table = data_table("changes-table", count(len(rows), "tensor"), _CHANGE_COLUMNS, rows, filters=_CHANGES)
    said = [
        ("before", f"{result.before}: {WORDS[result.verdict_before].lower()}"),
        ("after", f"{result.after}: {WORDS[result.verdict_after].lower()}"),
        (
            "worse means",
            f"range_rel more than {result.worse_factor:g} times larger, or a worse verdict; outputs decide",
        ),
    ]
    return [
        verdict(result.verdict, WORDS[result.verdict], regression_sentence(result), result.reasons[1:],
                (f"{result.before} against {result.after}",)),
        section("changes", "What changed", table if rows else None, cut_short(len(result.changes))),
        provenance(said, "", "", {}),
    ]  # fmt: skip


def _change(one: TensorChange) -> Row:
    words = [(v or "").replace("_", " ") for v in (one.verdict_before, one.verdict_after)]
    cells = (name(one.name, 72), one.role, number(one.before), number(one.after), number(one.ratio), *words,
             one.status.replace("_", " "))  # fmt: skip
    mark = "failed" if one.status in ("worse", "only_before") and one.role == "output" else ""
    return Row(
        cells,
        (one.status, *(("output",) if one.role == "output" else ())),
        mark or ("warned" if one.status == "worse" else ""),
    )
