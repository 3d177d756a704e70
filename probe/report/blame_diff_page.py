"""A ``TacticsDiffResult`` as terminal text: suspects with counts and confidence, what that assumes, what to do."""

from __future__ import annotations

from probe.report.blame_words import UNBOUND, bounded, whole
from probe.report.diff_facts import fact_lines
from probe.report.numbers import count, number
from probe.report.steps import Step, step_lines
from probe.report.text import Column, Page, elide, fitted, sections, wrap
from probe.report.words import first_few
from probe.results.blame import TacticsDiffResult, TacticSuspect


def tactics_diff_page(result: TacticsDiffResult, page: Page, *, rows: int = 12, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds the suspects, ``verbose`` lifts the bound."""
    return sections(
        tactics_diff_headline(result, page),
        _suspects(result, page, UNBOUND if verbose else rows),
        _reading(result, page),
        step_lines(next_steps(result), page),
        fact_lines(tactics_diff_facts(result), page),
    )


def tactics_diff_headline(result: TacticsDiffResult, page: Page) -> list[str]:
    """What was found, in a sentence."""
    word, sentence = tactics_diff_sentence(result)
    return wrap(f"{word}  {sentence}", page.width)


def tactics_diff_sentence(result: TacticsDiffResult) -> tuple[str, str]:
    """A word and a sentence: the first suspect, or that there is none."""
    runs = f"{count(len(result.bad), 'bad run')} and {count(len(result.good), 'good one')}"
    if not result.suspects:
        return "NO SUSPECT", f"no choice is more frequent in bad runs: {runs}, {_alike(result)}"
    first = result.suspects[0]
    lead = f"{elide(first.tactic, 48)} on {elide(first.layer, 60)}: {_where(first)}; {_sure(first)}"
    return "SUSPECT", f"{lead}. {count(len(result.suspects), 'suspect')} in {runs}"


def _where(one: TacticSuspect) -> str:
    return f"in {one.bad} of {one.bad_runs} bad runs and {one.good} of {one.good_runs} good ones"


def _sure(one: TacticSuspect) -> str:
    alike = f", as is each of {count(one.alike, 'other choice')} in the same runs" if one.alike else ""
    return f"to blame with {one.confidence:.0%}{alike}"


def _suspects(result: TacticsDiffResult, page: Page, rows: int) -> list[str]:
    cells = [
        (
            one.layer,
            one.tactic,
            f"{one.bad}/{one.bad_runs}",
            f"{one.good}/{one.good_runs}",
            number(one.p_value),
            f"{one.confidence:.1%}",
            ", ".join(f"{name} ({n})" if n > 1 else name for name, n in one.instead.items()),
        )
        for one in result.suspects
    ]
    columns = [
        Column("layer", 0, "<"), fitted("tactic", (row[1] for row in cells), align="<", most=22), Column("bad", 5), Column("good", 5),
        Column("p", 8), Column("blame", 6), fitted("good runs have", (row[6] for row in cells), align="<", most=20),
    ]  # fmt: skip
    return bounded(columns, cells, page, rows) if cells else []


def _reading(result: TacticsDiffResult, page: Page) -> list[str]:
    return wrap(reading(result), page.width, first="  ") if result.suspects else []


def reading(result: TacticsDiffResult) -> str:
    """What the numbers mean, and what the posterior assumes."""
    return (
        "p: chance of so many bad runs among those that have the choice, were it innocent (Fisher's exact test). blame: posterior, if "
        f"{result.prior}. That no single choice is to blame: {result.unexplained:.1%}."
    )


def next_steps(result: TacticsDiffResult) -> list[Step]:
    """The bisection that makes sure."""
    if not result.suspects or result.kind != "probe":
        return []
    words = ("probe", "tactics", "bisect", result.good[0].path, result.bad[0].path, "MODEL", "--inputs", "FILE.npz")
    return [Step("Files only count. Switch the differences until the guilty choice is certain:", words)]


def _alike(result: TacticsDiffResult) -> str:
    return f"{result.same} of {count(result.layers, 'layer')} alike in all"


def tactics_diff_facts(result: TacticsDiffResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot. Texts are escaped."""
    sides = [
        (side, first_few([one.path for one in runs], 4)) for side, runs in (("good", result.good), ("bad", result.bad))
    ]
    return [*sides, ("layers", _alike(result)), *(("note", whole(note)) for note in result.notes)]
