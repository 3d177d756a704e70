"""The page of two results: what got worse, error along the network before and after, parts, outputs, findings, settings."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.pair_plot import Place, pair_plot
from probe.report.html.parts import MOST_ROWS, behind, cut_short, facts, names, provenance, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.regression_facts import (
    change_of,
    finding_in_words,
    how_changed,
    largest_change,
    layer_in_words,
    moved_findings,
    next_steps,
    ordered,
    regression_facts,
    regression_sentence,
    start_sentence,
)
from probe.report.words import WORDS, sentence
from probe.results.regression import PartChange, PartLayer, RegressionResult, TensorChange

_TENSOR = (
    Column("Tensor"),
    Column("Role"),
    Column("Before", numeric=True, about="range_rel"),
    Column("After", numeric=True, about="range_rel"),
    Column("Ratio", numeric=True, about="after / before"),
    Column("Verdict before"),
    Column("Verdict after"),
    Column("Change"),
)
_PART = (
    Column("Part of the network", about="the smallest groups of layers that compute the same ONNX nodes on both sides"),
    Column("#", numeric=True, about="in execution order"),
    Column("Before", numeric=True, about="largest range_rel of the tensors that both sides write there"),
    Column("After", numeric=True, about="the same, after"),
    Column("Ratio", numeric=True, about="after / before"),
    Column(
        "Own before", numeric=True, about="what its layers add by themselves, from exact inputs: the largest of them"
    ),
    Column("Own after", numeric=True, about="the same, after"),
    Column("Computed otherwise", optional=True),
    Column(
        "Change",
        about="by itself: its own error changed; arrives: what it reads did; starts: error starts here now, and did not",
    ),
)
_STATUSES = {
    "worse": "what got worse",
    "better": "what got better",
    "only_before": "only before",
    "only_after": "only after",
    "same": "as before",
}
_TENSOR_FILTERS = _STATUSES | {"output": "outputs"}
_PART_FILTERS = {
    "worse": "worse at its boundary",
    "own_worse": "worse by itself",
    "better": "better at its boundary",
    "own_better": "better by itself",
    "starts": "where error starts now",
    "fusion": "fused otherwise",
    "precision": "in another precision",
    "tactic": "with another tactic",
    "fallback": "falls back on one side",
    "only_before": "only before",
    "only_after": "only after",
}
_KEPT = {"only_after": "now, not before", "only_before": "no more", "same": "as before"}
_TOP = 8  # parts that are named above the table


def pair_parts(result: RegressionResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    start = start_sentence(result)
    more = [
        *(f"not comparable in part: {said}" for said in result.warnings),
        *result.reasons[1:],
        *([start] if start else []),
    ]
    side = result.sides[1] if len(result.sides) == 2 else None
    about = (f"{result.before}, then {result.after}", *((side.model, side.precision, side.device) if side else ()))
    outputs = [c for c in result.changes if c.role == "output"] if result.parts else []
    inside = [c for c in result.changes if c.role != "output"] if result.parts else list(result.changes)
    return [
        verdict(result.verdict, WORDS[result.verdict], regression_sentence(result), more, about),
        to_do(next_steps(result)),
        section("settings", "Settings that differ", _settings(result)),
        section("network", "Error along the network", _plot(result),
                about="Largest error over the golden's range, at the tensors that both sides write. Point at it, or walk through it with the "
                "arrow keys; Enter leads to the row in the table."),
        section("outputs", "Outputs", _tensors("outputs-table", "output", outputs, 0)),
        section("where", "Where it changed", _where(result)),
        section("parts", "Parts of the network", _parts(result), cut_short(len(result.parts), "first"),
                about="Layers are laid side by side by the ONNX nodes they compute: where fusions differ, a part is several layers. Open one "
                "for its layers before and after."),
        section("noticed", "Findings", _findings(result)),
        section("kept", "What must stay FP32", _kept(result)),
        section("changes", "Tensors inside" if result.parts else "What changed",
                _tensors("changes-table", "tensor", inside, MOST_ROWS, in_order=not result.parts), cut_short(len(inside), "first"))
        if inside else None,
        provenance([*regression_facts(result), *_commands(result)], "", "", side.environment if side else {}),
    ]  # fmt: skip


def _settings(result: RegressionResult) -> Markup | None:
    columns = (Column("Setting"), Column("Before"), Column("After"))
    rows = [Row((one.name, sentence(one.before), sentence(one.after))) for one in result.settings]
    return data_table("settings-table", count(len(rows), "setting"), columns, rows) if rows else None


def _commands(result: RegressionResult) -> list[tuple[str, str]]:
    return [
        (f"made {when}", one.command)
        for when, one in zip(("before", "after"), result.sides, strict=False)
        if one.command
    ]


# --- along the network


def _plot(result: RegressionResult) -> Markup | None:
    acceptance = result.sides[1].acceptance if len(result.sides) == 2 else ()
    if result.parts:
        places = [
            Place(p.name, p.status, p.before, p.after, p.starts_before, p.starts_after)
            for p in result.parts[:MOST_ROWS]
        ]
        return pair_plot(places, acceptance, rows="parts-table", noun="part")
    places = [
        Place(c.name, c.status, c.before, c.after, c.name in result.first_before, c.name in result.first_after)
        for c in result.changes[:MOST_ROWS]
    ]
    return pair_plot(places, acceptance, rows="changes-table", noun="tensor")


def _where(result: RegressionResult) -> list[Child]:
    """The parts that changed most, as links."""
    at = {id(one): place for place, one in enumerate(result.parts[:MOST_ROWS])}
    content: list[Child] = []
    for status, title in (("worse", "Got worse"), ("better", "Got better")):
        chosen = [one for one in ordered(result.parts, status) if id(one) in at]
        if not chosen:
            continue
        items: list[Child] = []
        for one in chosen[:_TOP]:
            errors = f": {number(one.before)} before, {number(one.after)} after"
            own = f"; by itself {number(one.own_before)}, {number(one.own_after)}" if one.own == status else ""
            how = how_changed(one, result)
            items.append(
                [
                    element("a", name(one.name, 72), href=f"#parts-table-{at[id(one)]}"),
                    errors,
                    own,
                    f" ({'; '.join(how)})" if how else "",
                ]
            )
        own_too = sum(one.own == status for one in chosen)
        heading = f"{title}: {count(len(chosen), 'part')}, {own_too:,} by {'itself' if own_too == 1 else 'themselves'}"
        left = len(chosen) - len(items)
        content += [
            element("h3", heading),
            bullets(items),
            element("p", f"and {count(left)} more, in the table below") if left else None,
        ]
    return content


def _parts(result: RegressionResult) -> Markup | None:
    rows = [_part(one, result, place) for place, one in enumerate(result.parts[:MOST_ROWS], start=1)]
    return (
        data_table("parts-table", count(len(rows), "part"), _PART, rows, filters=_PART_FILTERS, numbered=True)
        if rows
        else None
    )


def _part(one: PartChange, result: RegressionResult, place: int) -> Row:
    both = bool(one.layers_before and one.layers_after)
    nodes = tuple(dict.fromkeys(node for layer in (*one.layers_after, *one.layers_before) for node in layer.nodes))
    said: list[tuple[str, Child]] = [
        ("ONNX nodes", names(nodes) if nodes != (one.name,) else None),
        ("before", _layers(one.layers_before)),
        ("after", _layers(one.layers_after)),
        ("compared at", names(one.boundary, 8) if both else None),
        ("note", "error started here before, and does not now" if one.starts_before and not one.starts_after else None),
    ]
    tags = (
        one.status, *((f"own_{one.own}",) if one.own in ("worse", "better") else ()), *one.changed, *(("starts",) if one.starts_after else ()),
    )  # fmt: skip
    numbers = (number(one.before), number(one.after), number(one.ratio), number(one.own_before), number(one.own_after))
    change = change_of(one) + ("; starts" if one.starts_after and not one.starts_before else "")
    grave = one.starts_after and not one.starts_before
    mark = (
        "failed"
        if grave or (one.status == one.own == "worse")
        else "warned"
        if "worse" in (one.status, one.own)
        else ""
    )
    return Row(
        (behind(name(one.name, 64), facts(said)), str(place), *numbers, "; ".join(how_changed(one, result)), change),
        tags,
        mark,
    )


def _layers(layers: Sequence[PartLayer]) -> Markup | None:
    """Each layer with what computes it, and its errors."""
    return bullets(
        ([name(one.name), f": {said}" if (said := layer_in_words(one)) else ""] for one in layers), class_="names"
    )


# --- tensors, findings, kept


def _tensors(
    identity: str, noun: str, changes: Sequence[TensorChange], most: int, *, in_order: bool = False
) -> Markup | None:
    """In recorded order where a picture stands for the rows, else what got worse first."""
    order = list(_STATUSES)
    listed = (
        changes
        if in_order
        else sorted(sorted(changes, key=largest_change, reverse=True), key=lambda c: order.index(c.status))
    )
    rows = [_tensor(c) for c in listed[: most or None]]
    return (
        data_table(identity, count(len(rows), noun), _TENSOR, rows, filters=_TENSOR_FILTERS, numbered=in_order)
        if rows
        else None
    )


def _tensor(one: TensorChange) -> Row:
    words = [(v or "").replace("_", " ") for v in (one.verdict_before, one.verdict_after)]
    cells = (name(one.name, 72), one.role, number(one.before), number(one.after), number(one.ratio), *words,
             one.status.replace("_", " "))  # fmt: skip
    decides = one.role == "output" and one.status in ("worse", "only_before")
    return Row(
        cells,
        (one.status, *(("output",) if one.role == "output" else ())),
        "failed" if decides else "warned" if one.status == "worse" else "",
    )


def _findings(result: RegressionResult) -> list[Child]:
    content: list[Child] = []
    for title, findings in zip(("Noticed now, not before", "No longer noticed"), moved_findings(result), strict=True):
        if findings:
            items = (
                [
                    element("p", finding_in_words(one)),
                    facts([("node", name(one.node) if one.node and one.node not in one.message else None)]),
                ]
                for one in findings
            )
            content += [element("h3", title), bullets(items, class_="findings")]
    return content


def _kept(result: RegressionResult) -> Markup | None:
    order = list(_KEPT)
    kept = sorted(result.kept, key=lambda one: order.index(one.status))
    rows = [
        Row((name(one.name, 72), _KEPT[one.status]), (one.status,), "warned" if one.status == "only_after" else "")
        for one in kept
    ]
    columns = (Column("Stays FP32"), Column("When"))
    return data_table("kept-table", count(len(rows), "tensor"), columns, rows, filters=_KEPT) if rows else None
