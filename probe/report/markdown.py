"""A result as a few lines of Markdown for a pull request: the verdict, a table of outputs, what to do. Names are code, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probe.report.diff_tables import flag, severity
from probe.report.html.page import no_page
from probe.report.markdown_text import ROWS, code, prose, table, to_do, verdict
from probe.report.numbers import cosine, count, number
from probe.report.text import escape
from probe.report.words import WORDS, why_not_compared
from probe.results.check import CheckResult
from probe.results.diff import DiffResult, TensorDiff
from probe.results.find import FindResult
from probe.results.run import RunResult


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
            from probe.report.markdown_pair import pair_parts

            parts = pair_parts(result)
        case "probe.find/1":
            parts = _find(result)
        case "probe.bench/1":
            from probe.report.markdown_bench import bench_parts

            parts = bench_parts(result)
        case "probe.check/1":
            parts = _check(result)
        case other:
            from probe.report.markdown_tactics import PARTS

            if other is None or other not in PARTS:
                raise no_page(other)
            parts = PARTS[other](result)
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _outputs(tensors: Sequence[TensorDiff]) -> list[str]:
    ordered = sorted(tensors, key=severity, reverse=True)
    rows = []
    for t in ordered[:ROWS]:
        m = t.metrics
        said = (
            (number(m.range_rel), cosine(m.cosine), number(m.max_abs), flag(t))
            if m is not None
            else ("", "", "", prose(why_not_compared(t)))
        )
        rows.append((code(t.name), *said))
    return table(("output", "range_rel", "cosine", "max_abs", "flag"), rows, len(ordered) - len(rows))


def _run(result: RunResult) -> list[list[str]]:
    from probe.report.run_page import run_sentence
    from probe.report.run_steps import next_steps

    fatal = [f for f in result.findings if f.fatal]
    starts = [f"- error starts in {code(name)}" for name in result.first_divergence[:3]]
    return [
        verdict(WORDS[result.verdict], run_sentence(result), f"`probe run` of {code(result.model)}: {prose(result.device)}", result.reasons[1:]),
        [f"- {prose(f.message)}" for f in fatal[:3]] + starts,
        _outputs([t for t in result.tensors if t.role == "output"]),
        to_do(next_steps(result)),
    ]  # fmt: skip


def _diff(result: DiffResult) -> list[list[str]]:
    from probe.report.diff_page import headline
    from probe.report.steps import next_steps

    sides = f"`probe diff` of {code(result.actual.path)} against {code(result.golden.path)}"
    own = [t for t in result.tensors if t.role == "output"] if result.roles_known else list(result.tensors)
    return [
        verdict(WORDS[result.verdict], headline(result), sides, result.reasons[1:]),
        [f"- error starts in {code(name)}" for name in result.first_divergence[:3]],
        _outputs(own),
        to_do(next_steps(result)),
    ]


def _find(result: FindResult) -> list[list[str]]:
    from probe.report.find_facts import find_facts
    from probe.report.find_page import WORDS as STATUSES
    from probe.report.find_page import disagreements, find_sentence, without_it
    from probe.report.find_steps import next_steps

    word, _ = STATUSES[result.status]
    rows = [(code(k.tensor or k.layer), number(k.reach), without_it(k)) for k in result.keep[:ROWS]]
    said = dict(find_facts(result))
    return [
        verdict(word, find_sentence(result), f"`probe find` in {code(result.model)}: {prose(result.device)}", disagreements(result)),
        table(("stays FP32", "reach", "range_rel without it"), rows, len(result.keep) - len(rows)),
        [f"Cost: {prose(said['cost'])}"] if "cost" in said else [],
        to_do(next_steps(result)),
    ]  # fmt: skip


def _check(result: CheckResult) -> list[list[str]]:
    from probe.report.check_page import WORDS as LEVELS
    from probe.report.check_page import check_sentence, next_steps

    grave = [one for one in result.findings if one.level != "lint"]
    lines = [f"- {one.level}: {prose(one.message)}" for one in grave[:ROWS]]
    more = [f"- and {count(len(grave) - ROWS)} more"] if len(grave) > ROWS else []
    return [
        verdict(
            LEVELS[result.verdict],
            check_sentence(result),
            f"`probe check` of {code(result.model)} in {escape(result.precision)}",
        ),
        [*lines, *more],
        to_do(next_steps(result)),
    ]
