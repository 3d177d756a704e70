"""Two results as a comment on a pull request: the verdict, outputs, the parts that got worse; the rest folded away."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.markdown_text import ROWS, code, folded, prose, table, to_do, verdict
from probe.report.numbers import count, number
from probe.report.regression_facts import (
    change_of,
    finding_in_words,
    how_changed,
    largest_change,
    moved_findings,
    next_steps,
    ordered,
    regression_sentence,
    start_sentence,
)
from probe.report.words import WORDS
from probe.results.regression import RegressionResult, TensorChange

_STEPS = 2  # a comment is short; the page has the others
_PART = ("part of the network", "before", "after", "own before", "own after", "computed otherwise", "change")


def pair_parts(result: RegressionResult) -> list[list[str]]:
    """The parts of the comment in their order."""
    sides = f"{code(result.before)} ({prose(result.verdict_before)}), then {code(result.after)} ({prose(result.verdict_after)})"
    settings = "; ".join(
        f"{prose(one.name)} {code(one.before)}, then {code(one.after)}" for one in result.settings[:ROWS]
    )
    start = start_sentence(result)
    outputs = [c for c in result.changes if c.role == "output" or not result.parts]
    moved = [c for c in outputs if c.status != "same"]
    shown = sorted(moved, key=lambda c: (c.status in ("worse", "only_before"), largest_change(c)), reverse=True)
    worse, better = (ordered(result.parts, status) for status in ("worse", "better"))
    came, went = moved_findings(result)
    return [
        verdict(WORDS[result.verdict], regression_sentence(result), sides, [*result.reasons[1:], *([start] if start else [])]),
        [f"- **Not comparable in part:** {prose(one)}" for one in result.warnings],
        [f"- differs: {settings}"] if settings else [],
        _tensors(shown[:ROWS], "output" if result.parts else "tensor", len(shown) - ROWS),
        [f"**Got worse inside: {count(len(worse), 'part')}**", "", *_parts(result, "worse")] if worse else [],
        [f"- noticed now: {prose(finding_in_words(one))}" for one in came[:ROWS]],
        _kept(result, "only_after", "must stay FP32 now"),
        folded(f"Got better inside: {count(len(better), 'part')}", _parts(result, "better")),
        folded(f"No longer noticed: {count(len(went), 'finding')}", [f"- {prose(finding_in_words(one))}" for one in went[:ROWS]]),
        _kept(result, "only_before", "need not stay FP32 any more"),
        to_do(next_steps(result)[:_STEPS]),
    ]  # fmt: skip


def _tensors(changes: Sequence[TensorChange], noun: str, left: int) -> list[str]:
    rows = []
    for c in changes:
        verdicts = [(v or "none").replace("_", " ") for v in (c.verdict_before, c.verdict_after)]
        said = f"{verdicts[0]}, then {verdicts[1]}" if verdicts[0] != verdicts[1] else verdicts[0]
        rows.append(
            (code(c.name), number(c.before), number(c.after), number(c.ratio), said, c.status.replace("_", " "))
        )
    return table((noun, "before", "after", "ratio", "verdict", "change"), rows, left)


def _parts(result: RegressionResult, status: str) -> list[str]:
    chosen = ordered(result.parts, status)
    rows = []
    for one in chosen[:ROWS]:
        how = "; ".join(how_changed(one, result))
        numbers = (number(one.before), number(one.after), number(one.own_before), number(one.own_after))
        rows.append((code(one.name), *numbers, code(how) if how else "", change_of(one)))
    return table(_PART, rows, len(chosen) - len(rows))


def _kept(result: RegressionResult, status: str, title: str) -> list[str]:
    names = [one.name for one in result.kept if one.status == status]
    lines = [f"- {title}: {code(name)}" for name in names[:ROWS]]
    return [*lines, *([f"- and {count(len(names) - ROWS)} more"] if len(names) > ROWS else [])]
