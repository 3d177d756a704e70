"""A ``FindResult`` as terminal text: what stays FP32 and why each part is needed, how it was proved, what it costs, what to do next."""

from __future__ import annotations

from probe.report.convert_page import hand_over
from probe.report.diff_facts import fact_lines
from probe.report.find_facts import find_facts, some
from probe.report.find_steps import next_steps
from probe.report.find_tactics import tactics_lines
from probe.report.numbers import count, number
from probe.report.steps import step_lines
from probe.report.text import Column, Page, elide, escape, sections, table, wrap
from probe.report.words import headed_lines, sentence
from probe.results.find import Evaluated, FindResult, Keep

WORDS = {
    "nothing_needed": ("NOTHING NEEDED", "green"),
    "found": ("FOUND", "green"),
    "found_not_minimal": ("FOUND", "yellow"),
    "unreachable": ("UNREACHABLE", "red"),
    "flaky": ("FLAKY", "red"),
    "interrupted": ("INTERRUPTED", "yellow"),
    "budget": ("BUDGET SPENT", "yellow"),
}
_LISTED = 6
_LONG = 120


def find_page(result: FindResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each list, ``verbose`` lifts the bound and adds the path of the search."""
    rows = max(len(result.keep), len(result.groups), len(result.nodes), rows) if verbose else rows
    return sections(
        [*find_headline(result, page), *_disagreements(result, page)],
        _keep(result, page, rows),
        tactics_lines(result, page, rows),
        _why(result, page, verbose=verbose),
        step_lines(next_steps(result), page),
        _groups(result, page, rows),
        _lighter(result, page),
        hand_over(result.exported.conversion, page, rows) if result.exported is not None else [],
        _path(result, page) if verbose else [],
        fact_lines(find_facts(result), page, 13),
    )


def find_headline(result: FindResult, page: Page) -> list[str]:
    """The status in one sentence."""
    word, style = WORDS[result.status]
    if not result and style == "green":
        style = "red"
    return headed_lines(word, (style, "bold"), find_sentence(result), page)


def find_sentence(result: FindResult) -> str:
    """How many stay FP32, how close that is, whether each is needed and proved."""
    kept = _kept(result)
    if result.status in ("found", "found_not_minimal"):
        answer = result.oracle.answer
        closeness = f", range_rel {number(answer.metric)}" if answer is not None and answer.metric is not None else ""
        low = result.oracle.all_low
        before = (
            f" (all {result.precision}: {number(low.metric)})" if low is not None and low.metric is not None else ""
        )
        needed = "each is needed" if result.status == "found" else "not every one was shown to be needed"
        if len({one.unit or one.tensor for one in result.keep}) == 1 and result.status == "found":
            needed = "it is needed"
        return f"{result.precision} passes with {kept} in FP32{closeness}{before}; {needed}{_proved(result)}"
    if result.status == "nothing_needed":
        low = result.oracle.all_low
        closeness = f", range_rel {number(low.metric)}" if low is not None and low.metric is not None else ""
        tactics = f" and {count(len(result.switches), 'more accurate tactic')}" if result.switches else ""
        return f"{result.precision} passes with nothing kept{tactics}{closeness}{_proved(result)}"
    return f"{result.reason} ({_kept(result)})" if result.keep else result.reason


def _kept(result: FindResult) -> str:
    """What was decided over, and how many tensors that is where it is not one each."""
    units = {one.unit or one.tensor or one.layer for one in result.keep}
    if result.granularity == "block":
        return f"{count(len(units), 'block')} of {count(len(result.keep), 'tensor')}"
    return count(len(result.keep), result.granularity)


def _proved(result: FindResult) -> str:
    if result.exported is None:
        return ""
    if not result.exported.path:
        return (
            "; an export, not written, is proved"
            if result.exported.passed
            else "; AN EXPORT, NOT WRITTEN, IS NOT PROVED"
        )
    where = f" as {result.exported.path}"
    return f"; exported{where} and proved" if result.exported.passed else f"; EXPORTED{where} AND NOT PROVED"


def _disagreements(result: FindResult, page: Page) -> list[str]:
    return [line for text in disagreements(result) for line in wrap(sentence(text), page.width, first="  but     ")]


def disagreements(result: FindResult) -> list[str]:
    """What speaks against the answer, and stands at the top of it."""
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
            failing = f" ({count(len(one.evaluated.failing_inputs), 'input')}: {some(one.evaluated.failing_inputs)})"
            found.append(
                f"held-out inputs fail{failing if one.evaluated.failing_inputs else ''}: {_first(one.evaluated)}"
            )
        elif one.exported is not None and not one.exported.passed:
            reasons = one.exported.reasons
            found.append(
                f"the exported model fails on held-out inputs: {reasons[0] if reasons else one.exported.verdict}"
            )
    return found


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
    cells_ = [(one.tensor or one.layer, one.kind, number(one.reach), without_it(one), _which(one)) for one in shown]
    return table(columns, cells_, page)


def without_it(one: Keep) -> str:
    """The error when it alone is low; ``?`` where votes stayed open."""
    if one.certificate is None:
        return "-"
    metric = one.certificate.metric
    word = "does not run" if metric is None else "NaN/Inf" if metric == float("inf") else number(metric)
    return word if one.certificate.decided else f"{word}?"


def _which(one: Keep) -> str:
    return f"#{one.certificate.evaluation}" if one.certificate is not None else "-"


def _why(result: FindResult, page: Page, *, verbose: bool) -> list[str]:
    told: dict[str, list[str]] = {}  # what overflows is often the reason for all that comes after it
    for one in result.keep:
        if one.why:
            told.setdefault(one.why, []).append(one.tensor or one.layer)
    shown = list(told.items()) if verbose else list(told.items())[:_LISTED]
    lines = [page.paint("why", "bold")] if shown else []
    for why, names in shown:
        others = [name for name in names if not why.startswith(f"{name} ")]
        text = why if len(others) < len(names) else f"{others.pop(0)}: {why}"
        lines += wrap(_whole(text), page.width, first="  - ")
        if others:
            lines += wrap(_whole(f"the same for {', '.join(others)}"), page.width, first="    ")
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
        text = f"{elide(group.unit, _LONG)} with {some(others)}"
        instead = f"; instead of it could stay {some(group.alternatives)}" if group.alternatives else ""
        lines += wrap(text + instead, page.width, first="  - ")
    for pair in result.compensating[:rows]:
        lines += wrap(
            f"{some(pair.units)} compensate each other: they pass together, low or kept, and fail when split",
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
