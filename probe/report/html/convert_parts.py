"""The page of a conversion: was it proved, what stays FP32 and why, what to hand to other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probe.report.convert_page import convert_facts, convert_sentence, hand_over_steps, next_steps, proof_in_words
from probe.report.html.element import Child, Markup, element, joined, name, section
from probe.report.html.parts import MOST_ROWS, behind, cut_short, facts, names, provenance, shell, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import cosine, count, number
from probe.report.words import WORDS, sentence
from probe.results.convert_result import ConvertResult
from probe.results.run import OutputVerdict

_OUTPUT = (
    Column("Output"),
    Column("range_rel", numeric=True, about="largest error over the range of the golden"),
    Column("cosine", numeric=True),
    Column("max_abs", numeric=True, about="largest error"),
    Column("FP32 floor", numeric=True, about="range_rel of the engine in FP32: what is not precision"),
    Column("Verdict"),
)
_MARKS = {"failed": "failed", "warned": "warned"}
_WHY = {
    "asked": "asked for",
    "tensor": "kept tensor",
    "lifted": "makes or reads a kept tensor",
    "node": "kept node",
    "type": "cannot be low",
    "extent": "computes extents",
    "constant": "rounding would destroy it",
}


def convert_parts(result: ConvertResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    return [
        verdict(result.verdict, WORDS[result.verdict], convert_sentence(result), result.reasons[1:],
                ("probe convert", result.model, result.precision, f"to {result.path}")),
        to_do(next_steps(result)),
        section("outputs", "Outputs, as typed", judged_outputs(result.outputs)),
        section("proofs", "How it was proved", facts(("proof", proof_in_words(one)) for one in result.proofs)),
        section("keep", "What stays FP32", _kept(result)),
        section("hand-over", "For other tools", handed_over(result)),
        section("casts", "Casts added", _casts(result), cut_short(len(result.casts), "first")),
        provenance([pair for pair in convert_facts(result) if pair[0] != "proof"], result.model_sha256, result.command, result.environment),
    ]  # fmt: skip


def judged_outputs(outputs: Mapping[str, OutputVerdict]) -> Markup | None:
    """The graph outputs of a run that was judged, those that fail first."""
    order = ("failed", "not_judged", "warned", "passed")
    rows = []
    for label, one in sorted(outputs.items(), key=lambda pair: order.index(pair[1].verdict)):
        m = one.metrics
        numbers = (number(m.range_rel), cosine(m.cosine), number(m.max_abs)) if m is not None else ("-", "-", "-")
        shown = name(label, 72)
        first: Child = (
            behind(shown, facts([("why", sentence(reason)) for reason in one.reasons])) if one.reasons else shown
        )
        cells = (first, *numbers, number(one.noise_floor), one.verdict.replace("_", " "))
        rows.append(Row(cells, (one.verdict,), _MARKS.get(one.verdict, "")))
    return data_table("outputs-table", count(len(rows), "output"), _OUTPUT, rows[:MOST_ROWS]) if rows else None


def _kept(result: ConvertResult) -> list[Child]:
    """Every name with the reason why it is not low."""
    listed: list[tuple[str, str, str]] = [(one, "asked", "") for one in result.keep if one not in result.kept_tensors]
    listed += [(one, "tensor", "") for one in result.kept_tensors]
    listed += [(one, "lifted", "") for one in result.lifted]
    listed += [(one, "node", "") for one in result.fp32_nodes]
    listed += [(one, "type", why) for one, why in result.without_low.items()]
    listed += [(one, "extent", "") for one in result.shape_nodes]
    listed += [(one, "constant", "") for one in result.spared]
    if not listed:
        return []
    rows = [
        Row((name(one, 72), _WHY[why] + (f": {sentence(more)}" if more else "")), (why,))
        for one, why, more in listed[:MOST_ROWS]
    ]
    columns = (Column("Tensor or node"), Column("Why it stays FP32"))
    return [
        data_table("keep-table", count(len(rows), "name"), columns, rows, filters=_WHY),
        cut_short(len(listed), "first"),
    ]


def handed_over(result: ConvertResult) -> Markup | None:
    """The same choice as lists and commands for other tools, each list proved in its own form."""
    parts: list[Child] = []
    for one in result.handed_over:
        proved = "proved" if one.verdict in ("passed", "warned") else "NOT PROVED"
        closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
        title = f"{count(len(one.names), one.form[:-1])}, {proved} in this form{closeness}"
        parts += [element("h3", title), names(one.names, 200)]
    for step in hand_over_steps(result):
        parts += [element("p", step.why), shell(step.words)]
    if result.unnamed:
        parts += [_unnamed(result.unnamed)]
    return joined(parts) or None


def _unnamed(nodes: Sequence[str]) -> Markup:
    why = "have no name in the original, so that other tools can only take the converted model"
    return behind(element("span", f"{count(len(nodes), 'node')} {why}"), names(nodes))


def _casts(result: ConvertResult) -> Markup | None:
    rows = [Row((name(one.tensor, 72), one.to)) for one in result.casts[:MOST_ROWS]]
    return data_table("casts-table", count(len(rows), "Cast"), (Column("Reads"), Column("To")), rows) if rows else None
