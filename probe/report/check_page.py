"""A ``CheckResult`` as terminal text: verdict, what breaks and what becomes of it, what may, advice, what to do next."""

from __future__ import annotations

import math

from probe.report.diff_facts import fact_lines
from probe.report.numbers import count, number, seconds
from probe.report.steps import Step, exactly, fed_again, step_lines
from probe.report.text import Page, elide, escape, sections, wrap
from probe.report.words import headed_lines, inputs_in_words, sentence
from probe.results.check import CheckFinding, CheckResult, Level

WORDS = {"clean": "CLEAN", "warnings": "WARNINGS", "errors": "ERRORS"}
_STYLES = {"clean": ("green", "bold"), "warnings": ("yellow", "bold"), "errors": ("red", "bold")}
_SHOWN: dict[Level, int] = {"error": 8, "warning": 6, "lint": 4}
_TITLES: dict[Level, str] = {"error": "breaks", "warning": "may break", "lint": "advice"}
_LONG = 120  # cells of a word that a finding shows whole: names are what one copies from it
_LISTED = 16  # names a command line may hold before it is no longer one to read


def check_page(result: CheckResult, page: Page, *, rows: int | None = None, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each level's list, ``verbose`` lifts the bound."""
    return sections(
        check_headline(result, page),
        *(_level(result, level, page, None if verbose else rows or _SHOWN[level]) for level in _TITLES),
        step_lines(next_steps(result), page),
        fact_lines(check_facts(result), page),
    )


def check_headline(result: CheckResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return headed_lines(WORDS[result.verdict], _STYLES[result.verdict], check_sentence(result), page)


def check_sentence(result: CheckResult) -> str:
    """How many findings there are of each level."""
    counts = {level: len(result.of(level)) for level in _TITLES}
    if counts["error"]:
        what = f"{count(counts['error'], 'finding')} {'breaks' if counts['error'] == 1 else 'break'} results"
    elif counts["warning"]:
        what = f"nothing seen that breaks results; {count(counts['warning'], 'warning')}"
    else:
        what = "nothing seen that breaks results" if result.golden else "the graph alone was read; nothing against it"
    more = [
        count(counts[level], noun)
        for level, noun in (("warning", "warning"), ("lint", "piece"))
        if counts[level] and not (level == "warning" and not counts["error"])
    ]
    more = [text.replace("pieces", "pieces of advice") if "pieces" in text else text.replace("piece", "piece of advice") for text in more]  # fmt: skip
    return f"{result.precision}: {'; '.join([what, *more])}"


def _level(result: CheckResult, level: Level, page: Page, bound: int | None) -> list[str]:
    findings = result.of(level)
    shown = findings if bound is None else findings[:bound]
    lines = [page.paint(_TITLES[level], "bold")] if findings else []
    for position, finding in enumerate(shown, start=1):
        lines += _finding(finding, page, f"  {position}. ", several=len(result.inputs) > 1)
    if len(findings) > len(shown):
        lines.append(f"  and {len(findings) - len(shown)} more (-v)")
    return lines


def _finding(finding: CheckFinding, page: Page, label: str, *, several: bool) -> list[str]:
    lines = wrap(_whole(finding.message), page.width, first=label)
    indent = " " * len(label)
    advice = finding.level == "lint"
    parts = [("like", _like(finding)), ("try", finding.cure)]
    if not advice:
        parts = [("where", where_seen(finding, several=several)), ("then", finding.downstream), *parts]
    for name, text in parts:
        if text:
            lines += wrap(_whole(text), page.width, first=f"{indent}{name:<6}", rest=indent + "      ")
    return lines


def where_seen(finding: CheckFinding, *, several: bool) -> str:
    """Elements, range and headroom of a finding; with ``several`` inputs, which of them is worst."""
    facts = []
    if finding.elements:
        at = f", first [{','.join(map(str, finding.index))}]" if finding.index else ""
        facts.append(count(finding.elements, "element") + at)
    if finding.low is not None and finding.high is not None:
        facts.append(f"golden {number(finding.low)} to {number(finding.high)}")
    if finding.margin is not None and 1e-9 < finding.margin < 1e3:  # of a mask it says nothing
        facts.append(f"margin {number(finding.margin)}")
    if several and finding.input_id:
        facts.append(f"on {count(finding.inputs, 'input')}, worst {finding.input_id}")
    return "; ".join(facts)


def _like(finding: CheckFinding) -> str:
    if not finding.like:
        return ""
    more = f", and {len(finding.like) - 3} more" if len(finding.like) > 3 else ""
    return f"{len(finding.like)} like this: {', '.join(finding.like[:3])}{more}"


def _whole(text: str) -> str:
    return " ".join(elide(word, _LONG) if word else "" for word in escape(text).split(" "))


# --- what to do


def next_steps(result: CheckResult) -> list[Step]:
    """At most three commands, most useful first."""
    if not result.golden:
        return []
    steps: list[Step] = []
    errors = result.of("error")
    keep = tuple(dict.fromkeys(name for one in errors for name in one.keep))
    kept = tuple(name for name in keep if name)
    if errors:
        steps.append(
            Step(
                "Rounded alone, each of these makes results wrong, as far as it was followed. Whether the whole network fails, and in a "
                "runtime that fuses these nodes, only a run tells.",
                _run(result),
            )
        )
    if kept and len(kept) <= _LISTED:
        steps.append(
            Step(
                f"Try it with {count(len(kept), 'tensor')} in FP32: what these findings name.",
                (*_run(result), "--keep", exactly(kept)),
            )
        )
    if not errors and result.verdict == "warnings":
        steps.append(Step("What these come to, a run tells.", _run(result)))
    if any(one.source.startswith("seed") for one in result.inputs):
        steps.append(
            Step("These inputs were made up. Real ones show what random ones hide.",
                 ("probe", "check", result.model, "--precision", result.precision, "--inputs", "FILE.npz"))
        )  # fmt: skip
    return steps[:3]


def _run(result: CheckResult) -> tuple[str, ...]:
    golden = ("--golden", result.golden) if result.golden != "ort" else ()
    fed = fed_again(result.inputs, result.command)
    return ("probe", "run", result.model, "--precision", result.precision, *fed, *golden)


# --- the foot


def check_facts(result: CheckResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot; what is not known is left out. Texts are escaped."""
    made = {"ort": "ONNX Runtime in FP32, optimisation off", "fp64": "float64", "": "none: the graph alone was read"}
    lacking = (
        f"; {count(len(result.not_seen), 'tensor')} without values, such as {elide(result.not_seen[0], 40)}"
        if result.not_seen
        else ""
    )
    longest = sorted(result.seconds.items(), key=lambda one: -one[1])
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("golden", made.get(result.golden, escape(result.golden))),
        ("looked at", f"{count(result.nodes, 'node')}, {count(result.tensors, 'floating-point tensor')}, {count(len(result.rules), 'rule')}{lacking}"),
        ("inputs", inputs_in_words(result.inputs) if result.golden else ""),
        ("took", f"{seconds(math.fsum(result.seconds.values()))}, of which " + ", ".join(f"{k} {seconds(v)}" for k, v in longest) if longest else ""),
    ]  # fmt: skip
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]
