"""A ``FindResult`` as terminal text: what stays FP32 and why each part is needed, how it was proved, what it costs, what to do next."""

from __future__ import annotations

from probe.report.convert_page import hand_over, proof_in_words
from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds, size
from probe.report.steps import exactly
from probe.report.text import Column, Page, cells, command, elide, escape, table, wrap
from probe.report.words import sentence
from probe.results.find import Evaluated, FindResult, Keep

_WORDS = {
    "nothing_needed": ("NOTHING NEEDED", "green"),
    "found": ("FOUND", "green"),
    "found_not_minimal": ("FOUND", "yellow"),
    "unreachable": ("UNREACHABLE", "red"),
    "flaky": ("FLAKY", "red"),
    "interrupted": ("INTERRUPTED", "yellow"),
    "budget": ("BUDGET SPENT", "yellow"),
}
_NOUNS = {"tensor": "tensor", "layer": "layer", "block": "tensor"}
_NAMES_IN_A_COMMAND = 16
_LISTED = 6
_LONG = 120


def find_page(result: FindResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each list, ``verbose`` lifts the bound and adds the path of the search."""
    rows = max(len(result.keep), len(result.groups), len(result.nodes), rows) if verbose else rows
    sections = [
        [*find_headline(result, page), *_disagreements(result, page)],
        _keep(result, page, rows),
        _why(result, page, verbose=verbose),
        _steps(result, page),
        _groups(result, page, rows),
        _lighter(result, page),
        hand_over(result.exported.conversion, page, rows) if result.exported is not None else [],
        _path(result, page) if verbose else [],
        _facts(result, page),
    ]
    lines: list[str] = []
    for section in sections:
        if section:
            lines += [*([""] if lines else []), *section]
    return lines


def find_headline(result: FindResult, page: Page) -> list[str]:
    """The status in one sentence."""
    word, style = _WORDS[result.status]
    if not result and style == "green":
        style = "red"
    lines = wrap(escape(_sentence(result)), page.width, first=word + "  ")
    lines[0] = page.paint(word, style, "bold") + lines[0][len(word) :]
    return lines


def _sentence(result: FindResult) -> str:
    noun = _NOUNS[result.granularity]
    kept = count(len(result.keep), noun)
    if result.status in ("found", "found_not_minimal"):
        answer = result.oracle.answer
        closeness = f", range_rel {number(answer.metric)}" if answer is not None and answer.metric is not None else ""
        low = result.oracle.all_low
        before = (
            f" (all {result.precision}: {number(low.metric)})" if low is not None and low.metric is not None else ""
        )
        needed = "each is needed" if result.status == "found" else "not every one was shown to be needed"
        if len(result.keep) == 1 and result.status == "found":
            needed = "it is needed"
        return f"{result.precision} passes with {kept} in FP32{closeness}{before}; {needed}{_proved(result)}"
    if result.status == "nothing_needed":
        low = result.oracle.all_low
        closeness = f", range_rel {number(low.metric)}" if low is not None and low.metric is not None else ""
        return f"{result.precision} passes with nothing kept{closeness}{_proved(result)}"
    return result.reason


def _proved(result: FindResult) -> str:
    if result.exported is None:
        return ""
    where = f" as {result.exported.path}" if result.exported.path else ""
    return f"; exported{where} and proved" if result.exported.passed else f"; EXPORTED{where} AND NOT PROVED"


def _disagreements(result: FindResult, page: Page) -> list[str]:
    """What speaks against the answer stands at the top."""
    found: list[str] = []
    rerun = result.oracle.answer_rerun
    if rerun is not None and not rerun.passed:
        found.append(f"the answer fails in an engine compiled anew: {_first(rerun)}")
    if result.exported is not None and not result.exported.passed:
        reasons = result.exported.conversion.reasons
        found.append(f"the exported model fails its proof: {reasons[0] if reasons else 'see below'}")
    if result.held_out is not None and not result.held_out:
        one = result.held_out
        if not one.evaluated.passed:
            failing = f" ({count(len(one.evaluated.failing_inputs), 'input')}: {_some(one.evaluated.failing_inputs)})"
            found.append(
                f"held-out inputs fail{failing if one.evaluated.failing_inputs else ''}: {_first(one.evaluated)}"
            )
        elif one.exported is not None and not one.exported.passed:
            reasons = one.exported.reasons
            found.append(
                f"the exported model fails on held-out inputs: {reasons[0] if reasons else one.exported.verdict}"
            )
    return [line for text in found for line in wrap(sentence(text), page.width, first="  but     ")]


def _first(one: Evaluated) -> str:
    return one.reasons[0] if one.reasons else f"margin {number(one.margin)}"


# --- what is kept


def _keep(result: FindResult, page: Page, rows: int) -> list[str]:
    if not result.keep:
        return []
    shown = result.keep[:rows]
    title = f"stays FP32 ({len(shown)} of {len(result.keep)})" if len(shown) < len(result.keep) else "stays FP32"
    columns = [
        Column(title, 0, "<"),
        Column("kind", 10, "<"),
        Column("reach", 9),
        Column("without it", 12),
        Column("evaluation", 10),
    ]
    cells_ = [(one.tensor or one.layer, one.kind, number(one.reach), _without(one), _which(one)) for one in shown]
    return table(columns, cells_, page)


def _without(one: Keep) -> str:
    if one.certificate is None:
        return "-"
    metric = one.certificate.metric
    word = "does not run" if metric is None else "NaN/Inf" if metric == float("inf") else number(metric)
    return word if one.certificate.decided else f"{word}?"


def _which(one: Keep) -> str:
    return f"#{one.certificate.evaluation}" if one.certificate is not None else "-"


def _why(result: FindResult, page: Page, *, verbose: bool) -> list[str]:
    told = [one for one in result.keep if one.why]
    shown = told if verbose else told[:_LISTED]
    lines = [page.paint("why", "bold")] if shown else []
    for one in shown:
        name = one.tensor or one.layer
        text = one.why if one.why.startswith(f"{name} ") else f"{name}: {one.why}"
        lines += wrap(_whole(text), page.width, first="  - ")
    if len(told) > len(shown):
        lines.append(f"  and {count(len(told) - len(shown), 'more reason')} (-v)")
    return lines


def _whole(text: str) -> str:
    return " ".join(elide(word, _LONG) if word else "" for word in escape(text).split(" "))


def _groups(result: FindResult, page: Page, rows: int) -> list[str]:
    """What could be kept instead, and what breaks the output together."""
    several = [group for group in result.groups if len(group.units) > 1]
    lines = [page.paint("which break the output together", "bold")] if several or result.compensating else []
    for group in several[:rows]:
        others = [name for name in group.units if name != group.unit]
        text = f"{elide(group.unit, _LONG)} with {_some(others)}"
        instead = f"; instead of it could stay {_some(group.alternatives)}" if group.alternatives else ""
        lines += wrap(text + instead, page.width, first="  - ")
    for pair in result.compensating[:rows]:
        lines += wrap(
            f"{_some(pair.units)} compensate each other: they pass together, low or kept, and fail when split",
            page.width,
            first="  - ",
        )
    return lines


def _lighter(result: FindResult, page: Page) -> list[str]:
    if not result.lighter:
        return []
    lines = [page.paint("other cures, tried", "bold")]
    for one in result.lighter:
        closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
        why = f": {sentence(one.reasons[0])}" if one.reasons and one.verdict != "passed" else ""
        lines += wrap(f"{one.words}: {one.verdict.replace('_', ' ')}{closeness}{why}", page.width, first="  - ")
    return lines


# --- what to do


def _steps(result: FindResult, page: Page) -> list[str]:
    steps: list[tuple[str, tuple[str, ...]]] = []
    known = result.status in ("found", "found_not_minimal", "interrupted", "budget") and result.keep
    if known and (result.exported is None or not result.exported.path):
        steps.append(("Write the mixed-precision model.", command_of(result, "-o", "mixed.onnx", *_resume(result))))
    elif (
        known
        and result.exported is not None
        and result.exported.passed
        and len(result.tensors) <= _NAMES_IN_A_COMMAND
        and result.tensors
    ):
        run = (
            "probe",
            "run",
            result.model,
            "--precision",
            result.precision,
            *_inputs(result),
            "--keep",
            exactly(result.tensors),
        )
        steps.append((f"Deploy {escape(result.exported.path)}. To see every layer of the same choice:", run))
    if result.status in ("interrupted", "budget"):
        text = "Go on where it stopped." if result.log else "Keep a log, and it can be gone on with."
        steps.append((text, command_of(result, *(_resume(result) or ("--log", "find.jsonl")))))
    if result.status == "unreachable":
        steps.append(
            (
                "See where FP32 itself differs from this golden.",
                ("probe", "run", result.model, "--precision", "fp32", *_inputs(result)),
            )
        )
    if result.held_out is not None and not result.held_out.evaluated.passed:
        steps.append(("Let the search see the inputs that fail, too.", command_of(result, "--inputs", "HELD_OUT")))
    if any(one.source.startswith("seed") for one in result.inputs):
        steps.append(
            (
                "These inputs were made up. Real ones show what random ones hide.",
                command_of(result, "--inputs", "FILE.npz"),
            )
        )
    lines = [page.paint("what to do", "bold")] if steps else []
    for why, words in steps[:4]:
        lines += [*wrap(why, page.width, first="  "), *command(words, page.width)]
    return lines


def command_of(result: FindResult, *more: str) -> tuple[str, ...]:
    """The command that does this search again; options at their defaults are left out."""
    words = ["probe", "find", result.model, "--precision", result.precision, *_inputs(result)]
    for option, value, usual in (
        ("--granularity", result.granularity, "tensor"),
        ("--objective", result.objective, "count"),
        ("--aggregate", result.aggregate, "worst"),
        ("--passes", result.passes, "none"),
        ("--fusion", result.fusion, "none"),
        ("--interior", result.interior, "storage"),
    ):
        words += [option, value] if value != usual else []
    for criterion in result.acceptance:
        words += ["--accept", str(criterion)] if criterion.source == "user" else []
    words += ["--check", result.check] if result.check and "{dump}" in result.check else []
    return (*words, *more)


def _inputs(result: FindResult) -> tuple[str, ...]:
    files = dict.fromkeys(one.source.removeprefix("file ") for one in result.inputs if one.source.startswith("file "))
    return tuple(word for file in files for word in ("--inputs", file))


def _resume(result: FindResult) -> tuple[str, ...]:
    return ("--log", result.log, "--resume") if result.log else ()


# --- where it comes from


def _path(result: FindResult, page: Page) -> list[str]:
    if not result.steps:
        return []
    columns = [
        Column("#", 5),
        Column("evaluation", 0, "<"),
        Column("kind", 7, "<"),
        Column("kept", 6),
        Column("", 6, "<"),
        Column("margin", 9),
    ]
    rows = [
        (str(s.index), s.why, s.kind, str(s.kept), "passes" if s.passed else "fails", number(s.margin))
        for s in result.steps
        if s.kind != "probes"
    ]
    return table(columns, rows, page)


def _facts(result: FindResult, page: Page) -> list[str]:
    asked = result.evaluations
    evaluations = ", ".join(
        f"{asked[kind]:,} {kind}" for kind in ("search", "probes", "proof", "cached") if asked.get(kind)
    )
    oracle = result.oracle
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("device", result.device),
        ("engine", f"passes {result.passes}, fusion {result.fusion}, interior {result.interior}"),
        ("all low", _said(oracle.all_low)),
        ("all FP32", _said(oracle.all_fp32) + _floor(oracle.float64_floor)),
        ("answer", _said(oracle.answer)),
        ("run again", _said(oracle.answer_rerun, "in an engine compiled anew")),
        ("held out", _held_out(result)),
        *(("proof", proof_in_words(one)) for one in (result.exported.proofs if result.exported is not None else ())),
        ("cost", _cost(result)),
        ("asked", f"{evaluations} of {count(result.units, 'unit')}" if evaluations else ""),
        (
            "voted",
            f"the oracle contradicted itself ({number(result.voting.noise)} of all-FP32 evaluations fail); each question is decided with confidence {result.voting.confidence:g}"
            if result.voting
            else "",
        ),
        (
            "not monotone",
            f"{count(result.violations, 'evaluation')} where keeping more was worse" if result.violations else "",
        ),
        ("acceptance", (acceptance_in_words(result.acceptance) if result.acceptance else "") + _how(result)),
        ("golden", escape(result.golden.path) if result.golden is not None and result.golden.path else ""),
        ("inputs", _inputs_in_words(result)),
        ("log", escape(result.log) if result.log else ""),
        ("took", seconds(sum(result.seconds.values())) if result.seconds else ""),
    ]
    lines = [line for label, text in facts if text for line in wrap(text, page.width, first=f"{label:<13}")]
    for note in result.notes:
        lines += wrap(sentence(note), page.width, first=f"{'note':<13}")
    return lines


def _said(one: Evaluated | None, more: str = "") -> str:
    if one is None:
        return ""
    closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
    votes = (
        f" ({one.votes[0]} of {sum(one.votes)} evaluations pass)" if one.votes is not None and all(one.votes) else ""
    )
    failing = f" on {_some(one.failing_inputs)}" if one.failing_inputs and not one.passed else ""
    why = f": {sentence(one.reasons[0])}" if one.reasons and not one.passed else ""
    return f"{'passes' if one.passed else 'fails'}{failing}{closeness}{votes}{', ' + more if more else ''}{why}"


def _floor(floors: dict[str, float]) -> str:
    if not floors:
        return ""
    worst = max(floors, key=lambda name: floors[name])
    return f"; the golden itself is range_rel {number(floors[worst])} from float64 ({elide(worst, 40)})"


def _held_out(result: FindResult) -> str:
    one = result.held_out
    if one is None:
        return ""
    exported = f"; exported: {one.exported.verdict.replace('_', ' ')}" if one.exported is not None else ""
    return f"{count(len(one.inputs), 'input')}: {_said(one.evaluated)}{exported}"


def _cost(result: FindResult) -> str:
    cost = result.cost
    if cost is None:
        return ""
    parts: list[str] = []
    if cost.flops and cost.flops_fp32 is not None:
        parts.append(f"{100 * cost.flops_fp32 / cost.flops:.2g} % of the FLOPs in FP32")
    if cost.bytes_fp32 is not None:
        parts.append(f"{size(cost.bytes_fp32)} more")
    if cost.casts is not None:
        parts.append(count(cost.casts, "Cast"))
    if cost.latency is not None:
        whole = f" (everything in FP32: {cost.latency_fp32:.3g}x)" if cost.latency_fp32 is not None else ""
        parts.append(f"latency {cost.latency:.3g}x of all-low{whole}, modelled: {cost.model}")
    return ", ".join(parts)


def _how(result: FindResult) -> str:
    parts = [f"{result.aggregate} of the inputs"] if result.aggregate != "worst" else []
    parts += [f"judged by {escape(result.check)}"] if result.check else []
    return ("; " if result.acceptance and parts else "") + "; ".join(parts)


def _inputs_in_words(result: FindResult) -> str:
    sources = list(dict.fromkeys(one.source for one in result.inputs))
    random = any(one.source.startswith("seed") for one in result.inputs)
    shown = ", ".join(elide(one, 48) for one in sources[:3]) + (
        f", and {len(sources) - 3} more" if len(sources) > 3 else ""
    )
    return (
        f"{count(len(result.inputs), 'input set')}: {shown}{'; random data can hide failures' if random else ''}"
        if sources
        else ""
    )


def _some(names: tuple[str, ...] | list[str], shown: int = 3) -> str:
    listed = ", ".join(elide(name, 64) if cells(escape(name)) > 64 else escape(name) for name in names[:shown])
    return listed + (f" and {len(names) - shown} more" if len(names) > shown else "")
