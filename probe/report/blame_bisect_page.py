"""A ``TacticsBisectResult`` as terminal text: what is guilty, how it is known, what was written, what to do."""

from __future__ import annotations

from probe.report.blame_words import UNBOUND, bounded, foot, outcome, whole
from probe.report.numbers import count, number
from probe.report.steps import Step, inputs_of, on_device, step_lines
from probe.report.text import Column, Page, elide, escape, fitted, sections, wrap
from probe.results.blame import GuiltyChoice, TacticDifference, TacticsBisectResult
from probe.results.find import Evaluated


def tactics_bisect_page(result: TacticsBisectResult, page: Page, *, rows: int = 12, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds lists, ``verbose`` lifts the bound and lists the differences and every evaluation."""
    bound = UNBOUND if verbose else rows
    return sections(
        tactics_bisect_headline(result, page),
        _guilty(result, page, bound),
        _confirmation(result, page),
        _differences(result, page, bound) if verbose or not result.guilty else [],
        _evaluations(result, page) if verbose else [],
        step_lines(next_steps(result), page),
        foot(result, page, tactics_bisect_facts(result)),
    )


def tactics_bisect_headline(result: TacticsBisectResult, page: Page) -> list[str]:
    """What was found, in a sentence."""
    word, style, sentence = tactics_bisect_sentence(result)
    lines = wrap(sentence, page.width, first=f"{word}  ")
    return [page.paint(word, style, "bold") + lines[0][len(word) :], *lines[1:]]


def tactics_bisect_sentence(result: TacticsBisectResult) -> tuple[str, str, str]:
    """A word, its colour, and a sentence."""
    word, style = ("GUILTY", "green") if result.confirmed else ("NOT FOUND", "red")
    if result.guilty and not result.confirmed:
        word, style = "NOT CONFIRMED", "yellow"
    first = f"{in_words(result.guilty[0].choice)}; " if len(result.guilty) == 1 else ""
    return word, style, f"{first}{whole(result.reason)}"


def in_words(one: TacticDifference) -> str:
    """``winograd_f4 on conv1 (good: exact)``."""
    return f"{escape(one.bad)} on {elide(one.layer, 60)} (good: {escape(one.good)})"


def _guilty(result: TacticsBisectResult, page: Page, rows: int) -> list[str]:
    lines = [page.paint("to be pinned", "bold")] if result.guilty else []
    for number_, one in enumerate(result.guilty[:rows], start=1):
        lines += wrap(in_words(one.choice), page.width, first=f"  {number_}. ")
        for name, text in evidence(one):
            lines += wrap(text, page.width, first=f"     {name:<8}", rest="             ")
    return lines if len(result.guilty) <= rows else [*lines, f"  and {len(result.guilty) - rows} more (-v)"]


def evidence(one: GuiltyChoice) -> list[tuple[str, str]]:
    """How a choice is known to be guilty: label and sentence."""
    facts = []
    if one.choice.changed is not None:
        facts.append(("alone", f"it changes what the layer makes by {number(one.choice.changed)} of its RMS"))
    if one.alone:
        facts.append(("flipped", f"the good run with this one choice of the bad one {outcome(one.flipped)}"))
    elif one.group:
        others = " and ".join(in_words(other) for other in one.group if other.layer != one.choice.layer)
        facts.append(("with", others))
        facts.append(
            ("flipped", f"the good run with these together {outcome(one.flipped)}; with fewer of them it passes")
        )
    else:
        facts.append(("with", "only together with more than three others: errors add up"))
    if one.alternatives:
        facts.append(("or", f"pin instead {', '.join(elide(name, 48) for name in one.alternatives)}"))
    if one.certificate >= 0:
        facts.append(("needed", f"with everything else pinned and this not, it fails (evaluation {one.certificate})"))
    return facts


def _confirmation(result: TacticsBisectResult, page: Page) -> list[str]:
    rows = confirmation(result)
    width = max(len(name) for name, _ in rows)
    lines = [page.paint("flipped both ways" if result.guilty else "evaluated", "bold")]
    for name, one in rows:
        if one is not None:
            lines += wrap(outcome(one), page.width, first=f"  {name:<{width}}  ")
    return lines


def confirmation(result: TacticsBisectResult) -> list[tuple[str, Evaluated | None]]:
    """Both runs, and each with the guilty choices of the other."""
    return [
        ("the good run", result.good_run), ("the bad run", result.bad_run), ("good, guilty choices flipped to bad", result.good_with_guilty),
        ("bad, guilty choices pinned to good", result.bad_without_guilty),
    ]  # fmt: skip


def _differences(result: TacticsBisectResult, page: Page, rows: int) -> list[str]:
    cells = [(one.layer, one.good, one.bad, number(one.changed)) for one in result.differences]
    columns = [
        Column("differences, most suspect first", 0, "<"), fitted("good", (row[1] for row in cells), align="<", most=18),
        fitted("bad", (row[2] for row in cells), align="<", most=18), Column("changes", 9),
    ]  # fmt: skip
    return bounded(columns, cells, page, rows)


def _evaluations(result: TacticsBisectResult, page: Page) -> list[str]:
    cells = [
        (str(one.index), one.why, str(one.kept), "passes" if one.passed else "FAILS", number(one.margin))
        for one in result.steps
    ]
    columns = [Column("", 4), Column("evaluation", 0, "<"), Column("good", 5), Column("", 6, "<"), Column("margin", 8)]
    return bounded(columns, cells, page, UNBOUND)


def next_steps(result: TacticsBisectResult) -> list[Step]:
    """What to do with the answer."""
    given = (*inputs_of(result.inputs), *on_device(result.device))
    as_here = () if result.precision == "fp16" else ("--precision", result.precision)
    steps: list[Step] = []
    if result.pinned:
        words = ("probe", "tactics", "replay", result.model, result.pinned, *given)
        steps.append(Step("Run with the guilty choices pinned.", words))
    if result.denied:
        words = (
            "probe",
            "tactics",
            "record",
            result.model,
            *as_here,
            *given,
            "--deny",
            f"@{result.denied}",
            "-o",
            "new.tactics",
        )
        steps.append(Step("Choose anew, and never these.", words))
    if result.confirmed and not result.pinned:
        words = (
            "probe", "tactics", "bisect", result.good, result.bad, result.model, *given, "-o", "pinned.tactics", "--deny-list", "deny.txt",
        )  # fmt: skip
        steps.append(Step("Have the pinned file and the deny-list written.", words))
    return steps


def tactics_bisect_facts(result: TacticsBisectResult) -> list[tuple[str, str]]:
    """Facts of its own."""
    spent = sum(result.evaluations.values())
    kinds = ", ".join(f"{n} {kind}" for kind, n in result.evaluations.items() if n)
    return [
        ("good", escape(result.good)),
        ("bad", escape(result.bad)),
        ("differences", f"{len(result.differences)} of {count(result.layers, 'layer')}"),
        ("evaluations", f"{spent} ({kinds}); a full sweep: {result.sweep}"),
        ("written", ", ".join(escape(one) for one in (result.pinned, result.denied) if one)),
    ]
