"""The page of a search: what stays FP32 and why each is needed, the path to it, what else was tried, cost, proofs."""

from __future__ import annotations

from probe.report.convert_page import proof_in_words
from probe.report.find_facts import find_facts, said_of
from probe.report.find_page import WORDS, disagreements, find_sentence, without_it
from probe.report.find_steps import next_steps
from probe.report.html.convert_parts import handed_over
from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.parts import behind, facts, names, provenance, to_do, verdict
from probe.report.html.path_plot import path_plot
from probe.report.html.run_parts import findings
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number, shape, size
from probe.report.words import sentence
from probe.results.find import FindResult, Keep

_KEEP = (
    Column("Stays FP32", about="a tensor, or a layer where layers were searched"),
    Column("Kind"),
    Column("Reach", numeric=True, about="largest finite magnitude in the golden"),
    Column("Without it", numeric=True, about="range_rel with this one alone low: its certificate"),
    Column("Evaluation", numeric=True, about="the certificate's place in the log"),
    Column("Why"),
)
_SWITCHES = (
    Column("Layer"),
    Column("From", about="what the tactic file says"),
    Column("To", about="what it had to be"),
    Column("us more", numeric=True, about="how much longer it takes, measured"),
)
_CURES = (Column("Tried instead"), Column("Verdict"), Column("range_rel", numeric=True), Column("Why"))
_STYLES = {"green": "passed", "yellow": "warned", "red": "failed"}
_SHOWN_APART = ("all low", "all FP32", "answer", "run again", "held out", "proof", "cost")  # in sections of their own


def find_parts(result: FindResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    word, style = WORDS[result.status]
    mark = "failed" if style == "green" and not result else _STYLES[style]
    fatal = [f for f in result.findings if f.fatal]
    rest = [pair for pair in find_facts(result) if pair[0] not in _SHOWN_APART]
    return [
        verdict(mark, word, find_sentence(result), [f"but {text}" for text in disagreements(result)],
                ("probe find", result.model, result.precision, result.device)),
        to_do(next_steps(result)),
        section("keep", "What stays FP32", _kept(result)),
        section("tactics", "More accurate tactics", _switches(result)),
        section("path", "Path of the search", path_plot(result.steps),
                about="Each evaluation runs the network with some tensors kept; its height is the error as a multiple of what the acceptance allows. "
                "Point at one, or walk through them with the arrow keys."),
        section("groups", "What breaks the output together", _groups(result)),
        section("lighter", "Other cures, tried", _lighter(result)),
        section("cost", "What it costs", _cost(result)),
        section("proofs", "How it was proved", _proofs(result)),
        section("hand-over", "For other tools", handed_over(result.exported.conversion) if result.exported is not None else None),
        section("why", "What breaks when everything is low", findings(fatal)),
        provenance(rest, result.model_sha256, result.command, result.environment),
    ]  # fmt: skip


def _kept(result: FindResult) -> Markup | None:
    if not result.keep:
        return None
    return data_table(
        "keep-table", count(len(result.keep), "kept", "kept"), _KEEP, [_keep_row(one) for one in result.keep]
    )


def _switches(result: FindResult) -> Markup | None:
    """Choices of the tactic file that had to be more accurate; nothing where no file was given."""
    if not result.tactics:
        return None
    if not result.switches:
        return element("p", "Every choice of ", name(result.tactics), " stays.")
    rows = [
        Row((name(one.layer, 64), name(one.before), name(one.after), number(one.cost_us))) for one in result.switches
    ]
    return data_table("tactics-table", f"{count(len(rows), 'layer')} of {result.tactics}", _SWITCHES, rows)


def _keep_row(one: Keep) -> Row:
    need = one.certificate
    said: list[tuple[str, Child]] = [
        ("name", name(one.tensor or one.layer)),
        ("layer", name(one.layer) if one.layer and one.tensor else None),
        ("shape", shape(one.shape) if one.shape is not None else None),
        ("nodes in FP32", names(one.nodes_fp32)),
        ("certificate", _certificate(one)),
    ]
    evaluation = f"#{need.evaluation}" if need is not None else "-"
    own = one.tensor or one.layer
    why = sentence(one.why.removeprefix(f"{own} "))
    return Row((behind(name(own, 64), facts(said)), one.kind, number(one.reach), without_it(one), evaluation, why))


def _certificate(one: Keep) -> str:
    need = one.certificate
    if need is None:
        return "none: not shown to be needed"
    failing = f", on {', '.join(need.failing_inputs[:4])}" if need.failing_inputs else ""
    sure = "" if need.decided else "; votes stayed open"
    margin = f", margin {number(need.margin)}" if need.margin is not None else ""
    return f"evaluation #{need.evaluation} with this alone low fails{margin}{failing}{sure}"


def _groups(result: FindResult) -> list[Child]:
    """Units that break the output, what could be kept instead, and errors that cancel."""
    items: list[Child] = []
    for group in result.groups:
        others = [one for one in group.units if one != group.unit]
        if others or group.alternatives:
            items.append(
                [
                    name(group.unit),
                    facts([("with", names(others)), ("instead of it could stay", names(group.alternatives))]),
                ]
            )
    pairs: list[Child] = [
        ["compensate each other: they pass together, low or kept, and fail when split", names(pair.units)]
        for pair in result.compensating
    ]
    return [bullets(items, class_="findings"), bullets(pairs, class_="findings")]


def _lighter(result: FindResult) -> Markup | None:
    rows = [
        Row(
            (one.words, one.verdict.replace("_", " "), number(one.metric), sentence(one.reasons[0]) if one.reasons and one.verdict != "passed" else ""),
            mark="failed" if one.verdict == "failed" else "",
        )
        for one in result.lighter
    ]  # fmt: skip
    return data_table("lighter-table", count(len(rows), "other cure"), _CURES, rows) if rows else None


def _cost(result: FindResult) -> Markup | None:
    cost = result.cost
    if cost is None:
        return None
    share = f"{100 * cost.flops_fp32 / cost.flops:.2g} %" if cost.flops and cost.flops_fp32 is not None else ""
    moved = f" ({size(cost.cast_bytes)} read)" if cost.cast_bytes is not None else ""
    whole = f"; everything in FP32 {cost.latency_fp32:.3g}x" if cost.latency_fp32 is not None else ""
    return facts(
        [
            ("operations in FP32", share),
            (
                "memory",
                f"{size(cost.bytes_fp32)} more than all {result.precision}" if cost.bytes_fp32 is not None else "",
            ),
            ("Casts", f"{cost.casts:,}{moved}" if cost.casts is not None else ""),
            (
                "latency",
                f"{cost.latency:.4g}x of all {result.precision}{whole}; modelled: {cost.model}"
                if cost.latency is not None
                else "",
            ),
        ]
    )


def _proofs(result: FindResult) -> Markup | None:
    oracle, exported = result.oracle, result.exported
    said: list[tuple[str, Child]] = [
        (f"all {result.precision}", said_of(oracle.all_low)),
        ("all FP32", said_of(oracle.all_fp32)),
        ("the answer", said_of(oracle.answer)),
        ("run again", said_of(oracle.answer_rerun, "in an engine compiled anew")),
        ("held-out inputs", dict(find_facts(result)).get("held out")),
    ]
    if exported is not None:
        said += [
            ("exported", f"{exported.path or 'for the proof only'}: {'proved' if exported.passed else 'NOT PROVED'}")
        ]
        said += [("proof", proof_in_words(one)) for one in exported.proofs]
    return facts(said)
