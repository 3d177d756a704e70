"""A result as a few lines of Markdown for a pull request: the verdict, a table of outputs, what to do. Names are code, never markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from probe.report.diff_tables import flag, severity
from probe.report.html.page import no_page
from probe.report.numbers import cosine, count, number
from probe.report.steps import Step
from probe.report.text import command, elide, escape
from probe.report.words import WORDS, why_not_compared
from probe.results.check import CheckResult
from probe.results.diff import DiffResult, RegressionResult, TensorDiff
from probe.results.find import FindResult
from probe.results.run import RunResult

_ROWS = 10  # of a table: a comment is read in passing
_COMPARED = {">": "&gt;", "<": "&lt;", ">=": "&gt;=", "<=": "&lt;="}
_WIDTH = 80  # cells of a name
_BAR = "\\|"  # inside a table a bar ends a cell, even in code
_PLAIN = re.compile(r"[A-Za-z0-9.,:;%()+/'=-]*")


def markdown(result: Any) -> str:
    """The whole comment, ending in a newline.

    Raises:
        InputError: a kind of result that has no report.
    """
    match getattr(result, "schema", None):
        case "probe.run/1":
            parts = _run(result)
        case "probe.diff/1":
            parts = _diff(result)
        case "probe.regression/1":
            parts = _regression(result)
        case "probe.find/1":
            parts = _find(result)
        case "probe.check/1":
            parts = _check(result)
        case other:
            raise no_page(other)
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def code(text: str, width: int = _WIDTH) -> str:
    """A name as a code span, whatever backticks it holds; cut in the middle to ``width`` cells."""
    shown = elide(text, width)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def prose(text: str) -> str:
    """A sentence: words that Markdown, or a site that renders it, could take for anything else become code."""
    return " ".join(
        word if _PLAIN.fullmatch(word) and "//" not in word and "www." not in word else _code_word(word)
        for word in text.split(" ")
    )


def _code_word(word: str) -> str:
    if word in _COMPARED:
        return _COMPARED[word]
    tail = re.search(r"[.,:;]*$", word)
    end = len(word) - len(tail[0]) if tail else len(word)
    return code(word[:end]) + word[end:] if end else word


def _verdict(word: str, sentence: str, what: str, more: Sequence[str] = ()) -> list[str]:
    lines = [f"### {word}: {prose(sentence)}", "", what]
    return [*lines, *([""] if more else []), *(f"- {prose(reason)}" for reason in more[:4])]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """``left`` rows more than are shown."""
    if not rows:
        return []
    lines = [f"| {' | '.join(titles)} |", f"|{'|'.join(':--' if i == 0 else '--:' for i in range(len(titles)))}|"]
    lines += [f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |" for row in rows]
    return [*lines, "", f"and {count(left)} more"] if left > 0 else lines


def _to_do(steps: Sequence[Step]) -> list[str]:
    lines: list[str] = []
    for step in steps:
        lines += ["", prose(step.why)]
        written = [step.raw] if step.raw else command(step.words, 100, indent="") if step.words else []
        if written:
            fence = "`" * (1 + max((len(run) for run in re.findall("`{2,}", "\n".join(written))), default=2))
            lines += ["", f"{fence}sh", *written, fence]
    return ["**What to do**", *lines] if lines else []


def _outputs(tensors: Sequence[TensorDiff]) -> list[str]:
    ordered = sorted(tensors, key=severity, reverse=True)
    rows = []
    for t in ordered[:_ROWS]:
        m = t.metrics
        said = (
            (number(m.range_rel), cosine(m.cosine), number(m.max_abs), flag(t))
            if m is not None
            else ("", "", "", prose(why_not_compared(t)))
        )
        rows.append((code(t.name), *said))
    return _table(("output", "range_rel", "cosine", "max_abs", "flag"), rows, len(ordered) - len(rows))


def _run(result: RunResult) -> list[list[str]]:
    from probe.report.run_page import run_sentence
    from probe.report.run_steps import next_steps

    fatal = [f for f in result.findings if f.fatal]
    starts = [f"- error starts in {code(name)}" for name in result.first_divergence[:3]]
    return [
        _verdict(WORDS[result.verdict], run_sentence(result), f"`probe run` of {code(result.model)}: {prose(result.device)}", result.reasons[1:]),
        [f"- {prose(f.message)}" for f in fatal[:3]] + starts,
        _outputs([t for t in result.tensors if t.role == "output"]),
        _to_do(next_steps(result)),
    ]  # fmt: skip


def _diff(result: DiffResult) -> list[list[str]]:
    from probe.report.diff_page import headline
    from probe.report.steps import next_steps

    sides = f"`probe diff` of {code(result.actual.path)} against {code(result.golden.path)}"
    own = [t for t in result.tensors if t.role == "output"] if result.roles_known else list(result.tensors)
    return [
        _verdict(WORDS[result.verdict], headline(result), sides, result.reasons[1:]),
        [f"- error starts in {code(name)}" for name in result.first_divergence[:3]],
        _outputs(own),
        _to_do(next_steps(result)),
    ]


def _regression(result: RegressionResult) -> list[list[str]]:
    from probe.report.regression_page import largest_change, regression_sentence

    sides = f"{code(result.before)} ({prose(result.verdict_before)}), then {code(result.after)} ({prose(result.verdict_after)})"
    moved = sorted(
        (c for c in result.changes if c.status != "same"),
        key=lambda c: (c.status == "worse", largest_change(c)),
        reverse=True,
    )
    rows = [
        (code(c.name), number(c.before), number(c.after), number(c.ratio), c.status.replace("_", " "))
        for c in moved[:_ROWS]
    ]
    return [
        _verdict(WORDS[result.verdict], regression_sentence(result), sides, result.reasons[1:]),
        _table(("tensor", "before", "after", "ratio", "change"), rows, len(moved) - len(rows)),
    ]  # fmt: skip


def _find(result: FindResult) -> list[list[str]]:
    from probe.report.find_facts import find_facts
    from probe.report.find_page import WORDS as STATUSES
    from probe.report.find_page import disagreements, find_sentence, without_it
    from probe.report.find_steps import next_steps

    word, _ = STATUSES[result.status]
    rows = [(code(k.tensor or k.layer), number(k.reach), without_it(k)) for k in result.keep[:_ROWS]]
    said = dict(find_facts(result))
    return [
        _verdict(word, find_sentence(result), f"`probe find` in {code(result.model)}: {prose(result.device)}", disagreements(result)),
        _table(("stays FP32", "reach", "range_rel without it"), rows, len(result.keep) - len(rows)),
        [f"Cost: {prose(said['cost'])}"] if "cost" in said else [],
        _to_do(next_steps(result)),
    ]  # fmt: skip


def _check(result: CheckResult) -> list[list[str]]:
    from probe.report.check_page import WORDS as LEVELS
    from probe.report.check_page import check_sentence, next_steps

    grave = [one for one in result.findings if one.level != "lint"]
    lines = [f"- {one.level}: {prose(one.message)}" for one in grave[:_ROWS]]
    more = [f"- and {count(len(grave) - _ROWS)} more"] if len(grave) > _ROWS else []
    return [
        _verdict(
            LEVELS[result.verdict],
            check_sentence(result),
            f"`probe check` of {code(result.model)} in {escape(result.precision)}",
        ),
        [*lines, *more],
        _to_do(next_steps(result)),
    ]
